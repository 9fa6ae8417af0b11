"""Where a NIfTI file lies, held against nibabel and against the standard (nifti1.h)."""

from __future__ import annotations

import gzip
import json
from pathlib import Path

import nibabel
import numpy as np
import pytest
import SimpleITK as sitk

from soars.ct.images import read_ct
from soars.dose.grid import read_dose
from soars.errors import InputError
from soars.formats.reading import read_structures
from soars.report.record import orientation_of
from soars.structures import Geometry

SHAPE = (24, 28, 20)  # x, y, z
RAS = np.array([[-3.0, 0, 0, 36], [0, -3, 0, 42], [0, 0, 3, -60], [0, 0, 0, 1]])


def hu() -> np.ndarray:
    x, y, z = np.indices(SHAPE)
    return (-1000 + 60 * x + 3 * y + 2 * z).astype(np.int16)


def written(
    path: Path,
    *,
    sform: tuple[np.ndarray | None, int] = (RAS, 1),
    qform: tuple[np.ndarray | None, int] = (RAS, 1),
    values: np.ndarray | None = None,
    kind: type = nibabel.Nifti1Image,
) -> Path:
    """A file by nibabel, whose two transforms are set apart from each other."""
    image = kind(hu() if values is None else values, None)
    image.header.set_zooms((3.0, 3.0, 3.0))
    image.header.set_qform(qform[0], qform[1], strip_shears=True)
    image.header.set_sform(sform[0], sform[1])
    image.header.set_xyzt_units("mm")
    nibabel.save(image, path)
    return path


def turned(**changes: float) -> np.ndarray:
    """`RAS` with elements replaced: ``a01=0.5`` is row 0, column 1."""
    matrix = RAS.copy()
    for name, value in changes.items():
        matrix[int(name[1]), int(name[2])] = value
    return matrix


def lps_of_voxels(affine: np.ndarray, image: sitk.Image) -> float:
    """The largest distance in mm between where nibabel's affine and the image put a voxel."""
    corners = np.array([c * (np.array(SHAPE) - 1) for c in np.ndindex(2, 2, 2)], float)
    wanted = (corners @ affine[:3, :3].T + affine[:3, 3]) * [-1, -1, 1]
    found = [image.TransformContinuousIndexToPhysicalPoint(c) for c in corners.tolist()]
    return float(np.abs(wanted - found).max())


ORIENTATIONS = {
    "axial": RAS,
    "feet first": np.array([[3.0, 0, 0, -30], [0, -3, 0, 42], [0, 0, -3, 60], [0, 0, 0, 1]]),
    "sagittal": np.array([[0, 0, -3.0, 30], [-3, 0, 0, 42], [0, -3, 0, 60], [0, 0, 0, 1]]),
    "oblique": np.array(
        [[-3 * np.cos(0.3), 3 * np.sin(0.3), 0, 36], [-3 * np.sin(0.3), -3 * np.cos(0.3), 0, 42]]
        + [[0, 0, 3.0, -60], [0, 0, 0, 1]]
    ),
}


@pytest.mark.parametrize("name", ORIENTATIONS)
@pytest.mark.parametrize("which", ["both", "sform", "qform"])
def test_voxels_lie_where_nibabel_puts_them(tmp_path: Path, name: str, which: str) -> None:
    affine = ORIENTATIONS[name]
    codes = {"both": (1, 1), "sform": (2, 0), "qform": (0, 3)}[which]
    path = written(tmp_path / "ct.nii.gz", sform=(affine, codes[0]), qform=(affine, codes[1]))
    scan = read_ct(path)
    assert scan.warnings == []
    assert lps_of_voxels(nibabel.load(path).affine, scan.image) < 1e-4
    np.testing.assert_array_equal(sitk.GetArrayFromImage(scan.image), hu().transpose(2, 1, 0))


@pytest.mark.parametrize(
    "affine",
    [turned(a00=3, a03=-33), turned(a11=3, a13=-39), turned(a00=3, a03=-33, a11=3, a13=-39)],
    ids=["left and right", "front and back", "turned round"],
)
@pytest.mark.parametrize("codes", [(1, 1), (2, 1), (1, 2)])
def test_a_mirrored_second_transform_is_refused_whatever_the_codes(
    tmp_path: Path, affine: np.ndarray, codes: tuple[int, int]
) -> None:
    path = written(tmp_path / "ct.nii.gz", sform=(affine, codes[0]), qform=(RAS, codes[1]))
    with pytest.raises(
        InputError, match="contradict each other.*left and right may be swapped.*nibabel.*ITK"
    ):
        read_ct(path)


