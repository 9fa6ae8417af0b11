"""Minutes per session and patient, and how they depend on the idle threshold.

**Minutes of a patient in an arm** are the sum over organs of the mean over the readers who read that organ: readers who
share out the organs among them (as in 000) add up, readers who all read everything are averaged.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

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
    """Minutes per patient by arm: all readers together, and each reader."""
    lines = [_minutes_line(arm, "all", patient_minutes(rows).get(arm, {})) for arm in arms_of(rows)]
    for reader in sorted({row.reader for row in rows}):
        own = patient_minutes([row for row in rows if row.reader == reader])
        lines += [_minutes_line(arm, reader, own[arm]) for arm in arms_of(rows) if arm in own]
    published = [
        ("revise (Ye et al. 2022)", "2 readers", 30, REVISE_MINUTES_2022, *[NAN] * 4),
        ("scratch (Ye et al. 2022)", "2 readers", 5, SCRATCH_MINUTES_2022, *[NAN] * 4),
        _minutes_line("revise (UaNet 2019)", "1 reader", dict(enumerate(UANET_REVISE_MINUTES))),
        _minutes_line("scratch (UaNet 2019)", "1 reader", dict(enumerate(UANET_SCRATCH_MINUTES))),
    ]
    return Table(
        "minutes",
        "Minutes per patient",
        ("arm", "reader", "patients", "mean", "sd", "median", "q1", "q3"),
        tuple(lines),
        "Active time. Of all readers: the sum over organs of the mean over the readers who read the organ.",
        tuple(published),
    )


def _minutes_line(arm: str, reader: str, minutes: dict[str, float] | dict[int, float]) -> tuple[object, ...]:
    s = spread(minutes.values())
    return (arm, reader, s.n, s.mean, s.sd, s.median, s.low, s.high)


def threshold_table(rows: Sequence[OrganRow]) -> Table:
    """Minutes per patient and arm at other idle thresholds, and the saving of each arm against the slowest."""
    lines: list[tuple[object, ...]] = []
    arms = arms_of(rows)
    for threshold in THRESHOLDS_S:
        minutes = patient_minutes(rows, threshold)
        slowest = max(arms, key=lambda arm: mean_of(minutes[arm].values()))
        for arm in arms:
            common = sorted(set(minutes[arm]) & set(minutes[slowest]))
            ratio = (
                mean_of(minutes[arm][c] for c in common) / mean_of(minutes[slowest][c] for c in common)
                if common
                else NAN
            )
            label = "none" if math.isinf(threshold) else f"{threshold:g} s"
            lines.append(
                (label, arm, len(minutes[arm]), mean_of(minutes[arm].values()), slowest, 100 * (1 - ratio))
            )
    return Table(
        "thresholds",
        "Sensitivity to the idle threshold",
        ("threshold", "arm", "patients", "mean min", "against", "saving %"),
        tuple(lines),
        "A stretch without an act counts as active for the length of the threshold; without one, wholly.",
    )
