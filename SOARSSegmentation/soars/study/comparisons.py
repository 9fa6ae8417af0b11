"""Comparing two arms, two readers or two sets of contours: paired t, effect sizes with intervals, Bland-Altman,
non-inferiority and rank correlation. Rank tests are in `soars.study.statistics`."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from soars.errors import InputError
from soars.study.statistics import TestResult, finite_numbers, statsmodels


@dataclass(frozen=True)
class Effect:
    """An effect size with its confidence interval."""

    name: str
    value: float
    low: float
    high: float
    level: float = 0.95


@dataclass(frozen=True)
class BlandAltman:
    """Differences of pairs (first minus second) over their means: ``bias`` with its interval, and the limits of
    agreement, bias -+ 1.96 sd, each with its interval (Bland and Altman, Lancet 1986;327:307-310)."""

    bias: Effect
    lower: Effect
    upper: Effect
    sd: float
    n: int


@dataclass(frozen=True)
class NonInferiority:
    """Whether ``difference`` (first minus second, oriented so that more is better) is shown to be above ``-margin``:
    the lower end of its two-sided 95 % interval is; ``p`` is one-sided, of the t test against the margin."""

    difference: Effect
    margin: float
    p: float
    shown: bool
    n: int


def paired_t(first: Sequence[float], second: Sequence[float]) -> TestResult:
    """Student's t test of matched pairs, two-sided; ``statistic`` is t with n - 1 degrees of freedom. p is 1 where no
    pair differs."""
    differences = _differences(first, second)
    n = len(differences)
    if n < 2:
        raise InputError("a paired t test needs at least two pairs")
    median = float(np.median(differences))
    if not np.ptp(differences):
        same = not differences[0]
        statistic = 0.0 if same else math.copysign(math.inf, differences[0])
        return TestResult("paired t", statistic, 1.0 if same else 0.0, n, n, median)
    from scipy.stats import ttest_rel

    found = ttest_rel(first, second)
    return TestResult("paired t", float(found.statistic), float(found.pvalue), n, n, median)


def cohen_dz(first: Sequence[float], second: Sequence[float], level: float = 0.95) -> Effect:
    """Standardised mean difference of pairs, d_z = mean / sd of the differences, with the interval that the non-central
    t distribution gives (Cumming and Finch, Educ Psychol Meas 2001;61:532-574)."""
    from scipy.optimize import brentq

    differences = _differences(first, second)
    n = len(differences)
    sd = float(differences.std(ddof=1)) if n > 1 else 0.0
    if n < 2 or sd == 0:
        return Effect("Cohen's dz", math.nan, math.nan, math.nan, level)
    t = float(differences.mean()) / sd * math.sqrt(n)
    reach = 10 * (abs(t) + math.sqrt(n) + 3)
    tail = (1 - level) / 2

    def centre(probability: float) -> float:
        found = brentq(lambda d: _noncentral_t(t, n - 1, d) - probability, t - reach, t + reach)
        return float(found) / math.sqrt(n)

    return Effect("Cohen's dz", t / math.sqrt(n), centre(1 - tail), centre(tail), level)


def _noncentral_t(t: float, freedom: int, centre: float) -> float:
    """P(T <= t) of the non-central t distribution: the normal probability of t s - centre, averaged over the
    distribution of s, at 20,000 quantiles. scipy's gives nan for centres as large as a few clear pairs give."""
    from scipy.special import ndtr
    from scipy.stats import chi2

    places = (np.arange(20_000) + 0.5) / 20_000
    s = np.sqrt(chi2.ppf(places, freedom) / freedom)
    return float(ndtr(t * s - centre).mean())


def hodges_lehmann(first: Sequence[float], second: Sequence[float], level: float = 0.95) -> Effect:
    """The shift that Wilcoxon's matched-pairs test is about: the median of all means of two differences, with the
    interval of those shifts that the test does not reject (normal approximation; Hollander and Wolfe, 1999, 3.3)."""
    from scipy.stats import norm

    differences = _differences(first, second)
    n = len(differences)
    rows, columns = np.triu_indices(n)
    means = np.sort((differences[rows] + differences[columns]) / 2)
    if n < 2:
        return Effect("Hodges-Lehmann shift", float(np.median(means)), math.nan, math.nan, level)
    half = float(norm.ppf(0.5 + level / 2)) * math.sqrt(n * (n + 1) * (2 * n + 1) / 24)
    k = max(math.floor(n * (n + 1) / 4 - half), 0)
    return Effect(
        "Hodges-Lehmann shift", float(np.median(means)), float(means[k]), float(means[-1 - k]), level
    )


def rank_biserial(first: Sequence[float], second: Sequence[float]) -> float:
    """Matched-pairs rank-biserial correlation: the share of rank sums of positive differences minus that of negative
    ones, from -1 to 1 (Kerby, Comprehensive Psychology 2014;3:1). nan where no pair differs."""
    from scipy.stats import rankdata

    differences = _differences(first, second)
    differences = differences[differences != 0]
    if not len(differences):
        return math.nan
    ranks = rankdata(np.abs(differences))
    return float((ranks * np.sign(differences)).sum() / ranks.sum())


