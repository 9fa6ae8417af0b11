"""DICOM SEG as it is written: read back by others and by us, and judged by an independent checker."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pydicom
import pytest

from soars.ct.series import read_series
from soars.dicom.provenance import GENERATION_TAG
from soars.dicom.rtstruct import read_rtstruct, write_rtstruct
from soars.dicom.seg.read import read_seg
from soars.dicom.seg.write import write_seg
from soars.errors import InputError
from soars.structures import Geometry, StructureInfo, StructureSet


def organs(geometry: Geometry) -> StructureSet:
    """Two that overlap, of odd sizes so that frames do not end on bytes, an empty one, one the catalogue lacks."""
    structures = StructureSet(geometry)
    mask = np.zeros(geometry.shape, bool)
    mask[1:4, 4:9, 5:11] = True
    structures.add("Brainstem", mask)
    mask = np.zeros(geometry.shape, bool)
    mask[3:5, 2:7, 9:16] = mask[0, 0, 0] = True
    structures.add("Parotid_L", mask, StructureInfo(colour=(250, 17, 3)))
    structures.add("Eye_L", np.zeros(geometry.shape, bool))
    mask = np.zeros(geometry.shape, bool)
    mask[-1, -1, -1] = True
    structures.add("PTV 70", mask, StructureInfo(label="a target"))
    return structures


def test_what_is_written_is_read_back(ct_series, dciodvfy, tmp_path: Path) -> None:
    def turned(ds: pydicom.Dataset, k: int) -> None:
        ds.ImageOrientationPatient = [-1, 0, 0, 0, -1, 0]  # rows and columns the other way

    for name, edit in (("plain", None), ("turned", turned)):
        ct_series(tmp_path / name, edit=edit)
        image, series, _ = read_series(tmp_path / name)
        ours = organs(Geometry.of(image))
        path = tmp_path / f"{name}.dcm"
        write_seg(ours, path, series)
        assert dciodvfy(path) == ""

        again = read_seg(path, series)
        assert again.names == ("Brainstem", "Parotid_L", "PTV 70")
        for organ in again.names:
            # the grid of the file is that of its frames, which may begin at another slice: compare by place
            moved = StructureSet(ours.geometry)
            shift = again.geometry.to_physical([(0, 0, 0)])[0]
            z = int(
                np.argmin(
                    np.linalg.norm(ours.geometry.to_physical([(k, 0, 0) for k in range(6)]) - shift, axis=1)
                )
            )
            crop = again.crop(organ)
            moved.add_crop(organ, (crop.start[0] + z, *crop.start[1:]), crop.array)
            assert moved.crop(organ).equals(ours.crop(organ)), (name, organ)
        assert again.info["Parotid_L"].colour == (250, 17, 3), "the colour survives CIELab"


def test_another_program_reads_the_same_voxels(ct_series, tmp_path: Path) -> None:
    highdicom = pytest.importorskip("highdicom", reason="highdicom is not installed")
    ct_series(tmp_path / "ct")
    image, series, _ = read_series(tmp_path / "ct")
    ours = organs(Geometry.of(image))
    write_seg(ours, tmp_path / "seg.dcm", series)
    seg = highdicom.seg.segread(tmp_path / "seg.dcm")
    assert [seg.get_segment_description(n).segment_label for n in (1, 2, 3)] == [
        "Brainstem",
        "Parotid_L",
        "PTV 70",
    ]
    pixels = seg.get_pixels_by_source_instance(
        source_sop_instance_uids=series.sop_instance_uids,
        ignore_spatial_locations=True,
        assert_missing_frames_are_empty=True,
    )
    for number, name in enumerate(["Brainstem", "Parotid_L", "PTV 70"]):
        np.testing.assert_array_equal(pixels[..., number].astype(bool), ours.full(name))


def test_it_is_tied_to_its_ct_and_patient(ct_series, tmp_path: Path) -> None:
    ct_series(tmp_path / "ct")
    image, series, _ = read_series(tmp_path / "ct")
    write_seg(organs(Geometry.of(image)), tmp_path / "seg.dcm", series)
    ds = pydicom.dcmread(tmp_path / "seg.dcm")
    assert (ds.PatientID, ds.StudyInstanceUID) == ("secret-number", "1.2.3")
    assert ds.FrameOfReferenceUID == "1.2.3.9"
    (referenced,) = ds.ReferencedSeriesSequence
    assert referenced.SeriesInstanceUID == "1.2.3.1" != ds.SeriesInstanceUID
    assert [
        i.ReferencedSOPInstanceUID for i in referenced.ReferencedInstanceSequence
    ] == series.sop_instance_uids


def test_nothing_is_written_of_nothing_or_of_another_ct(ct_series, tmp_path: Path) -> None:
    ct_series(tmp_path / "ct")
    image, series, _ = read_series(tmp_path / "ct")
    empty = StructureSet(Geometry.of(image))
    empty.add("Eye_L", np.zeros(empty.geometry.shape, bool))
    with pytest.raises(InputError, match="cannot be empty"):
        write_seg(empty, tmp_path / "seg.dcm", series)
    other = organs(Geometry(size=(20, 16, 7), spacing=(1.0, 1.0, 1.0), origin=(0.0, 0.0, 0.0)))
    with pytest.raises(InputError, match="not on its grid"):
        write_seg(other, tmp_path / "seg.dcm", series)
    assert not (tmp_path / "seg.dcm").exists()


def test_how_a_segment_was_made_goes_with_it(ct_series, dciodvfy, tmp_path: Path) -> None:
    """Segment Algorithm Type has the three values of ROI Generation Algorithm; a name only what has an algorithm."""
    ct_series(tmp_path / "ct")
    image, series, _ = read_series(tmp_path / "ct")
    ours = organs(Geometry.of(image))
    ours.info["Brainstem"] = StructureInfo(
        tags={GENERATION_TAG: "SEMIAUTOMATIC", "SOARS.bundle": "starter 1.2"}
    )
    ours.info["Parotid_L"] = StructureInfo(tags={GENERATION_TAG: "MANUAL"})
    ours.info["PTV 70"] = StructureInfo(tags={GENERATION_TAG: "BY MAGIC"})
    wanted = {"Brainstem": "SEMIAUTOMATIC", "Parotid_L": "MANUAL", "PTV 70": "AUTOMATIC"}
    write_seg(ours, tmp_path / "seg.dcm", series)
    assert dciodvfy(tmp_path / "seg.dcm") == ""
    segments = pydicom.dcmread(tmp_path / "seg.dcm").SegmentSequence
    assert {item.SegmentLabel: item.SegmentAlgorithmType for item in segments} == wanted
    names = [item.get("SegmentAlgorithmName") for item in segments]
    assert names == ["starter 1.2", None, "SOARS"]

    again = read_seg(tmp_path / "seg.dcm", series)
    assert {name: again.info[name].tags[GENERATION_TAG] for name in again} == wanted
    write_rtstruct(again.resample(ours.geometry), tmp_path / "rt.dcm", series)
    rois = pydicom.dcmread(tmp_path / "rt.dcm").StructureSetROISequence
    assert {roi.ROIName: roi.ROIGenerationAlgorithm for roi in rois} == wanted
    write_seg(read_rtstruct(tmp_path / "rt.dcm", ours.geometry, series), tmp_path / "2.dcm", series)
    segments = pydicom.dcmread(tmp_path / "2.dcm").SegmentSequence
    assert {item.SegmentLabel: item.SegmentAlgorithmType for item in segments} == wanted


def test_an_unknown_way_of_making_is_not_passed_on(ct_series, tmp_path: Path) -> None:
    ct_series(tmp_path / "ct")
    image, series, _ = read_series(tmp_path / "ct")
    write_seg(organs(Geometry.of(image)), tmp_path / "seg.dcm", series)
    data = pydicom.dcmread(tmp_path / "seg.dcm")
    data.SegmentSequence[0].SegmentAlgorithmType = "BY_MAGIC"
    del data.SegmentSequence[1].SegmentAlgorithmType
    data.save_as(tmp_path / "seg.dcm")
    read = read_seg(tmp_path / "seg.dcm", series)
    assert [read.info[name].tags.get(GENERATION_TAG) for name in read] == [None, None, "AUTOMATIC"]
