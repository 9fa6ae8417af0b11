"""Statistics of studies against published results and closed forms."""

from __future__ import annotations

import math

import numpy as np
import pytest

from soars.errors import InputError
from soars.study.comparisons import (
    bland_altman,
    cohen_dz,
    hodges_lehmann,
    mean_difference,
    non_inferiority,
    paired_t,
    rank_biserial,
    ratio_of_geometric_means,
    share_interval,
    spearman,
)
from soars.study.mixed import fit_mixed
from soars.study.published import UANET_REVISE_MINUTES, UANET_SCRATCH_MINUTES
from soars.study.results.prediction import cross_validated_r2
from soars.study.simulation.truth import Truth, draw_revising, reader_speeds
from soars.study.statistics import icc

PENICILLIN = (
    "272326232321 272326232321 252125242420 262325232320 252226222320 242225232219 242023212219 262226242421 "
    "242124222220 242124232219 262326242421 252226242420 262426242522 262326232320 262325242422 252225232320 "
    "252124232320 252224232319 242123212119 262326242421 252124222218 252225222220 242124222419 242124222118"
)
"""Diameters in mm, six samples of penicillin (A to F) on each of 24 plates: Davies and Goldsmith, Statistical
Methods in Research and Production, 4th ed., 1972, section 6.6; the data set Penicillin of lme4."""


def penicillin() -> tuple[list[float], list[str], list[str]]:
    rows = PENICILLIN.split()
    values = [float(row[2 * s : 2 * s + 2]) for row in rows for s in range(6)]
    plates = [f"plate {p}" for p in range(24) for _ in range(6)]
    samples = [f"sample {s}" for _ in range(24) for s in range(6)]
    return values, plates, samples


def test_the_mixed_model_is_lme4s_on_its_own_example() -> None:
    """Bates, lme4: Mixed-effects modeling with R, chapter 2: ``lmer(diameter ~ 1 + (1|plate) + (1|sample),
    Penicillin)`` by REML: standard deviations 0.84671, 1.93157 and 0.54992, intercept 22.9722 with a standard error
    of 0.8086."""
    values, plates, samples = penicillin()
    fit = fit_mixed(values, {}, {"plate": plates, "sample": samples})
    assert fit.converged and fit.n == 144
    assert fit.criterion == pytest.approx(330.8606, abs=1e-4)
    assert math.sqrt(fit.variances["plate"]) == pytest.approx(0.84671, abs=1e-4)
    assert math.sqrt(fit.variances["sample"]) == pytest.approx(1.93157, abs=1e-4)
    assert math.sqrt(fit.residual) == pytest.approx(0.54992, abs=1e-4)
    assert fit.effect("intercept").value == pytest.approx(22.9722, abs=1e-4)
    assert fit.effect("intercept").standard_error == pytest.approx(0.8086, abs=1e-4)


def test_reml_of_a_balanced_design_is_the_analysis_of_variance() -> None:
    """Then the variances are those of the mean squares, and the fixed effect's error has their degrees of freedom."""
    for seed in range(5):
        values, readers, arms, cases = simulated_times(seed, 1.1)
        fit = fit_mixed(values, {"reader": readers, "arm": arms}, {"case": cases})
        table = np.array(values).reshape(30, 2, 2)
        within = table - table.mean(axis=(1, 2), keepdims=True)
        reader, arm = within.mean(axis=(0, 2)), within.mean(axis=(0, 1))
        error = ((within - reader[None, :, None] - arm) ** 2).sum() / (120 - 30 - 2)
        between = 4 * table.mean(axis=(1, 2)).var(ddof=1)
        assert fit.residual == pytest.approx(error, rel=1e-4)
        assert fit.variances["case"] == pytest.approx((between - error) / 4, rel=1e-3)
        effect = fit.effect("reader: R1")
        assert effect.value == pytest.approx(reader[1] - reader[0])
        assert effect.standard_error == pytest.approx(math.sqrt(error * 2 / 60), rel=1e-4)
        assert effect.freedom == 88


def test_a_variance_of_nothing_is_found_on_the_boundary() -> None:
    """Groups that differ less than chance has them differ: REML's variance is zero, not negative."""
    fit = fit_mixed([1, 5, 2, 4, 3, 3.1], {}, {"case": [1, 1, 2, 2, 3, 3]})
    assert fit.variances["case"] == pytest.approx(0, abs=1e-6)
    assert fit.residual == pytest.approx(np.var([1, 5, 2, 4, 3, 3.1], ddof=1), rel=1e-5)


