"""Comparing arms: the time one saves against another, by the papers' tests and a mixed model, with effect sizes."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import combinations

import numpy as np

from soars.study.comparisons import (
    cohen_dz,
    hodges_lehmann,
    mean_difference,
    non_inferiority,
    paired_t,
    rank_biserial,
    ratio_of_geometric_means,
)
from soars.study.mixed import MixedFit
from soars.study.plan.model import TESTS
from soars.study.published import (
    REVISE_MINUTES_2022,
    SCRATCH_MINUTES_2022,
    UANET_REVISE_MINUTES,
    UANET_SCRATCH_MINUTES,
)
from soars.study.results.effort import arms_of
from soars.study.results.minutes import (
    NAN,
    like_readings,
    log_minutes_model,
    paired_readings,
    saving_of,
    session_times,
)
from soars.study.results.table import Table, mean_of
from soars.study.rows import OrganRow
from soars.study.statistics import adjust, mann_whitney_u, wilcoxon_matched_pairs


@dataclass(frozen=True)
class ArmComparison:
    """Two arms on the same organs of ``n`` patients that both have (paired ``by`` and ``left_out`` as in `Readings`):
    mean minutes, the saving 1 - first / second with its bootstrap interval, and the tests by name with their p
    values."""

    first: str
    second: str
    n: int
    by: str
    left_out: int
    first_mean: float
    second_mean: float
    saving: float
    saving_low: float
    saving_high: float
    p: dict[str, float]
    statistics: dict[str, float]
    difference: tuple[float, float, float]
    ratio: tuple[float, float, float]
    dz: tuple[float, float, float]
    shift: tuple[float, float, float]
    rank_biserial: float
    mixed: MixedFit | None


def compare_arms(rows: Sequence[OrganRow], first: str, second: str, seed: int = 0) -> ArmComparison | None:
    """Compare minutes per patient on `paired_readings`; None where those are of fewer than two patients."""
    paired = paired_readings(rows, (first, second))
    a, b = paired.minutes()
    if len(a) < 2:
        return None
    w, t = wilcoxon_matched_pairs(a, b), paired_t(a, b)
    mixed = arm_model(rows, first, second)
    p = {test: value for test in TESTS if not math.isnan(value := primary_p(rows, first, second, test))}
    low, high = _saving_interval(np.array(a), np.array(b), seed)
    effects = [mean_difference(a, b), ratio_of_geometric_means(a, b), cohen_dz(a, b), hodges_lehmann(a, b)]
    difference, ratio, dz, shift = ((e.value, e.low, e.high) for e in effects)
    return ArmComparison(
        first, second, len(a), paired.by, paired.left_out, float(np.mean(a)), float(np.mean(b)),
        saving_of(float(np.mean(a)), float(np.mean(b))), low, high, p,
        {"wilcoxon": w.statistic, "paired t": t.statistic}, difference, ratio, dz, shift, rank_biserial(a, b),
        mixed,
    )  # fmt: skip


def primary_p(rows: Sequence[OrganRow], first: str, second: str, test: str) -> float:
    """The p value of one of `soars.study.plan.model.TESTS` for two arms; nan where it cannot be computed."""
    if test == "mixed model":
        fit = arm_model(rows, first, second)
        return fit.fixed[1].p if fit is not None and fit.converged else NAN
    a, b = paired_readings(rows, (first, second)).minutes()
    if len(a) < 2:
        return NAN
    return (paired_t(a, b) if test == "paired t" else wilcoxon_matched_pairs(a, b)).p


def _saving_interval(a: np.ndarray, b: np.ndarray, seed: int, resamples: int = 4999) -> tuple[float, float]:
    """Percentile bootstrap over patients, 95 %."""
    rng = np.random.default_rng(seed)
    index = rng.integers(0, len(a), (resamples, len(a)))
    with np.errstate(all="ignore"):  # patients who took no time: nan
        savings = 1 - a[index].mean(axis=1) / b[index].mean(axis=1)
        low, high = np.percentile(savings, (2.5, 97.5))
    return float(low), float(high)


def arm_model(rows: Sequence[OrganRow], first: str, second: str) -> MixedFit | None:
    """log minutes of the two arms' sessions by arm (fixed) with reader and case as crossed random effects. Of each
    reader the organs count that are in all of their sessions, so that one organ that nobody proposed or drew costs that
    organ and not the model. None where the data do not allow it, as where a reader's sessions have no organ in common.
    """
    own = [row for row in rows if row.arm in (first, second)]
    sessions: dict[str, dict[str, set[str]]] = {}
    for row in own:
        sessions.setdefault(row.reader, {}).setdefault(row.session, set()).add(row.organ)
    common = {reader: set.intersection(*found.values()) for reader, found in sessions.items()}
    if not all(common.values()):
        return None
    times = session_times(row for row in own if row.organ in common[row.reader])
    return log_minutes_model(times, {"arm": [s.arm for s in times]}, ("reader", "case"))


def comparison_table(comparisons: Sequence[ArmComparison]) -> Table:
    """One line a pair of arms and test, p raw and after Holm (over all lines of the same test)."""
    lines: list[tuple[object, ...]] = []
    for test in TESTS:
        tested = [c for c in comparisons if test in c.p]
        holm = adjust([c.p[test] for c in tested])
        for c, corrected in zip(tested, holm, strict=True):
            lines.append(
                (
                    c.first, c.second, c.n, c.by, c.left_out, c.first_mean, c.second_mean, 100 * c.saving,
                    100 * c.saving_low, 100 * c.saving_high, test, c.statistics.get(test, NAN), c.p[test], corrected,
                )
            )  # fmt: skip
    columns = (
        "arm", "against", "patients", "paired by", "left out", "mean min", "against min", "saving %", "low %",
        "high %", "test", "statistic", "p", "p Holm",
    )  # fmt: skip
    t = paired_t(UANET_SCRATCH_MINUTES, UANET_REVISE_MINUTES)
    published = [
        ("revise (Ye et al. 2022)", "scratch", 5, "", NAN, REVISE_MINUTES_2022, SCRATCH_MINUTES_2022, 90.0, NAN,
         NAN, "", NAN, NAN, NAN),
        ("revise (UaNet 2019)", "scratch", 10, "", NAN, 13.10, 33.60, 61.0, NAN, NAN, "paired t", t.statistic,
         t.p, NAN),
    ]  # fmt: skip
    return Table(
        "arms",
        "Arms compared on common patients",
        columns,
        tuple(lines),
        "Saving: 1 - mean / mean, on the same organs of patients read in both arms, by the same readers unless paired "
        "by organ only, with the bootstrap interval over patients (95 %). Left out: organs of these patients that a "
        "reader read in one arm only. Mixed model: log minutes of all sessions, of the organs that a reader read in "
        "each of theirs; arm fixed, reader and case crossed random effects, REML, t test.",
        tuple(published),
    )


def effect_table(comparisons: Sequence[ArmComparison]) -> Table:
    """Effect sizes of the comparisons, each with its 95 % interval."""
    lines: list[tuple[object, ...]] = []
    for c in comparisons:
        for name, (value, low, high) in (
            ("mean difference, min", c.difference),
            ("Hodges-Lehmann shift, min", c.shift),
            ("ratio of geometric means", c.ratio),
            ("Cohen's dz", c.dz),
        ):
            lines.append((c.first, c.second, c.n, name, value, low, high))
        lines.append((c.first, c.second, c.n, "rank-biserial correlation", c.rank_biserial, NAN, NAN))
        if c.mixed is not None and c.mixed.converged:
            one = c.mixed.fixed[1]
            # The first arm in alphabetical order is the reference of the model's coefficient.
            value, low, high = (math.exp(v) for v in (one.value, one.low, one.high))
            if one.name != f"arm: {c.first}":
                value, low, high = 1 / value, 1 / high, 1 / low
            lines.append((c.first, c.second, c.mixed.n, "time ratio, mixed model", value, low, high))
    return Table(
        "effects", "Effect sizes", ("arm", "against", "n", "effect", "value", "low", "high"), tuple(lines)
    )


def unpaired_table(rows: Sequence[OrganRow]) -> Table | None:
    """Arms with fewer than two patients in common, by Mann and Whitney on `like_readings`; None where every two arms
    have common patients, or no organ in common."""
    patients = {arm: {row.case for row in rows if row.arm == arm} for arm in arms_of(rows)}
    lines, p = [], []
    for first, second in combinations(arms_of(rows), 2):
        if len(patients[first] & patients[second]) >= 2:
            continue
        alike = like_readings(rows, (first, second))
        if not alike.rows:
            continue
        a, b = alike.minutes()
        organs = len({row.organ for row in alike.rows})
        found = mann_whitney_u(a, b)
        p.append(found.p)
        lines.append(
            (
                first, second, len(a), len(b), organs, alike.left_out, mean_of(a), mean_of(b), found.statistic, found.p,
            )
        )  # fmt: skip
    if not lines:
        return None
    columns = (
        "arm",
        "against",
        "n",
        "m",
        "organs",
        "left out",
        "mean min",
        "against min",
        "U",
        "p",
        "p Holm",
    )
    return Table(
        "arms_unpaired",
        "Arms on different patients",
        columns,
        tuple((*line, corrected) for line, corrected in zip(lines, adjust(p), strict=True)),
        "Mann-Whitney U, two-sided, of minutes per patient on organs that all n + m patients have; the organs and "
        "patients are those that keep most readings. Left out: organs of a patient and reader that are not among them. "
        "Where several readers read an organ, the mean of those who did.",
    )


def non_inferiority_of_minutes(
    rows: Sequence[OrganRow], first: str, second: str, margin: float
) -> tuple[object, ...] | None:
    """A line of the non-inferiority table for minutes; None without two patients with `paired_readings`."""
    paired = paired_readings(rows, (first, second))
    a, b = paired.minutes()
    if len(a) < 2:
        return None
    found = non_inferiority(a, b, margin, larger_is_better=False)
    d = found.difference
    return (
        "minutes",
        first,
        second,
        found.n,
        paired.by,
        paired.left_out,
        -d.value,
        -d.high,
        -d.low,
        margin,
        found.p,
        "shown" if found.shown else "not shown",
    )
