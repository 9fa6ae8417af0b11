"""The patient is the same voxels wherever they lie in the scan, and a large scan needs little more than itself."""

from __future__ import annotations

import numpy as np
import pytest
import SimpleITK as sitk

from soars.cascade import preprocess
from soars.cascade.preprocess import Grid, blur, find_body, network_input, resample

SPACING = (1.6, 1.6, 2.5)
WINDOW = ((-500.0, 1000.0),)


def head(size: tuple[int, int, int] = (120, 130, 70), noise: float = 15.0) -> sitk.Image:
    """A head of 160 x 180 x 150 mm with an airway and bone, in air of some noise; a couch lies beneath."""
    x, y, z = (np.arange(n) * s for n, s in zip(size, SPACING, strict=True))
    z, y, x = np.meshgrid(z, y, x, indexing="ij")
    middle = np.array([96.0, 100.0, 90.0])

    def ball(centre: np.ndarray, half: tuple[float, float, float]) -> np.ndarray:
        return sum(((a - c) / h) ** 2 for a, c, h in zip((x, y, z), centre, half, strict=True)) < 1

    hu = np.full(x.shape, -1000.0)
    hu[ball(middle, (80, 85, 75))] = 40
    hu[ball(middle + (0, -30, -20), (12, 12, 40))] = -950
    hu[ball(middle + (0, 30, 10), (20, 15, 40))] = 700
    hu[(y > 195) & (y < 200)] = 100
    hu += np.random.default_rng(0).normal(0, noise, hu.shape)
    image = sitk.GetImageFromArray(np.rint(hu).astype(np.int16))
    image.SetSpacing(SPACING)
    image.SetOrigin((-90.0, -110.0, 20.0))
    return image


def seen(image: sitk.Image) -> tuple[Grid, np.ndarray]:
    body = find_body(image)
    grid = body.grid((3.0, 3.0, 3.0))
    return grid, network_input(image, body, grid, WINDOW)


@pytest.fixture(scope="module")
def usual() -> tuple[Grid, np.ndarray]:
    return seen(head())


def test_a_patient_elsewhere_in_the_room_is_the_same_voxels(usual: tuple[Grid, np.ndarray]) -> None:
    moved = head()
    moved.SetOrigin((13.7, -21.1, -432.4))
    grid, values = seen(moved)
    np.testing.assert_allclose(
        np.subtract(grid.origin_mm, usual[0].origin_mm), (103.7, 88.9, -452.4), atol=1e-6
    )
    np.testing.assert_allclose(values, usual[1], atol=1e-4)


@pytest.mark.parametrize("air", [-1000.0, -1024.0])
def test_air_around_the_scan_changes_nothing(usual: tuple[Grid, np.ndarray], air: float) -> None:
    grid, values = seen(sitk.ConstantPad(head(), (13, 7, 4), (20, 31, 5), air))
    assert grid.size == usual[0].size
    np.testing.assert_allclose(grid.origin_mm, usual[0].origin_mm, atol=1e-6)
    np.testing.assert_allclose(values, usual[1], atol=1e-4)


def test_feet_first_prone_and_sagittal_scans_are_the_same_patient(usual: tuple[Grid, np.ndarray]) -> None:
    for code in ("RAI", "LAS", "PSR"):
        grid, values = seen(sitk.DICOMOrient(head(), code))
        np.testing.assert_allclose(grid.origin_mm, usual[0].origin_mm, atol=1e-4)
        np.testing.assert_allclose(values, usual[1], atol=2e-3, err_msg=code)


def test_a_mirrored_patient_is_seen_mirrored(usual: tuple[Grid, np.ndarray]) -> None:
    array = sitk.GetArrayFromImage(head())[:, :, ::-1].copy()
    mirrored = sitk.GetImageFromArray(array)
    mirrored.CopyInformation(head())
    np.testing.assert_allclose(seen(mirrored)[1][..., ::-1], usual[1], atol=1e-3)


def test_the_couch_is_no_part_of_the_patient(usual: tuple[Grid, np.ndarray]) -> None:
    grid, values = usual
    y = grid.origin_mm[1] + 3.0 * np.arange(grid.size[1])
    assert (values[:, :, y > -110 + 194.5] == -1).all()


@pytest.mark.parametrize("first", [26, 27, 28, 29])
def test_a_scan_that_ends_within_the_patient_ends_with_the_patient(first: int) -> None:
    """Not with air, wherever the centres of the grid's last voxels lie: just within the scan, or just beyond it."""
    whole = head(noise=0.0)
    cut = whole[:, :, first:]
    body = find_body(cut)
    grid = body.grid((3.0, 3.0, 3.0))
    values = network_input(cut, body, grid, WINDOW)[0]
    assert abs(grid.origin_mm[2] - (cut.GetOrigin()[2] - 1.25)) <= 1.5
    tissue = (values > -0.5).sum(axis=(1, 2))
    assert tissue[0] == pytest.approx(tissue[1], rel=0.05)


