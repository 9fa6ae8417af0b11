"""Scores and summaries as CSV files and as text."""

from __future__ import annotations

import csv
import math
from collections.abc import Iterable, Sequence
from dataclasses import asdict, fields
from pathlib import Path

from soars.cells import HarmlessWriter, original
from soars.errors import InputError
from soars.files import replacing_file
from soars.metrics.evaluate import CaseScores
from soars.metrics.scores import STATES, OrganScore
from soars.metrics.summary import FIGURES, GroupSummary
from soars.texts import read_table

COLUMNS = (
    "case",
    "organ",
    "dsc",
    "hd_mm",
    "hd95_mm",
    "asd_mm",
    "surface_dsc",
    "tolerance_mm",
    "apl_mm",
    "volume_cc",
    "reference_volume_cc",
    "state",
    "definition",
    "tolerance_source",
    "asd_to_reference_mm",
    "asd_to_prediction_mm",
    "volume_difference_cc",
    "volume_difference_percent",
    "centroid_shift_mm",
    "centroid_shift_left_mm",
    "centroid_shift_back_mm",
    "centroid_shift_up_mm",
    "other_side",
)
"""Columns of the CSV file of scores. An empty cell is an undefined figure, ``inf`` the distance to a missing
organ."""

_SHIFT = ("centroid_shift_left_mm", "centroid_shift_back_mm", "centroid_shift_up_mm")
_COUNTS = ("compared", "missing", "extra", "both_empty", "not_annotated", "other_side")
_STATISTICS = ("mean", "sd", "median", "q1", "q3")


def write_scores(cases: Iterable[CaseScores], path: Path) -> None:
    """Write one row per case and organ, all or nothing."""
    with replacing_file(path) as temporary, temporary.open("w", newline="", encoding="utf-8") as file:
        writer = HarmlessWriter(file)
        writer.writerow(COLUMNS)
        for case in cases:
            for score in case.scores:
                values = {**asdict(score), **dict(zip(_SHIFT, score.centroid_shift_lps_mm, strict=True))}
                writer.writerow([case.case, *(cell(values[name]) for name in COLUMNS[1:])])


def read_scores(path: Path) -> list[CaseScores]:
    """Read what `write_scores` wrote; `InputError`, with the line, for anything else."""
    cases: dict[str, list[OrganScore]] = {}
    try:
        reader = csv.DictReader(read_table(path))
        if not set(COLUMNS) <= set(reader.fieldnames or ()):
            raise InputError(f"{path}: is not a table of scores written by soars evaluate")
        for line, row in enumerate(reader, start=2):
            try:
                cases.setdefault(original(row["case"]), []).append(_score(row))
            except (ValueError, TypeError) as error:
                raise InputError(f"{path}, line {line}: {error}") from error
    except OSError as error:
        raise InputError(f"{path}: cannot be read ({error.strerror})") from error
    except (UnicodeDecodeError, csv.Error) as error:
        raise InputError(f"{path}: is not a CSV file ({error})") from error
    return [CaseScores(case, tuple(scores)) for case, scores in cases.items()]


def write_summary(summary: Sequence[GroupSummary], path: Path) -> None:
    """Write one row per organ, stratum, and for all; columns ``dsc_mean``, ``dsc_sd`` ... for each of `FIGURES`."""
    with replacing_file(path) as temporary, temporary.open("w", newline="", encoding="utf-8") as file:
        writer = HarmlessWriter(file)
        names = [f"{figure}_{kind}" for figure in FIGURES for kind in _STATISTICS]
        writer.writerow(["group", "name", *_COUNTS, *names])
        for row in summary:
            counts = [getattr(row, name) for name in _COUNTS]
            values = [getattr(row.figures[figure], kind) for figure in FIGURES for kind in _STATISTICS]
            writer.writerow([row.group, row.name, *counts, *map(cell, values)])


def summary_text(summary: Sequence[GroupSummary], definition: str) -> str:
    """A table for people to read: mean and standard deviation of the main figures, and what is missing."""
    head = ("organ", "n", "DSC", "HD mm", "HD95 mm", "ASD mm", "surface DSC", "missing", "extra")
    rows: list[tuple[str, ...]] = [head]
    for row in summary:
        cells = [_mean_sd(row, "dsc", 3), _mean_sd(row, "hd_mm", 1), _mean_sd(row, "hd95_mm", 1)]
        cells += [_mean_sd(row, "asd_mm", 2), _mean_sd(row, "surface_dsc", 3)]
        rows.append(
            (
                row.name,
                str(row.figures["dsc"].n),
                *cells,
                *(str(n) if n else "" for n in (row.missing, row.extra)),
            )
        )
    widths = [max(len(row[column]) for row in rows) for column in range(len(head))]
    lines = []
    for number, (row_cells, group) in enumerate(zip(rows, ["", *(r.group for r in summary)], strict=True)):
        first = row_cells[0].ljust(widths[0])
        rest = (text.rjust(width) for text, width in zip(row_cells[1:], widths[1:], strict=True))
        if number == 1 or (number > 1 and group != summary[number - 2].group):
            lines.append("-" * (sum(widths) + 2 * len(widths) - 2))
        lines.append("  ".join((first, *rest)).rstrip())
    lines.append("")
    lines.append(
        f"Mean ± standard deviation over n; distances by the definition of {definition}. An organ that one "
        "side alone has counts with DSC and surface DSC 0; its distances are left out of the means."
    )
    return "\n".join(lines)


def cell(value: object) -> str:
    """A value in a CSV file: at most nine digits, empty if undefined."""
    if value is None or (isinstance(value, float) and math.isnan(value)):
        return ""
    if isinstance(value, bool):
        return "yes" if value else ""
    return f"{value:.9g}" if isinstance(value, float) else str(value)


def _score(row: dict[str, str]) -> OrganScore:
    if row["state"] not in STATES:
        raise ValueError(f"unknown state {row['state']!r}")

    def number(name: str) -> float:
        return float(row[name]) if row[name] else float("nan")

    values = {f.name: number(f.name) for f in fields(OrganScore) if f.type == "float"}
    return OrganScore(
        organ=original(row["organ"]),
        state=row["state"],
        definition=row["definition"],
        tolerance_mm=number("tolerance_mm") if row["tolerance_mm"] else None,
        tolerance_source=row["tolerance_source"] or None,
        centroid_shift_lps_mm=(number(_SHIFT[0]), number(_SHIFT[1]), number(_SHIFT[2])),
        other_side=row["other_side"] == "yes",
        **values,
    )


def _mean_sd(row: GroupSummary, figure: str, digits: int) -> str:
    found = row.figures[figure]
    if math.isnan(found.mean):
        return ""
    spread = "" if math.isnan(found.sd) else f" ± {found.sd:.{digits}f}"
    return f"{found.mean:.{digits}f}{spread}"
