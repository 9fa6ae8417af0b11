"""A CT from one file: kept in its orientation, as int16 HU; anything else is refused in one sentence."""

from __future__ import annotations

import struct
from pathlib import Path

import numpy as np
import pytest
import SimpleITK as sitk

from soars.ct.hounsfield import to_int16_hu
from soars.ct.images import read_ct
from soars.errors import InputError
from soars.report.record import orientation_of
from soars.structures import Geometry

SHAPE = (12, 14, 16)  # z, y, x


def ramp(dtype=np.int16) -> np.ndarray:
    """-1000 + 150 z + 10 y + x: a value tells its voxel."""
    z, y, x = np.mgrid[: SHAPE[0], : SHAPE[1], : SHAPE[2]]
    return (-1000 + 150 * z + 10 * y + x).astype(dtype)


def image_of(values: np.ndarray, spacing=(4.0, 5.0, 6.0)) -> sitk.Image:
    """An image of at least 64 x 70 x 72 mm, so that nothing is odd about it."""
    image = sitk.GetImageFromArray(values)
    image.SetSpacing(spacing)
    image.SetOrigin((-10.0, 20.0, -30.0))
    return image


def saved(image: sitk.Image, path: Path) -> Path:
    sitk.WriteImage(image, str(path))
    return path


def refused(path: Path, *words: str) -> None:
    with pytest.raises(InputError) as caught:
        read_ct(path)
    message = str(caught.value)
    assert "\n" not in message and message.startswith(str(path)), message
    for word in words:
        assert word in message, message


@pytest.mark.parametrize("suffix", [".nrrd", ".nhdr", ".nii", ".nii.gz", ".mha", ".mhd", ".NRRD"])
def test_values_and_geometry_come_from_the_file(tmp_path, suffix):
    image = image_of(ramp())
    stored = saved(image, tmp_path / f"ct{suffix.lower()}")
    path = stored.rename(tmp_path / f"ct{suffix}") if suffix.isupper() else stored
    ct = read_ct(path)
    detached = [f"ct{suffix}: its voxels were read from ct.raw"] if suffix in (".nhdr", ".mhd") else []
    assert ct.warnings == detached and ct.series is None and ct.path == path
    assert ct.image.GetPixelID() == sitk.sitkInt16
    np.testing.assert_array_equal(sitk.GetArrayFromImage(ct.image), ramp())
    assert Geometry.of(ct.image).same_as(Geometry.of(image))


FLIPS = [(1, 1, 1), (-1, 1, 1), (1, -1, 1), (1, 1, -1), (-1, -1, 1), (-1, -1, -1)]
ORDERS = [(0, 1, 2), (2, 0, 1), (1, 2, 0), (1, 0, 2)]


@pytest.mark.parametrize("order", ORDERS)
@pytest.mark.parametrize("flip", FLIPS)
@pytest.mark.parametrize("suffix", [".nrrd", ".nii.gz"])
def test_any_orientation_is_kept_and_carried_by_the_direction(tmp_path, order, flip, suffix):
    """Value = -900 + 10 x + 2 y + z mm of where the voxel lies; read back, every voxel still lies there."""
    direction = np.eye(3)[:, order] * flip
    image = sitk.Image(*SHAPE[::-1], sitk.sitkFloat32)
    image.SetSpacing((4.0, 5.0, 6.0))
    image.SetDirection(direction.ravel())
    indices = np.stack(np.meshgrid(*map(np.arange, image.GetSize()), indexing="ij"), axis=-1)
    places = (indices * image.GetSpacing()) @ direction.T  # x, y, z index order
    values = (places @ (10, 2, 1)).transpose(2, 1, 0)
    values += -900 - values.min()
    filled = sitk.GetImageFromArray(values.astype(np.float32))
    filled.CopyInformation(image)
    ct = read_ct(saved(filled, tmp_path / f"ct{suffix}"))
    assert ct.image.GetSize() == image.GetSize()
    assert np.abs(Geometry.of(ct.image).corners() - Geometry.of(image).corners()).max() < 1e-4
    np.testing.assert_array_equal(sitk.GetArrayFromImage(ct.image), np.rint(values))


@pytest.mark.parametrize(
    ("direction", "code"),
    [
        ((1, 0, 0, 0, 1, 0, 0, 0, 1), "LPS"),
        ((-1, 0, 0, 0, -1, 0, 0, 0, 1), "RAS"),
        ((1, 0, 0, 0, 1, 0, 0, 0, -1), "LPI"),
    ],
)
def test_orientation_is_told_in_three_letters(direction, code):
    image = image_of(ramp())
    image.SetDirection(direction)
    assert orientation_of(image.GetDirection()) == code