def test_a_mixed_model_of_paired_values_is_the_paired_t_test() -> None:
    """One random effect and two values each: the fixed effect's t is Student's, with n - 1 degrees of freedom."""
    rng = np.random.default_rng(4)
    case = rng.normal(0, 1, 12)
    a, b = case + rng.normal(0, 0.5, 12), case + 0.4 + rng.normal(0, 0.5, 12)
    fit = fit_mixed([*a, *b], {"arm": ["a"] * 12 + ["b"] * 12}, {"case": [*range(12)] * 2})
    known = paired_t(b.tolist(), a.tolist())
    effect = fit.effect("arm: b")
    assert effect.freedom == 11
    assert effect.value / effect.standard_error == pytest.approx(known.statistic, rel=1e-3)
    assert effect.p == pytest.approx(known.p, rel=1e-2)


def simulated_times(seed: int, ratio: float) -> tuple[list[float], list[str], list[str], list[str]]:
    """30 patients by two readers in two arms."""
    rng = np.random.default_rng([17, seed])
    case = rng.normal(0, 0.2, 30)
    rows = [(c, r, a) for c in range(30) for r in range(2) for a in range(2)]
    values = [case[c] + r * math.log(ratio) - 0.5 * a + rng.normal(0, 0.25) for c, r, a in rows]
    return (
        values,
        [f"R{r}" for _, r, _ in rows],
        [f"arm {a}" for _, _, a in rows],
        [str(c) for c, _, _ in rows],
    )


def reader_p(seed: int, ratio: float) -> float:
    values, readers, arms, cases = simulated_times(seed, ratio)
    return fit_mixed(values, {"reader": readers, "arm": arms}, {"case": cases}).effect("reader: R1").p


def test_a_planted_difference_of_readers_is_found_and_an_absent_one_is_not() -> None:
    """At 5 %, 10 of 200 tests without a difference are expected to err; 3 to 18 in 99 of 100 such runs (binomial)."""
    absent = sum(reader_p(seed, 1.0) < 0.05 for seed in range(200))
    planted = sum(reader_p(seed, 1.25) < 0.05 for seed in range(20))
    assert 3 <= absent <= 18
    assert planted == 20


def simulated_reader_p(seed: int, ratio: float) -> float:
    """Two readers of 30 patients and 42 organs, as `soars study simulate` draws their work."""
    keys = [("revise", reader, case) for reader in range(2) for case in range(30)]
    organs = [str(number) for number in range(42)]
    works = draw_revising(Truth(), keys, organs, reader_speeds(2, ratio), seed)
    times = [math.log(works[key].active_s) for key in keys]
    fit = fit_mixed(times, {"reader": [str(key[1]) for key in keys]}, {"case": [str(key[2]) for key in keys]})
    return fit.effect("reader: 1").p


def test_in_simulated_studies_a_difference_of_readers_is_found_where_there_is_one() -> None:
    """None in 95 of 100 studies without; `Testing/benchmarks/mixed_model.py` measures the test's level."""
    assert sum(simulated_reader_p(seed, 1.0) < 0.05 for seed in range(100)) <= 5
    assert sum(simulated_reader_p(seed, 1.2) < 0.05 for seed in range(20)) == 20


def test_a_mixed_model_without_enough_data_is_refused() -> None:
    with pytest.raises(InputError, match="too few"):
        fit_mixed([1, 2, 3], {"arm": ["a", "b", "a"]}, {"case": ["1", "2", "3"]})
    with pytest.raises(InputError, match="finite"):
        fit_mixed([1, math.nan, 3], {}, {"case": ["1", "2", "1"]})
    with pytest.raises(InputError, match="3 values for 4"):
        fit_mixed([1, 2, 3, 4], {"arm": ["a", "b", "a"]}, {})


