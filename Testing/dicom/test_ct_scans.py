"""A series that holds more than one scan, and enhanced CTs, whose slices are the frames of one file."""

from __future__ import annotations

import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path

import highdicom
import numpy as np
import pydicom
import pytest
import SimpleITK as sitk
from pydicom.dataset import Dataset
from pydicom.uid import RLELossless

from soars.cli import main
from soars.ct.images import read_ct
from soars.ct.series import read_series
from soars.dicom.rtstruct import read_rtstruct, write_rtstruct
from soars.errors import InputError
from soars.structures import Geometry, StructureSet

Write = Callable[..., list[Path]]
Ramp = Callable[..., np.ndarray]


def hu_of(image: sitk.Image) -> np.ndarray:
    return sitk.GetArrayFromImage(image)


def marked(offset_mm: float = 0.0, **values: object) -> Callable[[Dataset, int], None]:
    """Slices moved along z, with these attributes, their SOP instances their own."""

    def edit(ds: Dataset, k: int) -> None:
        x, y, z = ds.ImagePositionPatient
        ds.ImagePositionPatient = [x, y, z + offset_mm]
        for keyword, value in values.items():
            setattr(ds, keyword, value)
        ds.SOPInstanceUID = f"1.2.77.{abs(hash(str(values))) % 10**9}.{k + 1}"
        ds.file_meta.MediaStorageSOPInstanceUID = ds.SOPInstanceUID

    return edit


DIFFERENCES = {
    "phases": ("TemporalPositionIdentifier", 1, 2, "Temporal Position Identifier 1"),
    "acquisitions": ("AcquisitionNumber", 3, 4, "Acquisition Number 3"),
    "kernels": ("ConvolutionKernel", "H30s", "H70h", "Convolution Kernel H30s"),
    "trigger times": ("TriggerTime", "0", "750", "Trigger Time 0"),
    "cardiac phases": (
        "NominalPercentageOfCardiacPhase",
        30.0,
        70.0,
        "Nominal Percentage of Cardiac Phase 30",
    ),
    "energies": ("KVP", "80", "140", "KVP 80"),
    "echoes": ("EchoNumbers", 1, 2, "Echo Number(s) 1"),
}


@pytest.mark.parametrize("offset_mm", [0.0, 1.5], ids=["same places", "between"])
@pytest.mark.parametrize("name", DIFFERENCES)
def test_scans_that_interleave_are_told_apart_and_either_can_be_chosen(
    tmp_path: Path, ct_series: Write, ramp: Ramp, name: str, offset_mm: float
) -> None:
    """Between each other's slices two kernels make a perfectly regular stack, which is no scan."""
    keyword, first, second, told = DIFFERENCES[name]
    other = ramp()[::-1].copy()
    ct_series(tmp_path, prefix="a", edit=marked(**{keyword: first}))
    ct_series(tmp_path, prefix="b", hu=other, edit=marked(offset_mm, **{keyword: second}))
    with pytest.raises(
        InputError, match=r"holds 2 scans at the same place.*--series 1.2.3.1/NUMBER"
    ) as caught:
        read_series(tmp_path)
    assert f"1: {told} (6 slices, 30 to 45 mm)" in str(caught.value)
    for choice, hu, z in (
        ("1.2.3.1/1", ramp(), 30.0),
        ("1.2.3.1/2", other, 30.0 + offset_mm),
        ("/2", other, None),
    ):
        image, series, warnings = read_series(tmp_path, choice)
        np.testing.assert_array_equal(hu_of(image), hu)
        assert z is None or image.GetOrigin()[2] == pytest.approx(z)
        assert len(set(series.sop_instance_uids)) == 6
        assert len(warnings) == 1 and f"of 2 scans in the series number {choice[-1]} was read" in warnings[0]


