"""Metrics of shapes whose figures are known in closed form, and what is said where a side is empty."""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np
import pytest

from soars.catalogue import CATALOGUE
from soars.errors import InputError
from soars.metrics import (
    Tolerance,
    added_path_length,
    average_each_way,
    catalogue_tolerances,
    hausdorff,
    on_other_side,
    one_tolerance,
    partner,
    read_tolerances,
    score_masks,
    score_structures,
    surface_dice,
    surface_distances,
    surface_overlap,
)
from soars.metrics.marching import element_areas
from soars.metrics.surface import corner_surface, voxel_surface
from soars.structures import Geometry, StructureSet
from soars.structures.model import Mask, tight_mask

EMPTY = np.zeros((4, 4, 4), bool)


def _box(low: tuple[int, int, int], size: tuple[int, int, int]) -> Mask:
    return Mask(low, np.ones(size, bool))


def _ball(radius_mm: float, spacing: tuple[float, float, float], shift: float = 0.0) -> Mask:
    """A ball's voxels (centre inside), centre at (30, 30, 30 + shift) mm."""
    axes = [np.arange(int(60 / s) + 1) * s for s in spacing]
    z, y, x = np.meshgrid(*axes, indexing="ij", sparse=True)
    return tight_mask((z - 30) ** 2 + (y - 30) ** 2 + (x - 30 - shift) ** 2 <= radius_mm**2)


def _geometry(shape: tuple[int, int, int], spacing: tuple[float, float, float] = (1.0, 1.0, 1.0)) -> Geometry:
    return Geometry(shape[::-1], spacing[::-1], (0.0, 0.0, 0.0))


# --- surfaces -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("spacing", [(1.0, 1.0, 1.0), (2.5, 0.9, 0.9), (3.0, 1.0, 0.5)])
def test_surface_of_a_box_is_that_of_the_box_with_cut_edges(spacing: tuple[float, float, float]) -> None:
    """Six faces between the outermost voxels' centres, a bevel of half a voxel along each edge, and eight
    corners."""
    size = (5, 6, 7)
    surface = corner_surface(_box((3, 2, 1), size), spacing)
    (a, b, c), (dz, dy, dx) = ((n - 1) * s for n, s in zip(size, spacing, strict=True)), spacing
    faces = 2 * (a * b + b * c + a * c)
    bevels = 4 * (
        a * math.hypot(dy / 2, dx / 2) + b * math.hypot(dz / 2, dx / 2) + c * math.hypot(dz / 2, dy / 2)
    )
    corner = 0.5 * math.hypot(dy * dx, dz * dx, dz * dy) / 4
    assert surface.weight.sum() == pytest.approx(faces + bevels + 8 * corner, rel=1e-12)
    assert len(surface) == math.prod(n + 1 for n in size) - math.prod(n - 1 for n in size)


def test_surface_of_a_ball_is_near_its_area_from_above() -> None:
    for spacing in ((0.5, 0.5, 0.5), (1.0, 0.5, 0.5)):
        area = corner_surface(_ball(20, spacing), spacing).weight.sum()
        assert 1.0 < area / (4 * math.pi * 20**2) < 1.12  # midpoints make a staircase of it


def test_border_voxels_of_a_box_are_its_shell() -> None:
    assert len(voxel_surface(_box((0, 0, 0), (5, 6, 7)))) == 5 * 6 * 7 - 3 * 4 * 5
    assert len(voxel_surface(_box((0, 0, 0), (1, 1, 1)))) == 1


def test_a_neighbourhood_and_its_complement_have_the_same_area() -> None:
    areas = element_areas((2.5, 1.0, 0.7))
    np.testing.assert_array_equal(areas, areas[::-1])
    assert areas[0] == areas[255] == 0 and (areas[1:255] > 0).all()
    assert areas[0b00001111] == pytest.approx(1.0 * 0.7)  # a plane across z