def test_float_values_are_rounded_and_unsigned_ones_with_offset_kept(tmp_path):
    values = ramp(np.float32) + 0.4
    ct = read_ct(saved(image_of(values), tmp_path / "ct.nrrd"))
    np.testing.assert_array_equal(sitk.GetArrayFromImage(ct.image), ramp())


def test_nifti_scaling_is_applied(tmp_path):
    """Stored unsigned with scl_inter -1024, as some converters do; the header's bytes 112 and 116 (NIfTI-1)."""
    path = saved(image_of((ramp().astype(np.int32) + 1024).astype(np.uint16)), tmp_path / "ct.nii")
    raw = bytearray(path.read_bytes())
    raw[112:120] = struct.pack("<ff", 1.0, -1024.0)
    path.write_bytes(raw)
    np.testing.assert_array_equal(sitk.GetArrayFromImage(read_ct(path).image), ramp())


def test_padding_and_metal_are_clipped_and_not_wrapped(tmp_path):
    values = ramp(np.int32)
    values[0, 0, :3] = (-3024, -40000, 70000)
    ct = read_ct(saved(image_of(values), tmp_path / "ct.nrrd"))
    assert [ct.image[i, 0, 0] for i in range(3)] == [-1024, -1024, 32767]
    assert ct.warnings == ["1 voxel above 32767 HU had to be set to 32767"]


def test_voxels_that_are_no_number_become_air_with_a_warning(tmp_path):
    values = ramp(np.float32)
    values[0, 0, :2] = (np.nan, np.inf)
    ct = read_ct(saved(image_of(values), tmp_path / "ct.nrrd"))
    assert [ct.image[i, 0, 0] for i in range(2)] == [-1024, -1024]
    assert len(ct.warnings) == 1 and "2 voxels" in ct.warnings[0]


@pytest.mark.parametrize(
    "dtype", [np.int8, np.uint8, np.int16, np.uint16, np.int32, np.uint32, np.int64, np.float32, np.float64]
)
def test_every_type_becomes_int16_without_wrapping(dtype):
    info = np.finfo(dtype) if np.dtype(dtype).kind == "f" else np.iinfo(dtype)
    values = np.array([info.min, 0, 100, info.max], dtype=dtype)
    hu, too_high, not_finite = to_int16_hu(values)
    assert hu.dtype == np.int16
    expected = [min(max(int(v), -1024), 32767) for v in values]
    assert hu.tolist() == expected
    assert too_high == int(info.max > 32767) and not_finite == 0


# ---- values that are not HU


@pytest.mark.parametrize(
    ("low", "high", "word"),
    [
        (0, 255, "no air"),  # a picture
        (0, 1, "run only from 0 to 1"),  # normalised, or a mask
        (-1, 1, "run only from"),
        (0, 4095, "without their rescale intercept"),  # stored values
        (5, 5, "run only from 5 to 5"),
    ],
)
def test_values_that_are_not_hu_are_refused(tmp_path, low, high, word):
    values = np.linspace(low, high, np.prod(SHAPE)).reshape(SHAPE).astype(np.float32)
    refused(saved(image_of(values), tmp_path / "ct.nrrd"), word, "Hounsfield")


def test_a_label_map_is_refused(tmp_path):
    values = np.arange(np.prod(SHAPE)).reshape(SHAPE) % 43
    refused(saved(image_of(values.astype(np.uint8)), tmp_path / "labels.nii.gz"), "Hounsfield")


def test_a_ct_without_bone_gets_a_warning(tmp_path):
    ct = read_ct(saved(image_of(np.minimum(ramp(), 100)), tmp_path / "ct.nrrd"))
    assert len(ct.warnings) == 1 and "no bone" in ct.warnings[0]


# ---- shapes and kinds that are not a CT


def test_four_dimensions_are_refused_unless_the_fourth_is_one(tmp_path):
    one = image_of(ramp())
    refused(saved(sitk.JoinSeries(one, one), tmp_path / "two.nii.gz"), "4 dimensions (16 x 14 x 12 x 2)")
    ct = read_ct(saved(sitk.JoinSeries(one), tmp_path / "single.nrrd"))
    assert ct.image.GetDimension() == 3 and Geometry.of(ct.image).same_as(Geometry.of(one))
    np.testing.assert_array_equal(sitk.GetArrayFromImage(ct.image), ramp())


