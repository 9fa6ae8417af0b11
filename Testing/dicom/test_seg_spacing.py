"""How far the slices of a DICOM SEG are apart: volumes are those of boxes of 8 x 8 pixels of 1 mm on every frame."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import pydicom
import pytest
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.uid import UID, ExplicitVRLittleEndian, generate_uid

from soars.ct.series import read_series
from soars.dicom.seg.read import SEGMENTATION, read_seg
from soars.errors import InputError
from soars.formats.reading import read_structures
from soars.structures import Geometry

AXIAL = (1, 0, 0, 0, 1, 0)
BOX = 64
"""mm2 of every frame's box."""


def seg(
    path: Path,
    places: Sequence[float],
    thickness: float | None,
    between: float | None = None,
    *,
    axes: Sequence[float] = AXIAL,
    origin: Sequence[float] = (-10, -20, 0),
    segments: Sequence[int] | None = None,
    made_from: str = "1.2.3.1",
) -> Path:
    """A binary SEG with a frame at each of the places, mm along the normal from ``origin``."""
    ds = Dataset()
    ds.file_meta = FileMetaDataset()
    ds.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
    ds.SOPClassUID = ds.file_meta.MediaStorageSOPClassUID = UID(SEGMENTATION)
    ds.SOPInstanceUID = ds.file_meta.MediaStorageSOPInstanceUID = generate_uid()
    ds.Modality, ds.SegmentationType, ds.PatientID = "SEG", "BINARY", "secret-number"
    ds.FrameOfReferenceUID = "1.2.3.9"
    ds.Rows = ds.Columns = 16
    ds.BitsAllocated = ds.BitsStored = 1
    series, orientation, measures, shared = Dataset(), Dataset(), Dataset(), Dataset()
    series.SeriesInstanceUID = made_from
    ds.ReferencedSeriesSequence = [series]
    orientation.ImageOrientationPatient = list(axes)
    measures.PixelSpacing = [1, 1]
    if thickness is not None:
        measures.SliceThickness = thickness
    if between is not None:
        measures.SpacingBetweenSlices = between
    shared.PlaneOrientationSequence, shared.PixelMeasuresSequence = [orientation], [measures]
    ds.SharedFunctionalGroupsSequence = [shared]
    normal = np.cross(axes[:3], axes[3:])
    numbers = segments or [1] * len(places)
    groups = []
    for place, number in zip(places, numbers, strict=True):
        position, segment, group = Dataset(), Dataset(), Dataset()
        position.ImagePositionPatient = [f"{v:.6g}" for v in np.array(origin) + place * normal]
        segment.ReferencedSegmentNumber = number
        group.PlanePositionSequence, group.SegmentIdentificationSequence = [position], [segment]
        groups.append(group)
    ds.PerFrameFunctionalGroupsSequence, ds.NumberOfFrames = groups, len(groups)
    ds.SegmentSequence = []
    for number in sorted(set(numbers)):
        item = Dataset()
        item.SegmentNumber, item.SegmentLabel = number, f"organ {number}"
        ds.SegmentSequence.append(item)
    frame = np.zeros((16, 16), bool)
    frame[4:12, 4:12] = True
    ds.PixelData = np.packbits(np.tile(frame.ravel(), len(groups)), bitorder="little").tobytes()
    ds["PixelData"].VR = "OB"
    ds.save_as(path, enforce_file_format=True)
    return path


def apart(distance: float, count: int = 8) -> list[float]:
    return [distance * k for k in range(count)]


@pytest.mark.parametrize("axes", [AXIAL, (1, 0, 0, 0, 0, -1), (0.8, 0.6, 0, 0, 0, -1)])
@pytest.mark.parametrize(
    ("distance", "thickness", "between"),
    [
        (3.0, 3.0, None),
        (3.0, 1.5, None),  # gaps as wide as the slices
        (3.0, 1.0, None),
        (2.5, 1.25, None),
        (10.0, 1.0, None),
        (1.5, 3.0, None),  # slices that overlap
        (3.0, 5.0, None),
        (3.0, None, None),
        (3.0, 1.5, 3.0),
        (3.0, 3.0, -3.0),
    ],
)
def test_slices_are_as_thick_as_they_are_apart(
    tmp_path: Path,
    distance: float,
    thickness: float | None,
    between: float | None,
    axes: tuple[float, ...],
) -> None:
    read = read_seg(seg(tmp_path / "s.dcm", apart(distance), thickness, between, axes=axes))
    assert read.geometry.size[2] == 8 and read.geometry.spacing[2] == pytest.approx(distance)
    assert read.volume_cc("organ 1") == pytest.approx(BOX * 8 * distance / 1000)
    gaps = between is None and thickness is not None and thickness < distance / 1.5
    assert [f"{thickness:g} mm thick but {distance:g} mm apart" in text for text in read.warnings] == [
        True
    ] * gaps


@pytest.mark.parametrize(
    ("places", "thickness", "step"),
    [
        ([0, 3, 6, 15, 18], 3.0, 3.0),  # slices left out
        ([0, 3, 6, 15, 18], 1.5, 3.0),
        ([0, 6, 15], 3.0, 3.0),  # all their neighbours left out: nothing else explains the distances
        ([0, 30], 3.0, 3.0),  # two organs of one slice
        ([0, 30, 90], 3.0, 3.0),
        ([0, 3], 1.5, 3.0),  # one organ of two slices
        ([12], 3.0, 3.0),
        ([12], None, 1.0),
    ],
)
def test_slices_that_are_left_out_are_no_spacing(
    tmp_path: Path, places: list[float], thickness: float | None, step: float
) -> None:
    read = read_seg(seg(tmp_path / "s.dcm", places, thickness))
    assert read.geometry.spacing[2] == pytest.approx(step)
    assert read.volume_cc("organ 1") == pytest.approx(BOX * len(places) * step / 1000)


