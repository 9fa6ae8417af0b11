"""The soft Dice confidence: the DSC that a contour would have if the probabilities were right."""

from __future__ import annotations

import numpy as np
import pytest

from soars.cascade.confidence import soft_dice, soft_organs, spill
from soars.cascade.placement import place_softmax
from soars.cascade.preprocess import Grid
from soars.cascade.windows import ProbabilityMap
from soars.structures import Geometry, StructureSet

GRID = Grid((-45.0, -42.0, -39.0), (3.0, 3.0, 3.0), (31, 29, 27))
CT = Geometry((90, 80, 27), (1.0, 1.0, 3.0), (-44.0, -39.0, -39.0))
FLIPPED = Geometry((90, 80, 27), (1.0, 1.0, 3.0), (45.0, -39.0, 39.0), (-1, 0, 0, 0, 1, 0, 0, 0, -1))


def ball_map(softness_mm: float, radius: float = 18.0, height: float = 1.0) -> ProbabilityMap:
    """A ball of probability `height` whose border is so soft."""
    points = GRID.index_to_points(np.stack(np.indices(GRID.shape), -1))
    outside = np.clip((np.linalg.norm(points, axis=-1) - radius) / softness_mm, -50, 50)
    p = height / (1 + np.exp(outside))
    return ProbabilityMap(GRID, np.rint(np.stack([1 - p, p]) * 60000).astype(np.uint16), 60000, True)


def confidence(map: ProbabilityMap, geometry: Geometry = CT) -> float:
    start, mask = place_softmax(map, ("Brainstem",), geometry, ("Brainstem",))["Brainstem"]
    structures = StructureSet(geometry)
    structures.add_crop("Brainstem", start, mask)
    return soft_dice(structures, "Brainstem", soft_organs(map, ("Brainstem",), {"Brainstem"})["Brainstem"])


def test_a_sharp_sure_organ_has_confidence_one() -> None:
    assert confidence(ball_map(0.05)) == pytest.approx(1, abs=0.02)


def test_it_is_twice_the_probability_inside_over_all_probability_and_the_mask() -> None:
    """A sharp ball of probability q: 2 q V / (q V + V) = 2 q / (q + 1)."""
    for q in (0.6, 0.8):
        assert confidence(ball_map(0.05, height=q)) == pytest.approx(2 * q / (q + 1), abs=0.02)


def test_the_spill_is_the_probability_that_no_contour_holds() -> None:
    """Voxels of probability 0.9, and half as many of 0.3 beside them: 0.15 / (0.9 + 0.15) is left out."""
    p = np.zeros((9, 9, 9))
    p[3:7, 3:7, 2:6], p[3:7, 3:7, 6:8] = 0.9, 0.3
    map = ProbabilityMap(GRID, np.rint(np.stack([1 - p, p]) * 60000).astype(np.uint16), 60000, True)
    assert spill(soft_organs(map, ("Brainstem",), {"Brainstem"})["Brainstem"]) == pytest.approx(
        1 / 7, abs=1e-3
    )
    soft = [soft_organs(ball_map(mm), ("Brainstem",), {"Brainstem"})["Brainstem"] for mm in (0.05, 2.0, 4.0)]
    assert spill(soft[0]) < spill(soft[1]) < spill(soft[2])


def test_a_softer_border_and_a_smaller_organ_are_less_sure() -> None:
    assert confidence(ball_map(0.5)) > confidence(ball_map(2.0)) > confidence(ball_map(4.0))
    assert confidence(ball_map(2.0, radius=20.0)) > confidence(ball_map(2.0, radius=10.0))


def test_it_is_the_expected_dice_of_contours_drawn_from_the_probabilities() -> None:
    """Against truths that put a border at random as the probabilities say (the radius is logistic)."""
    soft, rng = 2.5, np.random.default_rng(0)
    distance = np.linalg.norm(CT.to_physical(np.stack(np.indices(CT.shape), -1)), axis=-1)
    mask = distance < 18
    dice = []
    for u in rng.uniform(0.01, 0.99, 200):
        truth = distance < 18 + soft * np.log(u / (1 - u))
        dice.append(2 * (mask & truth).sum() / (mask.sum() + truth.sum()))
    assert confidence(ball_map(soft)) == pytest.approx(np.mean(dice), abs=0.03)


def test_the_orientation_of_the_ct_does_not_matter() -> None:
    assert confidence(ball_map(2.0)) == pytest.approx(confidence(ball_map(2.0), FLIPPED), abs=0.002)


def test_a_contour_of_which_half_was_removed_is_unsure() -> None:
    map = ball_map(0.05)
    start, mask = place_softmax(map, ("Brainstem",), CT, ("Brainstem",))["Brainstem"]
    half = mask.copy()
    half[: len(mask) // 2] = False
    structures = StructureSet(CT)
    structures.add_crop("Brainstem", start, half)
    soft = soft_organs(map, ("Brainstem",), {"Brainstem"})["Brainstem"]
    assert soft_dice(structures, "Brainstem", soft) == pytest.approx(2 / 3, abs=0.06)


def test_an_organ_that_is_nowhere_has_none() -> None:
    assert soft_organs(ball_map(0.05, height=0.3), ("Brainstem",), {"Brainstem"}) == {}
    assert soft_organs(ball_map(0.05), ("Brainstem",), set()) == {}
