"""RTDOSEs as planning systems and archives hand them out: turned patients, rounded offsets, compressed, in cGy."""

from __future__ import annotations

import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pydicom
import pytest
import SimpleITK as sitk
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.uid import ExplicitVRLittleEndian, RTDoseStorage

from soars.cli import main
from soars.ct.decode import stored_frames
from soars.dicom.rtdose import RtDose, read_rtdose
from soars.dose.grid import read_dose
from soars.errors import InputError

FRAMES, ROWS, COLUMNS = 7, 9, 11
ROW_MM, COLUMN_MM, STEP_MM = 3.0, 2.5, 4.0
POSITION = (-12.0, -20.0, 30.0)
SCALE = 1e-4
PATIENTS = {
    "HFS": (1, 0, 0, 0, 1, 0), "HFP": (-1, 0, 0, 0, -1, 0), "FFS": (-1, 0, 0, 0, 1, 0), "FFP": (1, 0, 0, 0, -1, 0),
    "HFDR": (0, 1, 0, -1, 0, 0), "HFDL": (0, -1, 0, 1, 0, 0), "FFDR": (0, -1, 0, -1, 0, 0), "FFDL": (0, 1, 0, 1, 0, 0),
}  # fmt: skip
"""Image Orientation (Patient) of axial slices for the patient positions of PS3.3 C.7.3.1.1.2."""


def ramp_gy(points: np.ndarray) -> np.ndarray:
    """A dose that is linear in space: 30 + 0.1 x + 0.05 y + 0.2 z, points (..., 3) in LPS mm."""
    return 30 + points @ [0.1, 0.05, 0.2]


def write_dose(
    path: Path,
    cosines: tuple[float, ...] = PATIENTS["HFS"],
    offsets: list[float] | None = None,
    places: np.ndarray | None = None,
    edit: Callable[[Dataset], object] = lambda ds: None,
) -> Path:
    """The ramp, 16 bits, with pydicom alone. ``offsets`` is the Grid Frame Offset Vector; ``places`` are the frames'
    true places along row x column (default: the offsets)."""
    offsets = [STEP_MM * k for k in range(FRAMES)] if offsets is None else offsets
    row, column = np.array(cosines[:3]), np.array(cosines[3:])
    along = np.array(offsets if places is None else places)
    f, r, c = np.meshgrid(along, ROW_MM * np.arange(ROWS), COLUMN_MM * np.arange(COLUMNS), indexing="ij")
    points = (
        np.array(POSITION) + f[..., None] * np.cross(row, column) + r[..., None] * column + c[..., None] * row
    )
    meta = FileMetaDataset()
    meta.TransferSyntaxUID = ExplicitVRLittleEndian
    meta.MediaStorageSOPClassUID, meta.MediaStorageSOPInstanceUID = RTDoseStorage, "1.2.3.4"
    ds = Dataset()
    ds.file_meta = meta
    ds.SOPClassUID, ds.SOPInstanceUID, ds.Modality = RTDoseStorage, "1.2.3.4", "RTDOSE"
    ds.StudyInstanceUID, ds.SeriesInstanceUID, ds.FrameOfReferenceUID = "1.2.3", "1.2.3.5", "1.2.3.9"
    ds.PatientID = ds.PatientName = "P"
    ds.ImagePositionPatient, ds.ImageOrientationPatient = list(POSITION), list(cosines)
    ds.PixelSpacing, ds.NumberOfFrames = [ROW_MM, COLUMN_MM], FRAMES
    ds.GridFrameOffsetVector, ds.FrameIncrementPointer = [f"{v:.6g}" for v in offsets], 0x3004000C
    ds.DoseUnits, ds.DoseType, ds.DoseSummationType, ds.DoseGridScaling = "GY", "PHYSICAL", "PLAN", SCALE
    ds.SamplesPerPixel, ds.PhotometricInterpretation = 1, "MONOCHROME2"
    ds.Rows, ds.Columns, ds.PixelRepresentation = ROWS, COLUMNS, 0
    ds.BitsAllocated = ds.BitsStored = 16
    ds.HighBit = 15
    stored = np.rint(ramp_gy(points) / SCALE)
    assert stored.min() >= 0 and stored.max() < 65536 * 20
    ds.DoseGridScaling = SCALE * 10
    ds.PixelData = np.rint(ramp_gy(points) / SCALE / 10).astype("<u2").tobytes()
    edit(ds)
    ds.save_as(path, enforce_file_format=True)
    return path


