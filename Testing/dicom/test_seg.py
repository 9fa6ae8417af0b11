"""DICOM SEG as highdicom writes it, and with what other writers do differently: voxels, places and names hold."""

from __future__ import annotations

from pathlib import Path

import highdicom
import numpy as np
import pydicom
import pytest
from highdicom.seg import SegmentationTypeValues as Kind
from pydicom.sr.codedict import codes
from pydicom.uid import (
    ExplicitVRLittleEndian,
    JPEG2000Lossless,
    RLELossless,
    generate_uid,
)

from soars.cli import main
from soars.dicom.seg.read import read_seg
from soars.dicom.write import write_ct_series
from soars.errors import InputError
from soars.formats.reading import read_structures
from soars.structures import Geometry, StructureSet

TURN = np.radians(12)
DIRECTION = (np.cos(TURN), -np.sin(TURN), 0.0, np.sin(TURN), np.cos(TURN), 0.0, 0.0, 0.0, 1.0)
GRID = Geometry((22, 18, 12), (0.9, 1.3, 2.5), (-12.0, 30.0, -45.5), DIRECTION)
NAMES = ("Brainstem", "Parotid_L", "Pituitary")


@pytest.fixture(scope="module")
def ct(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A small CT series, oblique and not square."""
    import SimpleITK as sitk

    folder = tmp_path_factory.mktemp("seg") / "ct"
    hu = np.full(GRID.shape, -1000, np.int16)
    hu[1:-1, 3:-3, 3:-3] = 40
    write_ct_series(GRID.place(sitk.GetImageFromArray(hu)), folder, patient_id="p", patient_name="n")
    return folder


@pytest.fixture(scope="module")
def organs() -> StructureSet:
    """Two organs that overlap, with a slice left free in one, and one organ without a voxel."""
    structures = StructureSet(GRID)
    ragged = np.random.default_rng(4).random(GRID.shape) > 0.6
    ragged[:3], ragged[5], ragged[9:] = False, False, False
    structures.add("Brainstem", ragged)
    structures.add_crop("Parotid_L", (4, 5, 6), np.ones((4, 5, 6), bool))
    structures.add("Pituitary", np.zeros(GRID.shape, bool))
    return structures


def write(ct: Path, organs: StructureSet, path: Path, kind: Kind = Kind.BINARY, **options: object) -> Path:
    """The organs as a SEG by highdicom, which leaves empty frames out."""
    slices = [pydicom.dcmread(file) for file in sorted(ct.glob("*.dcm"))]
    slices.sort(key=lambda ds: ds.ImagePositionPatient[2])
    names = [name for name in organs if kind is not Kind.LABELMAP or name != "Parotid_L"]
    described = [
        highdicom.seg.SegmentDescription(
            segment_number=number,
            segment_label=name,
            segmented_property_category=codes.SCT.AnatomicalStructure,
            segmented_property_type=codes.SCT.Brain,
            algorithm_type="MANUAL",
            display_color=highdicom.color.CIELabColor.from_rgb(200, 30, 90),
        )
        for number, name in enumerate(names, start=1)
    ]
    masks = np.stack([organs.full(name) for name in names], axis=-1)
    pixels = masks.astype(np.float32) if kind is Kind.FRACTIONAL else masks.astype(np.uint8)
    made = highdicom.seg.Segmentation(
        source_images=slices,
        pixel_array=pixels,
        segmentation_type=kind,
        segment_descriptions=described,
        series_instance_uid=generate_uid(),
        series_number=7,
        sop_instance_uid=generate_uid(),
        instance_number=1,
        manufacturer="m",
        manufacturer_model_name="m",
        software_versions="1",
        device_serial_number="1",
        **options,
    )
    made.save_as(path)
    return path


def check(read: StructureSet, organs: StructureSet, names: tuple[str, ...] = NAMES) -> None:
    """The same voxels at the same places; a SEG keeps only the slices from its first to its last frame."""
    assert read.names == names
    whole = read.resample(GRID)
    for name in names:
        assert whole.crop(name).equals(organs.crop(name)), name


@pytest.mark.parametrize(
    ("kind", "syntax"),
    [
        (Kind.BINARY, ExplicitVRLittleEndian),
        (Kind.FRACTIONAL, ExplicitVRLittleEndian),
        (Kind.FRACTIONAL, RLELossless),  # which does not hold single bits
    ],
)
def test_what_highdicom_writes_is_read(
    ct: Path, organs: StructureSet, tmp_path: Path, kind: Kind, syntax: str
) -> None:
    path = write(ct, organs, tmp_path / "seg.dcm", kind, transfer_syntax_uid=syntax)
    read = read_seg(path)
    check(read, organs)
    assert (
        np.abs(np.subtract(read.info["Brainstem"].colour, (200, 30, 90))).max() <= 5
    )  # highdicom's Lab has 8 bits


def test_a_label_map_segmentation_is_read(ct: Path, organs: StructureSet, tmp_path: Path) -> None:
    names = ("Brainstem", "Pituitary")
    check(read_seg(write(ct, organs, tmp_path / "seg.dcm", Kind.LABELMAP)), organs, names)


def test_a_fraction_of_one_half_is_inside(ct: Path, organs: StructureSet, tmp_path: Path) -> None:
    path = write(ct, organs, tmp_path / "seg.dcm", Kind.FRACTIONAL, max_fractional_value=200)
    data = pydicom.dcmread(path)
    stored = np.frombuffer(data.PixelData, np.uint8).copy()
    stored[stored == 200] = 100
    for value, expected in ((100, organs), (99, None)):
        data.PixelData = np.where(stored == 100, value, 0).astype(np.uint8).tobytes()
        data.save_as(path)
        read = read_seg(path)
        if expected is not None:
            check(read, expected)
        else:
            assert all(read.is_empty(name) for name in read)


def test_frames_may_come_in_any_order(ct: Path, organs: StructureSet, tmp_path: Path) -> None:
    path = write(ct, organs, tmp_path / "seg.dcm")
    data = pydicom.dcmread(path)
    order = np.random.default_rng(2).permutation(int(data.NumberOfFrames))
    size = data.Rows * data.Columns
    bits = np.unpackbits(np.frombuffer(data.PixelData, np.uint8), bitorder="little")[: size * len(order)]
    data.PixelData = np.packbits(bits.reshape(-1, size)[order].ravel(), bitorder="little").tobytes() + b"\0"
    groups = list(data.PerFrameFunctionalGroupsSequence)
    data.PerFrameFunctionalGroupsSequence = [groups[i] for i in order]
    data.save_as(path)
    check(read_seg(path), organs)


@pytest.mark.parametrize("told", ["nothing", "a thickness that is not the distance", "a rounded distance"])
def test_the_distance_of_slices_is_that_of_the_frames(
    ct: Path, organs: StructureSet, tmp_path: Path, told: str
) -> None:
    path = write(ct, organs, tmp_path / "seg.dcm")
    data = pydicom.dcmread(path)
    measures = data.SharedFunctionalGroupsSequence[0].PixelMeasuresSequence[0]
    for keyword in ("SpacingBetweenSlices", "SliceThickness"):
        if keyword in measures:
            delattr(measures, keyword)
    if told != "nothing":
        measures.SliceThickness = "3.1" if "thickness" in told else "2.502"
    data.save_as(path)
    check(read_seg(path), organs)


def test_a_seg_is_input_of_convert_and_evaluate_by_its_content(
    ct: Path, organs: StructureSet, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = write(ct, organs, tmp_path / "no_ending")
    assert main(["convert", str(path), str(tmp_path / "out.seg.nrrd"), "--ct", str(ct)]) == 0
    check(read_structures(tmp_path / "out.seg.nrrd", GRID), organs)
    table = tmp_path / "scores.csv"
    words = ["evaluate", str(path), str(tmp_path / "out.seg.nrrd"), "--csv", str(table)]
    assert main(words) == 0
    rows = [line.split(",") for line in table.read_text().splitlines()[1:]]
    assert [row[2] for row in rows if row[1] != "Pituitary"] == ["1", "1"]
    folder = tmp_path / "study"
    folder.mkdir()
    for file in (*ct.iterdir(), path):  # the CT beside it is no segmentation
        (folder / file.name).write_bytes(file.read_bytes())
    check(read_structures(folder), organs)


def test_what_does_not_belong_or_is_damaged_is_refused(
    ct: Path, organs: StructureSet, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = write(ct, organs, tmp_path / "seg.dcm")
    whole = path.read_bytes()

    def edited(change: object) -> str:
        data = pydicom.dcmread(path)
        change(data)  # type: ignore[operator]
        data.save_as(tmp_path / "bad.dcm")
        assert main(["convert", str(tmp_path / "bad.dcm"), str(tmp_path / "x.nrrd"), "--ct", str(ct)]) == 2
        return capsys.readouterr().err.splitlines()[-1]

    def shift(data: pydicom.Dataset) -> None:
        item = data.PerFrameFunctionalGroupsSequence[0].PlanePositionSequence[0]
        item.ImagePositionPatient[2] = float(item.ImagePositionPatient[2]) + 1.1

    def turn(data: pydicom.Dataset) -> None:
        shared = data.SharedFunctionalGroupsSequence[0]
        shared.PlaneOrientationSequence[0].ImageOrientationPatient = [1, 0, 0, 0.5, 0.8, 0]

    def compress(data: pydicom.Dataset) -> None:
        frames = [b"\xff\x4f\xff\x51" * 8] * int(data.NumberOfFrames)
        data.PixelData = pydicom.encaps.encapsulate(frames)
        data.file_meta.TransferSyntaxUID = JPEG2000Lossless

    assert "belongs to another CT" in edited(lambda d: setattr(d, "FrameOfReferenceUID", "1.2.3"))
    assert "another patient" in edited(lambda d: setattr(d, "PatientID", "other"))
    assert "evenly spaced" in edited(shift) or "one above the other" in edited(shift)
    assert "not perpendicular" in edited(turn)
    assert "no segments" in edited(lambda d: setattr(d, "SegmentSequence", []))
    assert "of 1 where" in edited(
        lambda d: setattr(d, "PerFrameFunctionalGroupsSequence", d.PerFrameFunctionalGroupsSequence[:1])
    )
    assert "compressed as JPEG 2000" in edited(compress)
    for keep in (0.99, 0.6, 0.2):
        (tmp_path / "cut.dcm").write_bytes(whole[: int(keep * len(whole))])
        with pytest.raises(InputError, match="cut.dcm.*(cut short|cut off)"):
            read_structures(tmp_path / "cut.dcm")
    assert not (tmp_path / "x.nrrd").exists()


def test_two_segments_of_one_label_are_told_apart(ct: Path, organs: StructureSet, tmp_path: Path) -> None:
    path = write(ct, organs, tmp_path / "seg.dcm")
    data = pydicom.dcmread(path)
    for item in data.SegmentSequence[:2]:
        item.SegmentLabel = "Brainstem"
    data.save_as(path)
    read = read_seg(path)
    assert read.names == ("Brainstem", "Brainstem_2", "Pituitary")
    assert any("two segments are called 'Brainstem'" in text for text in read.warnings)
    assert read.voxels("Brainstem_2") == organs.voxels("Parotid_L")
    data.SegmentSequence[2].SegmentLabel = "Brainstem_2"
    data.save_as(path)
    assert read_seg(path).names == ("Brainstem", "Brainstem_3", "Brainstem_2")