def test_without_random_effects_it_is_least_squares() -> None:
    """Anscombe's first set: intercept 3.0001, slope 0.5001, its standard error 0.1179, p 0.00217."""
    x = [10.0, 8, 13, 9, 11, 14, 6, 4, 12, 7, 5]
    y = [8.04, 6.95, 7.58, 8.81, 8.33, 9.96, 7.24, 4.26, 10.84, 4.82, 5.68]
    fit = fit_mixed(y, {"x": x}, {"case": ["one"] * 11})
    assert fit.effect("intercept").value == pytest.approx(3.0001, abs=1e-4)
    assert fit.effect("x").value == pytest.approx(0.5001, abs=1e-4)
    assert fit.effect("x").standard_error == pytest.approx(0.1179, abs=1e-4)
    assert fit.effect("x").p == pytest.approx(0.00217, abs=1e-5)


def test_uanets_ten_patients_give_its_t_and_p() -> None:
    assert np.mean(UANET_SCRATCH_MINUTES) == pytest.approx(33.60)
    assert np.mean(UANET_REVISE_MINUTES) == pytest.approx(13.10)
    found = paired_t(UANET_SCRATCH_MINUTES, UANET_REVISE_MINUTES)
    assert found.n == 10
    assert found.statistic == pytest.approx(21.68, abs=0.005)
    assert found.p == pytest.approx(4.5e-9, abs=0.05e-9)


def test_pairs_without_a_difference_are_no_evidence_and_a_constant_one_is_all() -> None:
    assert paired_t([1, 2, 3], [1, 2, 3]).p == 1
    assert paired_t([2, 3, 4], [1, 2, 3]).p == 0
    with pytest.raises(InputError, match="two pairs"):
        paired_t([1], [2])


def test_cohens_dz_and_its_interval() -> None:
    """d_z is t / sqrt(n); the interval's ends are those non-centralities at which t lies in the 2.5 % tails."""
    from scipy.stats import nct

    a, b = [5.0, 7, 9, 6, 8, 10], [4.0, 6, 7, 6, 5, 8]
    found = cohen_dz(a, b)
    t = paired_t(a, b).statistic
    assert found.value == pytest.approx(t / math.sqrt(6))
    assert nct.cdf(t, 5, found.low * math.sqrt(6)) == pytest.approx(0.975, abs=1e-5)
    assert nct.cdf(t, 5, found.high * math.sqrt(6)) == pytest.approx(0.025, abs=1e-5)
    clear = cohen_dz([100.0, 101], [10.0, 12])  # two pairs: wide, but a number
    assert clear.low < clear.value < clear.high < math.inf
    assert math.isnan(cohen_dz([1, 2], [0, 1]).value)


def test_the_hodges_lehmann_shift_is_the_median_of_the_means_of_two() -> None:
    """Differences 1, 2, 6: means of two are 1, 1.5, 2, 3.5, 4, 6."""
    assert hodges_lehmann([1, 2, 6], [0, 0, 0]).value == pytest.approx((2 + 3.5) / 2)
    found = hodges_lehmann([x + 3 for x in range(20)], [0.5 * x for x in range(20)])
    assert found.low < found.value < found.high


def test_the_rank_biserial_correlation_counts_ranks() -> None:
    """Differences 1, -2, 3: ranks 1 and 3 for, 2 against."""
    assert rank_biserial([1, 0, 3], [0, 2, 0]) == pytest.approx((1 + 3 - 2) / 6)
    assert rank_biserial([2, 3], [1, 1]) == 1
    assert math.isnan(rank_biserial([1], [1]))


def test_the_ratio_of_geometric_means_does_not_know_units() -> None:
    a, b = [2.0, 4, 8], [1.0, 4, 2]
    found = ratio_of_geometric_means(a, b)
    assert found.value == pytest.approx((2 * 1 * 4) ** (1 / 3))
    in_seconds = ratio_of_geometric_means([60 * v for v in a], [60 * v for v in b])
    assert (in_seconds.value, in_seconds.low) == pytest.approx((found.value, found.low))
    assert math.isnan(ratio_of_geometric_means([0, 1], [1, 1]).value)


def test_bland_and_altmans_peak_flow_meters() -> None:
    """Lancet 1986: Wright's large against mini peak flow meter, 17 subjects: mean difference -2.1 l/min, sd 38.8,
    limits -79.7 and 75.5 (they double the sd); standard error of the bias 9.4."""
    large = [494, 395, 516, 434, 476, 557, 413, 442, 650, 433, 417, 656, 267, 478, 178, 423, 427]
    mini = [512, 430, 520, 428, 500, 600, 364, 380, 658, 445, 432, 626, 260, 477, 259, 350, 451]
    found = bland_altman(large, mini)
    assert found.n == 17
    assert found.bias.value == pytest.approx(-2.1, abs=0.05)
    assert found.sd == pytest.approx(38.8, abs=0.05)
    assert found.lower.value == pytest.approx(-2.12 - 1.96 * 38.77, abs=0.1)
    # t(16) = 2.12, standard error of a limit about sqrt(3 / 17) 38.8 = 16.3: the interval is 34.5 to each side.
    assert found.upper.high - found.upper.value == pytest.approx(34.5, abs=1.0)


