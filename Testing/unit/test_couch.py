"""What the patient lies on is left out before anything is segmented, and nothing of the patient ever is."""

from __future__ import annotations

from collections.abc import Callable
from functools import cache

import numpy as np
import pytest
import scipy
import SimpleITK as sitk

from soars.cascade.couch import couch_of, patient_of, within
from soars.cascade.preprocess import find_body, resample

MM = 3.0
Z, Y, X = np.meshgrid(
    np.arange(-150, 131, MM), np.arange(-135, 136, MM), np.arange(-240, 241, MM), indexing="ij"
)
BACK_MM = 96.0
"""Where the back of the head and the shoulders lie on the couch."""


def ball(centre: tuple[float, float, float], half_axes: tuple[float, float, float]) -> np.ndarray:
    """An ellipsoid, both as (x, y, z) in mm."""
    return sum(((a - c) / h) ** 2 for a, c, h in zip((X, Y, Z), centre, half_axes, strict=True)) <= 1


@cache
def patient() -> np.ndarray:
    """Head with nose and ears, jaw, neck, shoulders that go on below the scan."""
    head = ball((0, 0, 40), (76, 96, 90))
    nose = ball((0, -98, 25), (12, 20, 22))
    ears = ball((-78, 12, 30), (14, 9, 28)) | ball((78, 12, 30), (14, 9, 28))
    neck = (X / 58) ** 2 + ((Y - 22) / 60) ** 2 <= 1
    neck &= (Z < 40) & (Z > -120)
    shoulders = ball((0, 10, -170), (215, 86, 95))
    return head | nose | ears | jaw() | neck | shoulders


def jaw() -> np.ndarray:
    """50 mm high, in front of the neck."""
    return ball((0, -50, -48), (48, 42, 25))


def mouth() -> np.ndarray:
    """Wide open: air from side to side between the head and the jaw."""
    return (np.abs(Z + 20) < 8) & (Y < -38)


def airway() -> np.ndarray:
    return ball((0, -20, 0), (14, 16, 40)) | ((X / 9) ** 2 + ((Y + 14) / 9) ** 2 <= 1) & (Z < 0)


def lungs() -> np.ndarray:
    return ball((-70, 10, -165), (48, 55, 50)) | ball((70, 10, -165), (48, 55, 50))


def scan(*, on: np.ndarray | None = None, on_hu: float = -80.0) -> tuple[np.ndarray, np.ndarray]:
    """HU of the patient, with something that is not the patient, and where the patient is."""
    body = patient()
    hu = np.full(body.shape, -1000.0)
    if on is not None:
        hu[on] = on_hu
    hu[body] = 30.0
    hu[lungs() & body] = -850.0
    hu[airway() & body] = -1000.0
    return hu + np.random.default_rng(0).normal(0, 12, hu.shape), body


def plate(thick_mm: float = 15.0, gap_mm: float = 0.0) -> np.ndarray:
    below = Y - BACK_MM - gap_mm
    return (below > 0) & (below <= thick_mm) & (np.abs(X) < 230)


def rails() -> np.ndarray:
    """Two rails on the plate, and a block below the neck that reaches up to it."""
    along = (np.abs(np.abs(X) - 80) < 12) & (Y > 82) & (Y <= 97) & ((np.abs(X) > 60) & (Z > -60))
    block = (np.abs(X) < 24) & (Y > 84) & (Y < 110) & (np.abs(Z + 70) < 21)
    return plate() | along | block


def shell() -> np.ndarray:
    """A thin skin about foam that no scanner shows: closed, with air inside."""
    outer = plate(45.0)
    return outer & ~scipy.ndimage.binary_erosion(outer)


def tilted() -> np.ndarray:
    below = Y - BACK_MM - 0.03 * Z
    return (below > 0) & (below <= 15) & (np.abs(X) < 230)


def mask() -> np.ndarray:
    """A thermoplastic sheet on the face and the front of the neck, fixed to the plate on both sides."""
    near = scipy.ndimage.binary_dilation(patient(), iterations=2)
    sheet = near & ~scipy.ndimage.binary_dilation(patient()) & (Y < 20) & (Z > -60)
    wings = (np.abs(Y - 20) < 3) & (np.abs(X) > 60) & (np.abs(X) < 140) & (np.abs(Z - 20) < 90)
    return plate() | sheet | wings


LAID_ON: dict[str, Callable[[], np.ndarray]] = {
    "plate": plate,
    "plate apart": lambda: plate(gap_mm=9.0),
    "thin plate": lambda: plate(6.0),
    "rails": rails,
    "shell": shell,
    "tilted": tilted,
    "mask": mask,
}


def found_in(hu: np.ndarray) -> np.ndarray:
    return patient_of(hu > -350.0, hu, MM)


