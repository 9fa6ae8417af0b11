"""The page holds the CT and the organs such that the viewer shows what a planning system would, in a bounded file."""

from __future__ import annotations

import base64
import itertools
import json
import time
import zlib

import numpy as np
import pytest
import SimpleITK as sitk
from report_scene import BALLS, CENTRE, record_of, scene

from soars.report.embed import LEVELS_HU, embed, middle_voxel, pack, script_json
from soars.report.upright import AxialSlices, _turned, upright
from soars.report.words import duration, length_mm, listed, place, place_on_axis, volume_cc
from soars.structures import Geometry, StructureSet, tight_mask


def unpack(data: bytes, shape: tuple[int, int]) -> np.ndarray:
    """What the viewer's script does: add the mean of the left and the upper neighbour, modulo 256."""
    flat = np.frombuffer(zlib.decompress(data), np.uint8).reshape(shape).astype(int)
    out = np.zeros((shape[0] + 1, shape[1] + 1), int)
    for y in range(shape[0]):
        for x in range(shape[1]):
            out[y + 1, x + 1] = (flat[y, x] + (out[y + 1, x] + out[y, x + 1]) // 2) % 256
    return out[1:, 1:]


def embedded(image: sitk.Image, structures: StructureSet) -> tuple[dict, np.ndarray]:
    """The scene and the HU [z, y, x] that the page holds."""
    image, structures, numbering = upright(image, structures)
    result = embed(image, structures, record_of(structures).organs, numbering)
    described = json.loads(result.scene)
    x, y, z = described["image"]["size"]
    slices = [unpack(base64.b64decode(line), (y, x)) for line in result.slices.splitlines()]
    assert len(slices) == z
    return described, np.array(described["levels"])[np.stack(slices)]


def noisy(size: tuple[int, int, int], spacing: tuple[float, float, float], sd_hu: float) -> sitk.Image:
    hu = np.random.default_rng(0).normal(40, sd_hu, size[::-1]).astype(np.int16)
    image = sitk.GetImageFromArray(hu)
    image.SetSpacing(spacing)
    return image


# The CT


def test_soft_tissue_and_brain_are_kept_to_one_hu_and_the_rest_to_a_grey_of_its_window():
    image = sitk.GetImageFromArray(np.linspace(-1100, 1500, 20 * 30 * 4).reshape(4, 20, 30).astype(np.int16))
    _, shown = embedded(image, StructureSet(Geometry.of(image)))
    hu = sitk.GetArrayFromImage(image).astype(float)
    error = np.abs(shown - hu)
    assert error[(hu >= -40) & (hu <= 120)].max() <= 1, "1/80 of the brain window"
    assert error[(hu >= -160) & (hu <= 240)].max() <= 2, "1/200 of the soft tissue window"
    assert error[(hu >= -600) & (hu <= 1400)].max() <= 13, "1/160 of the bone window"
    assert shown.min() == -1000 and shown.max() == LEVELS_HU[-1]


def test_levels_are_256_and_rise():
    assert len(LEVELS_HU) == 256 and (np.diff(LEVELS_HU) > 0).all()


@pytest.mark.parametrize("shape", [(1, 1), (1, 9), (9, 1), (17, 23)])
def test_slices_unpack_to_what_was_packed(shape):
    levels = np.random.default_rng(1).integers(0, 256, shape).astype(np.uint8)
    assert (unpack(pack(levels), shape) == levels).all()


@pytest.mark.parametrize("code", ["LPS", "RAS", "LPI", "PIR", "SAL"])
def test_the_patient_is_upright_whatever_the_orientation_of_the_image(code):
    described, shown = embedded(*scene(code))
    grid = described["image"]
    for name, (offset, _) in BALLS.items():
        (organ,) = [organ for organ in described["organs"] if organ["name"] == name]
        at = CENTRE + offset
        assert np.abs(np.array(organ["centre"]) - at).max() <= 4, "half a diagonal of the voxels"
        bits = np.unpackbits(np.frombuffer(zlib.decompress(base64.b64decode(organ["bits"])), np.uint8))
        assert bits.sum() == scene("LPS")[1].voxels(name)
        index = np.rint((at - grid["origin"]) / grid["spacing"]).astype(int)
        assert shown[tuple(index[::-1])] == 40, "the ball of tissue"


def test_an_organ_in_a_tilted_ct_is_where_it_is_in_the_patient():
    described, _ = embedded(*scene(tilt_deg=12))
    for organ in described["organs"]:
        assert np.abs(np.array(organ["centre"]) - CENTRE - BALLS[organ["name"]][0]).max() <= 4


def test_air_beside_the_patient_is_left_out_but_no_axial_slice():
    hu = np.full((12, 100, 120), -1000, np.int16)
    hu[2:8, 40:60, 30:70] = 40
    image = sitk.GetImageFromArray(hu)
    image.SetSpacing((2, 2, 3))
    described, shown = embedded(image, StructureSet(Geometry.of(image)))
    assert described["image"]["size"][2] == 12
    assert 40 <= described["image"]["size"][0] <= 40 + 2 * (5 + 4)
    assert (shown == 40).sum() == 6 * 20 * 40


def test_fine_pixels_are_resampled_to_a_millimetre_in_place():
    x = np.arange(200) * 0.4
    image = sitk.GetImageFromArray(np.broadcast_to(2 * x, (2, 200, 200)).astype(np.float32))
    image.SetSpacing((0.4, 0.4, 2.0))
    described, shown = embedded(image, StructureSet(Geometry.of(image)))
    assert described["image"]["spacing"] == [1.0, 1.0, 2.0]
    places = described["image"]["origin"][0] + np.arange(described["image"]["size"][0])
    inside = slice(2, -2)
    assert shown[0, 40][inside] == pytest.approx(2 * places[inside], abs=1.5), "a ramp stays where it was"


def test_the_file_stays_bounded_whatever_the_noise(monkeypatch):
    monkeypatch.setattr("soars.report.embed.MOST_BYTES", 60_000)
    image = noisy((128, 128, 12), (1.0, 1.0, 3.0), sd_hu=150)
    described, shown = embedded(image, StructureSet(Geometry.of(image)))
    assert described["image"]["spacing"][0] > 1.2 and len(shown) == 12
    extent = np.multiply(described["image"]["size"], described["image"]["spacing"])
    assert extent == pytest.approx([128, 128, 36], abs=2 * described["image"]["spacing"][0])


@pytest.mark.slow
def test_two_hundred_slices_take_seconds_and_at_most_16_mb():
    image = noisy((512, 512, 200), (0.98, 0.98, 1.5), sd_hu=15)
    structures = StructureSet(Geometry.of(image))
    start = time.process_time()
    upright_image, organs, numbering = upright(image, structures)
    result = embed(upright_image, organs, (), numbering)
    assert time.process_time() - start < 20
    assert len(result.slices) < 16_000_000 * 4 / 3 + 1000


# Organs, names, numbers


def test_the_middle_of_an_organ_is_in_it_even_when_it_is_a_ring():
    y, x = np.mgrid[:41, :41] - 20
    ring = (np.hypot(x, y) < 18) & (np.hypot(x, y) > 12)
    mask = tight_mask(np.stack([ring & (x > 100), ring, ring & (x > 0)]))
    middle = middle_voxel(mask)
    assert middle[0] == 1
    assert mask.box(middle, (1, 1, 1)).all()


def test_script_json_cannot_end_its_element():
    value = {"a": "</script><!--<script>&\u2028", "b": [1, 2.5]}
    text = script_json(value)
    assert json.loads(text) == value
    assert not set(text) & set("<>&\u2028")


@pytest.mark.parametrize(
    ("code", "first", "last"), [("LPS", 1, 42), ("LPI", 42, 1), ("RAS", 1, 42), ("SAL", 1, 42)]
)
def test_slices_keep_the_numbers_they_have_in_the_ct(code, first, last):
    image, structures = scene(code)
    _, _, numbering = upright(image, structures)
    z = [structures.geometry.corners()[:, 2].min(), structures.geometry.corners()[:, 2].max()]
    assert [numbering.number(mm) for mm in z] == [first, last]
    assert numbering.number(z[0] - 500) == first, "beyond the scan"


def test_axial_slices_say_which_of_how_many():
    assert AxialSlices(-267.0, 3.0, 90).words(-156.2) == "slice 38 of 90"


def test_places_and_numbers_are_written_as_in_a_clinic():
    assert place((23.4, -5.2, 120.0)) == "L 23, A 5, S 120 mm"
    assert place_on_axis(2, -0.04) == "S 0.0 mm" and place_on_axis(0, -12.34) == "R 12.3 mm"
    assert [volume_cc(v) for v in (0.051, 1.2, 31.42, 148.4, 3241.0)] == [
        "0.05",
        "1.20",
        "31.4",
        "148",
        "3241",
    ]
    assert [length_mm(v) for v in (3.0, 0.9766, 2.5, 1.0000001)] == ["3", "0.98", "2.5", "1"]
    assert [duration(s) for s in (0.04, 99.94, 99.96, 119.7)] == [
        "0.0 s",
        "99.9 s",
        "1 min 40 s",
        "2 min 00 s",
    ]
    assert listed(["Left eye", "Right eye", "TMJ"]) == "Left eye, right eye, TMJ"


def test_turning_gives_what_simpleitk_gives_for_every_orientation() -> None:
    """All 48 ways in which axes can lie along the patient's; `DICOMOrient` is the independent program."""
    values = np.arange(60, dtype=np.int16).reshape(3, 4, 5)
    for axes in itertools.permutations(range(3)):
        for signs in itertools.product((1.0, -1.0), repeat=3):
            direction = np.zeros((3, 3))
            direction[axes, (0, 1, 2)] = signs
            image = sitk.GetImageFromArray(values)
            image.SetSpacing((1.0, 2.0, 3.0))
            image.SetOrigin((5.0, 6.0, 7.0))
            image.SetDirection(direction.ravel().tolist())
            ours, theirs = _turned(image), sitk.DICOMOrient(image, "LPS")
            assert np.array_equal(sitk.GetArrayFromImage(ours), sitk.GetArrayFromImage(theirs))
            assert ours.GetSpacing() == theirs.GetSpacing() and ours.GetDirection() == theirs.GetDirection()
            assert ours.GetOrigin() == pytest.approx(theirs.GetOrigin())


def test_turning_leaves_the_image_as_it_was() -> None:
    """An image that lies upright already is not copied, and must not be changed either."""
    image = sitk.GetImageFromArray(np.zeros((3, 4, 5), np.int16))
    tilt = np.deg2rad(0.01)
    image.SetDirection([np.cos(tilt), -np.sin(tilt), 0, np.sin(tilt), np.cos(tilt), 0, 0, 0, 1])
    before = image.GetDirection()
    turned, _, _ = upright(image, StructureSet(Geometry.of(image)))
    assert turned.GetDirection() == (1, 0, 0, 0, 1, 0, 0, 0, 1) and image.GetDirection() == before
