"""The pages over many cases of `soars evaluate` and `soars dose`: one self-contained HTML file, sortable by any column.

A row for every case says how its organs fared and which fared worst; its details have every organ. As in a case's
report, nothing is fetched, and only this package's own script and style can take effect.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from html import escape
from pathlib import Path
from string import Template

from soars.catalogue import CATALOGUE
from soars.dose.cases import CaseDose
from soars.dose.compare import COMPARED as DOSE_COMPARED
from soars.dose.compare import DoseDifference
from soars.files import begins_with, write_text
from soars.metrics.evaluate import CaseScores
from soars.metrics.scores import COMPARED, EXTRA, MISSING, OrganScore
from soars.report.page import content_policy
from soars.report.record import RESEARCH_NOTICE
from soars.service.index import web_file

BEGINNING = "<!doctype html>\n<!-- soars table -->"
is_own_page = begins_with(BEGINNING)
"""Recognises a page that this module wrote."""


@dataclass(frozen=True)
class _Column:
    """A column's title, and how it is sorted: "text", "number", or "" for not at all."""

    title: str
    sort: str = "number"


Cell = tuple[str, float | str | None]
"""What a cell shows, as HTML, and what it is sorted by; None where there is nothing to sort by."""


def write_scores_page(
    cases: Sequence[CaseScores], left_out: dict[str, str], definition: str, path: Path
) -> None:
    """Write the page over the scores of many cases, all or nothing; ``left_out`` are cases and why."""
    columns = (
        *(
            _Column("case", "text"),
            _Column("organs"),
            _Column("missing"),
            _Column("extra"),
            _Column("mean DSC"),
        ),
        *(
            _Column("lowest DSC"),
            _Column("mean surface DSC"),
            _Column("largest HD95 mm"),
            _Column("details", ""),
        ),
    )
    about = f"{_count(cases, left_out)}; distances by the definition of {escape(definition)}"
    rows = [_scores_row(case) for case in cases]
    write_text(path, _page("Contours against a reference", about, columns, rows, left_out))


def write_doses_page(cases: Sequence[CaseDose], left_out: dict[str, str], path: Path) -> None:
    """Write the page over the doses of many cases, a row for each substitute, all or nothing."""
    columns = (
        *(_Column("case", "text"), _Column("contours", "text"), _Column("organs")),
        *(_Column(f"mean |difference| of the {figure}, %") for figure in ("mean dose", "D0.03cc")),
        *(_Column(f"largest of the {figure}, %") for figure in ("mean dose", "D0.03cc")),
        _Column("details", ""),
    )
    about = f"{_count(cases, left_out)}; differences in percent of the dose with the reference's contour"
    rows = [
        _doses_row(case.case, name, [d for d in case.differences if d.substitute == name])
        for case in cases
        for name in dict.fromkeys(d.substitute for d in case.differences)
    ]
    write_text(path, _page("Doses with other contours", about, columns, rows, left_out))


def _scores_row(case: CaseScores) -> list[Cell]:
    scores = [score for score in case.scores if not math.isnan(score.dsc)]
    least = min(scores, key=lambda score: score.dsc, default=None)
    far = [score for score in case.scores if not math.isnan(score.hd95_mm)]
    farthest = max(far, key=lambda score: score.hd95_mm, default=None)
    details = _details(
        ("organ", "state", "DSC", "surface DSC", "HD95 mm", "ASD mm"),
        (
            (
                s.organ,
                s.state,
                _number(s.dsc, 3),
                _number(s.surface_dsc, 3),
                _number(s.hd95_mm, 1),
                _number(s.asd_mm, 2),
            )
            for s in case.scores
        ),
    )
    return [
        (escape(case.case), case.case),
        _whole(sum(score.state == COMPARED for score in case.scores)),
        _whole(sum(score.state == MISSING for score in case.scores)),
        _whole(sum(score.state == EXTRA for score in case.scores)),
        _mean([score.dsc for score in case.scores], 3),
        _worst(least, lambda score: score.dsc, 3),
        _mean([score.surface_dsc for score in case.scores], 3),
        _worst(farthest, lambda score: score.hd95_mm, 1),
        (details, None),
    ]


