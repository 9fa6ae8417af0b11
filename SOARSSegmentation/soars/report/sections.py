"""The sections of the report around the pictures: what was segmented, with what, into which files, how long it took."""

from __future__ import annotations

import base64
import re
from collections.abc import Iterable, Sequence
from html import escape
from pathlib import Path

from soars.catalogue import STRATUM_TITLES
from soars.report.outputs import RTSTRUCT, SEGMENTATION, WHAT_IS_IN
from soars.report.record import ABSENT, NOT_COVERED, NOT_REQUESTED, PRESENT, OrganRecord, RunRecord
from soars.report.summary import format_volume, in_look_order, organ_notes
from soars.report.words import duration, length_mm, listed

STATES = {PRESENT: "present", ABSENT: "absent", NOT_COVERED: "not covered", NOT_REQUESTED: "not requested"}

_SHOWN = "What it cannot do"
"""The section of a model card that is shown open."""
_FENCED = re.compile(r"^```.*?^```[ \t]*$", re.MULTILINE | re.DOTALL)
_CODE = re.compile(r"`([^`]+)`")


def subtitle(record: RunRecord) -> str:
    parts = [
        record.ct.description or Path(record.ct.source).name,
        f"bundle {record.bundle.name} {record.bundle.version}",
    ]
    return " · ".join([*parts, record.finished_utc.replace("T", " ").replace("Z", " UTC")])


def warnings(record: RunRecord) -> str:
    """Warnings about the scan or the run, and what is missing; warnings about an organ are shown with the organ."""
    lines = list(record.general_warnings)
    absent = [organ.label for organ in record.in_state(ABSENT)]
    if absent:
        lines.append(f"Not contoured, see the table for why: {listed(absent)}")
    if not lines:
        return ""
    items = "".join(f"<li>{escape(line)}</li>" for line in lines)
    return f'<div class="box warnings" role="note"><b>Please check</b><ul>{items}</ul></div>'


def tiles(record: RunRecord) -> str:
    counts = {state: len(record.in_state(state)) for state in STATES}
    tiles = [(str(counts[PRESENT]), "organs contoured"), (str(counts[ABSENT]), "looked for and not there")]
    if counts[NOT_COVERED]:
        tiles.append((str(counts[NOT_COVERED]), "not covered by this bundle"))
    if counts[NOT_REQUESTED]:
        tiles.append((str(counts[NOT_REQUESTED]), "not asked for"))
    engine = record.engine
    used = ", ".join(part for part in (engine.name, engine.device, engine.precision) if part)
    tiles.append((duration(sum(record.timings_s.values())), used))
    return "".join(f"<li><b>{escape(number)}</b><span>{escape(text)}</span></li>" for number, text in tiles)


def ct(record: RunRecord) -> str:
    ct = record.ct
    rows = [
        ("Series", ct.description or "(no description)"),
        ("Size", " × ".join(str(n) for n in ct.size) + " voxels"),
        ("Spacing", " × ".join(map(length_mm, ct.spacing_mm)) + " mm"),
        ("Orientation", ct.orientation.replace("*", " (tilted)")),
        ("Source", ct.source),
    ]
    if ct.series_uid:
        rows.insert(1, ("Series UID", ct.series_uid))
    return _definitions(rows, codes=("Series UID",))


def mr(record: RunRecord, pictures: Sequence[tuple[str, bytes]]) -> str:
    """The MR that was laid onto the CT, and pictures (title, PNG) in which to judge how well; "" without one."""
    mr = record.mr
    if mr is None:
        return ""
    rows = [
        ("MR", mr.description or mr.source),
        ("Registration", f"moved by {mr.moved_mm:.1f} mm, turned by {mr.rotated_degrees:.1f}°"),
        ("Fit", f"mutual information {mr.information:.2f} over {mr.shared_cc:.0f} cc that both scans show"),
    ]
    shown = "".join(
        f'<img alt="{escape(title)}: squares of CT and MR" '
        f'src="data:image/png;base64,{base64.b64encode(png).decode("ascii")}"/>'
        for title, png in pictures
    )
    return (
        _definitions(rows)
        + "<p>Squares of CT and MR in turn: where the MR fits, borders run on from square to square. Where they do "
        "not, contours that the MR has guided are wrong.</p>" + f'<p class="boards">{shown}</p>'
    )