def test_other_kinds_of_image_are_refused(tmp_path):
    one = image_of(ramp())
    refused(saved(sitk.Compose(one, one, one), tmp_path / "vector.nrrd"), "3 values per voxel")
    refused(saved(one[:, :, 3], tmp_path / "flat.nrrd"), "2 dimensions")
    refused(saved(one[:, :, 3:4], tmp_path / "slice.nrrd"), "single slice")
    refused(
        saved(sitk.RealAndImaginaryToComplex(*[sitk.Cast(one, sitk.sitkFloat32)] * 2), tmp_path / "c.mha"),
        "values",
    )


@pytest.mark.parametrize(
    ("spacing", "word"),
    [
        ((0.001, 0.001, 0.003), "another unit"),
        ((0.05, 0.05, 0.3), "another unit"),
        ((1, 1, 25), "another unit"),
    ],
)
def test_spacings_that_no_ct_has_are_refused(tmp_path, spacing, word):
    refused(saved(image_of(ramp(), spacing), tmp_path / "ct.nrrd"), word)


def test_small_or_coarse_images_get_a_warning(tmp_path):
    small = read_ct(saved(image_of(ramp(), (1, 1, 2)), tmp_path / "small.nrrd"))
    assert len(small.warnings) == 1 and "covers only 16 x 14 x 24 mm" in small.warnings[0]
    coarse = read_ct(saved(image_of(ramp(), (5, 5, 10)), tmp_path / "coarse.nrrd"))
    assert len(coarse.warnings) == 1 and "coarse" in coarse.warnings[0]


def nrrd(path: Path, directions: str, origin: str = "(0,0,0)") -> Path:
    header = (
        "NRRD0004\ntype: int16\ndimension: 3\nspace: left-posterior-superior\nsizes: 16 14 12\n"
        f"space directions: {directions}\nkinds: domain domain domain\nendian: little\nencoding: raw\n"
        f"space origin: {origin}\n\n"
    )
    path.write_bytes(header.encode() + ramp("<i2").tobytes())
    return path


def test_axes_that_are_not_perpendicular_are_refused(tmp_path):
    good = nrrd(tmp_path / "good.nrrd", "(4,0,0) (0,5,0) (0,0,6)")
    assert read_ct(good).warnings == []
    refused(nrrd(tmp_path / "sheared.nrrd", "(4,0,0) (0,5,0) (0,2,6)"), "not perpendicular")


def test_a_nifti_with_a_sheared_matrix_is_refused(tmp_path):
    """The matrix of the sform, at byte 280 of the header, with its code at 254 and the qform's at 252."""
    path = saved(image_of(ramp()), tmp_path / "ct.nii")
    raw = bytearray(path.read_bytes())
    raw[252:256] = struct.pack("<hh", 0, 1)
    raw[280:328] = struct.pack("<12f", 4, 0, 0, 0, 0, 5, 2, 0, 0, 0, 6, 0)
    path.write_bytes(raw)
    refused(path, "not perpendicular")


@pytest.mark.parametrize(
    "directions", ["(4,0,0) (0,5,0) (0,0,0)", "(nan,0,0) (0,5,0) (0,0,6)", "(4,0,0) (0,5,0)"]
)
def test_geometry_that_is_none_is_refused(tmp_path, directions):
    refused(nrrd(tmp_path / "bad.nrrd", directions))


@pytest.mark.parametrize("spacing", ["0 1 1", "nan 5 6", "-4 5 6"])
def test_metaimage_spacings_that_are_none_are_refused_and_negative_ones_mirror(tmp_path, spacing):
    path = tmp_path / "ct.mha"
    header = (
        "ObjectType = Image\nNDims = 3\nBinaryData = True\nBinaryDataByteOrderMSB = False\n"
        f"TransformMatrix = 1 0 0 0 1 0 0 0 1\nOffset = 0 0 0\nElementSpacing = {spacing}\nDimSize = 16 14 12\n"
        "ElementType = MET_SHORT\nElementDataFile = LOCAL\n"
    )
    path.write_bytes(header.encode() + ramp("<i2").tobytes())
    if spacing.startswith("-"):  # x runs to the right then
        ct = read_ct(path)
        assert orientation_of(ct.image.GetDirection()) == "RPS" and ct.image.GetSpacing() == (4, 5, 6)
    else:
        refused(path)


# ---- files that cannot be read