def _doses_row(case: str, substitute: str, differences: Sequence[DoseDifference]) -> list[Cell]:
    figures: tuple[Callable[[DoseDifference], float], ...] = (
        lambda d: d.mean_percent,
        lambda d: d.d003cc_percent,
    )
    details = _details(
        ("organ", "state", "mean Gy", "reference", "%", "D0.03cc Gy", "reference", "%"),
        (
            (
                *(d.organ, d.state),
                *(
                    _number(v, 2)
                    for v in (d.substitute_dose.mean_gy, d.reference_dose.mean_gy, d.mean_percent)
                ),
                *(
                    _number(v, 2)
                    for v in (d.substitute_dose.d003cc_gy, d.reference_dose.d003cc_gy, d.d003cc_percent)
                ),
            )
            for d in differences
        ),
    )
    worst = [
        max((d for d in differences if math.isfinite(f(d))), key=lambda d: abs(f(d)), default=None)
        for f in figures
    ]
    return [
        (escape(case), case),
        (escape(substitute), substitute),
        _whole(sum(d.state == DOSE_COMPARED for d in differences)),
        *(_mean([abs(figure(d)) for d in differences], 1) for figure in figures),
        *(_worst(one, figure, 1, by_size=True) for one, figure in zip(worst, figures, strict=True)),
        (details, None),
    ]


def _whole(count: int) -> Cell:
    return str(count), count


def _mean(values: Iterable[float], digits: int) -> Cell:
    finite = [value for value in values if math.isfinite(value)]
    return (f"{sum(finite) / len(finite):.{digits}f}", sum(finite) / len(finite)) if finite else ("", "")


def _worst(
    one: OrganScore | DoseDifference | None,
    figure: Callable[..., float],
    digits: int,
    *,
    by_size: bool = False,
) -> Cell:
    """A figure with the organ that has it; an infinite one is that of a missing organ, and the worst of all."""
    if one is None:
        return "", ""
    value = figure(one)
    by = abs(value) if by_size else value
    label = CATALOGUE[one.organ].label if one.organ in CATALOGUE else one.organ
    return f"{_number(value, digits)}<small>{escape(label)}</small>", "Infinity" if math.isinf(by) else by


def _number(value: float, digits: int) -> str:
    return "" if math.isnan(value) else "missing" if math.isinf(value) else f"{value:.{digits}f}"


def _details(head: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    titles = "".join(f"<th>{escape(title)}</th>" for title in head)
    lines = "".join(f"<tr>{''.join(f'<td>{escape(cell)}</td>' for cell in row)}</tr>" for row in rows)
    return (
        f"<details><summary>organs</summary><table><thead><tr>{titles}</tr></thead><tbody>{lines}</tbody></table>"
        "</details>"
    )


def _count(cases: Sequence[object], left_out: dict[str, str]) -> str:
    count = f"{len(cases)} case{'s' * (len(cases) != 1)}"
    return f"{count}, {len(left_out)} left out" if left_out else count


def _page(
    title: str,
    about: str,
    columns: Sequence[_Column],
    rows: Iterable[Sequence[Cell]],
    left_out: dict[str, str],
) -> str:
    style, sorting, script = web_file("batch.css"), web_file("sorting.js"), web_file("table.js")
    head = "".join(
        f'<th data-sort="{column.sort}">{escape(column.title)}</th>'
        if column.sort
        else f"<th>{column.title}</th>"
        for column in columns
    )
    lines = ["".join(["<tr>", *map(_td, row), "</tr>"]) for row in rows]
    lines += [
        f'<tr><td>{escape(case)}</td><td class="failed" colspan="{len(columns) - 1}">{escape(why)}</td></tr>'
        for case, why in left_out.items()
    ]
    return Template(web_file("table.html")).substitute(
        policy=escape(content_policy(style, [sorting, script])),
        title=escape(title),
        about=about,
        notice=escape(RESEARCH_NOTICE),
        style=style,
        head=head,
        rows="\n".join(lines),
        sorting=sorting,
        script=script,
    )


def _td(cell: Cell) -> str:
    content, by = cell
    return f"<td>{content}</td>" if by is None else f'<td data-value="{escape(str(by))}">{content}</td>'
