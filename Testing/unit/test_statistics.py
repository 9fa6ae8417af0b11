"""Statistics against the examples of their own literature."""

from __future__ import annotations

import math
from dataclasses import replace
from itertools import product

import numpy as np
import pytest

from soars.errors import InputError
from soars.metrics.evaluate import CaseScores
from soars.metrics.rules import han_seg_rule
from soars.metrics.scores import COMPARED, MISSING, OrganScore, not_annotated
from soars.study.ranking import rank_methods
from soars.study.statistics import (
    adjust,
    bootstrap_interval,
    icc,
    mann_whitney_u,
    wilcoxon_matched_pairs,
)

SHROUT_FLEISS = [
    [9, 2, 5, 8],
    [6, 1, 3, 2],
    [8, 4, 6, 8],
    [7, 1, 2, 6],
    [10, 5, 6, 9],
    [6, 2, 4, 7],
]
"""Table 2 of Shrout and Fleiss, Psychological Bulletin 1979: six subjects, four judges."""


def test_wilcoxon_on_a_textbook_example() -> None:
    """Lowry's ten pairs with one tie: ranks of differences sum to 27 and 18."""
    first = [125, 115, 130, 140, 140, 115, 140, 125, 140, 135]
    second = [110, 122, 125, 120, 140, 124, 123, 137, 135, 145]
    found = wilcoxon_matched_pairs(first, second)
    assert found.statistic == 18 and found.n == 10
    ranks = [7, 3, 1.5, 9, 4, 8, 6, 1.5, 5]
    sums = [np.dot(ranks, signs) for signs in product((0, 1), repeat=9)]
    assert found.p == pytest.approx(2 * np.mean(np.array(sums) <= 18))
    assert found.median_difference == pytest.approx(2.5)


def test_wilcoxon_counts_small_samples_exactly() -> None:
    """Of 2^6 signs only one is as extreme on the same side."""
    assert wilcoxon_matched_pairs([2, 4, 6, 8, 10, 12], [1, 2, 3, 4, 5, 6], "greater").p == 1 / 64
    assert wilcoxon_matched_pairs([2, 4, 6, 8, 10, 12], [1, 2, 3, 4, 5, 6]).p == 2 / 64


def test_pairs_without_any_difference_are_no_evidence() -> None:
    assert wilcoxon_matched_pairs([1, 2, 3], [1, 2, 3]).p == 1


def test_mann_whitney_on_tortoises_and_hares() -> None:
    """Places T HHHHH TTTTT H: U is 11 for one and 25 for the other kind."""
    tortoises, hares = [1, 7, 8, 9, 10, 11], [2, 3, 4, 5, 6, 12]
    found = mann_whitney_u(tortoises, hares)
    assert found.statistic == 25 and mann_whitney_u(hares, tortoises).statistic == 11
    assert found.p == pytest.approx(0.3095, abs=1e-4)


def test_holm_and_bonferroni() -> None:
    p = [0.01, 0.04, 0.03, 0.005]
    assert adjust(p, "holm") == pytest.approx([0.03, 0.06, 0.06, 0.02])
    assert adjust(p, "bonferroni") == pytest.approx([0.04, 0.16, 0.12, 0.02])
    assert adjust([]) == []


@pytest.mark.parametrize(
    ("form", "value", "low", "high"),
    [
        ("ICC(1,1)", 0.166, -0.133, 0.723),
        ("ICC(A,1)", 0.290, 0.019, 0.761),
        ("ICC(C,1)", 0.715, 0.342, 0.946),
    ],
)
def test_icc_of_shrout_and_fleiss(form: str, value: float, low: float, high: float) -> None:
    """.17, .29 and .71 in the paper; intervals as R's psych gives them."""
    found = icc(SHROUT_FLEISS, form)
    assert (found.value, found.low, found.high) == pytest.approx((value, low, high), abs=1e-3)
    assert (found.subjects, found.raters) == (6, 4)


def test_bootstrap_of_the_mean_is_near_the_normal_interval() -> None:
    values = np.random.default_rng(1).normal(10, 2, 200)
    found = bootstrap_interval(values.tolist())
    half = 1.96 * values.std(ddof=1) / math.sqrt(200)
    assert found.value == pytest.approx(values.mean())
    assert (found.low, found.high) == pytest.approx((values.mean() - half, values.mean() + half), abs=0.05)
    assert bootstrap_interval(values.tolist()) == found  # the same seed, the same interval
    constant = bootstrap_interval([3.0, 3.0, 3.0], np.median)
    assert (constant.low, constant.value, constant.high) == (3, 3, 3)


@pytest.mark.parametrize(
    ("call", "said"),
    [
        (lambda: wilcoxon_matched_pairs([1, 2], [1]), "there are 2 and 1"),
        (lambda: wilcoxon_matched_pairs([1, math.inf], [1, 2]), "1 of 2 are not finite"),
        (lambda: wilcoxon_matched_pairs([1], [2], "unequal"), "unknown alternative"),
        (lambda: mann_whitney_u([], [1]), "at least one value"),
        (lambda: adjust([0.1], "sidak"), "bonferroni, holm"),
        (lambda: adjust([1.1]), "between 0 and 1"),
        (lambda: icc([[1, 2]]), "two subjects"),
        (lambda: icc([[1, 2], [3, math.nan]]), "every rater's number"),
        (lambda: icc(SHROUT_FLEISS, "ICC(2)"), "unknown form"),
        (lambda: bootstrap_interval([1]), "two values"),
        (lambda: rank_methods({"one": []}), "at least two methods"),
    ],
)
def test_what_cannot_be_computed_is_refused(call: object, said: str) -> None:
    with pytest.raises(InputError, match=said):
        call()  # type: ignore[operator]


