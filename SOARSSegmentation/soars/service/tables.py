"""The tables over a batch: a row for every case, and a row for every organ of every case."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path

from soars.cells import HarmlessWriter
from soars.errors import InputError
from soars.files import Ours, begins_with, check_output_file, replacing_files
from soars.findings.finding import SEVERITIES
from soars.report.record import ABSENT, PRESENT, OrganRecord
from soars.report.summary import organ_notes
from soars.service.batch import Outcome
from soars.service.index import BEGINNING, end, entry, start
from soars.service.rows import Row, expected_dsc, rows

CASES, ORGANS, INDEX = "cases.csv", "organs.csv", "index.html"
CASE_COLUMNS = (
    *("case", "state", "message", "description", "bundle", "version", "organs_found", "organs_absent"),
    *SEVERITIES,
    *("look_first", "least_expected_dsc", "least_expected_organ", "seconds"),
)
"""Of cases.csv; the severities are counts of findings."""
ORGAN_COLUMNS = (
    *("case", "organ", "state", "volume_cc", "expected_dsc", "expected_low", "expected_high"),
    *("findings", "notes"),
)
"""Of organs.csv; ``findings`` is their number, ``notes`` what they say or why the organ is absent."""

_OURS: dict[str, Ours] = {
    CASES: begins_with(",".join(CASE_COLUMNS)),
    ORGANS: begins_with(",".join(ORGAN_COLUMNS)),
    INDEX: begins_with(BEGINNING),
}


def check_tables(output: Path, names: Iterable[str]) -> None:
    """Raise `InputError` when the tables cannot be written into ``output``, or a case is called like one of them."""
    taken = {name.casefold() for name in names} & set(_OURS)
    if taken:
        raise InputError(
            f"a case is called {', '.join(sorted(taken))}, as a table of the batch is; rename it"
        )
    for name, ours in _OURS.items():
        if output.is_dir():
            check_output_file(output / name, ours=ours)


def write_tables(outcomes: Sequence[Outcome], output: Path) -> None:
    """Write the two CSV files and the page, all or nothing, one case in memory at a time."""
    output.mkdir(parents=True, exist_ok=True)
    paths = [output / name for name in _OURS]
    with (
        replacing_files(paths) as files,
        files[output / CASES].open("w", encoding="utf-8", newline="") as case_file,
        files[output / ORGANS].open("w", encoding="utf-8", newline="") as organ_file,
        files[output / INDEX].open("w", encoding="utf-8", newline="\n") as page,
    ):
        cases, organs = HarmlessWriter(case_file), HarmlessWriter(organ_file)
        cases.writerow(CASE_COLUMNS)
        organs.writerow(ORGAN_COLUMNS)
        page.write(start(outcomes))
        for row in rows(outcomes, output):
            cases.writerow(_case_cells(row))
            organs.writerows(_organ_cells(row.outcome.case, organ) for organ in row.organs)
            page.write(entry(row, output / row.outcome.case))
        page.write(end())


def _case_cells(row: Row) -> list[object]:
    outcome, record, least = row.outcome, row.record, row.least_expected
    if record is None:
        return [outcome.case, outcome.state, outcome.message, *[""] * (len(CASE_COLUMNS) - 3)]
    counts = row.findings()
    return [
        *(outcome.case, outcome.state, outcome.message, record.ct.description),
        *(record.bundle.name, record.bundle.version, row.count(PRESENT), row.count(ABSENT)),
        *(counts[severity] for severity in SEVERITIES),
        next((organ.name for organ in row.organs if organ.findings), ""),
        "" if least is None else f"{expected_dsc(least):.4f}",
        "" if least is None else least.name,
        "" if row.seconds is None else f"{row.seconds:.1f}",
    ]


def _organ_cells(case: str, organ: OrganRecord) -> list[object]:
    expected = organ.expected_dsc
    values = ("", "", "") if expected is None else (expected.value, expected.low, expected.high)
    return [
        *(case, organ.name, organ.state, f"{organ.volume_cc:.3f}" if organ.state == PRESENT else ""),
        *(value if value == "" else f"{value:.4f}" for value in values),
        *(len(organ.findings), "; ".join(organ_notes(organ))),
    ]