# --- distances ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("definition", ["surface-distance", "monai", "medpy"])
@pytest.mark.parametrize("spacing", [(1.0, 1.0, 1.0), (2.5, 0.9, 0.9)])
def test_a_shifted_box_is_as_far_as_it_was_shifted(
    definition: str, spacing: tuple[float, float, float]
) -> None:
    """Two copies, shifted by less than their size: no point of one is further from the other than the shift."""
    a, b = _box((4, 4, 4), (9, 9, 9)), _box((4, 4, 7), (9, 9, 9))
    distances = surface_distances(b, a, spacing, definition)
    assert hausdorff(distances) == pytest.approx(3 * spacing[2], rel=1e-6)


def test_a_thin_sheet_shifted_by_two_slices_is_two_slices_away_everywhere() -> None:
    a, b = _box((2, 0, 0), (1, 30, 30)), _box((5, 0, 0), (1, 30, 30))
    d = surface_distances(b, a, (2.0, 1.0, 1.0), "monai")
    assert hausdorff(d) == hausdorff(d, 95) == 6.0
    assert average_each_way(d) == (6.0, 6.0)
    assert surface_dice(d, 6.0) == 1.0 and surface_dice(d, 5.99) == 0.0


def test_balls_one_inside_the_other_are_apart_by_the_difference_of_their_radii() -> None:
    spacing = (0.5, 0.5, 0.5)
    d = surface_distances(_ball(20, spacing), _ball(16, spacing), spacing)
    assert hausdorff(d) == pytest.approx(4, abs=0.9)
    # elements stand at all corners the surface passes by, so the nearest two are up to a voxel nearer than it is
    assert average_each_way(d) == (pytest.approx(4, abs=0.4), pytest.approx(4, abs=0.4))
    assert surface_dice(d, 5.0) == 1.0 and surface_dice(d, 3.0) == 0.0


def test_shifted_balls_have_the_overlap_of_two_spheres() -> None:
    """Two balls of radius r at distance d share pi (4 r + d) (2 r - d)^2 / 12."""
    spacing, radius, shift = (0.5, 0.5, 0.5), 20.0, 6.0
    common = math.pi * (4 * radius + shift) * (2 * radius - shift) ** 2 / 12
    volume = 4 / 3 * math.pi * radius**3
    geometry = _geometry((121, 121, 133), spacing)
    axes = _ball(radius, spacing, shift)
    score = score_masks(axes, _ball(radius, spacing), geometry)
    assert score.dsc == pytest.approx(common / volume, rel=2e-3)
    assert score.volume_cc == pytest.approx(volume / 1000, rel=2e-3)
    assert score.centroid_shift_lps_mm == pytest.approx((6, 0, 0), abs=1e-9)
    assert score.centroid_shift_mm == pytest.approx(6)
    assert score.hd_mm == pytest.approx(6, abs=0.6)


def test_surface_dsc_counts_just_the_tolerance_as_within() -> None:
    spacing = (2.5, 0.9766, 0.9766)
    a, b = _box((2, 0, 0), (1, 9, 9)), _box((3, 0, 0), (1, 9, 9))
    for definition in ("surface-distance", "monai"):
        d = surface_distances(a, b, spacing, definition)
        assert surface_dice(d, 2.5) == 1.0 and surface_overlap(d, 2.5) == (1.0, 1.0)


def test_equal_masks_are_perfect_wherever_they_lie() -> None:
    mask = tight_mask(np.random.default_rng(0).random((7, 8, 9)) < 0.4, (100, 3, 50))
    score = score_masks(mask, mask, _geometry((120, 20, 70)), tolerance=Tolerance(0, "test"))
    assert (score.dsc, score.surface_dsc) == (1, 1)
    assert (score.hd_mm, score.hd95_mm, score.asd_mm, score.apl_mm, score.centroid_shift_mm) == (
        0,
        0,
        0,
        0,
        0,
    )


def test_distance_does_not_depend_on_the_order_of_the_axes() -> None:
    rng = np.random.default_rng(3)
    a, b = rng.random((2, 9, 11, 13)) < 0.3
    spacing = np.array([2.5, 1.0, 0.7])
    wanted = surface_distances(tight_mask(a), tight_mask(b), tuple(spacing))
    for axes in ((2, 0, 1), (1, 2, 0), (0, 2, 1)):
        turned = surface_distances(
            tight_mask(a.transpose(axes)), tight_mask(b.transpose(axes)), tuple(spacing[list(axes)])
        )
        np.testing.assert_allclose(turned.to_reference_mm, wanted.to_reference_mm, rtol=1e-12)
        assert surface_dice(turned, 1.2) == pytest.approx(surface_dice(wanted, 1.2))