def test_four_scans_that_differ_in_two_ways(tmp_path: Path, ct_series: Write) -> None:
    for phase in (1, 2):
        for kernel in ("soft", "sharp"):
            edit = marked(AcquisitionNumber=phase, ConvolutionKernel=kernel)
            ct_series(tmp_path, prefix=f"{phase}{kernel}", edit=edit)
    with pytest.raises(InputError, match="holds 4 scans") as caught:
        read_series(tmp_path)
    assert "3: Acquisition Number 2, Convolution Kernel sharp (6 slices" in str(caught.value)
    assert read_series(tmp_path, "/4")[0].GetSize()[2] == 6
    with pytest.raises(InputError, match="no number 5"):
        read_series(tmp_path, "/5")


def test_acquisitions_that_follow_each_other_are_one_scan(
    tmp_path: Path, ct_series: Write, ramp: Ramp
) -> None:
    """Step and shoot: a number for every table position; and one for every slice."""
    for name, per in (("steps", 3), ("slices", 1)):
        ct_series(tmp_path / name, edit=lambda ds, k, per=per: setattr(ds, "AcquisitionNumber", k // per))
        image, _, warnings = read_series(tmp_path / name)
        np.testing.assert_array_equal(hu_of(image), ramp())
        assert warnings == []


@pytest.mark.parametrize(
    ("apart_mm", "words"), [(85.0, "2 scans of different parts of the patient"), (9.0, "missing")]
)
def test_acquisitions_with_a_stretch_of_the_patient_between_them_are_two_scans(
    tmp_path: Path, ct_series: Write, ramp: Ramp, apart_mm: float, words: str
) -> None:
    """Head and pelvis in one series; a short gap is slices that were lost."""
    ct_series(tmp_path, prefix="a", edit=marked(AcquisitionNumber=1))
    ct_series(tmp_path, prefix="b", edit=marked(15.0 + apart_mm, AcquisitionNumber=2))
    with pytest.raises(InputError, match=words):
        read_series(tmp_path)
    if apart_mm > 30:
        image, _, _ = read_series(tmp_path, "/2")
        np.testing.assert_array_equal(hu_of(image), ramp())
        assert image.GetOrigin()[2] == pytest.approx(30 + 15 + apart_mm)


def test_numbers_written_in_two_ways_are_one_scan(tmp_path: Path, ct_series: Write, ramp: Ramp) -> None:
    ct_series(tmp_path, edit=lambda ds, k: setattr(ds, "KVP", ("120", "120.0")[k % 2]))
    np.testing.assert_array_equal(hu_of(read_series(tmp_path)[0]), ramp())


@pytest.mark.parametrize("choice", ["1.2.3.1/x", "1.2.3.1/", "/0", "1.2.3.1/-1", "/2"])
def test_a_choice_that_is_none_is_refused(tmp_path: Path, ct_series: Write, choice: str) -> None:
    ct_series(tmp_path)
    with pytest.raises(InputError, match="number of a scan|no number"):
        read_series(tmp_path, choice)


# ---- enhanced CT


def enhanced(folder: Path, files: list[Path], edit: Callable[[Dataset], object] = lambda ds: None) -> Path:
    """One multi-frame file of the slices, by highdicom; the slices are taken away."""
    slices = [pydicom.dcmread(path) for path in files]
    for k, ds in enumerate(slices):
        ds.PatientBirthDate, ds.PatientSex, ds.StudyID = "", "", ""
        ds.AccessionNumber, ds.StudyDate, ds.StudyTime = "", "20200101", "120000"
        ds.ReferringPhysicianName = ds.PositionReferenceIndicator = ""
        ds.PatientPosition, ds.KVP, ds.AcquisitionNumber = "HFS", 120, ds.get("AcquisitionNumber", 1)
        ds.Manufacturer, ds.SeriesNumber, ds.InstanceNumber = "none", 1, k + 1
        ds.RescaleType, ds.BurnedInAnnotation = "HU", "NO"
    made = highdicom.legacy.LegacyConvertedEnhancedCTImage(
        slices,
        series_instance_uid="1.2.88.1",
        series_number=2,
        sop_instance_uid="1.2.88.2",
        instance_number=1,
    )
    for path in files:
        path.unlink()
    edit(made)
    made.save_as(folder / "enhanced.dcm", enforce_file_format=True)
    return folder / "enhanced.dcm"


def packed(path: Path, *command: str) -> None:
    if not command:
        ds = pydicom.dcmread(path)
        ds.compress(RLELossless)
        ds.save_as(path)
        return
    if shutil.which(command[0]) is None:
        pytest.skip(f"{command[0]} is not installed: apt-get install dcmtk")
    done = subprocess.run([*command, str(path), str(path) + ".new"], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    Path(str(path) + ".new").replace(path)


@pytest.mark.parametrize(
    "command",
    [None, (), ("dcmcjpeg", "+e1"), ("dcmconv", "+tb"), ("dcmconv", "+ti")],
    ids=["explicit", "RLE", "JPEG", "big endian", "implicit"],
)
def test_the_frames_of_an_enhanced_ct_are_its_slices(
    tmp_path: Path, ct_series: Write, ramp: Ramp, command: tuple[str, ...] | None
) -> None:
    path = enhanced(tmp_path, ct_series(tmp_path, order=(3, 0, 5, 1, 4, 2)))
    if command is not None:
        packed(path, *command)
    for given in (tmp_path, path):
        scan = read_ct(given)
        np.testing.assert_array_equal(hu_of(scan.image), ramp())
        assert scan.image.GetOrigin() == pytest.approx((-10, -20, 30))
        assert scan.image.GetSpacing() == pytest.approx((0.8, 0.9, 3))
        assert scan.series is not None and sorted(scan.series.frame_numbers) == [1, 2, 3, 4, 5, 6]


def test_contours_on_an_enhanced_ct_reference_its_frames(tmp_path: Path, ct_series: Write) -> None:
    enhanced(tmp_path, ct_series(tmp_path))
    image, series, _ = read_series(tmp_path)
    structures = StructureSet(Geometry.of(image))
    structures.add_crop("Brainstem", (1, 2, 3), np.ones((2, 3, 4), dtype=bool))
    write_rtstruct(structures, tmp_path / "rt.dcm", series)
    items = pydicom.dcmread(tmp_path / "rt.dcm").ROIContourSequence[0].ContourSequence
    referenced = [item.ContourImageSequence[0] for item in items]
    assert {r.ReferencedSOPInstanceUID for r in referenced} == {"1.2.88.2"}
    assert [int(r.ReferencedFrameNumber) for r in referenced] == series.frame_numbers[1:3]
    assert read_rtstruct(tmp_path / "rt.dcm", structures.geometry, series).voxels("Brainstem") == 24


def test_two_phases_in_one_enhanced_ct_are_told_apart(tmp_path: Path, ct_series: Write, ramp: Ramp) -> None:
    files = ct_series(tmp_path, prefix="a", edit=marked(AcquisitionNumber=1))
    files += ct_series(tmp_path, prefix="b", hu=ramp()[::-1].copy(), edit=marked(AcquisitionNumber=2))

    def number(ds: Dataset) -> None:
        for k, group in enumerate(ds.PerFrameFunctionalGroupsSequence):
            group.FrameContentSequence[0].FrameAcquisitionNumber = 1 + k // 6

    enhanced(tmp_path, files, number)
    with pytest.raises(InputError, match="holds 2 scans at the same place.*2: Acquisition Number 2"):
        read_series(tmp_path)
    np.testing.assert_array_equal(hu_of(read_series(tmp_path, "/2")[0]), ramp()[::-1])


def test_each_frame_keeps_its_own_scale(tmp_path: Path, ct_series: Write, ramp: Ramp) -> None:
    def other_scale(ds: Dataset) -> None:
        item = Dataset()
        item.RescaleSlope, item.RescaleIntercept, item.RescaleType = "1", "-924", "HU"
        ds.PerFrameFunctionalGroupsSequence[2].PixelValueTransformationSequence = [item]

    enhanced(tmp_path, ct_series(tmp_path), other_scale)
    found = hu_of(read_series(tmp_path)[0])
    wanted = ramp().copy()
    different = np.flatnonzero((found != wanted).any(axis=(1, 2)))
    assert len(different) == 1
    np.testing.assert_array_equal(found[different[0]], wanted[different[0]] + 100)


@pytest.mark.parametrize("fault", ["cut", "groups", "place"])
def test_a_damaged_enhanced_ct_is_refused(tmp_path: Path, ct_series: Write, fault: str) -> None:
    def spoil(ds: Dataset) -> None:
        if fault == "groups":
            del ds.PerFrameFunctionalGroupsSequence[3]
        if fault == "place":
            del ds.PerFrameFunctionalGroupsSequence[3].PlanePositionSequence

    path = enhanced(tmp_path, ct_series(tmp_path), spoil)
    if fault == "cut":
        path.write_bytes(path.read_bytes()[:-100])
    with pytest.raises(InputError, match="cut off|places for 5|Position.*missing"):
        read_series(tmp_path)


# ---- one file that stands for its series


def dicomdir(folder: Path) -> Path:
    ds = Dataset()
    ds.file_meta = pydicom.dataset.FileMetaDataset()
    ds.file_meta.MediaStorageSOPClassUID = "1.2.840.10008.1.3.10"
    ds.file_meta.MediaStorageSOPInstanceUID = "1.2.3.4.5"
    ds.file_meta.TransferSyntaxUID = pydicom.uid.ExplicitVRLittleEndian
    ds.FileSetID = "CD"
    ds.save_as(folder / "DICOMDIR", enforce_file_format=True)
    return folder / "DICOMDIR"


@pytest.mark.parametrize("below", ["", "IMAGES/S1"])
def test_a_dicomdir_stands_for_its_folder(tmp_path: Path, ct_series: Write, ramp: Ramp, below: str) -> None:
    ct_series(tmp_path / below)
    (tmp_path / "AUTORUN.INF").write_text("[autorun]")
    for given in (tmp_path, dicomdir(tmp_path)):
        np.testing.assert_array_equal(hu_of(read_ct(given).image), ramp())


def test_a_file_that_is_no_ct_says_what_it_is(tmp_path: Path, ct_series: Write) -> None:
    ct_series(tmp_path)
    image, series, _ = read_series(tmp_path)
    structures = StructureSet(Geometry.of(image))
    structures.add_crop("Brainstem", (1, 2, 3), np.ones((2, 3, 4), dtype=bool))
    write_rtstruct(structures, tmp_path / "rt.dcm", series)
    with pytest.raises(
        InputError, match="rt.dcm: is an RTSTRUCT, not a CT; give a slice of the CT, or its folder"
    ):
        read_ct(tmp_path / "rt.dcm")


def test_a_slice_without_a_series_uid_stands_for_those_without(
    tmp_path: Path, ct_series: Write, ramp: Ramp
) -> None:
    files = ct_series(tmp_path, edit=lambda ds, k: ds.__delattr__("SeriesInstanceUID"))
    np.testing.assert_array_equal(hu_of(read_ct(files[0]).image), ramp())


def test_the_command_line_chooses_a_scan(
    tmp_path: Path, ct_series: Write, capsys: pytest.CaptureFixture[str]
) -> None:
    ct_series(tmp_path / "ct", prefix="a", edit=marked(ConvolutionKernel="soft"))
    ct_series(tmp_path / "ct", prefix="b", edit=marked(ConvolutionKernel="sharp"))
    image, series, _ = read_series(tmp_path / "ct", "/2")
    structures = StructureSet(Geometry.of(image))
    structures.add_crop("Brainstem", (1, 2, 3), np.ones((2, 3, 4), dtype=bool))
    write_rtstruct(structures, tmp_path / "rt.dcm", series)
    command = ["convert", str(tmp_path / "rt.dcm"), str(tmp_path / "o.nii.gz"), "--ct", str(tmp_path / "ct")]
    assert main(command) == 2
    assert "2 scans" in capsys.readouterr().err
    assert main([*command, "--series", "/2"]) == 0