def test_a_shift_is_told_in_mm_or_refused(tmp_path: Path) -> None:
    """15 mm: the scanner's coordinates (code 1) count; two that both claim to be the scanner's are refused."""
    shifted = turned(a03=51)
    scan = read_ct(written(tmp_path / "a.nii.gz", sform=(shifted, 2)))
    assert (
        len(scan.warnings) == 1
        and "by up to 15 mm" in scan.warnings[0]
        and "qform was taken" in scan.warnings[0]
    )
    assert scan.image.GetOrigin()[0] == pytest.approx(-36)
    scan = read_ct(written(tmp_path / "b.nii.gz", sform=(shifted, 1), qform=(RAS, 2)))
    assert "the sform was taken" in scan.warnings[0] and scan.image.GetOrigin()[0] == pytest.approx(-51)
    for codes in ((1, 1), (2, 2), (2, 3)):
        path = written(tmp_path / "c.nii.gz", sform=(shifted, codes[0]), qform=(RAS, codes[1]))
        with pytest.raises(InputError, match="contradict each other by up to 15 mm"):
            read_ct(path)


def test_rounding_between_the_two_is_silent_and_a_third_of_a_voxel_is_told(tmp_path: Path) -> None:
    assert read_ct(written(tmp_path / "a.nii.gz", sform=(turned(a03=36.02), 1))).warnings == []
    scan = read_ct(written(tmp_path / "b.nii.gz", sform=(turned(a03=37), 1)))
    assert len(scan.warnings) == 1 and "by up to 1 mm" in scan.warnings[0]
    assert scan.image.GetOrigin()[0] == pytest.approx(-37)  # as nibabel has it


def test_without_codes_the_user_is_told_to_check_the_sides(tmp_path: Path) -> None:
    scan = read_ct(written(tmp_path / "ct.nii.gz", sform=(None, 0), qform=(None, 0)))
    assert orientation_of(scan.image.GetDirection()) == "LPS" and scan.image.GetSpacing() == (3, 3, 3)
    assert len(scan.warnings) == 1 and "check left and right" in scan.warnings[0]


@pytest.mark.parametrize(("skew", "corner_mm"), [(0.0005, 0.04), (0.002, 0.2), (0.009, 0.8)])
def test_axes_a_little_off_a_right_angle_are_put_right(tmp_path: Path, skew: float, corner_mm: float) -> None:
    sheared = turned(a01=3 * skew)
    scan = read_ct(written(tmp_path / "ct.nii.gz", sform=(sheared, 1), qform=(None, 0)))
    assert len(scan.warnings) == 1 and "not quite perpendicular" in scan.warnings[0]
    direction = np.reshape(scan.image.GetDirection(), (3, 3))
    np.testing.assert_allclose(direction.T @ direction, np.eye(3), atol=1e-12)
    # half of the shear each, about the centre: a quarter of what the far corner is off
    assert lps_of_voxels(sheared, scan.image) < corner_mm
    np.testing.assert_array_equal(sitk.GetArrayFromImage(scan.image), hu().transpose(2, 1, 0))


def test_more_shear_is_refused_for_this_reason(tmp_path: Path) -> None:
    path = written(tmp_path / "ct.nii.gz", sform=(turned(a01=0.1), 1), qform=(None, 0))
    with pytest.raises(InputError, match=r"not perpendicular \(off by 1.9 degrees\)"):
        read_ct(path)


def test_label_maps_masks_and_doses_are_held_to_the_same(tmp_path: Path) -> None:
    labels = np.zeros(SHAPE, np.uint8)
    labels[3:8, 4:9, 5:10] = 1
    mirrored = turned(a00=3, a03=-33)
    path = written(tmp_path / "organ.nii.gz", sform=(mirrored, 2), values=labels)
    (tmp_path / "organ.json").write_text(json.dumps({"labels": {"1": "Parotid_L"}}))
    (tmp_path / "masks").mkdir()
    for kind in (path, tmp_path / "masks"):
        (tmp_path / "masks" / "Parotid_L.nii.gz").write_bytes(path.read_bytes())
        with pytest.raises(InputError, match="contradict each other"):
            read_structures(kind)
    with pytest.raises(InputError, match="contradict each other"):
        read_dose(written(tmp_path / "dose.nii.gz", sform=(mirrored, 2), values=labels.astype(np.float32)))

    sheared = turned(a01=0.006)
    for target in (path, tmp_path / "masks" / "Parotid_L.nii.gz"):
        written(target, sform=(sheared, 1), qform=(None, 0), values=labels)
    for kind in (path, tmp_path / "masks"):
        structures = read_structures(kind)
        assert structures.voxels("Parotid_L") == 125
        assert any("not quite perpendicular" in w for w in structures.warnings)
    # a CT and a label map of one header still lie on one grid
    ct = read_ct(written(tmp_path / "ct.nii.gz", sform=(sheared, 1), qform=(None, 0)))
    assert structures.geometry.same_as(Geometry.of(ct.image), 1e-6)


