"""The same patient gives the same organs: elsewhere in the scan, with less around, on another grid, mirrored."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import SimpleITK as sitk
from variations import (
    VARIATIONS,
    Variation,
    agreement,
    cropped,
    feet_first,
    grids_alone,
    mirrored,
    padded,
    resampled,
    shifted,
    without_couch,
)

from soars.bundle.store import load_bundle
from soars.cascade.preprocess import find_body, network_input
from soars.ct.images import CtScan, read_ct
from soars.phantom import make_phantom
from soars.run.segment import SegmentOptions, segment
from soars.structures import Geometry, StructureSet

LARGE_CC, LARGE_DSC, SMALL_DSC = 5.0, 0.97, 0.93
ANCHORS = ("Brainstem", "Cerebellum", "Eye_L", "Eye_R")
Vary = Callable[[sitk.Image], Variation]


def organs_of(image: sitk.Image, bundle: str, organs: tuple[str, ...] | None) -> StructureSet:
    options = SegmentOptions(engine="onnxruntime", organs=organs)
    return segment(CtScan(image, Path("scan"), None, []), load_bundle(bundle), options).structures


def too_low(variation: Variation, usual: StructureSet, found: StructureSet) -> dict[str, tuple[float, float]]:
    rows = agreement(variation, usual, found)
    assert len(rows) >= 3
    return {
        n: (dsc, cc) for n, (dsc, cc) in rows.items() if dsc < (LARGE_DSC if cc > LARGE_CC else SMALL_DSC)
    }


@pytest.fixture(scope="module")
def phantom() -> sitk.Image:
    """A head, down to the jaw, on a couch."""
    return make_phantom(5, spacing_mm=(1.5, 1.5, 1.5), field_of_view="head").ct


def cut_below(image: sitk.Image) -> Variation:
    return cropped(image, below_mm=30.0)


@pytest.fixture(scope="module")
def usual(phantom: sitk.Image) -> StructureSet:
    return organs_of(phantom, "phantom", ANCHORS)


def seen(image: sitk.Image) -> sitk.Image:
    body = find_body(image)
    grid = body.grid((3.0, 3.0, 3.0))
    return grid.image(network_input(image, body, grid, ((-500.0, 1000.0),))[0])


@pytest.fixture(scope="module")
def usually_seen(phantom: sitk.Image) -> sitk.Image:
    return seen(phantom)


def moved_by(*voxels: int) -> Vary:
    x, y, z = voxels
    return lambda image: shifted(image, (x, y, z))


@pytest.mark.parametrize(
    "vary", [shifted, padded, feet_first, moved_by(1, 0, 0), moved_by(0, 2, 1), moved_by(32, 5, 19)]
)
def test_a_scan_stored_otherwise_is_the_same_to_the_networks(
    phantom: sitk.Image, usually_seen: sitk.Image, vary: Vary
) -> None:
    """So the organs are. The difference is 0.1 HU, but at the side of the field of view, where shoulders leave it."""
    here, there = usually_seen, seen(vary(phantom).image)
    assert here.GetSize() == there.GetSize()
    assert max(abs(a - b) for a, b in zip(here.GetOrigin(), there.GetOrigin(), strict=True)) < 1e-3
    array = sitk.GetArrayViewFromImage
    assert (abs(array(here) - array(there)) > 0.1 / 750).mean() < 2e-4


@pytest.mark.parametrize("vary", [cut_below, resampled, without_couch, feet_first])
def test_grids_begin_at_the_same_place_of_the_patient(phantom: sitk.Image, vary: Vary) -> None:
    """To 0.4 mm, an eighth of a network's voxel, on another grid, without the couch, and whatever is cut off below."""
    usual, other = find_body(phantom).head_mm, find_body(vary(phantom).image).head_mm
    np.testing.assert_allclose(other, usual, atol=0.4)


def test_a_mirrored_patient_begins_at_the_mirrored_place(phantom: sitk.Image) -> None:
    usual, other = find_body(phantom).head_mm, find_body(mirrored(phantom).image).head_mm
    x0, width = phantom.GetOrigin()[0], (phantom.GetSize()[0] - 1) * phantom.GetSpacing()[0]
    np.testing.assert_allclose(2 * x0 + width - other[0], usual[0], atol=0.01)
    np.testing.assert_allclose(other[1:], usual[1:], atol=0.01)


@pytest.mark.slow
@pytest.mark.parametrize("vary", [cut_below, resampled, mirrored, without_couch])
def test_a_phantom_scanned_otherwise_has_the_same_organs(
    phantom: sitk.Image, usual: StructureSet, vary: Vary
) -> None:
    variation = vary(phantom)
    found = organs_of(variation.image, "phantom", ANCHORS)
    assert len(usual) == len(ANCHORS) and not too_low(variation, usual, found)


@pytest.mark.parametrize("vary", VARIATIONS)
def test_masks_come_back_from_every_variation(vary: Vary) -> None:
    """Unchanged, but for the rounding of another grid: a ball of 30 mm on voxels of 1.5 mm keeps 0.99 of its DSC."""
    grid = Geometry((70, 64, 60), (1.5, 1.5, 1.5), (-50.0, -40.0, -45.0))
    distance = np.linalg.norm(
        grid.to_physical(np.moveaxis(np.indices(grid.shape), 0, -1)) - (12, 4, 8), axis=-1
    )
    image = grid.place(sitk.GetImageFromArray(np.where(distance < 40, 40, -1000).astype(np.int16)))
    ball = StructureSet(grid)
    ball.add("Parotid_L", distance <= 15)
    variation = cropped(image, below_mm=20.0) if vary is cropped else vary(image)
    (dsc, cc), limit = grids_alone(variation, ball)["Parotid_L"], 0.99 if vary is resampled else 0.9999
    assert dsc >= limit and cc == pytest.approx(4 / 3 * np.pi * 1.5**3, rel=0.02)


def test_every_variation_is_tested() -> None:
    assert set(VARIATIONS) == {shifted, padded, feet_first, cropped, resampled, mirrored, without_couch}


@pytest.mark.slow
@pytest.mark.shared
def test_a_real_ct_that_ends_higher_up_has_the_same_organs(shared: Path) -> None:
    """The one variation that all else is in: another end, another field of view, less of the couch; organs that end
    below are not compared."""
    image = read_ct(shared / "data" / "ct_hn").image
    anchors = ("Brainstem", "Bone_Mandible_L", "Bone_Mandible_R", "SpinalCord")
    variation = cropped(image)
    usual, found = organs_of(image, "starter", anchors), organs_of(variation.image, "starter", anchors)
    assert len(usual) == len(anchors) and not too_low(variation, usual, found)