def assert_is_the_ramp(dose: RtDose | sitk.Image, tolerance_gy: float = SCALE * 6) -> None:
    image = dose if isinstance(dose, sitk.Image) else dose.image
    size = np.array(image.GetSize()) - 1
    for index in [tuple(int(v) for v in np.array(c) * size) for c in np.ndindex(2, 2, 2)] + [(1, 2, 3)]:
        point = np.array(image.TransformIndexToPhysicalPoint(index))
        assert image[index] == pytest.approx(ramp_gy(point), abs=tolerance_gy)


@pytest.mark.parametrize("kind", ["relative", "absolute", "absolute, rounded position"])
@pytest.mark.parametrize("patient", PATIENTS)
def test_the_dose_lies_where_it_was_computed(tmp_path: Path, patient: str, kind: str) -> None:
    """PS3.3 C.8.8.3.2: offsets along row x column from the position, or z coordinates of axial frames."""
    cosines = PATIENTS[patient]
    steps = STEP_MM * np.arange(FRAMES)
    up = np.cross(cosines[:3], cosines[3:])[2]
    if kind == "relative":
        path = write_dose(tmp_path / "d.dcm", cosines, steps.tolist())
    else:
        z = POSITION[2] + up * steps + (0.04 if "rounded" in kind else 0.0)
        path = write_dose(tmp_path / "d.dcm", cosines, z.tolist(), places=up * (z - POSITION[2]))
    dose = read_rtdose(path)
    assert_is_the_ramp(dose)
    assert dose.warnings == []
    assert np.linalg.det(np.reshape(dose.image.GetDirection(), (3, 3))) == pytest.approx(1)


@pytest.mark.parametrize("patient", ["HFS", "FFS", "HFDR"])
def test_frames_from_head_to_foot_are_put_in_order(tmp_path: Path, patient: str) -> None:
    assert_is_the_ramp(
        read_rtdose(write_dose(tmp_path / "d.dcm", PATIENTS[patient], [-4.0 * k for k in range(FRAMES)]))
    )


@pytest.mark.parametrize("step", [10 / 3, 2.4999, 1.66666])
def test_offsets_rounded_to_a_tenth_of_a_millimetre_are_regular(tmp_path: Path, step: float) -> None:
    exact = step * np.arange(FRAMES)
    rounded = np.round(exact, 1)
    dose = read_rtdose(write_dose(tmp_path / "d.dcm", offsets=rounded.tolist(), places=exact))
    assert_is_the_ramp(dose, 0.05 * 0.2 + 1e-3)
    uneven = np.abs(rounded - np.linspace(0, rounded[-1], FRAMES)).max() > 0.02
    assert len(dose.warnings) == int(uneven)
    assert dose.image.GetSpacing()[2] == pytest.approx(step, abs=0.1 / (FRAMES - 1))


def test_frames_that_are_truly_uneven_are_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"not evenly spaced \(4 to 5 mm\)"):
        read_rtdose(write_dose(tmp_path / "d.dcm", offsets=[0, 4, 8, 13, 17, 21, 25]))


