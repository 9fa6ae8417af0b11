"""A corner cut out of an organ along two planes is found where it is; rounded and curved organs have none."""

from __future__ import annotations

from itertools import combinations, product

import numpy as np
import pytest

from soars.findings.checks import check_contours
from soars.findings.finding import Finding, Locator
from soars.findings.notch import largest_notch, notch_findings
from soars.structures import Geometry, StructureSet

GEOMETRY = Geometry((60, 60, 40), (1.5, 1.5, 3.0), (-45.0, -45.0, -60.0))
LOCATOR = Locator(GEOMETRY, lambda p: np.asarray(p)[..., 0])
POINTS = GEOMETRY.to_physical(np.stack(np.indices(GEOMETRY.shape), -1))


def ball(radius_mm: float, centre: tuple[float, float, float] = (0.3, 0.2, 0.4)) -> np.ndarray:
    inside: np.ndarray = np.linalg.norm(POINTS - centre, axis=-1) <= radius_mm
    return inside


def organ(array: np.ndarray, name: str = "Eye_L") -> StructureSet:
    s = StructureSet(GEOMETRY)
    s.add(name, array)
    return s


def quarter(axes: tuple[int, int], signs: tuple[int, int]) -> np.ndarray:
    """What lies beyond two planes through the middle; `axes` are those of points (x, y, z)."""
    beyond: np.ndarray = np.all([s * POINTS[..., a] > 0 for a, s in zip(axes, signs, strict=True)], axis=0)
    return beyond


@pytest.mark.parametrize("axes", list(combinations(range(3), 2)), ids=str)
@pytest.mark.parametrize("signs", list(product((1, -1), (1, -1))), ids=str)
def test_a_quarter_that_is_cut_out_of_a_ball_is_found(axes: tuple[int, int], signs: tuple[int, int]) -> None:
    """Of a ball of 12 mm without a quarter, half of a cross-section through the middle lies in either plane."""
    s = organ(ball(12) & ~quarter(axes, signs))
    notch = largest_notch(s, "Eye_L")
    assert notch is not None and notch.share == pytest.approx(0.5, abs=0.13)
    (found,) = notch_findings(s, "Eye_L", LOCATOR)
    assert found.kind == "flat_face" and found.where is not None
    point = np.array(found.where.point_mm)
    (third,) = set(range(3)) - set(axes)
    assert abs(point[third]) < 6 and all(abs(point[a]) < 12 for a in axes)
    assert min(abs(point[list(axes)])) < 4, "in one of the planes"


@pytest.mark.parametrize("radius_mm", [7.0, 9.0, 12.0, 16.0, 20.0])
def test_a_ball_has_no_notch(radius_mm: float) -> None:
    for centre in ((0.0, 0.0, 0.0), (0.4, 0.7, 1.4), (0.75, 0.75, 1.5)):
        assert largest_notch(organ(ball(radius_mm, centre)), "Eye_L") is None


def test_a_curved_organ_has_no_notch() -> None:
    """A half ring, like a gland around the jaw, and a ball with a bowl pressed into it."""
    ring = np.hypot(np.hypot(POINTS[..., 0], POINTS[..., 1]) - 25, POINTS[..., 2]) < 9
    assert largest_notch(organ(ring & (POINTS[..., 1] > POINTS[..., 0])), "Eye_L") is None
    assert largest_notch(organ(ball(18) & ~ball(12, (12.0, 3.0, 9.0))), "Eye_L") is None


def test_a_corner_that_other_organs_fill_is_a_border() -> None:
    corner = quarter((0, 2), (1, -1))
    s = organ(ball(14) & ~corner)
    assert largest_notch(s, "Eye_L") is not None
    s.add("Brainstem", ball(14) & corner)
    assert largest_notch(s, "Eye_L") is None


def test_a_block_and_a_cut_that_leaves_no_corner_have_none() -> None:
    block = np.zeros(GEOMETRY.shape, bool)
    block[10:25, 20:40, 15:45] = True
    assert largest_notch(organ(block), "Eye_L") is None
    assert largest_notch(organ(ball(15) & (POINTS[..., 0] < 3)), "Eye_L") is None


def test_a_notch_is_told_once() -> None:
    """Of a large organ the planes alone are large enough to be told; the corner that they make adds nothing."""
    for radius in (9.0, 20.0):
        found: list[Finding] = check_contours(organ(ball(radius) & ~quarter((0, 2), (1, -1))), LOCATOR)
        assert [f.kind for f in found if f.kind == "flat_face"] == ["flat_face"], radius
