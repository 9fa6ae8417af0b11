"""Minutes per session and patient, and how they depend on the idle threshold.

**Minutes of a patient in an arm** are the sum over organs of the mean over the readers who read that organ: readers who
share out the organs among them (as in 000) add up, readers who all read everything are averaged. Arms are compared on
such sums over the same organs: `paired_readings` for the same patients, `like_readings` for different ones.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Hashable, Iterable, Sequence
from dataclasses import dataclass
from itertools import product

import numpy as np

from soars.errors import InputError
from soars.study.mixed import MixedFit, fit_mixed
from soars.study.published import (
    REVISE_MINUTES_2022,
    SCRATCH_MINUTES_2022,
    UANET_REVISE_MINUTES,
    UANET_SCRATCH_MINUTES,
)
from soars.study.results.effort import arms_of
from soars.study.results.table import Table, mean_of, spread
from soars.study.rows import THRESHOLDS_S, OrganRow

NAN = float("nan")


@dataclass(frozen=True)
class SessionTime:
    """Active minutes of one session's organs."""

    reader: str
    case: str
    arm: str
    repeat: int
    sequence: int
    minutes: float
    organs: int


def session_times(rows: Iterable[OrganRow]) -> list[SessionTime]:
    """One a session, in the rows' order."""
    found: dict[str, list[OrganRow]] = {}
    for row in rows:
        found.setdefault(f"{row.reader}\0{row.session}", []).append(row)
    return [
        SessionTime(
            own[0].reader,
            own[0].case,
            own[0].arm,
            own[0].repeat,
            own[0].sequence,
            sum(row.active_s for row in own) / 60,
            len(own),
        )
        for own in found.values()
    ]


def patient_minutes(
    rows: Iterable[OrganRow], threshold_s: float | None = None
) -> dict[str, dict[str, float]]:
    """Arm -> case -> minutes, as at the top of this module; at another idle threshold where one is given."""
    seconds: dict[tuple[str, str], dict[str, list[float]]] = {}
    for row in rows:
        value = row.active_s if threshold_s is None else row.active_at(threshold_s)
        seconds.setdefault((row.arm, row.case), {}).setdefault(row.organ, []).append(value)
    out: dict[str, dict[str, float]] = {}
    for (arm, case), organs in seconds.items():
        out.setdefault(arm, {})[case] = sum(float(np.mean(values)) for values in organs.values()) / 60
    return out


BY_READER, BY_ORGAN = "reader and organ", "organ"
"""What a reading in one arm and its partner in another have in common besides the patient."""


@dataclass(frozen=True)
class Readings:
    """Readings, each one organ of one patient by one reader, over which arms can be compared.

    Attributes:
        rows: of the ``arms``.
        by: `BY_READER` or `BY_ORGAN`.
        left_out: readings of the arms that have no partner; where arms are compared on the same patients, of those
            patients only.
    """

    arms: tuple[str, ...]
    rows: tuple[OrganRow, ...]
    by: str
    left_out: int

    @property
    def cases(self) -> list[str]:
        return sorted({row.case for row in self.rows})

    def minutes(self, threshold_s: float | None = None) -> list[list[float]]:
        """Of every arm the minutes of its patients, in the order of `cases`."""
        minutes = patient_minutes(self.rows, threshold_s)
        return [
            [found[case] for case in sorted(found)] for found in (minutes.get(arm, {}) for arm in self.arms)
        ]


def paired_readings(rows: Sequence[OrganRow], arms: Sequence[str]) -> Readings:
    """What was read of a patient in all of the arms: the same organs by the same readers, so that a session that is
    not finished in one arm takes its organs from the others too.

    Where no reader read anything in all arms, as when each patient is read in one arm by one reader and in the other
    by another, the same organs by whomever.
    """
    own = [row for row in rows if row.arm in arms]
    by, key = BY_READER, _by_reader
    common = _common(own, arms, key)
    if not common:
        by, key = BY_ORGAN, _by_organ
        common = _common(own, arms, key)
    kept = tuple(row for row in own if key(row) in common)
    patients = _common(own, arms, lambda row: row.case)
    return Readings(tuple(arms), kept, by, sum(row.case in patients for row in own) - len(kept))


def like_readings(rows: Sequence[OrganRow], arms: Sequence[str]) -> Readings:
    """Of arms on different patients: patients that have all of a set of organs, and these organs only. The set is the
    one that keeps most readings, with two patients in each arm if there is such a set. Readers who read an organ in
    one arm only are left out, where others read organs in all.
    """
    own = [row for row in rows if row.arm in arms]
    by, key = BY_READER, _reader_and_organ
    if not _common(own, arms, key):
        by, key = BY_ORGAN, _organ
    common = _common(own, arms, key)
    left = [row for row in own if key(row) in common]
    organs: dict[str, dict[str, set[str]]] = {arm: {} for arm in arms}
    for row in left:
        organs[row.arm].setdefault(row.case, set()).add(row.organ)
    sets = [{frozenset(one) for one in cases.values()} for cases in organs.values()]
    best: tuple[bool, int, list[str]] | None = None
    kept: list[OrganRow] = []
    for wanted in {frozenset.intersection(*chosen) for chosen in product(*sets)} - {frozenset()}:
        whole = {arm: {case for case, has in cases.items() if has >= wanted} for arm, cases in organs.items()}
        found = [row for row in left if row.organ in wanted and row.case in whole[row.arm]]
        quality = (all(len(cases) >= 2 for cases in whole.values()), len(found), sorted(wanted))
        if best is None or quality > best:
            best, kept = quality, found
    return Readings(tuple(arms), tuple(kept), by, len(own) - len(kept))


