"""Doses and their differences as CSV files and as text."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path

import numpy as np

from soars.catalogue import CATALOGUE
from soars.cells import HarmlessWriter
from soars.dose.cases import CaseDose
from soars.dose.compare import (
    MISSING,
    NOTED_PERCENT,
    DifferenceSummary,
    DoseDifference,
    percent_text,
    summarise,
)
from soars.dose.constraints import Verdict
from soars.dose.dvh import Dvh
from soars.dose.figures import DvhFigure
from soars.files import replacing_file
from soars.metrics.tables import cell

_DOSES = ("volume_cc", "mean_gy", "max_gy", "d003cc_gy")
COLUMNS = (
    "case",
    "organ",
    "substitute",
    "mean_difference_percent",
    "max_difference_percent",
    "d003cc_difference_percent",
    *_DOSES,
    *(f"reference_{name}" for name in _DOSES),
    "state",
    "outside_percent",
    "reference_outside_percent",
)
"""Of the CSV file; differences are signed and in percent of the reference's dose."""

VERDICT_COLUMNS = (
    *(
        "case",
        "organ",
        "contour",
        "figure",
        "sign",
        "limit",
        "unit",
        "value",
        "verdict",
        "endpoint",
        "source",
        "outside_percent",
    ),
)
DVH_BIN_GY = 0.1


def write_differences(cases: Iterable[CaseDose], path: Path, figures: Sequence[DvhFigure] = ()) -> None:
    """Write one row per case, substitute and organ, all or nothing; ``figures`` get columns of their own at the end."""
    with replacing_file(path) as temporary, temporary.open("w", newline="", encoding="utf-8") as file:
        writer = HarmlessWriter(file)
        extra = [name for figure in figures for name in (figure.column, f"reference_{figure.column}")]
        writer.writerow((*COLUMNS, *extra))
        for case in cases:
            for d in case.differences:
                ours, theirs = d.substitute_dose, d.reference_dose
                values = [d.mean_percent, d.max_percent, d.d003cc_percent]
                values += [getattr(side, name) for side in (ours, theirs) for name in _DOSES]
                outside = [100 * ours.outside, 100 * theirs.outside]
                row = [case.case, d.organ, d.substitute, *map(cell, values), d.state, *map(cell, outside)]
                row += [cell(f.of(dvh)) for f in figures for dvh in (d.substitute_dvh, d.reference_dvh)]
                writer.writerow(row)


def write_verdicts(verdicts: Iterable[Verdict], path: Path) -> None:
    """Write one row per case, constraint and contour: the value, pass, fail or not judged, and how much of the organ
    lies beyond the dose grid."""
    with replacing_file(path) as temporary, temporary.open("w", newline="", encoding="utf-8") as file:
        writer = HarmlessWriter(file)
        writer.writerow(VERDICT_COLUMNS)
        for v in verdicts:
            c = v.constraint
            limit = [c.organ, v.contour, c.figure.name, c.sign, cell(c.limit), c.figure.unit]
            writer.writerow(
                [v.case, *limit, cell(v.value), _kept(v), c.endpoint, c.source, cell(100 * v.outside)]
            )


def write_dvhs(cases: Iterable[CaseDose], path: Path) -> None:
    """Write the cumulative DVHs of reference and substitutes: dose, and percent of the volume that receives at
    least it."""
    with replacing_file(path) as temporary, temporary.open("w", newline="", encoding="utf-8") as file:
        writer = HarmlessWriter(file)
        writer.writerow(("case", "organ", "contour", "dose_gy", "percent"))
        for case in cases:
            for contour, organ, dvh in _dvhs(case.differences):
                doses, percent = dvh.cumulative(DVH_BIN_GY)
                for dose, share in zip(doses, percent, strict=True):
                    writer.writerow((case.case, organ, contour, f"{dose:.6g}", cell(float(share))))


def differences_text(cases: Sequence[CaseDose]) -> str:
    """A table to read: mean over cases of the doses and of the differences, per organ, and the study's shares."""
    lines = []
    for substitute in dict.fromkeys(d.substitute for case in cases for d in case.differences):
        found = [d for case in cases for d in case.differences if d.substitute == substitute]
        lines += [f"{substitute} against the reference", *_table(found), *_shares(found), ""]
    return "\n".join(lines[:-1])


def figures_text(cases: Sequence[CaseDose], figures: Sequence[DvhFigure]) -> str:
    """A table for people: the figures of the reference and of each substitute, mean over cases."""
    dvhs: dict[tuple[str, str], list[Dvh]] = {}
    for case in cases:
        for contour, organ, dvh in _dvhs(case.differences):
            dvhs.setdefault((organ, contour), []).append(dvh)
    rows = [("organ", "contour", *(f"{f.name} ({f.unit})" for f in figures))]
    for organ in in_catalogue_order(organ for organ, _ in dvhs):
        for (of, contour), found in dvhs.items():
            if of == organ:
                values = (_number(_mean([f.of(dvh) for dvh in found]), "{:.2f}") for f in figures)
                rows.append((organ, contour, *values))
    return "\n".join(_lined_up(rows, left=2))


