"""A case of a batch as one row of its tables, from what lies in its result folder."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

from soars.report.outputs import RECORD
from soars.report.record import ABSENT, PRESENT, OrganRecord, RunRecord, read_run
from soars.report.summary import in_look_order
from soars.service.batch import FAILED, Outcome
from soars.service.result import seconds_of


@dataclass(frozen=True)
class Row:
    """A case, and its run unless it failed. ``organs`` are those looked for, the one first that most needs a look."""

    outcome: Outcome
    record: RunRecord | None = None
    organs: tuple[OrganRecord, ...] = ()
    seconds: float | None = None

    def count(self, state: str) -> int:
        return sum(organ.state == state for organ in self.organs)

    def findings(self) -> Counter[str]:
        """How many by severity."""
        return Counter(finding.severity for organ in self.organs for finding in organ.findings)

    @property
    def least_expected(self) -> OrganRecord | None:
        """The organ whose expected DSC is lowest; None where the bundle is not calibrated."""
        known = [organ for organ in self.organs if organ.expected_dsc is not None]
        return min(known, key=expected_dsc, default=None)


def expected_dsc(organ: OrganRecord) -> float:
    """The value of an organ that has one."""
    assert organ.expected_dsc is not None
    return organ.expected_dsc.value


def rows(outcomes: Iterable[Outcome], output: Path) -> Iterator[Row]:
    """A row for every case, one read at a time. Raises `InputError` for a result folder that cannot be read."""
    for outcome in outcomes:
        yield Row(outcome) if outcome.state == FAILED else _row(outcome, output / outcome.case)


def _row(outcome: Outcome, folder: Path) -> Row:
    record = read_run(folder / RECORD)
    organs = tuple(organ for organ in in_look_order(record) if organ.state in (PRESENT, ABSENT))
    return Row(outcome, record, organs, seconds_of(folder))