# --- several methods ----------------------------------------------------------------------------------------------


def _score(organ: str, dsc: float, hd95: float) -> OrganScore:
    return replace(not_annotated(organ), state=COMPARED, dsc=dsc, hd95_mm=hd95)


def _missing(organ: str) -> OrganScore:
    return replace(not_annotated(organ), state=MISSING, dsc=0.0, hd95_mm=math.inf)


def test_a_missing_organ_gets_the_worst_distance_of_the_other_methods() -> None:
    methods = {
        "a": [CaseScores("1", (_score("Lens_L", 0.8, 2.0), _missing("Lens_R")))],
        "b": [CaseScores("1", (_missing("Lens_L"), _missing("Lens_R")))],
        "c": [CaseScores("1", (_score("Lens_L", 0.7, 5.0), _missing("Lens_R")))],
        "d": [CaseScores("2", (_score("Lens_R", 0.7, 3.0),))],
    }
    filled = han_seg_rule(methods)
    assert [s.hd95_mm for s in filled["b"][0].scores] == [5.0, 3.0]
    assert [s.dsc for s in filled["b"][0].scores] == [0, 0]
    assert filled["a"][0].scores[0] == methods["a"][0].scores[0]
    assert han_seg_rule(filled) == filled
    with pytest.raises(InputError, match="no method has any organ"):
        han_seg_rule({"b": methods["b"]})


def test_the_challenges_rule_can_be_read_for_an_organ_in_all_cases() -> None:
    """In case 1 the others are 2 and 5 mm off, in case 2 one is 9 mm off."""
    methods = {
        "a": [
            CaseScores("1", (_score("Lens_L", 0.8, 2.0),)),
            CaseScores("2", (_score("Lens_L", 0.5, 9.0),)),
        ],
        "b": [CaseScores("1", (_missing("Lens_L"),))],
        "c": [CaseScores("1", (_score("Lens_L", 0.7, 5.0),))],
    }
    found = {
        reading: han_seg_rule(methods, reading)["b"][0].scores[0].hd95_mm for reading in ("case", "organ")
    }
    assert found == {"case": 5.0, "organ": 9.0}
    with pytest.raises(InputError, match="unknown reading 'patient'"):
        han_seg_rule(methods, "patient")


def test_equal_mean_ranks_are_told_apart_by_the_means_where_these_agree() -> None:
    """Of three cases no test is significant. The first is better than the third by both figures, the second by one."""
    means = {"dsc_first": (0.8, 3.0), "both": (0.8, 2.0), "hd_first": (0.6, 1.0), "last": (0.5, 4.0)}
    found = rank_methods(
        {name: [CaseScores(str(i), (_score("Lens_L", *m),)) for i in range(3)] for name, m in means.items()}
    )
    assert {m.mean_rank for m in found} == {1.0}
    assert {m.method: m.rank for m in found} == {"both": 1, "hd_first": 1, "dsc_first": 2, "last": 4}


def test_methods_are_ranked_by_how_many_they_are_significantly_better_than() -> None:
    rng = np.random.default_rng(0)
    base = rng.uniform(0.6, 0.8, 40)

    def method(gain: float, distance: float) -> list[CaseScores]:
        return [
            CaseScores(
                str(i),
                (_score("Parotid_L", b + gain + rng.normal(0, 0.001), distance + rng.normal(0, 0.01)),),
            )
            for i, b in enumerate(base)
        ]

    found = rank_methods(
        {"middle": method(0.05, 3), "best": method(0.1, 2), "twin": method(0.1002, 2), "worst": method(0, 4)}
    )
    best, twin = ([f.mean for f in m.figures] for m in sorted(found[:2], key=lambda m: m.method))
    assert best[0] < twin[0] and best[1] < twin[1]  # the one by DSC, the other by distance
    assert {m.method for m in found[:2]} == {"best", "twin"}
    assert [m.method for m in found[2:]] == ["middle", "worst"]
    assert [m.rank for m in found] == [1, 1, 3, 4]
    assert [[f.significance_score for f in m.figures] for m in found] == [[2, 2], [2, 2], [1, 1], [0, 0]]


def test_a_ranking_corrects_after_bonferroni_as_the_challenge_does() -> None:
    """Nine cases, one-sided: A beats B with p = 1/512, and C with 5/512 (a rank sum of 3 of 45 against it). Of six
    ordered pairs Bonferroni makes 5/512 to 0.059, Holm to 0.049: A has beaten one method or two."""

    def method(differences: list[float]) -> list[CaseScores]:
        return [CaseScores(str(i), (_score("Parotid_L", 0.8 - d, 1.0),)) for i, d in enumerate(differences)]

    steps = [0.01 * i for i in range(1, 10)]
    a, b = method([0.0] * 9), method(steps)
    c = method(
        [-step if i == 2 else step for i, step in enumerate(steps)]
    )  # 3rd smallest the other way: W = 3
    found = {m.method: m for m in rank_methods({"A": a, "B": b, "C": c}, figures=("dsc",))}
    assert found["A"].figures[0].significance_score == 1
    holm = {m.method: m for m in rank_methods({"A": a, "B": b, "C": c}, figures=("dsc",), correction="holm")}
    assert holm["A"].figures[0].significance_score == 2