def test_a_scan_masked_by_somebody_is_kept_whole_and_one_with_noise_is_not() -> None:
    masked = sitk.GetArrayFromImage(head(noise=0.0))
    image = sitk.GetImageFromArray(masked)
    image.CopyInformation(head())
    assert find_body(image).already_masked
    assert not find_body(head()).already_masked
    assert not find_body(sitk.ConstantPad(head(), (40, 40, 0), (40, 40, 0), -1000.0)).already_masked


@pytest.mark.parametrize("smooth", [True, False])
def test_slabs_make_no_difference(monkeypatch: pytest.MonkeyPatch, smooth: bool) -> None:
    for image in (head(), sitk.DICOMOrient(head(), "PSR")):
        grid = Grid((-80.0, -100.0, 25.0), (3.0, 3.0, 4.0), (50, 55, 40))
        whole = resample(image, grid, outside=-1000, smooth=smooth)
        monkeypatch.setattr(preprocess, "SLAB_VOXELS", image.GetNumberOfPixels() // 7)
        parts = resample(image, grid, outside=-1000, smooth=smooth)
        monkeypatch.undo()
        assert parts.shape == whole.shape == grid.shape
        np.testing.assert_allclose(parts, whole, atol=0.5)  # HU


def along_z(values: np.ndarray, spacing: float, first: float = 0.0) -> sitk.Image:
    """An image with these values along z."""
    image = sitk.GetImageFromArray(
        np.broadcast_to(values[:, None, None], (len(values), 6, 6)).astype(np.float32)
    )
    image.SetSpacing((1.0, 1.0, spacing))
    image.SetOrigin((0.0, 0.0, first))
    return image


@pytest.mark.parametrize("spacing", [0.7, 1.0, 2.4, 3.0, 4.5])
@pytest.mark.parametrize("offset", [0.0, 0.31, 0.5, 0.93])
def test_every_point_is_blurred_alike(spacing: float, offset: float) -> None:
    """Blur of a variance adds that variance to a parabola; a mean and a slope it leaves alone."""
    z = np.arange(80) * spacing
    grid = Grid((2.0, 2.0, float(z[30] + offset * spacing)), (1.0, 1.0, 3.0), (1, 1, 4))
    points = grid.origin_mm[2] + np.arange(4) * 3.0
    for values, expected in (
        (5 + 2 * z, 5 + 2 * points),
        (z**2, points**2 + spacing**2 * blur(spacing, 3.0)),
    ):
        found = resample(along_z(values, spacing), grid, outside=0)[:, 0, 0]
        np.testing.assert_allclose(found, expected, rtol=1e-4)


def test_the_blur_is_that_of_linear_interpolation_on_average_and_then_of_the_coarser_grid() -> None:
    """The FWHM of a Gaussian is 2 sqrt(2 ln 2) standard deviations, and widths add up as squares."""
    assert (
        blur(3.0, 3.0)
        == blur(3.9, 3.0)
        == pytest.approx(np.mean([t * (1 - t) for t in np.linspace(0, 1, 10001)]), abs=1e-4)
    )
    wider = blur(1.0, 3.0) - blur(3.0, 3.0)
    assert 1 + (2 * np.sqrt(2 * np.log(2))) ** 2 * wider == pytest.approx(9.0)


def test_detail_is_the_same_wherever_the_voxels_lie() -> None:
    """A wave of eight voxels, which linear interpolation makes 8 % lower between voxels than on them."""
    grid = Grid((2.0, 2.0, 60.0), (1.0, 1.0, 3.0), (1, 1, 20))
    found = []
    for first in (0.0, 1.5):
        z = first + np.arange(60) * 3.0
        found.append(resample(along_z(1000 * np.cos(2 * np.pi * z / 24), 3.0, first), grid, outside=0))
    np.testing.assert_allclose(found[0], found[1], atol=3)


def test_metal_on_an_extended_scale_is_metal_on_the_usual_one() -> None:
    """Scanners give a filling 3071 HU, or with an extended scale tens of thousands: what lies beside it is the same."""

    def filled(hu: int) -> sitk.Image:
        values = sitk.GetArrayFromImage(head())
        values[34:37, 55:58, 59:62] = hu
        image = sitk.GetImageFromArray(values)
        image.CopyInformation(head())
        return image

    grid, usual_scale = seen(filled(3071))
    other, extended = seen(filled(32767))
    assert grid == other
    np.testing.assert_array_equal(extended, usual_scale)