def test_far_apart_masks_need_no_array_of_all_between(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("soars.metrics.nearest._MOST_VOXELS", 10)
    d = surface_distances(_box((0, 0, 0), (1, 1, 1)), _box((3, 4, 0), (1, 1, 1)), (1.0, 1.0, 1.0), "medpy")
    assert hausdorff(d) == 5.0


def test_an_unknown_definition_is_refused_by_name() -> None:
    with pytest.raises(InputError, match="'itk'; there are surface-distance, monai, medpy"):
        surface_distances(_box((0, 0, 0), (1, 1, 1)), _box((0, 0, 0), (1, 1, 1)), (1.0, 1.0, 1.0), "itk")


# --- added path length --------------------------------------------------------------------------------------------


def test_added_path_length_counts_the_references_pixels_that_were_not_drawn() -> None:
    """A 10 x 10 square's contour has 36 pixels. Drawn one to the side, two of its sides lie elsewhere."""
    reference = _box((0, 5, 5), (2, 10, 10))
    spacing = (3.0, 0.5, 0.5)
    assert added_path_length(tight_mask(EMPTY), reference, spacing) == 2 * 36 * 0.5
    assert added_path_length(reference, reference, spacing) == 0
    shifted = _box((0, 5, 6), (2, 10, 10))
    # left side: 10 pixels; right side: its 10 but for the two that are also on the other's rows above and below
    assert added_path_length(shifted, reference, spacing) == 2 * (10 + 8) * 0.5


def test_added_path_length_takes_the_geometric_mean_of_pixels_that_are_not_square() -> None:
    assert added_path_length(tight_mask(EMPTY), _box((0, 0, 0), (1, 1, 1)), (2.0, 4.0, 1.0)) == 2.0


# --- states -------------------------------------------------------------------------------------------------------


def _two_sets() -> tuple[StructureSet, StructureSet]:
    geometry = _geometry((10, 20, 40))
    prediction, reference = StructureSet(geometry), StructureSet(geometry)
    reference.add_mask("Parotid_L", _box((2, 2, 30), (4, 5, 6)))
    reference.add_mask("Parotid_R", _box((2, 2, 4), (4, 5, 6)))
    reference.add_mask("Lens_L", tight_mask(EMPTY))
    reference.add_mask("Lens_R", tight_mask(EMPTY))
    reference.add_mask("Brainstem", _box((1, 10, 15), (3, 4, 5)))
    prediction.add_mask("Parotid_L", _box((2, 2, 30), (4, 5, 6)))
    prediction.add_mask("Parotid_R", tight_mask(EMPTY))
    prediction.add_mask("Lens_L", _box((1, 1, 1), (1, 1, 1)))
    prediction.add_mask("Lens_R", tight_mask(EMPTY))
    prediction.add_mask("Larynx", _box((1, 10, 15), (3, 4, 5)))
    return prediction, reference


def test_what_is_compared_missing_extra_empty_and_not_annotated_is_told_apart() -> None:
    scores = {s.organ: s for s in score_structures(*_two_sets())}
    assert {name: s.state for name, s in scores.items()} == {
        "Parotid_L": "compared",
        "Parotid_R": "missing",
        "Lens_L": "extra",
        "Lens_R": "both empty",
        "Brainstem": "missing",
        "Larynx": "not annotated",
    }
    for name in ("Parotid_R", "Brainstem", "Lens_L"):
        s = scores[name]
        assert (s.dsc, s.surface_dsc) == (0, 0)
        assert s.hd_mm == s.hd95_mm == s.asd_mm == math.inf
        assert math.isnan(s.centroid_shift_mm)
    for name in ("Lens_R", "Larynx"):
        s = scores[name]
        assert all(math.isnan(v) for v in (s.dsc, s.hd_mm, s.hd95_mm, s.asd_mm, s.surface_dsc))
    assert scores["Brainstem"].volume_difference_percent == -100
    assert scores["Larynx"].volume_cc == pytest.approx(0.06) and math.isnan(
        scores["Larynx"].reference_volume_cc
    )


def test_organs_are_scored_alike_on_one_thread_and_on_three() -> None:
    prediction, reference = _two_sets()
    done: list[int] = []
    assert repr(
        score_structures(prediction, reference, threads=3, progress=lambda p: done.append(p.done))
    ) == repr(score_structures(prediction, reference))
    assert done == [1, 2, 3, 4, 5, 6]


def test_sets_on_different_grids_are_refused() -> None:
    prediction, _ = _two_sets()
    with pytest.raises(InputError, match="different grids"):
        score_structures(prediction, StructureSet(_geometry((10, 20, 41))))


# --- sides --------------------------------------------------------------------------------------------------------


def test_every_organ_with_a_side_has_its_partner() -> None:
    for oar in CATALOGUE.values():
        other = partner(oar.name)
        if oar.side is None:
            assert other is None
        else:
            assert other is not None and partner(other) == oar.name and other != oar.name


def test_swapped_sides_are_seen() -> None:
    _, reference = _two_sets()
    swapped = StructureSet(reference.geometry)
    swapped.add_mask("Parotid_L", reference.crop("Parotid_R"))
    swapped.add_mask("Parotid_R", reference.crop("Parotid_L"))
    assert all(on_other_side(name, swapped, reference) for name in swapped)
    assert not any(on_other_side(name, reference, reference) for name in reference)
    flags = {s.organ: s.other_side for s in score_structures(swapped, reference)}
    assert flags["Parotid_L"] and flags["Parotid_R"] and not flags["Brainstem"]


# --- tolerances ---------------------------------------------------------------------------------------------------


def test_the_catalogues_tolerances_say_where_they_are_from() -> None:
    tolerances = catalogue_tolerances()
    assert tolerances["Brainstem"].mm == 2.5 and tolerances["Parotid_R"].mm == 2.85
    assert (
        "not verified" in tolerances["Lens_L"].source and "not verified" not in tolerances["Brainstem"].source
    )


def test_a_file_of_tolerances_replaces_them(tmp_path: Path) -> None:
    file = tmp_path / "tolerances.csv"
    file.write_text("organ,tolerance_mm,source\nLeft parotid,1.5,our clinic\n*,3,\n")
    found = read_tolerances(file)
    assert found["Parotid_L"] == Tolerance(1.5, "our clinic")
    prediction, reference = _two_sets()
    scores = {s.organ: s for s in score_structures(prediction, reference, tolerances=found)}
    assert scores["Parotid_L"].tolerance_mm == 1.5
    assert scores["Brainstem"].tolerance_mm == 3 and scores["Brainstem"].tolerance_source == "tolerances.csv"


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("", "holds no tolerance"),
        ("organ,mm\nBrainstem,2\n", "line 2: the columns organ and tolerance_mm"),
        ("organ,tolerance_mm\nBrainstem,wide\n", "'wide' is not a tolerance"),
        ("organ,tolerance_mm\nBrainstem,-1\n", "zero or more"),
        ("organ,tolerance_mm\nBrainstem,1\nbrain stem,2\n", "line 3: Brainstem occurs twice"),
    ],
)
def test_what_is_no_tolerance_is_refused_with_its_line(tmp_path: Path, text: str, said: str) -> None:
    file = tmp_path / "t.csv"
    file.write_text(text)
    with pytest.raises(InputError, match=said):
        read_tolerances(file)


def test_an_organ_without_a_tolerance_has_no_surface_dsc() -> None:
    geometry = _geometry((10, 20, 40))
    both = StructureSet(geometry)
    both.add_mask("Cerebellum", _box((1, 1, 1), (3, 3, 3)))
    (score,) = score_structures(both, both)
    assert score.tolerance_mm is None and math.isnan(score.surface_dsc)
    (score,) = score_structures(both, both, tolerances=one_tolerance(2))
    assert score.tolerance_mm == 2 and score.surface_dsc == 1
