"""The CT series and RTDOSE written here are valid DICOM, carry the image exactly, and depend on their seed only."""

from __future__ import annotations

import shutil
import subprocess

import numpy as np
import pydicom
import pytest
import SimpleITK as sitk

from soars.ct.series import read_series
from soars.dicom.write import uid_from, write_ct_series, write_rtdose
from soars.errors import InputError

NAMES = {"patient_id": "SOARS-1", "patient_name": "Phantom^One"}


def ct_image(**geometry) -> sitk.Image:
    """int16 HU of every size class, 9 x 8 x 7 voxels of 1/3 x 0.9 x 2.5 mm."""
    values = np.random.default_rng(3).integers(-1024, 3000, (7, 8, 9)).astype(np.int16)
    image = sitk.GetImageFromArray(values)
    image.SetSpacing((1 / 3, 0.9, 2.5))
    image.SetOrigin(geometry.get("origin", (-100.123456789, -50.5, 3e-7)))
    image.SetDirection(geometry.get("direction", (1, 0, 0, 0, 1, 0, 0, 0, 1)))
    return image


def turned() -> tuple[float, ...]:
    """A direction turned about all axes: angles 10, -20 and 30 degrees."""
    turn = sitk.Euler3DTransform((0, 0, 0), *np.radians((10, -20, 30)))
    return turn.GetMatrix()


MIRRORED = (1, 0, 0, 0, 1, 0, 0, 0, -1)


@pytest.mark.parametrize(
    "direction", [(1, 0, 0, 0, 1, 0, 0, 0, 1), (-1, 0, 0, 0, -1, 0, 0, 0, 1), MIRRORED, turned()]
)
def test_a_ct_comes_back_exactly(tmp_path, direction):
    image = ct_image(direction=direction)
    files = write_ct_series(image, tmp_path / "ct", **NAMES)
    back, series, warnings = read_series(tmp_path / "ct")
    assert warnings == []
    if direction == MIRRORED:  # DICOM slices are read along row x column, so the other way round
        assert series.files == files[::-1]
        image = image[:, :, ::-1]
    else:
        assert series.files == files
    np.testing.assert_array_equal(sitk.GetArrayFromImage(back), sitk.GetArrayFromImage(image))
    far = (8, 7, 6)
    assert back.TransformIndexToPhysicalPoint(far) == pytest.approx(
        image.TransformIndexToPhysicalPoint(far), abs=1e-6
    )


def test_another_reader_sees_the_same(tmp_path):
    """pydicom's arithmetic, from the standard's formula."""
    image = ct_image(direction=turned())
    for z, path in enumerate(write_ct_series(image, tmp_path, **NAMES)):
        ds = pydicom.dcmread(path)
        hu = ds.pixel_array * float(ds.RescaleSlope) + float(ds.RescaleIntercept)
        np.testing.assert_array_equal(hu, sitk.GetArrayFromImage(image)[z])
        cosines = np.array(ds.ImageOrientationPatient, dtype=float)
        between_rows, between_columns = map(float, ds.PixelSpacing)
        place = np.array(ds.ImagePositionPatient, dtype=float)
        place = place + 5 * between_columns * cosines[:3] + 3 * between_rows * cosines[3:]  # column 5, row 3
        assert tuple(place) == pytest.approx(image.TransformIndexToPhysicalPoint((5, 3, z)), abs=1e-6)
        assert (ds.Rows, ds.Columns) == (8, 9)


@pytest.mark.parametrize("direction", [(1, 0, 0, 0, 1, 0, 0, 0, 1), turned()])
def test_ct_and_dose_pass_dciodvfy(tmp_path, dciodvfy, direction):
    image = ct_image(direction=direction)
    files = write_ct_series(image, tmp_path / "ct", series_description="phantom", **NAMES)
    assert dciodvfy(files[3]) == ""
    _, series, _ = read_series(tmp_path / "ct")
    dose = write_rtdose(sitk.Abs(sitk.Cast(image, sitk.sitkFloat32)) / 50, tmp_path / "dose.dcm", series)
    assert dciodvfy(dose) == ""


def test_dciodvfy_would_have_found_a_fault(tmp_path, dciodvfy):
    path = write_ct_series(ct_image(), tmp_path, **NAMES)[0]
    ds = pydicom.dcmread(path)
    del ds.PixelSpacing
    ds.save_as(path)
    assert "PixelSpacing" in dciodvfy(path)


def test_the_same_seed_gives_the_same_bytes_and_another_seed_other_uids(tmp_path):
    a = write_ct_series(ct_image(), tmp_path / "a", seed=5, **NAMES)
    b = write_ct_series(ct_image(), tmp_path / "b", seed=5, **NAMES)
    c = write_ct_series(ct_image(), tmp_path / "c", seed=6, **NAMES)
    assert [p.read_bytes() for p in a] == [p.read_bytes() for p in b]
    first, other = pydicom.dcmread(a[0]), pydicom.dcmread(c[0])
    for keyword in ("StudyInstanceUID", "SeriesInstanceUID", "SOPInstanceUID", "FrameOfReferenceUID"):
        assert first[keyword].value != other[keyword].value
        assert first[keyword].value.is_valid and len(first[keyword].value) <= 64
    assert len({pydicom.dcmread(p).SOPInstanceUID for p in a}) == len(a)


