"""The report of a run: one self-contained HTML file that shows what was contoured, on what, and with what.

Nothing in it is fetched or run: pictures are inline, there is no script, and every text is escaped.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from html import escape
from importlib import resources
from math import ceil
from pathlib import Path
from string import Template

import SimpleITK as sitk

from soars.files import replacing_file
from soars.report.pictures import Picture, Plane, Style, choose_planes, draw, plane_through
from soars.report.record import ABSENT, NOT_COVERED, NOT_REQUESTED, PRESENT, OrganRecord, RunRecord
from soars.report.summary import WHAT_IS_IN, format_volume, organ_notes
from soars.structures import StructureSet

STRATA = {
    "anchor": ("Anchor", "large or high contrast; they guide the others"),
    "mid_level": ("Mid-level", "soft tissue of low contrast"),
    "small_hard": ("Small and hard", "found by detection first"),
    "extra": ("Others", ""),
}
"""Headings of the organ table, in its order."""

STATES = {PRESENT: "present", ABSENT: "absent", NOT_COVERED: "not covered", NOT_REQUESTED: "not requested"}

_VIEW_NAMES = {"axial": "Axial", "coronal": "Coronal", "sagittal": "Sagittal"}
_AXIS_LETTERS = {"axial": "SI", "coronal": "PA", "sagittal": "LR"}
"""Letters for a positive and a negative place on the LPS axis across the view."""

_FINE_MM = 0.45
_SHOWN = "What it cannot do"
"""The section of a model card that nobody has to open."""
_FENCED = re.compile(r"^```.*?^```[ \t]*$", re.MULTILINE | re.DOTALL)
_CODE = re.compile(r"`([^`]+)`")


def write_report(path: Path, record: RunRecord, image: sitk.Image, structures: StructureSet) -> None:
    """Write `render_report` to `path`, all or nothing."""
    text = render_report(record, image, structures)
    with replacing_file(path) as temporary:
        temporary.write_text(text, encoding="utf-8")


def render_report(record: RunRecord, image: sitk.Image, structures: StructureSet) -> str:
    """The report as HTML text.

    Args:
        record: the run; all texts come from it.
        image: the CT in HU, any orientation.
        structures: the contours of the run, by TG-263 name, on the CT's geometry.
    """
    template = Template(resources.files("soars.report").joinpath("template.html").read_text(encoding="utf-8"))
    return template.substitute(
        title=escape(f"OARs: {record.ct.description or record.ct.source}"),
        subtitle=escape(_subtitle(record)),
        notice=escape(record.notice),
        warnings=_warnings(record),
        tiles=_tiles(record),
        ct=_ct(record),
        bundle=_bundle(record),
        pictures=_pictures(record, image, structures),
        organs="".join(_stratum(record, stratum) for stratum in _strata(record)),
        files=_files(record),
        timings=_timings(record),
        footer=_footer(record),
    )


# Texts


def _subtitle(record: RunRecord) -> str:
    parts = [
        record.ct.description or Path(record.ct.source).name,
        f"bundle {record.bundle.name} {record.bundle.version}",
    ]
    return " · ".join([*parts, record.finished_utc.replace("T", " ").replace("Z", " UTC")])


def _warnings(record: RunRecord) -> str:
    lines = list(record.warnings)
    lines += [f"{organ.label}: {text}" for organ in record.in_state(PRESENT) for text in organ.warnings]
    absent = [organ.label for organ in record.in_state(ABSENT)]
    if absent:
        lines.append(f"Not contoured, see the table for why: {_listed(absent)}")
    if not lines:
        return ""
    items = "".join(f"<li>{escape(line)}</li>" for line in lines)
    return f'<div class="box warnings" role="note"><b>Please check</b><ul>{items}</ul></div>'


def _tiles(record: RunRecord) -> str:
    counts = {state: len(record.in_state(state)) for state in STATES}
    tiles = [(str(counts[PRESENT]), "organs contoured"), (str(counts[ABSENT]), "looked for and not there")]
    if counts[NOT_COVERED]:
        tiles.append((str(counts[NOT_COVERED]), "not covered by this bundle"))
    if counts[NOT_REQUESTED]:
        tiles.append((str(counts[NOT_REQUESTED]), "not asked for"))
    engine = record.engine
    used = ", ".join(part for part in (engine.name, engine.device, engine.precision) if part)
    tiles.append((_duration(sum(record.timings_s.values())), used))
    return "".join(f"<li><b>{escape(number)}</b><span>{escape(text)}</span></li>" for number, text in tiles)


def _ct(record: RunRecord) -> str:
    ct = record.ct
    rows = [
        ("Series", ct.description or "(no description)"),
        ("Size", " × ".join(str(n) for n in ct.size) + " voxels"),
        ("Spacing", " × ".join(f"{s:.4g}" for s in ct.spacing_mm) + " mm"),
        ("Orientation", ct.orientation.replace("*", " (tilted)")),
        ("Source", ct.source),
    ]
    if ct.series_uid:
        rows.insert(1, ("Series UID", ct.series_uid))
    return _definitions(rows, codes=("Series UID",))


def _bundle(record: RunRecord) -> str:
    bundle = record.bundle
    rows = [
        ("Name", f"{bundle.name} {bundle.version}"),
        ("What", bundle.description),
        ("Licence", bundle.licence),
        ("SHA-256", bundle.sha256),
    ]
    notes = "".join(
        f"<details{' open' if title == _SHOWN else ''}><summary>{escape(title)}</summary>{_prose(text)}</details>"
        for title, text in bundle.notes.items()
    )
    return _definitions(rows, codes=("SHA-256",)) + (f'<div class="note">{notes}</div>' if notes else "")


def _definitions(rows: Iterable[tuple[str, str]], codes: Sequence[str] = ()) -> str:
    def value(name: str, text: str) -> str:
        return f"<code>{escape(text)}</code>" if name in codes else escape(text)

    return "<dl>" + "".join(f"<dt>{escape(n)}</dt><dd>{value(n, t)}</dd>" for n, t in rows if t) + "</dl>"


def _prose(text: str) -> str:
    """Paragraphs, `-` lists and `code` of a model card; its commands are left to the card."""
    parts: list[str] = []
    for block in _FENCED.sub("\n", text).strip().split("\n\n"):
        lines = [line.strip() for line in block.splitlines() if line.strip()]
        items: list[str] = []
        for line in lines:
            if line[:2] in ("- ", "* "):
                items.append(line[2:])
            elif items:
                items[-1] += " " + line
        if items and lines[0][:2] in ("- ", "* "):
            parts.append("<ul>" + "".join(f"<li>{_inline(item)}</li>" for item in items) + "</ul>")
        elif lines:
            parts.append(f"<p>{_inline(' '.join(lines))}</p>")
    return "".join(parts)


def _inline(text: str) -> str:
    return _CODE.sub(r"<code>\1</code>", escape(text))


def _strata(record: RunRecord) -> list[str]:
    found = {organ.stratum for organ in record.organs}
    return [stratum for stratum in STRATA if stratum in found] + sorted(found - set(STRATA))


def _stratum(record: RunRecord, stratum: str) -> str:
    title, remark = STRATA.get(stratum, (stratum, ""))
    organs = [organ for organ in record.organs if organ.stratum == stratum]
    rows = "".join(_organ_row(organ) for organ in organs if organ.state in (PRESENT, ABSENT))
    for state, text in ((NOT_COVERED, "Not covered by this bundle"), (NOT_REQUESTED, "Not asked for")):
        labels = [organ.label for organ in organs if organ.state == state]
        if labels:
            rows += f'<tr><td colspan="5" class="muted">{text}: {escape(_listed(labels))}</td></tr>'
    small = f"<small>{escape(remark)}</small>" if remark else ""
    return f'<tbody><tr><th colspan="5" scope="rowgroup">{escape(title)}{small}</th></tr>{rows}</tbody>'


def _organ_row(organ: OrganRecord) -> str:
    notes = "<br>".join(escape(text) for text in organ_notes(organ))
    return (
        f'<tr class="{escape(organ.state)}"><td>{_swatch(organ.colour)}{escape(organ.label)}</td>'
        f"<td><code>{escape(organ.name)}</code></td>"
        f'<td class="number">{format_volume(organ)}</td>'
        f'<td class="state {escape(organ.state)}">{escape(STATES.get(organ.state, organ.state))}</td>'
        f'<td class="organ-note">{notes}</td></tr>'
    )


def _swatch(colour: tuple[int, int, int]) -> str:
    return '<span class="swatch" style="background:#{:02x}{:02x}{:02x}"></span>'.format(*colour)


def _files(record: RunRecord) -> str:
    """What was written beside this page, and where it may go."""
    contours = len(record.in_state(PRESENT))
    more = {
        "rtstruct.dcm": f"; {contours} organs on the original CT (series {record.ct.series_uid}), unapproved",
        "segmentation.seg.nrrd": f"; {contours} organs with names, colours and terminology",
    }
    rows = "".join(
        f"<tr><td><code>{escape(name)}</code></td><td>{escape(WHAT_IS_IN.get(name, '') + more.get(name, ''))}</td></tr>"
        for name in record.outputs
    )
    if record.outputs and "rtstruct.dcm" not in record.outputs:
        rows += (
            '<tr><td colspan="2" class="muted">No RTSTRUCT: the CT did not come from DICOM files.</td></tr>'
        )
    return rows


def _timings(record: RunRecord) -> str:
    longest = max(record.timings_s.values(), default=0.0) or 1.0
    rows = [
        f'<tr><td>{escape(stage.replace("_", " "))}</td><td class="number">{seconds:.1f}</td>'
        f'<td class="bar-cell"><div class="bar" style="width:{100 * seconds / longest:.1f}%"></div></td></tr>'
        for stage, seconds in record.timings_s.items()
    ]
    return "".join(rows)


def _footer(record: RunRecord) -> str:
    versions = ", ".join(f"{name} {version}" for name, version in record.libraries.items())
    options = ", ".join(
        f"{key} {value}" for key, value in record.options.items() if value not in (None, False, [])
    )
    lines = [
        f"soars {record.soars_version}, Python {record.python_version}, {versions}",
        f"Options: {options}" if options else "",
        record.engine.reason and f"Engine: {record.engine.reason}",
        f"Started {record.started_utc}, finished {record.finished_utc}. Pictures: window 400 HU, level 40 HU; the "
        "patient's right is on the left.",
    ]
    return "".join(f"<p>{escape(line)}</p>" for line in lines if line)


def _duration(seconds: float) -> str:
    return f"{seconds:.1f} s" if seconds < 100 else f"{int(seconds // 60)} min {int(seconds % 60):02d} s"


def _listed(labels: Sequence[str]) -> str:
    """Labels in a sentence: the first as it is, the others without their capital (but TMJ stays TMJ)."""
    return ", ".join([labels[0], *(t[:1].lower() + t[1:] if t[1:2].islower() else t for t in labels[1:])])


# Pictures


def _pictures(record: RunRecord, image: sitk.Image, structures: StructureSet) -> str:
    organs = [o for o in record.in_state(PRESENT) if o.name in structures and not structures.is_empty(o.name)]
    if not organs:
        return "<h2>Pictures</h2><p>No organ was contoured, so there is nothing to show.</p>"
    styles = {organ.name: Style(organ.label, organ.colour) for organ in organs}
    small = [organ.name for organ in organs if organ.stratum == "small_hard"]
    large = [organ.name for organ in organs if organ.stratum != "small_hard"]
    main = large or small

    def picture(plane: Plane) -> Picture:
        return draw(image, structures, plane, styles, title=_alt(plane))

    axial = choose_planes(image, structures, main, "axial", least=6, most=7)
    axial = choose_planes(
        image, structures, main, "axial", least=3 * ceil(len(axial) / 3), most=7
    )  # whole rows
    upright = _sagittal(image, structures, main)
    upright += choose_planes(image, structures, main, "coronal", most=3, everybody=False)
    parts = [
        _gallery("Axial", [picture(plane) for plane in axial], styles),
        _gallery("Sagittal and coronal", [picture(plane) for plane in upright], styles),
    ]
    if small and large:
        closer = [
            draw(
                image,
                structures,
                plane,
                styles,
                title=f"Close-up, {_alt(plane).lower()}",
                close_up_of=small,
                pixel_mm=_FINE_MM,
            )
            for plane in choose_planes(image, structures, small, "axial", most=8)
        ]
        parts.append(_gallery("Small and hard organs, close up", closer, styles, small=True))
    return "".join(parts)


def _sagittal(image: sitk.Image, structures: StructureSet, names: Sequence[str]) -> list[Plane]:
    """Up to three sagittal planes, one of them through the spinal cord or the brainstem."""
    planes = choose_planes(image, structures, names, "sagittal", most=3, everybody=False)
    middle = next((name for name in ("SpinalCord", "Brainstem") if name in names), None)
    through = plane_through(image, structures, middle, "sagittal") if middle else None
    if through is None or any(abs(plane.position_mm - through.position_mm) < 4 for plane in planes):
        return planes
    sides = choose_planes(image, structures, names, "sagittal", most=2, everybody=False)
    return sorted([through, *sides], key=lambda plane: plane.position_mm)


def _gallery(
    title: str, pictures: Sequence[Picture], styles: dict[str, Style], *, small: bool = False
) -> str:
    figures = "".join(_figure(picture, styles) for picture in pictures)
    return f'<h2>{escape(title)}</h2><div class="pictures{" small" if small else ""}">{figures}</div>'


def _figure(picture: Picture, styles: dict[str, Style]) -> str:
    legend = "".join(
        f"<li>{_swatch(style.colour)}{escape(style.label)}</li>"
        for name, style in styles.items()
        if name in picture.organs
    )
    plane = picture.plane
    caption = f"{_VIEW_NAMES[plane.view]} {_place(plane)}"
    return (
        f"<figure>{picture.svg}<figcaption><b>{escape(caption)}</b>"
        f'<ul class="legend">{legend}</ul></figcaption></figure>'
    )


def _place(plane: Plane) -> str:
    """E.g. ``S 12.5 mm``: how 3D Slicer writes a slice's place."""
    positive, negative = _AXIS_LETTERS[plane.view]
    return f"{positive if plane.position_mm >= 0 else negative} {abs(plane.position_mm):.1f} mm"


def _alt(plane: Plane) -> str:
    return f"{_VIEW_NAMES[plane.view]} CT slice with organ contours at {_place(plane)}"