def test_missing_empty_truncated_and_foreign_files_are_refused(tmp_path):
    refused(tmp_path / "nowhere.nrrd", "no such file")
    empty = tmp_path / "empty.nii.gz"
    empty.touch()
    refused(empty, "empty")
    whole = saved(image_of(ramp()), tmp_path / "ct.nrrd").read_bytes()
    cut = tmp_path / "cut.nrrd"
    cut.write_bytes(whole[:-500])
    refused(cut)
    text = tmp_path / "ct.nii"
    text.write_text("this is no image")
    refused(text)
    foreign = tmp_path / "ct.png"
    sitk.WriteImage(sitk.Image(8, 8, sitk.sitkUInt8), str(foreign))
    refused(foreign, "is not a CT", ".nrrd")


@pytest.mark.parametrize("suffix", [".nrrd", ".nii", ".nii.gz", ".mha"])
def test_a_truncated_image_is_refused_whatever_its_format(tmp_path, suffix):
    noise = np.random.default_rng(0).integers(-1000, 1000, SHAPE).astype(np.int16)
    path = saved(image_of(noise), tmp_path / f"ct{suffix}")
    raw = path.read_bytes()
    path.write_bytes(raw[: len(raw) * 2 // 3])
    refused(path)


@pytest.mark.parametrize("suffix", [".mhd", ".nhdr"])
def test_truncated_values_beside_their_header_are_refused(tmp_path, suffix):
    path = saved(image_of(ramp()), tmp_path / f"ct{suffix}")
    raw = next(p for p in tmp_path.iterdir() if p != path)
    raw.write_bytes(raw.read_bytes()[:-100])
    refused(path, "damaged or cut off")
    raw.unlink()
    refused(path)


def test_a_nifti_with_a_flipped_bit_is_refused(tmp_path):
    noise = np.random.default_rng(0).integers(-1000, 1000, SHAPE).astype(np.int16)
    path = saved(image_of(noise), tmp_path / "ct.nii.gz")
    raw = bytearray(path.read_bytes())
    raw[len(raw) // 2] ^= 0x10
    path.write_bytes(raw)
    refused(path, "damaged")


def test_a_series_cannot_be_chosen_in_a_single_file(tmp_path):
    path = saved(image_of(ramp()), tmp_path / "ct.nrrd")
    with pytest.raises(InputError, match="DICOM folder only"):
        read_ct(path, "1.2.3")


def test_a_metaimage_that_cannot_be_uncompressed_is_refused(tmp_path, capfd):
    """MetaIO complains on standard error and returns wrong values."""
    noise = np.random.default_rng(0).integers(-1000, 1000, (30, 40, 40)).astype(np.int16)
    path = tmp_path / "ct.mhd"
    sitk.WriteImage(image_of(noise), str(path), useCompression=True)
    values = tmp_path / "ct.zraw"
    raw = bytearray(values.read_bytes())
    raw[2:40] = bytes(38)  # the first deflate block
    values.write_bytes(raw)
    refused(path, "damaged")
    assert capfd.readouterr() == ("", "")


def test_reading_is_quiet(tmp_path, capfd):
    refused(nrrd(tmp_path / "sheared.nrrd", "(4,0,0) (0,5,0) (0,2,6)"))
    assert capfd.readouterr() == ("", "")


def test_real_nifti_cts_are_read_without_a_word(shared):
    for path in sorted((shared / "data" / "openkbp").rglob("*_ct.nii.gz"))[:3]:
        ct = read_ct(path)
        assert ct.warnings == [], path
        np.testing.assert_array_equal(
            sitk.GetArrayFromImage(ct.image),
            np.maximum(sitk.GetArrayFromImage(sitk.ReadImage(str(path))), -1024),
        )


@pytest.mark.parametrize(
    ("outside", "told"), [(0, True), (40, True), (-1000, False), (-1024, False), (None, False)]
)
def test_a_ct_that_was_masked_with_another_value_than_airs_gets_a_warning(tmp_path, outside, told):
    """None: a CT cropped within the patient, with the noise of every scanner."""
    values = np.random.default_rng(0).normal(40, 10, (20, 20, 20)).astype(np.int16)
    values[8:12, 8:12, 8:12] = 700
    values[10, 9:11, 9:11] = -1000
    if outside is not None:
        z, y, x = np.indices(values.shape) - 9.5
        values[z**2 + y**2 + x**2 > 81] = outside
    warnings = read_ct(saved(image_of(values), tmp_path / "masked.nrrd")).warnings
    assert told == any(f"surroundings have the value {outside} HU" in w for w in warnings), warnings
