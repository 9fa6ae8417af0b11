"""Scores over cases: mean, standard deviation, median and quartiles per organ, per stratum, and overall; missing
organs are counted, never silently dropped."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, fields

import numpy as np

from soars.catalogue import CATALOGUE, STRATA
from soars.metrics.evaluate import CaseScores
from soars.metrics.scores import BOTH_EMPTY, COMPARED, EXTRA, MISSING, NOT_ANNOTATED, OrganScore

FIGURES = (
    "dsc",
    "hd_mm",
    "hd95_mm",
    "asd_mm",
    "surface_dsc",
    "apl_mm",
    "volume_difference_percent",
    "centroid_shift_mm",
)
"""Figures of `OrganScore` that are summarised."""

ALL = "all organs"
OTHER = "not in the catalogue"
BESIDES = "beside the strata"
"""Organs of the catalogue outside the strata; "extra" already means an organ that only the prediction has."""


@dataclass(frozen=True)
class Statistics:
    """Statistics of one figure: ``n`` values that are not NaN; mean and standard deviation (n - 1) of the finite ones
    among them, median and quartiles of all, infinite ones (a missing organ's distances) included as worst."""

    n: int
    finite: int
    mean: float
    sd: float
    median: float
    q1: float
    q3: float


@dataclass(frozen=True)
class GroupSummary:
    """One organ, one stratum, or all organs.

    ``group`` is "organ", "stratum" or "all". The counts say how often an organ was compared, missing in the
    prediction, predicted although the reference says that it is absent (extra), empty on both sides, and predicted
    but not annotated, and how often it lay on the other side. ``figures`` holds the statistics of `FIGURES`.
    """

    group: str
    name: str
    compared: int
    missing: int
    extra: int
    both_empty: int
    not_annotated: int
    other_side: int
    figures: dict[str, Statistics]


def summarise(cases: Iterable[CaseScores]) -> list[GroupSummary]:
    """Organs in the catalogue's order, then strata, then all; a stratum's figures are those of its single organs
    and cases."""
    scores = [score for case in cases for score in case.scores]
    organs: dict[str, list[OrganScore]] = {}
    strata: dict[str, list[OrganScore]] = {}
    for score in scores:
        organs.setdefault(score.organ, []).append(score)
        strata.setdefault(stratum_of(score.organ), []).append(score)
    order = list(CATALOGUE)
    names = sorted(organs, key=lambda n: order.index(n) if n in CATALOGUE else len(order))
    summary = [_group("organ", name, organs[name]) for name in names]
    summary += [
        _group("stratum", name, strata[name]) for name in (*STRATA[:-1], BESIDES, OTHER) if name in strata
    ]
    return [*summary, _group("all", ALL, scores)]


def statistics(values: Sequence[float]) -> Statistics:
    """See `Statistics`; nan values are left out."""
    numbers = np.array([v for v in values if not np.isnan(v)], dtype=np.float64)
    finite = numbers[np.isfinite(numbers)]
    nan = float("nan")
    quartiles = _quartiles(numbers) if len(numbers) else (nan, nan, nan)
    return Statistics(
        n=len(numbers),
        finite=len(finite),
        mean=float(finite.mean()) if len(finite) else nan,
        sd=float(finite.std(ddof=1)) if len(finite) > 1 else nan,
        median=quartiles[1],
        q1=quartiles[0],
        q3=quartiles[2],
    )


def stratum_of(organ: str) -> str:
    """The organ's stratum; for one that belongs to none, whether the catalogue has it at all."""
    if organ not in CATALOGUE:
        return OTHER
    stratum = CATALOGUE[organ].stratum
    return BESIDES if stratum == STRATA[-1] else stratum


def _quartiles(values: np.ndarray) -> tuple[float, float, float]:
    """Interpolated, except that between a number and infinity the result is infinite (numpy gives nan between two
    infinities)."""
    ordered = np.sort(values)
    found = []
    for share in (0.25, 0.5, 0.75):
        rank = share * (len(ordered) - 1)
        low, high = ordered[int(np.floor(rank))], ordered[int(np.ceil(rank))]
        found.append(float(low if low == high else low + (rank % 1) * (high - low)))
    return (found[0], found[1], found[2])


def _group(group: str, name: str, scores: Sequence[OrganScore]) -> GroupSummary:
    def count(state: str) -> int:
        return sum(score.state == state for score in scores)

    assert {f.name for f in fields(OrganScore)} >= set(FIGURES)
    return GroupSummary(
        group=group,
        name=name,
        compared=count(COMPARED),
        missing=count(MISSING),
        extra=count(EXTRA),
        both_empty=count(BOTH_EMPTY),
        not_annotated=count(NOT_ANNOTATED),
        other_side=sum(score.other_side for score in scores),
        figures={figure: statistics([getattr(score, figure) for score in scores]) for figure in FIGURES},
    )
