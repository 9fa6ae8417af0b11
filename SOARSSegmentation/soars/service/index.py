"""The page over a batch: one self-contained HTML file with a row for every case, to be sorted by any column.

As in a case's report, nothing is fetched, and only this package's own script and style can take effect. Without scripts
the page is the same table in the order of the batch. Pictures are images of their own, in which no script runs.
"""

from __future__ import annotations

import base64
import json
from collections.abc import Sequence
from html import escape
from importlib import resources
from pathlib import Path
from string import Template
from urllib.parse import quote

from soars.catalogue import CATALOGUE
from soars.errors import InputError
from soars.findings.finding import SEVERITIES
from soars.report.outputs import REPORT
from soars.report.page import content_policy
from soars.report.record import ABSENT, PRESENT, RESEARCH_NOTICE, OrganRecord
from soars.report.summary import format_volume, organ_notes
from soars.service.batch import Outcome, summary_line
from soars.service.result import PICTURE
from soars.service.rows import Row, expected_dsc

BEGINNING = "<!doctype html>\n<!-- soars segment-all -->"
"""By which a page of ours is known again."""

_ROWS = "<!-- rows -->"


def start(outcomes: Sequence[Outcome]) -> str:
    """The page up to its rows."""
    style, sorting, script = web_file("batch.css"), web_file("sorting.js"), web_file("batch.js")
    options = "".join(
        f'<option value="{name}">{escape(oar.label)}</option>' for name, oar in CATALOGUE.items()
    )
    return Template(web_file("batch.html").split(_ROWS)[0]).substitute(
        policy=escape(content_policy(style, [sorting, script])),
        style=style,
        count=f"{len(outcomes)} case{'s' * (len(outcomes) != 1)}: {summary_line(outcomes)}",
        notice=escape(RESEARCH_NOTICE),
        organs=options,
    )


def end() -> str:
    """The page from its rows on."""
    return Template(web_file("batch.html").split(_ROWS)[1]).substitute(
        sorting=web_file("sorting.js"), script=web_file("batch.js")
    )


def entry(row: Row, folder: Path) -> str:
    """The row of a case, with its picture. Raises `InputError` when that cannot be read."""
    name, state = escape(row.outcome.case), escape(row.outcome.state)
    head = f'<tr data-organs="{escape(json.dumps(_by_organ(row.organs)))}">'
    if row.record is None:
        failed = f'<td></td>{_cell(name)}{_cell(state, "failed")}<td colspan="7">{escape(row.outcome.message)}</td>'
        return f"{head}{failed}</tr>\n"
    link = f'<a href="{quote(row.outcome.case)}/{REPORT}">{name}</a>'
    about = f"{link}<small>{escape(row.record.ct.description)}</small>"
    counts, least = row.findings(), row.least_expected
    found = row.count(PRESENT)
    worst = "" if least is None else f"{expected_dsc(least):.2f}<small>{escape(least.label)}</small>"
    cells = (
        _picture(folder / PICTURE, row.outcome.case),
        _cell(about, value=row.outcome.case),
        _cell(state),
        _cell(f"{found} of {found + row.count(ABSENT)}", value=found),
        _cell(" / ".join(str(counts[s]) for s in SEVERITIES), value=_weight([counts[s] for s in SEVERITIES])),
        _cell(worst, value="" if least is None else expected_dsc(least)),
        '<td class="volume"></td><td class="expected"></td>',
        _cell("" if row.seconds is None else f"{row.seconds:.0f} s", value=row.seconds or 0),
        f"<td>{_details(row.organs)}</td>",
    )
    return f"{head}{''.join(cells)}</tr>\n"


def _cell(content: str, kind: str = "", value: object = None) -> str:
    """``content`` is HTML; ``value`` what the row is sorted by where that is not the text."""
    by = "" if value is None else f' data-value="{escape(str(value))}"'
    return f"<td{f' class={chr(34)}{kind}{chr(34)}' if kind else ''}{by}>{content}</td>"


def _weight(counts: Sequence[int]) -> int:
    """Orders counts by severity: one of a kind outweighs all of the milder kinds."""
    total = 0
    for count in counts:
        total = total * 1000 + min(count, 999)
    return total


def _picture(path: Path, case: str) -> str:
    try:
        data = base64.b64encode(path.read_bytes()).decode("ascii")
    except OSError as error:
        raise InputError(f"{path}: cannot be read: {error.strerror}") from error
    return f'<td><img alt="Contours of {escape(case)}" src="data:image/svg+xml;base64,{data}"></td>'


def _by_organ(organs: Sequence[OrganRecord]) -> dict[str, list[float | None]]:
    """Volume (cc) and expected DSC, for the two columns of the organ that the reader chooses."""
    return {
        organ.name: [
            round(organ.volume_cc, 2) if organ.state == PRESENT else None,
            round(organ.expected_dsc.value, 3) if organ.expected_dsc is not None else None,
        ]
        for organ in organs
    }


def _details(organs: Sequence[OrganRecord]) -> str:
    lines = "".join(
        f"<tr><td>{escape(organ.label)}</td><td>{escape(format_volume(organ))}</td>"
        f"<td>{escape(organ.expected_dsc.text()) if organ.expected_dsc is not None else ''}</td>"
        f"<td>{escape('; '.join(organ_notes(organ)))}</td></tr>"
        for organ in organs
    )
    return (
        "<details><summary>organs</summary><table><thead><tr><th>organ</th><th>volume cc</th>"
        f"<th>expected DSC</th><th>findings</th></tr></thead><tbody>{lines}</tbody></table></details>"
    )


def web_file(name: str) -> str:
    """A file of the pages' scripts, styles and templates."""
    return (resources.files("soars.service") / "web" / name).read_text(encoding="utf-8")
