"""The tests, intervals and coefficients that studies of contours report, through scipy and statsmodels.

statsmodels is imported when it is needed and comes with the extra ``study``. Values that are NaN or infinite are
never silently dropped: pairs or subjects with one raise `InputError`, so that the caller decides how a missing organ
counts (see `soars.metrics.rules`).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from soars.errors import InputError

Floats = npt.NDArray[np.float64]

CORRECTIONS = ("bonferroni", "holm")
ALTERNATIVES = ("two-sided", "greater", "less")
ICC_FORMS = ("ICC(1,1)", "ICC(A,1)", "ICC(C,1)")
"""One-way random; two-way, absolute agreement; two-way, consistency: each of a single measurement (McGraw and Wong,
Psychological Methods 1996;1:30-46; Shrout and Fleiss, Psychological Bulletin 1979;86:420-428, call them (1,1),
(2,1), (3,1))."""


@dataclass(frozen=True)
class TestResult:
    """``statistic`` and two-sided or one-sided ``p`` of ``n`` pairs, or of ``n`` and ``m`` values;
    ``median_difference`` is that of the pairs (first minus second), or between the two medians."""

    __test__ = False  # not a test for pytest

    test: str
    statistic: float
    p: float
    n: int
    m: int
    median_difference: float


@dataclass(frozen=True)
class Interval:
    """An estimate with its confidence interval of ``level`` (0.95)."""

    value: float
    low: float
    high: float
    level: float


@dataclass(frozen=True)
class Icc:
    """Intraclass correlation of ``subjects`` rated by ``raters`` each, with its confidence interval."""

    form: str
    value: float
    low: float
    high: float
    level: float
    subjects: int
    raters: int


def wilcoxon_matched_pairs(
    first: Sequence[float], second: Sequence[float], alternative: str = "two-sided"
) -> TestResult:
    """Wilcoxon's signed-rank test of matched pairs, in the same order in both.

    Pairs without a difference are left out (Wilcoxon's own way), and p is 1 when all are. ``greater``: the first
    are larger. Up to 50 pairs without ties are counted exactly, others by the normal approximation with correction
    for ties.
    """
    from scipy.stats import wilcoxon

    a, b = finite_numbers(first, "the first values"), finite_numbers(second, "the second values")
    if len(a) != len(b):
        raise InputError(f"matched pairs are needed, but there are {len(a)} and {len(b)} values")
    _check_alternative(alternative)
    differences = a - b
    median = float(np.median(differences)) if len(differences) else float("nan")
    if not np.any(differences):
        return TestResult("Wilcoxon matched pairs", 0.0, 1.0, len(a), len(b), median)
    found = wilcoxon(a, b, zero_method="wilcox", alternative=alternative)
    return TestResult(
        "Wilcoxon matched pairs", float(found.statistic), float(found.pvalue), len(a), len(b), median
    )


def mann_whitney_u(
    first: Sequence[float], second: Sequence[float], alternative: str = "two-sided"
) -> TestResult:
    """Mann and Whitney's U test (Wilcoxon's rank-sum test) of two independent groups; the statistic is the first's
    U."""
    from scipy.stats import mannwhitneyu

    a, b = finite_numbers(first, "the first values"), finite_numbers(second, "the second values")
    if not len(a) or not len(b):
        raise InputError("both groups need at least one value")
    _check_alternative(alternative)
    found = mannwhitneyu(a, b, alternative=alternative)
    return TestResult(
        "Mann-Whitney U",
        float(found.statistic),
        float(found.pvalue),
        len(a),
        len(b),
        float(np.median(a) - np.median(b)),
    )


def adjust(p_values: Sequence[float], correction: str = "holm") -> list[float]:
    """p values corrected for how many they are, in the same order: Bonferroni's, or Holm's, which is never weaker
    (Scand J Stat 1979;6:65-70)."""
    if correction not in CORRECTIONS:
        raise InputError(f"unknown correction {correction!r}; there are {', '.join(CORRECTIONS)}")
    values = finite_numbers(p_values, "p values")
    if ((values < 0) | (values > 1)).any():
        raise InputError("p values lie between 0 and 1")
    if not len(values):
        return []
    multipletests = statsmodels("statsmodels.stats.multitest").multipletests
    return [float(p) for p in multipletests(values, method=correction)[1]]


def bootstrap_interval(
    values: Sequence[float],
    statistic: Callable[..., Any] = np.mean,
    *,
    level: float = 0.95,
    resamples: int = 9999,
    seed: int = 0,
) -> Interval:
    """Confidence interval of a statistic of independent values, by the bias-corrected and accelerated bootstrap
    (Efron, JASA 1987;82:171-185); percentiles where that is not defined. ``statistic(values, axis=...)``, as
    numpy's."""
    from scipy.stats import bootstrap

    data = finite_numbers(values, "values")
    if len(data) < 2:
        raise InputError("an interval needs at least two values")
    value = float(statistic(data, axis=-1))
    if np.ptp(data) == 0:
        return Interval(value, value, value, level)
    found = {}
    for method in ("BCa", "percentile"):
        with np.errstate(all="ignore"):
            found[method] = bootstrap(
                (data,),
                statistic,
                confidence_level=level,
                n_resamples=resamples,
                method=method,
                rng=np.random.default_rng(seed),
            ).confidence_interval
        if np.isfinite([found[method].low, found[method].high]).all():
            break
    return Interval(value, float(found[method].low), float(found[method].high), level)


