"""The report of a run: one self-contained HTML file in which a person looks at the patient and the contours.

Nothing in it is fetched. Its scripts and its style are the ones of this package, named by their hashes in the page's
content policy, so that no other script or style can take effect; every text is escaped. Without scripts the page shows
the organs on a few planes instead of all slices.
"""

from __future__ import annotations

import base64
import hashlib
from collections.abc import Sequence
from html import escape
from importlib import resources
from pathlib import Path
from string import Template

import SimpleITK as sitk

from soars.files import replacing_file
from soars.report import sections
from soars.report.embed import embed
from soars.report.gallery import gallery
from soars.report.look import Scene, organ_list
from soars.report.pictures import Style
from soars.report.record import RunRecord
from soars.report.summary import in_look_order
from soars.report.upright import upright
from soars.structures import StructureSet

SCRIPTS = ("volume.js", "pane.js", "reader.js")
"""In the order in which they depend on each other."""


def write_report(
    path: Path,
    record: RunRecord,
    image: sitk.Image,
    structures: StructureSet,
    boards: Sequence[tuple[str, bytes]] = (),
) -> None:
    """Write `render_report` to `path`, all or nothing."""
    text = render_report(record, image, structures, boards)
    with replacing_file(path) as temporary:
        temporary.write_text(text, encoding="utf-8")


def render_report(
    record: RunRecord,
    image: sitk.Image,
    structures: StructureSet,
    boards: Sequence[tuple[str, bytes]] = (),
) -> str:
    """The report as HTML text, at most 25 MB for 200 slices of 512 x 512.

    Args:
        record: the run; all texts come from it.
        image: the CT in HU, any orientation.
        structures: the contours of the run, by TG-263 name, on the CT's geometry.
        boards: pictures (title, PNG) of the fit of an MR, where the run had one.
    """
    style = _file("report.css")
    scripts = [_file(name) for name in SCRIPTS]
    return Template(_file("report.html")).substitute(
        policy=escape(content_policy(style, scripts)),
        style=style,
        title=escape(f"OARs: {record.ct.description or record.ct.source}"),
        subtitle=escape(sections.subtitle(record)),
        notice=escape(record.notice),
        warnings=sections.warnings(record),
        reading=_reading(record, image, structures),
        tiles=sections.tiles(record),
        ct=sections.ct(record) + sections.mr(record, boards),
        bundle=sections.bundle(record),
        organs=sections.organ_table(record),
        files=sections.files(record),
        timings=sections.timings(record),
        footer=sections.footer(record),
        scripts="".join(f"<script>{script}</script>" for script in scripts),
    )


def _reading(record: RunRecord, image: sitk.Image, structures: StructureSet) -> str:
    """The viewer with its list of organs and its data, and the pictures that work without scripts."""
    looked_for = in_look_order(record)
    organs = [o for o in looked_for if o.name in structures and not structures.is_empty(o.name)]
    if not organs:
        return "<h2>Pictures</h2><p>No organ was contoured, so there is nothing to show.</p>"
    image, structures, numbering = upright(image, structures)
    scene = Scene(image, structures, numbering, {o.name: Style(o.label, o.colour) for o in organs})
    embedded = embed(image, structures, organs, numbering)
    return Template(_file("reader.html")).substitute(
        organs=organ_list(looked_for, scene),
        stills=gallery(organs, image, structures, numbering),
        scene=embedded.scene,
        slices=embedded.slices,
    )


def content_policy(style: str, scripts: list[str]) -> str:
    """The page may use its own scripts and style, inline pictures, and nothing else."""
    hashes = " ".join(map(_hash, scripts))
    return (
        f"default-src 'none'; script-src {hashes}; style-src {_hash(style)}; img-src data:; "
        "base-uri 'none'; form-action 'none'; require-trusted-types-for 'script'"
    )


def _hash(text: str) -> str:
    return f"'sha256-{base64.b64encode(hashlib.sha256(text.encode('utf-8')).digest()).decode('ascii')}'"


def _file(name: str) -> str:
    return resources.files("soars.report").joinpath("web", name).read_text(encoding="utf-8")