# --- transfer syntaxes --------------------------------------------------------------------------------------------
DCMTK = {
    "implicit": ("dcmconv", "+ti"),
    "explicit": ("dcmconv", "+te"),
    "big endian": ("dcmconv", "+tb"),
    "deflated": ("dcmconv", "+td"),
    "RLE": ("dcmcrle",),
    "JPEG lossless": ("dcmcjpeg", "+e1"),
    "JPEG lossless, process 14": ("dcmcjpeg", "+el"),
    "JPEG-LS": ("dcmcjpls",),
    "JPEG-LS near lossless": ("dcmcjpls", "+en", "+md", "1"),
}


def by_dcmtk(source: Path, target: Path, program: str, *options: str) -> Path:
    if shutil.which(program) is None:
        pytest.skip(f"{program} is not installed: apt-get install dcmtk")
    done = subprocess.run(
        [program, *options, str(source), str(target)], capture_output=True, text=True, timeout=60
    )
    assert done.returncode == 0, done.stderr
    return target


@pytest.mark.parametrize("name", DCMTK)
def test_every_transfer_syntax_of_dcmtk_gives_the_same_dose(tmp_path: Path, name: str) -> None:
    source = write_dose(tmp_path / "d.dcm")
    path = by_dcmtk(source, tmp_path / "e.dcm", *DCMTK[name])
    syntaxes = [
        pydicom.dcmread(p, stop_before_pixels=True).file_meta.TransferSyntaxUID for p in (source, path)
    ]
    assert (syntaxes[0] == syntaxes[1]) == (name == "explicit")
    whole, dose = read_rtdose(source), read_rtdose(path)
    near = "near" in name
    assert bool(dose.warnings) == near and all("compressed with loss" in w for w in dose.warnings)
    difference = np.abs(sitk.GetArrayFromImage(dose.image) - sitk.GetArrayFromImage(whole.image)).max()
    assert difference <= (1.01 * SCALE * 10 if near else 0)


def test_32_bits_in_big_endian_are_two_words_with_the_lower_first(tmp_path: Path) -> None:
    """OW, PS3.5 A.3, as dcmtk has it; swapped whole, 33.8 Gy would be 59.0 Gy."""
    source = write_dose(tmp_path / "d.dcm")
    ds = pydicom.dcmread(source)
    stored = ds.pixel_array.astype("<u4") * 60000
    ds.BitsAllocated = ds.BitsStored = 32
    ds.HighBit = 31
    ds.PixelData, ds.DoseGridScaling = stored.tobytes(), f"{float(ds.DoseGridScaling) / 60000:.10g}"
    ds.save_as(tmp_path / "wide.dcm")
    turned = by_dcmtk(tmp_path / "wide.dcm", tmp_path / "big.dcm", "dcmconv", "+tb")
    for path in (tmp_path / "wide.dcm", turned):
        np.testing.assert_allclose(
            sitk.GetArrayFromImage(read_rtdose(path).image),
            sitk.GetArrayFromImage(read_rtdose(source).image),
            rtol=1e-6,
        )


def test_a_syntax_that_is_not_read_is_named_and_not_called_damage(tmp_path: Path) -> None:
    def as_htj2k(ds: Dataset) -> None:
        ds.file_meta.TransferSyntaxUID = "1.2.840.10008.1.2.4.201"
        ds.PixelData = pydicom.encaps.encapsulate([b"\xff\x4f\xff\x51"] * FRAMES)
        ds["PixelData"].VR = "OB"

    with pytest.raises(
        InputError, match="compressed as High-Throughput JPEG 2000.*export it uncompressed"
    ) as caught:
        read_rtdose(write_dose(tmp_path / "d.dcm", edit=as_htj2k))
    assert "damaged" not in str(caught.value)