def icc(ratings: npt.ArrayLike, form: str = "ICC(A,1)", level: float = 0.95) -> Icc:
    """Intraclass correlation of ``ratings``, shape (subjects, raters), one of `ICC_FORMS`, with McGraw and Wong's
    interval; nan where it is not defined, as the interval is for ratings that agree exactly, and the coefficient where
    all are the same."""
    if form not in ICC_FORMS:
        raise InputError(f"unknown form {form!r}; there are {', '.join(ICC_FORMS)}")
    table = np.asarray(ratings, dtype=np.float64)
    if table.ndim != 2 or min(table.shape) < 2:
        raise InputError("an ICC needs a table of at least two subjects by two raters")
    if not np.isfinite(table).all():
        raise InputError("an ICC needs every rater's number for every subject")
    with np.errstate(all="ignore"):
        return _icc(table, form, level)


def _icc(table: Floats, form: str, level: float) -> Icc:
    between, raters, error = _mean_squares(table)
    n, k = table.shape
    within = (raters * (k - 1) + error * (n - 1) * (k - 1)) / (n * (k - 1))
    if form == "ICC(1,1)":
        value = (between - within) / (between + (k - 1) * within)
        low, high = _f_interval(between / within, n - 1, n * (k - 1), k, level)
    elif form == "ICC(C,1)":
        value = (between - error) / (between + (k - 1) * error)
        low, high = _f_interval(between / error, n - 1, (n - 1) * (k - 1), k, level)
    else:
        value = (between - error) / (between + (k - 1) * error + k * (raters - error) / n)
        low, high = _absolute_interval(value, between, raters, error, n, k, level)
    return Icc(form, float(value), low, high, level, n, k)


def _mean_squares(table: Floats) -> tuple[np.float64, np.float64, np.float64]:
    """Mean squares of subjects, raters and error: the two-way analysis of variance with one value a cell."""
    n, k = table.shape
    subjects, raters, mean = table.mean(axis=1), table.mean(axis=0), table.mean()
    rest = table - subjects[:, None] - raters + mean
    between = k * ((subjects - mean) ** 2).sum() / (n - 1)
    within = n * ((raters - mean) ** 2).sum() / (k - 1)
    return np.float64(between), np.float64(within), np.float64((rest**2).sum() / ((n - 1) * (k - 1)))


def _f_interval(f: float, above: int, below: int, k: int, level: float) -> tuple[float, float]:
    """McGraw and Wong, table 7: the interval of an ICC that is a function of one F ratio."""
    from scipy.stats import f as distribution

    tail = 1 - (1 - level) / 2
    low = f / distribution.ppf(tail, above, below)
    high = f * distribution.ppf(tail, below, above)
    return float((low - 1) / (low + k - 1)), float((high - 1) / (high + k - 1))


def _absolute_interval(
    value: float, between: float, raters: float, error: float, n: int, k: int, level: float
) -> tuple[float, float]:
    """McGraw and Wong, table 7, for absolute agreement: degrees of freedom after Satterthwaite."""
    from scipy.stats import f as distribution

    a = k * value / (n * (1 - value))
    b = 1 + k * value * (n - 1) / (n * (1 - value))
    freedom = (a * raters + b * error) ** 2 / (
        (a * raters) ** 2 / (k - 1) + (b * error) ** 2 / ((n - 1) * (k - 1))
    )
    tail = 1 - (1 - level) / 2
    lower, upper = distribution.ppf(tail, n - 1, freedom), distribution.ppf(tail, freedom, n - 1)
    rest = k * raters + (k * n - k - n) * error
    low = n * (between - lower * error) / (lower * rest + n * between)
    high = n * (upper * between - error) / (rest + n * upper * between)
    return float(low), float(high)


def finite_numbers(values: Sequence[float] | npt.ArrayLike, what: str) -> Floats:
    """Values as an array, shape (n,); `InputError`, naming ``what``, when one is not finite."""
    array = np.asarray(values, dtype=np.float64)
    if array.ndim != 1:
        raise InputError(f"{what}: a list of numbers is needed, not a table of shape {array.shape}")
    if not np.isfinite(array).all():
        raise InputError(
            f"{what}: {int((~np.isfinite(array)).sum())} of {len(array)} are not finite; decide first what a missing "
            "value counts"
        )
    return array


def _check_alternative(alternative: str) -> None:
    if alternative not in ALTERNATIVES:
        raise InputError(f"unknown alternative {alternative!r}; there are {', '.join(ALTERNATIVES)}")


def statsmodels(module: str) -> Any:
    """A module of statsmodels; `InputError` when it is not installed."""
    from importlib import import_module

    try:
        return import_module(module)
    except ImportError as error:
        raise InputError(
            "this needs statsmodels, which is not installed: pip install 'soars-segmentation[study]'"
        ) from error