def test_voxel_sizes_that_contradict_the_sform_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "ct.nii.gz"
    image = nibabel.Nifti1Image(hu(), None)
    image.header.set_zooms((1.0, 1.0, 1.0))
    image.header.set_sform(RAS, 1)
    nibabel.save(image, path)
    with pytest.raises(InputError, match="3 x 3 x 3 mm by the sform but 1 x 1 x 1 mm"):
        read_ct(path)


def test_a_transform_that_is_none_leaves_the_other(tmp_path: Path) -> None:
    scan = read_ct(written(tmp_path / "a.nii.gz", sform=(np.zeros((4, 4)), 1)))
    assert "its sform is not usable" in scan.warnings[0] and scan.image.GetOrigin()[0] == pytest.approx(-36)
    path = written(tmp_path / "b.nii.gz", sform=(np.zeros((4, 4)), 1), qform=(None, 0))
    with pytest.raises(InputError, match="not usable"):
        read_ct(path)


def test_what_a_file_is_shows_from_its_content(tmp_path: Path) -> None:
    """A plain file called .nii.gz, a compressed one called .nii, NIfTI-2, big endian, scaled values."""
    plain = written(tmp_path / "plain.nii")
    misnamed = tmp_path / "misnamed.nii.gz"
    misnamed.write_bytes(plain.read_bytes())
    packed = tmp_path / "packed.nii"
    packed.write_bytes(gzip.compress(plain.read_bytes()))
    second = written(tmp_path / "second.nii.gz", kind=nibabel.Nifti2Image)
    big = tmp_path / "big.nii"
    nibabel.save(nibabel.Nifti1Image(hu(), RAS, nibabel.Nifti1Header(endianness=">")), big)
    for path in (plain, misnamed, packed, second, big):
        image = read_ct(path).image
        np.testing.assert_array_equal(sitk.GetArrayFromImage(image), hu().transpose(2, 1, 0), path.name)
        assert lps_of_voxels(RAS, image) < 1e-4

    scaled = nibabel.Nifti1Image(hu().astype(np.int16), RAS)
    scaled.header.set_slope_inter(0.5, -100)
    nibabel.save(scaled, tmp_path / "scaled.nii.gz")
    found = sitk.GetArrayFromImage(read_ct(tmp_path / "scaled.nii.gz").image)
    np.testing.assert_allclose(
        found, np.rint(nibabel.load(tmp_path / "scaled.nii.gz").get_fdata()).transpose(2, 1, 0)
    )


def test_a_header_that_promises_more_than_the_file_can_hold_is_damage(tmp_path: Path) -> None:
    """1.6 TB of voxels in a file of some kB: refused at once, without asking for the memory."""
    path = written(tmp_path / "ct.nii")
    raw = bytearray(path.read_bytes())
    raw[42:48] = np.array([30000, 30000, 900], "<i2").tobytes()
    for target, content in ((path, bytes(raw)), (tmp_path / "ct.nii.gz", gzip.compress(bytes(raw)))):
        target.write_bytes(content)
        with pytest.raises(InputError, match="damaged or cut off"):
            read_ct(target)


def test_metres_and_micrometres_become_mm(tmp_path: Path) -> None:
    for unit, factor in (("meter", 0.001), ("micron", 1000.0)):
        image = nibabel.Nifti1Image(hu(), RAS * [[factor], [factor], [factor], [1]])
        image.header.set_xyzt_units(unit)
        nibabel.save(image, tmp_path / "ct.nii.gz")
        assert lps_of_voxels(RAS, read_ct(tmp_path / "ct.nii.gz").image) < 1e-3