def bundle(record: RunRecord) -> str:
    bundle = record.bundle
    rows = [
        ("Name", f"{bundle.name} {bundle.version}"),
        ("System", bundle.system),
        ("What", bundle.description),
        ("Licence", bundle.licence),
        ("SHA-256", bundle.sha256),
    ]
    if [model.bundle for model in bundle.models] != [bundle.name]:
        rows += [("Source", f"{model.bundle} {model.version}, {model.sha256}") for model in bundle.models]
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


def organ_table(record: RunRecord) -> str:
    """Rows for the organs that were looked for, those that most need a look first, and a line for the others."""
    several = len({organ.source for organ in record.organs if organ.source}) > 1
    rows = "".join(_organ_row(organ, name_source=several) for organ in in_look_order(record))
    for state, text in ((NOT_COVERED, "Not covered by this bundle"), (NOT_REQUESTED, "Not asked for")):
        labels = [organ.label for organ in record.in_state(state)]
        if labels:
            rows += f'<tr><td colspan="7" class="muted">{text}: {escape(listed(labels))}</td></tr>'
    return f"<tbody>{rows}</tbody>"


def _organ_row(organ: OrganRecord, *, name_source: bool) -> str:
    """One organ's row. ``name_source``: several models drew the organs, so name the one that drew this organ."""
    origin = [f"Drawn by {organ.source}."] if name_source and organ.source else []
    definition = [f"Its extent: {organ.definition}."] if organ.definition else []
    notes = "<br>".join(escape(text) for text in (*organ_notes(organ), *origin, *definition))
    return (
        f'<tr class="{escape(organ.state)}"><td>{swatch(organ.colour)}{escape(organ.label)}</td>'
        f"<td><code>{escape(organ.name)}</code></td>"
        f"<td>{escape(STRATUM_TITLES.get(organ.stratum, organ.stratum))}</td>"
        f'<td class="number">{format_volume(organ)}</td>'
        f'<td class="number">{escape(organ.expected_dsc.text()) if organ.expected_dsc else ""}</td>'
        f'<td class="state {escape(organ.state)}">{escape(STATES.get(organ.state, organ.state))}</td>'
        f'<td class="organ-note">{notes}</td></tr>'
    )


def swatch(colour: tuple[int, int, int]) -> str:
    """A small square of a colour; an SVG, because the content policy forbids style attributes."""
    fill = "#{:02x}{:02x}{:02x}".format(*colour)
    return f'<svg class="swatch" aria-hidden="true"><rect width="100%" height="100%" fill="{fill}"/></svg>'


def files(record: RunRecord) -> str:
    """What was written beside this page, and where it may go."""
    contours = len(record.in_state(PRESENT))
    more = {
        RTSTRUCT: f"; {contours} organs on the original CT (series {record.ct.series_uid}), unapproved",
        SEGMENTATION: f"; {contours} organs with names, colours and terminology",
    }
    rows = "".join(
        f"<tr><td><code>{escape(name)}</code></td><td>{escape(WHAT_IS_IN.get(name, '') + more.get(name, ''))}</td></tr>"
        for name in record.outputs
    )
    if record.outputs and RTSTRUCT not in record.outputs:
        rows += (
            '<tr><td colspan="2" class="muted">No RTSTRUCT: the CT did not come from DICOM files.</td></tr>'
        )
    return rows


def timings(record: RunRecord) -> str:
    longest = max(record.timings_s.values(), default=0.0) or 1.0
    rows = [
        f'<tr><td>{escape(stage.replace("_", " "))}</td><td class="number">{seconds:.1f}</td>'
        f'<td class="bar-cell"><svg class="bar" aria-hidden="true">'
        f'<rect width="{100 * seconds / longest:.1f}%" height="100%"/></svg></td></tr>'
        for stage, seconds in record.timings_s.items()
    ]
    return "".join(rows)


def footer(record: RunRecord) -> str:
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