def _common(
    rows: Iterable[OrganRow], arms: Sequence[str], key: Callable[[OrganRow], Hashable]
) -> set[Hashable]:
    found: dict[str, set[Hashable]] = {arm: set() for arm in arms}
    for row in rows:
        found[row.arm].add(key(row))
    return set.intersection(*found.values())


def _by_reader(row: OrganRow) -> Hashable:
    return row.case, row.reader, row.organ, row.repeat


def _by_organ(row: OrganRow) -> Hashable:
    return row.case, row.organ


def _reader_and_organ(row: OrganRow) -> Hashable:
    return row.reader, row.organ


def _organ(row: OrganRow) -> Hashable:
    return row.organ


def saving_of(minutes: float, against: float) -> float:
    """The share of the time that is saved; nan where there is none to save."""
    return 1 - minutes / against if against > 0 else NAN


def log_minutes_model(
    times: Sequence[SessionTime], fixed: dict[str, list[object]], random: tuple[str, ...]
) -> MixedFit | None:
    """A mixed model of log minutes of sessions, with ``random`` fields as crossed random effects; None where a fixed
    column does not vary, a session took no time, or the data are too few."""
    if any(s.minutes <= 0 for s in times) or any(len(set(map(str, column))) < 2 for column in fixed.values()):
        return None
    try:
        return fit_mixed(
            [math.log(s.minutes) for s in times],
            fixed,
            {name: [getattr(s, name) for s in times] for name in random},
        )
    except InputError:
        return None


def minutes_table(rows: Sequence[OrganRow]) -> Table:
    """Minutes per patient by arm, of whatever organs were read: all readers together, and each reader."""
    readers = sorted({row.reader for row in rows})
    lines = []
    for reader, own in [("all", rows), *((r, [row for row in rows if row.reader == r]) for r in readers)]:
        minutes = patient_minutes(own)
        for arm in arms_of(rows):
            if arm in minutes:
                organs = len({(row.case, row.organ) for row in own if row.arm == arm}) / len(minutes[arm])
                lines.append(_minutes_line(arm, reader, minutes[arm].values(), organs))
    published = [
        ("revise (Ye et al. 2022)", "2 readers", 30, REVISE_MINUTES_2022, *[NAN] * 4, 42),
        ("scratch (Ye et al. 2022)", "2 readers", 5, SCRATCH_MINUTES_2022, *[NAN] * 4, 42),
        _minutes_line("revise (UaNet 2019)", "1 reader", UANET_REVISE_MINUTES, 28),
        _minutes_line("scratch (UaNet 2019)", "1 reader", UANET_SCRATCH_MINUTES, 28),
    ]
    return Table(
        "minutes",
        "Minutes per patient",
        ("arm", "reader", "patients", "mean", "sd", "median", "q1", "q3", "organs"),
        tuple(lines),
        "Active time. Of all readers: the sum over organs of the mean over the readers who read the organ. Organs: "
        "mean number per patient; arms in which it differs are compared in the next tables, on the same organs.",
        tuple(published),
    )


def _minutes_line(arm: str, reader: str, minutes: Iterable[float], organs: float) -> tuple[object, ...]:
    s = spread(minutes)
    return (arm, reader, s.n, s.mean, s.sd, s.median, s.low, s.high, organs)


def threshold_table(rows: Sequence[OrganRow]) -> Table:
    """Minutes per patient and arm at other idle thresholds, and the saving of each arm against the slowest, on
    `paired_readings`."""
    lines: list[tuple[object, ...]] = []
    arms = arms_of(rows)
    everything = paired_readings(rows, arms)
    pairs = {(arm, other): paired_readings(rows, (arm, other)) for arm in arms for other in arms}
    for threshold in THRESHOLDS_S:
        minutes = patient_minutes(rows, threshold)
        # The slowest on what was read in all arms; where that is nothing, on what was read in each.
        means = [mean_of(own) for own in everything.minutes(threshold)]
        if not everything.rows:
            means = [mean_of(minutes[arm].values()) for arm in arms]
        slowest = arms[int(np.argmax(means))]
        label = "none" if math.isinf(threshold) else f"{threshold:g} s"
        for arm in arms:
            a, b = pairs[arm, slowest].minutes(threshold)
            saving = 100 * saving_of(mean_of(a), mean_of(b))
            lines.append(
                (label, arm, len(minutes[arm]), mean_of(minutes[arm].values()), slowest, len(a), saving)
            )
    return Table(
        "thresholds",
        "Sensitivity to the idle threshold",
        ("threshold", "arm", "patients", "mean min", "against", "compared", "saving %"),
        tuple(lines),
        "A stretch without an act counts as active for the length of the threshold; without one, wholly. The saving is "
        "that of the same organs of so many patients as are compared.",
    )