def ratio_of_geometric_means(first: Sequence[float], second: Sequence[float], level: float = 0.95) -> Effect:
    """Of positive paired values, with the t interval of the mean log ratio: how many times as long, for times."""
    a, b = _pairs(first, second)
    if (a <= 0).any() or (b <= 0).any():
        return Effect("ratio of geometric means", math.nan, math.nan, math.nan, level)
    mean, low, high = _t_interval(np.log(a / b), level)
    return Effect("ratio of geometric means", math.exp(mean), math.exp(low), math.exp(high), level)


def mean_difference(first: Sequence[float], second: Sequence[float], level: float = 0.95) -> Effect:
    """Of pairs, with its t interval."""
    return Effect("mean difference", *_t_interval(_differences(first, second), level), level)


def bland_altman(first: Sequence[float], second: Sequence[float], level: float = 0.95) -> BlandAltman:
    """Agreement of two measurements of the same quantity; needs three pairs or more."""
    from scipy.stats import t

    differences = _differences(first, second)
    n = len(differences)
    if n < 3:
        raise InputError("limits of agreement need at least three pairs")
    sd = float(differences.std(ddof=1))
    # Variance of a limit: sd^2 (1/n + 1.96^2 / (2 (n - 1))), as Bland and Altman give it.
    half = float(t.ppf(0.5 + level / 2, n - 1)) * sd * math.sqrt(1 / n + 1.96**2 / (2 * (n - 1)))
    bias = Effect("bias", *_t_interval(differences, level), level)
    low, high = bias.value - 1.96 * sd, bias.value + 1.96 * sd
    return BlandAltman(
        bias,
        Effect("lower limit", low, low - half, low + half, level),
        Effect("upper limit", high, high - half, high + half, level),
        sd,
        n,
    )


def non_inferiority(
    first: Sequence[float], second: Sequence[float], margin: float, larger_is_better: bool
) -> NonInferiority:
    """Whether the first are not worse than the second by ``margin`` or more, on average over pairs."""
    from scipy.stats import t

    if not margin > 0:
        raise InputError("a margin of non-inferiority must be above 0")
    differences = _differences(first, second) * (1 if larger_is_better else -1)
    n = len(differences)
    if n < 2:
        raise InputError("non-inferiority needs at least two pairs")
    effect = Effect("mean difference, more is better", *_t_interval(differences, 0.95), 0.95)
    error = float(differences.std(ddof=1)) / math.sqrt(n)
    if error == 0:
        p = 0.0 if effect.value > -margin else 1.0
    else:
        p = float(t.sf((effect.value + margin) / error, n - 1))
    return NonInferiority(effect, margin, p, effect.low > -margin, n)


def spearman(first: Sequence[float], second: Sequence[float], level: float = 0.95) -> tuple[Effect, float]:
    """Rank correlation with its interval (Fisher's z with Bonett and Wright's variance, Psychometrika 2000;65:23-28)
    and p. nan where a side does not vary or there are fewer than four pairs."""
    from scipy.stats import norm, spearmanr

    a, b = _pairs(first, second)
    n = len(a)
    if n < 4 or not np.ptp(a) or not np.ptp(b):
        return Effect("Spearman's rho", math.nan, math.nan, math.nan, level), math.nan
    found = spearmanr(a, b)
    rho = float(found.statistic)
    if abs(rho) >= 1:
        return Effect("Spearman's rho", rho, rho, rho, level), float(found.pvalue)
    half = float(norm.ppf(0.5 + level / 2)) * math.sqrt((1 + rho**2 / 2) / (n - 3))
    low, high = math.tanh(math.atanh(rho) - half), math.tanh(math.atanh(rho) + half)
    return Effect("Spearman's rho", rho, low, high, level), float(found.pvalue)


def share_interval(count: int, of: int, level: float = 0.95) -> tuple[float, float]:
    """Wilson's interval of a proportion; nan for none observed."""
    if not of:
        return math.nan, math.nan
    proportion = statsmodels("statsmodels.stats.proportion")
    low, high = proportion.proportion_confint(count, of, alpha=1 - level, method="wilson")
    return float(low), float(high)


def _t_interval(values: np.ndarray, level: float) -> tuple[float, float, float]:
    from scipy.stats import t

    n, mean = len(values), float(values.mean()) if len(values) else math.nan
    if n < 2:
        return mean, math.nan, math.nan
    half = float(t.ppf(0.5 + level / 2, n - 1)) * float(values.std(ddof=1)) / math.sqrt(n)
    return mean, mean - half, mean + half


def _pairs(first: Sequence[float], second: Sequence[float]) -> tuple[np.ndarray, np.ndarray]:
    a, b = finite_numbers(first, "the first values"), finite_numbers(second, "the second values")
    if len(a) != len(b):
        raise InputError(f"matched pairs are needed, but there are {len(a)} and {len(b)} values")
    return a, b


def _differences(first: Sequence[float], second: Sequence[float]) -> np.ndarray:
    a, b = _pairs(first, second)
    if not len(a):
        raise InputError("there is no pair to compare")
    return np.asarray(a - b)