def test_a_compressed_dose_that_is_damaged_says_so(tmp_path: Path) -> None:
    path = by_dcmtk(write_dose(tmp_path / "d.dcm"), tmp_path / "e.dcm", "dcmcjpeg", "+e1")
    raw = path.read_bytes()
    for kept in (len(raw) - 300, len(raw) // 4):
        path.write_bytes(raw[:kept])
        with pytest.raises(InputError, match="damaged|cut off|cannot be decoded"):
            read_rtdose(path)


def test_pydicoms_samples_are_the_same_uncompressed_and_as_rle() -> None:
    """32 bits, 15 frames of 10 x 10."""
    stored = []
    for name in ("rtdose.dcm", "rtdose_rle.dcm"):
        path = Path(str(pydicom.data.get_testdata_file(name, download=False)))
        stored.append(stored_frames(pydicom.dcmread(path), path))
        assert stored[-1].shape == (15, 10, 10)
        with pytest.raises(InputError, match="relative"):  # which these samples are
            read_rtdose(path)
    np.testing.assert_array_equal(*stored)


# --- without preamble, and units ----------------------------------------------------------------------------------
def test_without_preamble_and_file_meta_information(tmp_path: Path) -> None:
    """As Elekta XiO writes it: implicit little endian from the first byte."""
    implicit = by_dcmtk(write_dose(tmp_path / "d.dcm"), tmp_path / "i.dcm", "dcmconv", "+ti")
    raw = implicit.read_bytes()
    (tmp_path / "RD.1").write_bytes(raw[144 + int.from_bytes(raw[140:144], "little") :])
    assert_is_the_ramp(read_rtdose(tmp_path / "RD.1"))


def unit(text: str | None) -> Callable[[Dataset], object]:
    def edit(ds: Dataset) -> None:
        if text is None:
            del ds.DoseUnits
        else:
            ds.DoseUnits = text
        if text != "GY":
            ds.DoseGridScaling = SCALE * 1000  # a hundred times the number

    return edit


def test_a_dose_without_a_unit_is_read_in_the_one_that_is_said(tmp_path: Path) -> None:
    path = write_dose(tmp_path / "d.dcm", edit=unit(None))
    with pytest.raises(InputError, match="without a unit.*--dose-unit"):
        read_rtdose(path)
    assert_is_the_ramp(read_rtdose(path, "cGy"))


def test_centigray_under_the_name_of_gray_is_noticed_and_can_be_said(tmp_path: Path) -> None:
    path = write_dose(tmp_path / "d.dcm", edit=lambda ds: setattr(ds, "DoseGridScaling", SCALE * 1000))
    with pytest.raises(InputError, match="too much for Gy; if it is in cGy, say --dose-unit cGy"):
        read_rtdose(path)
    dose = read_rtdose(path, "cGy")
    assert_is_the_ramp(dose)
    assert any("read in cGy, as asked, though the file says GY" in w for w in dose.warnings)


def test_a_unit_that_dicom_does_not_know_is_read_and_noted(tmp_path: Path) -> None:
    dose = read_rtdose(write_dose(tmp_path / "d.dcm", edit=unit("CGY")))
    assert_is_the_ramp(dose)
    assert len(dose.warnings) == 1 and "in cGy" in dose.warnings[0]


def test_a_relative_dose_stays_refused(tmp_path: Path) -> None:
    path = write_dose(tmp_path / "d.dcm", edit=unit("RELATIVE"))
    for asked in (None, "Gy", "cGy"):
        with pytest.raises(InputError, match="its dose is relative"):
            read_rtdose(path, asked)


def test_an_image_in_centigray_is_read_as_such_when_asked(tmp_path: Path) -> None:
    whole = read_rtdose(write_dose(tmp_path / "d.dcm")).image
    sitk.WriteImage(whole * 100, str(tmp_path / "d.nrrd"))
    with pytest.raises(InputError, match="--dose-unit cGy"):
        read_dose(tmp_path / "d.nrrd")
    assert_is_the_ramp(read_dose(tmp_path / "d.nrrd", unit="cGy").image, 2e-3)


def test_the_command_line_takes_the_unit(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["dose", "--help"]) == 0
    assert "--dose-unit {Gy,cGy}" in capsys.readouterr().out