def test_a_spacing_that_is_said_holds_though_no_frames_are_as_near(tmp_path: Path) -> None:
    read = read_seg(seg(tmp_path / "s.dcm", apart(3.0), 3.0, 1.5))
    assert read.geometry.spacing[2] == 1.5 and read.volume_cc("organ 1") == BOX * 8 * 1.5 / 1000


def test_rounded_positions_are_even(tmp_path: Path) -> None:
    """120 slices, each up to 0.03 mm off; and the frames of a second segment, 0.002 mm beside those of the first."""
    off = np.random.default_rng(1).uniform(-0.03, 0.03, 120)
    places = np.array(apart(3.0, 120)) + off
    read = read_seg(seg(tmp_path / "s.dcm", places.tolist(), 1.5))
    assert read.geometry.size[2] == 120 and read.geometry.spacing[2] == pytest.approx(3.0, abs=0.001)
    both = [*apart(3.0), *(place + 0.002 for place in apart(3.0))]
    read = read_seg(seg(tmp_path / "s.dcm", both, 3.0, segments=[1] * 8 + [2] * 8))
    assert read.geometry.size[2] == 8
    for name in ("organ 1", "organ 2"):
        assert read.volume_cc(name) == pytest.approx(BOX * 8 * 3.0 / 1000, rel=1e-3)


def test_uneven_frames_are_refused(tmp_path: Path) -> None:
    for thickness in (3.0, 1.7, None):
        with pytest.raises(InputError, match="not evenly spaced"):
            read_seg(seg(tmp_path / "s.dcm", [0, 3, 6, 9, 13], thickness))


def test_the_ct_that_it_was_made_from_says_how_far_slices_are_apart(
    ct_series: Callable[..., list[Path]], tmp_path: Path
) -> None:
    """Slices of 3 mm from z = 30: frames on every second are no slices of 6 mm, one frame is as thick as a slice."""
    ct_series(tmp_path / "ct")
    image, series, _ = read_series(tmp_path / "ct")
    grid = Geometry.of(image)

    def step(places: Sequence[float], thickness: float, **options: str) -> float:
        read = read_seg(seg(tmp_path / "s.dcm", places, thickness, **options), series, grid=grid)
        return read.geometry.spacing[2]

    every_second = (30, 36, 42)
    assert step(every_second, 1.5) == 3.0
    assert step(every_second, 1.5, made_from="1.2.3.4") == 6.0  # another series says nothing
    assert step(every_second, 6.0) == 6.0  # nor does one of closer slices: they adjoin
    assert step((31, 37, 43), 1.5) == 6.0  # not on its slices
    assert step((36,), 1.5) == 3.0
    assert step((36,), 1.5, made_from="1.2.3.4") == 1.5
    other = read_seg(seg(tmp_path / "s.dcm", every_second, 3.0, 3.0, made_from="1.2.3.4"), series, grid=grid)
    assert ["made on another series than this CT" in text for text in other.warnings] == [True]
    path = seg(tmp_path / "s.dcm", every_second, 1.5)
    assert not read_seg(path, series, grid=grid).warnings
    on_ct = read_structures(path, grid, reference=series, catalogue_names=False)
    assert on_ct.full("organ 1").any(axis=(1, 2)).tolist() == [True, False, True, False, True, False]


@pytest.mark.parametrize("between", [None, 0.625, 1.0])
@pytest.mark.parametrize("step", [0.625, 1.0])
def test_frames_lie_as_unevenly_as_the_slices_of_a_ct_may(
    tmp_path: Path, step: float, between: float | None
) -> None:
    """Positions rounded to 0.1 mm, or each up to 0.1 mm off: `soars.ct.stack` reads such a CT with a warning."""
    off = np.random.default_rng(2).uniform(-0.1, 0.1, 40)
    rounded = [round(place, 1) for place in apart(step, 40)]
    for places in (rounded, (np.array(apart(step, 40)) + off).tolist()):
        if step == 0.625 and places is not rounded:
            continue  # a third of a slice
        read = read_seg(seg(tmp_path / "s.dcm", places, step, between if between == step else None))
        assert read.geometry.size[2] == 40 and read.geometry.spacing[2] == pytest.approx(step, rel=0.01)
        assert read.voxels("organ 1") == 40 * BOX
        assert (places == apart(step, 40)) or any("not quite evenly spaced" in text for text in read.warnings)


def test_frames_may_lie_sideways_as_far_as_slices_of_a_ct(tmp_path: Path) -> None:
    """Half a millimetre, which is told; the middle of them counts."""
    for shift, fits in ((0.4, True), (0.6, False)):
        path = seg(tmp_path / "s.dcm", apart(3.0, 5), 3.0)
        ds = pydicom.dcmread(path)
        for k, group in enumerate(ds.PerFrameFunctionalGroupsSequence):
            position = group.PlanePositionSequence[0]
            x, y, z = position.ImagePositionPatient
            position.ImagePositionPatient = [float(x) + shift * k / 4, y, z]
        ds.save_as(path)
        if not fits:
            with pytest.raises(InputError, match="one above the other"):
                read_seg(path)
            continue
        read = read_seg(path)
        assert read.geometry.origin == pytest.approx((-10 + shift / 2, -20, 0))
        assert any("sideways against each other by up to 0.40 mm" in text for text in read.warnings)