def verdicts_text(verdicts: Sequence[Verdict]) -> str:
    """A table for people: every constraint with the value of each contour, or, of several cases, how many keep it."""
    several = len({v.case for v in verdicts}) > 1
    contours = list(dict.fromkeys(v.contour for v in verdicts))
    rows: list[tuple[str, ...]] = [("organ", "constraint", *contours)]
    for constraint in dict.fromkeys(v.constraint for v in verdicts):
        cells = []
        for contour in contours:
            mine = [v for v in verdicts if (v.constraint, v.contour) == (constraint, contour)]
            if several:
                cells.append(_counted(mine) if mine else "")
            else:
                cells.append(_said(mine[0]) if mine else "")
        rows.append((constraint.organ, constraint.describe(), *cells))
    return "\n".join([*_lined_up(rows, left=2), _counted(verdicts, " kept")])


def _counted(verdicts: Sequence[Verdict], kept: str = "") -> str:
    """How many keep their limit of those that could be judged, and how many could not."""
    judged = [v.kept for v in verdicts if v.kept is not None]
    rest = len(verdicts) - len(judged)
    return f"{sum(judged)} of {len(judged)}{kept}" + (f", {rest} not judged" if rest else "")


def _said(verdict: Verdict) -> str:
    outside = f" ({percent_text(verdict.outside)} outside)" if verdict.outside else ""
    return f"{verdict.value:.2f} {_kept(verdict)}{outside}"


def _kept(verdict: Verdict) -> str:
    return "not judged" if verdict.kept is None else "pass" if verdict.kept else "FAIL"


def in_catalogue_order(organs: Iterable[str]) -> list[str]:
    order = {name: place for place, name in enumerate(CATALOGUE)}
    return sorted(dict.fromkeys(organs), key=lambda name: order.get(name, len(order)))


def _table(found: Sequence[DoseDifference]) -> list[str]:
    head = (
        "organ",
        "n",
        "mean Gy",
        "differs by",
        "max Gy",
        "differs by",
        "D0.03cc Gy",
        "differs by",
        "missing",
    )
    rows: list[tuple[str, ...]] = [head]
    for organ in in_catalogue_order(d.organ for d in found):
        mine = [d for d in found if d.organ == organ]
        missing = sum(d.state == MISSING for d in mine)
        cells: list[str] = []
        for dose, percent in (
            ("mean_gy", "mean_percent"),
            ("max_gy", "max_percent"),
            ("d003cc_gy", "d003cc_percent"),
        ):
            reference = [getattr(d.reference_dose, dose) for d in mine]
            cells += [
                _number(_mean(reference), "{:.2f}"),
                _number(_mean([getattr(d, percent) for d in mine]), "{:+.1f} %"),
            ]
        compared = sum(not math.isnan(d.mean_percent) for d in mine)
        rows.append((organ, str(compared), *cells, str(missing) if missing else ""))
    return _lined_up(rows, left=1)


def _lined_up(rows: Sequence[tuple[str, ...]], left: int) -> list[str]:
    """Cells in columns, the first ``left`` at the left, with a line under the head."""
    widths = [max(len(row[column]) for row in rows) for column in range(len(rows[0]))]
    lines = []
    for row in rows:
        cells = (
            text.ljust(width) if place < left else text.rjust(width)
            for place, (text, width) in enumerate(zip(row, widths, strict=True))
        )
        lines.append("  ".join(cells).rstrip())
    return [lines[0], "-" * (sum(widths) + 2 * len(widths) - 2), *lines[1:]]


def _shares(found: Sequence[DoseDifference]) -> list[str]:
    return [
        _sentence("mean dose", summarise([d.mean_percent for d in found])),
        _sentence("maximum dose", summarise([d.max_percent for d in found])),
    ]


def _sentence(what: str, summary: DifferenceSummary) -> str:
    if not summary.compared:
        return f"Difference in {what}: none could be compared."
    spread = "" if math.isnan(summary.sd) else f" ± {summary.sd:.1f}"
    shares = ", ".join(
        f"over {limit:.0f} % in {share:.0f} % of them"
        for limit, share in zip(NOTED_PERCENT, summary.share_over, strict=True)
    )
    organs = "1 organ" if summary.compared == 1 else f"{summary.compared} organs"
    return (
        f"Difference in {what}, {organs}: {summary.mean:+.1f}{spread} %, "
        f"absolute {summary.mean_absolute:.1f} %; {shares}."
    )


def _dvhs(differences: Sequence[DoseDifference]) -> Iterator[tuple[str, str, Dvh]]:
    """(contour, organ, DVH): the reference's once, then each substitute's."""
    seen: set[str] = set()
    for d in differences:
        if d.organ not in seen:
            seen.add(d.organ)
            yield "reference", d.organ, d.reference_dvh
        yield d.substitute, d.organ, d.substitute_dvh


def _mean(values: Sequence[float]) -> float:
    finite = [v for v in values if np.isfinite(v)]
    return float(np.mean(finite)) if finite else float("nan")


def _number(value: float, pattern: str) -> str:
    return "" if math.isnan(value) else pattern.format(value)