@cache
def laid_on(what: str) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Where the patient is, where the thing is, and what was found."""
    support = LAID_ON[what]() if what != "nothing" else np.zeros(X.shape, bool)
    hu, body = scan(on=support)
    return body, support, found_in(hu)


def distance_mm(body: np.ndarray) -> np.ndarray:
    return scipy.ndimage.distance_transform_edt(~body, sampling=MM)


@pytest.mark.parametrize("what", LAID_ON)
def test_what_the_patient_lies_on_is_left_out(what: str) -> None:
    """Farther than the margin and two voxels from the skin 3 % of it are left at most."""
    body, support, found = laid_on(what)
    left = found & support & (distance_mm(body) > 12.0)
    assert left.sum() < 0.03 * (support & ~body).sum(), what


@pytest.mark.parametrize("what", [*LAID_ON, "nothing"])
def test_nothing_of_the_patient_is_left_out(what: str) -> None:
    """Nose, ears, airways and lungs included; the couch's own voxel at the skin is not the patient's."""
    body, _, found = laid_on(what)
    lost = body & ~found
    assert lost.sum() <= 0.0005 * body.sum(), what
    assert not (lost & scipy.ndimage.binary_erosion(body)).any()


def test_the_couch_is_told_where_the_patient_lies_on_it_too() -> None:
    hu, body = scan(on=plate())
    couch = couch_of(hu > -350.0, hu, MM)
    assert couch[plate() & ~body].mean() > 0.6
    assert not (couch & body).any()


def test_without_a_couch_nothing_is_taken_for_one() -> None:
    hu, _ = scan()
    assert not couch_of(hu > -350.0, hu, MM).any()


def test_metal_and_its_streaks_cut_nothing_off() -> None:
    hu, body = scan(on=plate())
    at = ball((20, -70, -5), (6, 6, 4))
    hu[at] = 3000.0
    streaks = (np.abs(Z + 5) < 6) & (np.abs((Y + 70) - 0.4 * (X - 20)) < 4) & body
    hu[streaks & ~at] = -700.0
    lost = body & ~found_in(hu)
    assert lost.sum() <= 0.001 * body.sum()


@pytest.mark.parametrize("slices", [slice(None), slice(24, 45)], ids=["long", "63 mm"])
def test_an_open_mouth_keeps_the_jaw(slices: slice) -> None:
    """Air behind it too, so that it hangs by thin strips; in the short scan it is in most slices, as a couch is."""
    hu, body = scan(on=plate())
    behind = (np.abs(Y + 38) < 8) & (np.abs(X) < 36) & (np.abs(Z + 48) < 25)
    hu[(mouth() | behind) & body] = -1000.0
    lower = (jaw() & ~mouth() & (Y < -46) & (Z < -28))[slices]
    assert lower.any(axis=(1, 2)).mean() >= (0.5 if slices.start else 0.1)
    assert not (lower & ~found_in(hu[slices])).any()


def test_of_two_bodies_the_larger_is_the_patient() -> None:
    """A water phantom or a hand beside the head is not."""
    other = ball((175, 0, 60), (35, 35, 35))
    hu, body = scan(on=plate() | other, on_hu=20.0)
    found = found_in(hu)
    assert not (found & other).any()
    assert not (scipy.ndimage.binary_erosion(body) & ~found).any()


def test_arms_raised_beside_the_head_do_not_take_the_head_away() -> None:
    arms = ((np.abs(X) - 150) / 32) ** 2 + ((Y - 10) / 32) ** 2 <= 1
    hu, body = scan(on=plate() | arms & (Z > -100), on_hu=30.0)
    assert not (scipy.ndimage.binary_erosion(body) & ~found_in(hu)).any()


def test_nothing_solid_is_no_patient() -> None:
    hu = np.full(X.shape, -1000.0)
    assert not patient_of(hu > -350.0, hu, MM).any()


def test_the_networks_see_air_where_the_couch_was() -> None:
    hu, body = scan(on=rails())
    image = sitk.GetImageFromArray(hu.astype(np.float32))
    image.SetSpacing((MM, MM, MM))
    found = find_body(image)
    mask = resample(found.mask, found.grid((MM, MM, MM)), outside=0, nearest=True) > 0
    grid = found.grid((MM, MM, MM))
    plain, _ = scan()
    alone = sitk.GetImageFromArray(plain.astype(np.float32))
    alone.SetSpacing((MM, MM, MM))
    usual = find_body(alone)
    np.testing.assert_allclose(found.head_mm, usual.head_mm, atol=0.7)
    assert mask.sum() <= 1.05 * (scipy.ndimage.binary_dilation(body, iterations=3)).sum()
    assert grid.size[0] * MM < 450


@pytest.mark.parametrize("radius", [0.0, 1.0, 2.5, 4.0, 6.0, 50.0])
def test_a_ball_about_voxels_is_what_the_distance_transform_says(radius: float) -> None:
    chance = np.random.default_rng(0)
    for share in (0.002, 0.3):
        voxels = chance.random((9, 20, 25)) < share
        expected = scipy.ndimage.distance_transform_edt(~voxels) <= radius
        assert voxels.any() and np.array_equal(within(voxels, radius), expected)