def test_non_inferiority_is_shown_by_the_interval() -> None:
    a, b = [0.80, 0.82, 0.78, 0.81, 0.79, 0.80], [0.81, 0.82, 0.80, 0.81, 0.80, 0.80]
    wide, narrow = non_inferiority(a, b, 0.03, True), non_inferiority(a, b, 0.005, True)
    assert wide.shown and not narrow.shown
    assert wide.difference.value == pytest.approx(mean_difference(a, b).value)
    # The two-sided 95 % interval ends at the margin where the one-sided p is 2.5 %.
    edge = non_inferiority(a, b, -wide.difference.low, True)
    assert edge.p == pytest.approx(0.025)
    worse = non_inferiority([10, 12, 11], [8, 9, 9], 1.0, larger_is_better=False)
    assert not worse.shown and worse.difference.value == pytest.approx(-7 / 3)
    with pytest.raises(InputError, match="above 0"):
        non_inferiority(a, b, 0, True)


def test_rank_correlation() -> None:
    """1 - 6 sum d^2 / (n (n^2 - 1)), d = 1, 1, 0, 1, 1, 0."""
    found, p = spearman([1, 2, 3, 4, 5, 6], [2, 1, 3, 5, 4, 6])
    assert found.value == pytest.approx(1 - 6 * 4 / (6 * 35))
    assert found.low < found.value < found.high and 0 < p < 0.1
    assert math.isnan(spearman([1, 1, 1, 1], [1, 2, 3, 4])[0].value)


def test_wilsons_interval_of_a_share() -> None:
    """Newcombe, Stat Med 1998;17:857-872, table I: 81 of 263 is 0.2553 to 0.3662; 0 of 20 is 0 to 0.1611."""
    assert share_interval(81, 263) == pytest.approx((0.2553, 0.3662), abs=1e-4)
    assert share_interval(0, 20) == pytest.approx((0.0, 0.1611), abs=1e-4)
    assert all(math.isnan(v) for v in share_interval(0, 0))


def test_a_figure_without_information_predicts_nothing_on_other_patients() -> None:
    rng = np.random.default_rng(2)
    groups = [f"case {n % 10}" for n in range(200)]
    x = rng.normal(size=(200, 1))
    assert cross_validated_r2(x, 3 * x[:, 0] + 1, groups) == pytest.approx(1)
    assert cross_validated_r2(x, rng.normal(size=200), groups) < 0.05
    # What tells patients apart within the fit is no use for others.
    patient = np.array([[float(g.split()[1] == str(k)) for k in range(9)] for g in groups])
    effect = np.array([int(g.split()[1]) ** 2 for g in groups], dtype=float)
    assert cross_validated_r2(patient, effect, groups) < 0
    assert math.isnan(cross_validated_r2(x, x[:, 0], ["one"] * 200))


def test_times_that_readers_cases_and_arms_explain_wholly_stop_nothing() -> None:
    """y = reader + case + arm, without a rest: the arms differ by exactly 1."""
    places = [(r, c, a) for r in range(4) for c in range(10) for a in range(2)]
    fit = fit_mixed(
        [1 + 0.1 * r + 0.3 * c + a for r, c, a in places],
        {"arm": [("revise", "scratch")[a] for _, _, a in places]},
        {"reader": [f"R{r}" for r, _, _ in places], "case": [f"c{c}" for _, c, _ in places]},
    )
    assert fit.fixed[1].value == pytest.approx(1)


@pytest.mark.parametrize("form", ["ICC(1,1)", "ICC(A,1)", "ICC(C,1)"])
def test_ratings_that_agree_exactly_have_an_icc_of_1_and_equal_ones_none(form: str) -> None:
    assert icc([[1, 1], [2, 2], [3, 3]], form).value == 1
    assert math.isnan(icc([[2, 2], [2, 2], [2, 2]], form).value)