def test_uids_depend_on_nothing_but_their_parts():
    """2.25 and a version-5 UUID as a decimal number (PS3.5 B.2, RFC 4122)."""
    assert uid_from("a", 1) == uid_from("a", 1) != uid_from("a", 2)
    number = int(uid_from("a", 1).removeprefix("2.25."))
    assert number < 2**128 and (number >> 76) & 0xF == 5


def test_the_highest_hu_survives(tmp_path):
    image = ct_image()
    image[1, 1, 1] = 32767
    write_ct_series(image, tmp_path, **NAMES)
    assert read_series(tmp_path)[0][1, 1, 1] == 32767


def test_decimal_strings_keep_to_sixteen_characters(tmp_path):
    image = ct_image(direction=turned(), origin=(-123.4567890123456, 1e-17, -1 / 3))
    ds = pydicom.dcmread(write_ct_series(image, tmp_path, **NAMES)[2])
    for element in ds:
        if element.VR == "DS":
            values = element.value if element.VM > 1 else [element.value]
            assert all(len(v.original_string) <= 16 for v in values), element.keyword


@pytest.mark.parametrize("mirrored", [False, True])
def test_a_dose_comes_back_in_gray_at_its_place(tmp_path, mirrored):
    """A dose on its own coarser grid: 0.1 Gy per mm along each axis, so that a voxel's dose tells its place."""
    write_ct_series(ct_image(), tmp_path / "ct", **NAMES)
    _, series, _ = read_series(tmp_path / "ct")
    dose = sitk.Image(6, 5, 4, sitk.sitkFloat32)
    dose.SetSpacing((3.0, 2.0, 4.0))
    dose.SetOrigin((10.0, 20.0, 42.0 if mirrored else 30.0))
    dose.SetDirection(MIRRORED if mirrored else (1, 0, 0, 0, 1, 0, 0, 0, 1))
    for index in np.ndindex(6, 5, 4):
        index = tuple(map(int, index))
        dose[index] = 0.1 * sum(dose.TransformIndexToPhysicalPoint(index))
    path = write_rtdose(dose, tmp_path / "dose.dcm", series)
    ds = pydicom.dcmread(path)
    assert (ds.StudyInstanceUID, ds.FrameOfReferenceUID) == (series.study_uid, series.frame_of_reference_uid)
    assert (ds.PatientID, ds.DoseUnits, ds.Modality) == ("SOARS-1", "GY", "RTDOSE")
    assert ds.SeriesInstanceUID != series.series_uid
    gray = ds.pixel_array * float(ds.DoseGridScaling)
    for k, j, i in np.ndindex(gray.shape):
        x = float(ds.ImagePositionPatient[0]) + i * float(ds.PixelSpacing[1])
        y = float(ds.ImagePositionPatient[1]) + j * float(ds.PixelSpacing[0])
        z = float(ds.ImagePositionPatient[2]) + float(ds.GridFrameOffsetVector[k])
        assert gray[k, j, i] == pytest.approx(0.1 * (x + y + z), abs=1e-4)  # half a step of 9.5 Gy / 65,000


def test_plastimatch_reads_the_dose(tmp_path):
    if shutil.which("plastimatch") is None:
        pytest.skip("plastimatch is not installed: apt-get install plastimatch")
    write_ct_series(ct_image(), tmp_path / "ct", **NAMES)
    dose = sitk.Cast(sitk.Abs(ct_image()), sitk.sitkFloat32) / 50
    path = write_rtdose(dose, tmp_path / "dose.dcm", read_series(tmp_path / "ct")[1])
    command = [
        "plastimatch",
        "convert",
        "--input-dose-img",
        str(path),
        "--output-dose-img",
        str(tmp_path / "d.nrrd"),
    ]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stderr
    back = sitk.ReadImage(str(tmp_path / "d.nrrd"))
    np.testing.assert_allclose(sitk.GetArrayFromImage(back), sitk.GetArrayFromImage(dose), atol=1e-3)


@pytest.mark.parametrize("value", [-1.0, float("nan"), float("inf")])
def test_a_dose_that_is_none_is_refused_and_leaves_nothing(tmp_path, value):
    write_ct_series(ct_image(), tmp_path / "ct", **NAMES)
    dose = sitk.Image(4, 4, 4, sitk.sitkFloat32)
    dose[1, 1, 1] = value
    with pytest.raises(InputError, match="finite dose in Gy"):
        write_rtdose(dose, tmp_path / "out" / "dose.dcm", read_series(tmp_path / "ct")[1])
    assert not (tmp_path / "out").exists()


def test_what_is_no_int16_volume_is_refused(tmp_path):
    for image in (sitk.Image(4, 4, 4, sitk.sitkFloat32), sitk.Image(4, 4, sitk.sitkInt16)):
        with pytest.raises(InputError, match="3D image of int16 HU"):
            write_ct_series(image, tmp_path / "ct", **NAMES)
    assert not (tmp_path / "ct").exists()


def test_a_failure_in_the_middle_leaves_nothing(tmp_path, monkeypatch):
    saved = []

    def fail_at_the_third(self, path, **options):
        saved.append(path)
        if len(saved) == 3:
            raise OSError(28, "No space left on device")
        path.write_bytes(b"x")

    monkeypatch.setattr(pydicom.dataset.FileDataset, "save_as", fail_at_the_third)
    with pytest.raises(OSError):
        write_ct_series(ct_image(), tmp_path / "ct", **NAMES)
    assert list(tmp_path.iterdir()) == []
