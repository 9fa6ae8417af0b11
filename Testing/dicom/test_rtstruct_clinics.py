"""RTSTRUCTs as clinics' programs write them: each has one meaning here, or is refused in one sentence."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pydicom
import pytest
from clinics import Clinic, make_clinic
from pydicom.dataset import Dataset
from pydicom.uid import DeflatedExplicitVRLittleEndian, ExplicitVRLittleEndian, ImplicitVRLittleEndian

from soars.dicom.rtstruct import read_rtstruct
from soars.errors import InputError
from soars.formats.reading import read_structures
from soars.structures import StructureSet


@pytest.fixture
def clinic(ct_series: Callable[..., list[Path]], tmp_path: Path) -> Clinic:
    return make_clinic(tmp_path, ct_series)


OUTER, INNER, CORE = (
    (1.5, 1.5, 11.5, 11.5),
    (3.5, 3.5, 9.5, 9.5),
    (5.5, 5.5, 7.5, 7.5),
)  # 100, 36 and 4 voxels


# --- several contours on one slice ---------------------------------------------------------------------------
@pytest.mark.parametrize("kind", ["CLOSED_PLANAR", "CLOSEDPLANAR_XOR"])
def test_contours_within_contours_are_holes_and_islands(kind: str, clinic: Clinic) -> None:
    read = clinic.draw(*(clinic.box(2, box, kind) for box in (INNER, OUTER, CORE))).read()
    assert read.voxels("Brainstem") == 100 - 36 + 4
    assert not read.warnings


def test_a_keyhole_is_a_hole_whichever_way_it_runs(clinic: Clinic) -> None:
    around = [(1.5, 1.5), (11.5, 1.5), (11.5, 6), (9.5, 6), (9.5, 3.5), (3.5, 3.5), (3.5, 9.5), (9.5, 9.5)]
    around += [(9.5, 6), (11.5, 6), (11.5, 11.5), (1.5, 11.5)]
    for points in (around, around[::-1], [*around, around[0]]):
        assert clinic.draw(clinic.contour(2, *points)).read().voxels("Brainstem") == 100 - 36


def test_a_contour_that_is_there_twice_counts_once(clinic: Clinic) -> None:
    x0, y0, x1, y1 = OUTER
    again = clinic.contour(2, (x1, y1), (x1, y0), (x0, y0), (x0, y1))  # begins elsewhere, runs the other way
    read = clinic.draw(clinic.box(2, OUTER), clinic.box(2, INNER), again).read()
    assert read.voxels("Brainstem") == 100 - 36
    assert any("drawn twice" in warning for warning in read.warnings)


def test_contours_that_overlap_in_part_are_one_area(clinic: Clinic) -> None:
    left, right = (1.5, 1.5, 6.5, 6.5), (4.5, 4.5, 9.5, 9.5)
    elsewhere = (12.5, 12.5, 14.5, 14.5)
    read = clinic.draw(*(clinic.box(2, box) for box in (left, right, elsewhere))).read()
    assert read.voxels("Brainstem") == 25 + 25 - 4 + 4
    assert any("overlap in part on 1 slice" in warning for warning in read.warnings)
    read = clinic.draw(*(clinic.box(2, box, "CLOSEDPLANAR_XOR") for box in (left, right))).read()
    assert read.voxels("Brainstem") == 25 + 25 - 2 * 4


def test_a_hole_drawn_slightly_over_the_outline_stays_a_hole(clinic: Clinic) -> None:
    hole = (1.2, 3.5, 9.5, 9.5)  # begins 0.3 voxels outside OUTER
    read = clinic.draw(clinic.box(2, OUTER), clinic.box(2, hole)).read()
    assert read.voxels("Brainstem") == 100 - 8 * 6


# --- slices --------------------------------------------------------------------------------------------------
def test_slices_without_a_contour_stay_empty_and_are_told(clinic: Clinic) -> None:
    read = clinic.draw(clinic.box(1, OUTER), clinic.box(4, OUTER)).read()
    assert [int(s.sum()) for s in read.full("Brainstem")] == [0, 100, 0, 0, 100, 0]
    assert any("2 slices between its first and last have no contour" in warning for warning in read.warnings)


@pytest.mark.parametrize(("mm", "told"), [(0.15, False), (0.3, True), (1.1, True)])
def test_contours_beside_the_slices_are_told_once(clinic: Clinic, mm: float, told: bool) -> None:
    """Slices of 3 mm: contours of a reconstruction that begins 1.1 mm higher lie 0.37 slices off."""

    def edit(dataset: Dataset) -> None:
        for item in dataset.ROIContourSequence:
            for contour in item.ContourSequence:
                points = np.reshape([float(v) for v in contour.ContourData], (-1, 3)) + (0, 0, mm)
                contour.ContourData = [f"{v:.6g}" for v in points.ravel()]

    read = clinic.edit(edit).read()
    assert read.voxels("Brainstem") == 24
    assert [
        f"up to {mm:.2g} mm beside the slices" in text and "2 of 2" in text for text in read.warnings
    ] == [True] * told


def test_contours_of_another_series_of_the_frame_of_reference_are_told(clinic: Clinic) -> None:
    def edit(dataset: Dataset) -> None:
        study = dataset.ReferencedFrameOfReferenceSequence[0].RTReferencedStudySequence[0]
        study.RTReferencedSeriesSequence[0].SeriesInstanceUID = "1.2.3.77"

    (said,) = clinic.edit(edit).read().warnings
    assert "made on another series than this CT" in said


def test_a_contour_may_run_as_far_out_as_it_likes(clinic: Clinic) -> None:
    started = time.monotonic()
    far = clinic.contour(2, (1.5, 1.5), (4e8, 1.5), (4e8, 4e8), (1.5, 4e8))
    read = clinic.draw(far, clinic.box(3, OUTER)).read()
    assert time.monotonic() - started < 5
    assert int(read.full("Brainstem")[2].sum()) == (20 - 2) * (16 - 2)
    assert any("reaches beyond the CT" in warning for warning in read.warnings)


# --- ROIs ----------------------------------------------------------------------------------------------------
def _with_a_third(clinic: Clinic, second: str, third: str) -> StructureSet:
    """The clinic's file with its second ROI named so, and an empty third one."""

    def edit(dataset: Dataset) -> None:
        more = Dataset()
        more.ROINumber, more.ROIName = 77, third
        more.ReferencedFrameOfReferenceUID = clinic.series.frame_of_reference_uid
        dataset.StructureSetROISequence[1].ROIName = second
        dataset.StructureSetROISequence.append(more)

    return clinic.edit(edit).read()


def test_rois_of_one_name_are_numbered(clinic: Clinic) -> None:
    read = _with_a_third(clinic, "Brainstem ", "Brainstem")
    assert read.names == ("Brainstem", "Brainstem_2", "Brainstem_3")
    assert read.is_empty("Brainstem_3") and not read.is_empty("Brainstem_2")


def test_the_number_of_a_copy_is_not_the_name_of_another_roi(clinic: Clinic) -> None:
    read = _with_a_third(clinic, "Brainstem", "Brainstem_2")
    assert read.names == ("Brainstem", "Brainstem_3", "Brainstem_2")
    assert read.is_empty("Brainstem_2") and not read.is_empty("Brainstem_3")


def test_names_are_resolved_and_those_that_cannot_be_are_kept(clinic: Clinic) -> None:
    def edit(dataset: Dataset) -> None:
        dataset.StructureSetROISequence[0].ROIName = "brain stem"
        dataset.StructureSetROISequence[1].ROIName = "zz_dose_shaper_3"

    read = read_structures(clinic.edit(edit).rtstruct, clinic.geometry, reference=clinic.series)
    assert read.names == ("Brainstem", "zz_dose_shaper_3")
    assert read.info["Brainstem"].original_name == "brain stem"
    assert any("zz_dose_shaper_3" in warning for warning in read.warnings)


def test_an_roi_without_a_name_gets_its_number(clinic: Clinic) -> None:
    read = clinic.edit(lambda d: d.StructureSetROISequence[1].__delattr__("ROIName")).read()
    assert read.names == ("Brainstem", "ROI 2")
    assert any("it is now 'ROI 2'" in warning for warning in read.warnings)


def test_contours_of_one_roi_in_two_places_are_one(clinic: Clinic) -> None:
    def edit(dataset: Dataset) -> None:
        dataset.ROIContourSequence[1].ReferencedROINumber = 1

    read = clinic.edit(edit).read()
    assert read.voxels("Brainstem") == 24 + 24 and read.is_empty("Parotid_L")


def test_contours_of_no_roi_are_told(clinic: Clinic) -> None:
    def edit(dataset: Dataset) -> None:
        dataset.ROIContourSequence[1].ReferencedROINumber = 9

    read = clinic.edit(edit).read()
    assert any("no ROI of number 9; its 2 contours were ignored" in warning for warning in read.warnings)


def test_an_roi_without_a_number_costs_itself(clinic: Clinic) -> None:
    read = clinic.edit(lambda d: d.StructureSetROISequence[0].__delattr__("ROINumber")).read()
    assert read.names == ("Parotid_L",) and read.voxels("Parotid_L") == 24
    assert any("'Brainstem' was left out: it has no number" in w for w in read.warnings)


def test_contours_without_the_number_of_their_roi_are_ignored_aloud(clinic: Clinic) -> None:
    read = clinic.edit(lambda d: d.ROIContourSequence[0].__delattr__("ReferencedROINumber")).read()
    assert read.voxels("Parotid_L") == 24 and read.is_empty("Brainstem")
    assert any("2 contours without the number of an ROI were ignored" in w for w in read.warnings)


def test_rois_that_share_a_number_cost_themselves(clinic: Clinic) -> None:
    def edit(dataset: Dataset) -> None:
        third = Dataset()
        third.ROINumber, third.ROIName = 1, "Lens_L"
        third.ReferencedFrameOfReferenceUID = dataset.StructureSetROISequence[0].ReferencedFrameOfReferenceUID
        dataset.StructureSetROISequence.append(third)

    read = clinic.edit(edit).read()
    assert read.names == ("Parotid_L",) and read.voxels("Parotid_L") == 24
    assert any("'Brainstem', 'Lens_L' were left out: all have the number 1" in w for w in read.warnings)
    clinic.edit(lambda d: setattr(d.StructureSetROISequence[1], "ROINumber", 1))
    with pytest.raises(InputError, match="has no contours.*all have the number 1"):
        clinic.read()


# --- whose it is ---------------------------------------------------------------------------------------------
def test_another_patient_s_is_refused_and_neither_is_named(clinic: Clinic) -> None:
    clinic.edit(lambda d: setattr(d, "PatientID", "somebody else"))
    with pytest.raises(InputError, match="another patient") as error:
        clinic.read(any_frame=True)
    assert "secret" not in str(error.value) and "somebody" not in str(error.value)


@pytest.mark.parametrize("of", ["RTSTRUCT", "CT"])
def test_an_id_that_was_replaced_says_nothing(of: str, clinic: Clinic) -> None:
    header = Dataset()
    header.update(clinic.series.header)
    if of == "CT":
        header.PatientID, header.PatientIdentityRemoved = "case 1", "YES"
    else:
        clinic.edit(
            lambda d: (setattr(d, "PatientID", "case 1"), setattr(d, "PatientIdentityRemoved", "YES"))
        )
    read = read_rtstruct(clinic.rtstruct, clinic.geometry, replace(clinic.series, header=header))
    assert read.voxels("Brainstem") == 24


def test_without_an_id_the_frame_of_reference_decides(clinic: Clinic) -> None:
    assert clinic.edit(lambda d: setattr(d, "PatientID", "")).read().voxels("Brainstem") == 24


def no_frame(dataset: Dataset) -> None:
    del dataset.ReferencedFrameOfReferenceSequence
    del dataset.FrameOfReferenceUID
    for roi in dataset.StructureSetROISequence:
        del roi.ReferencedFrameOfReferenceUID


def other_frame(dataset: Dataset) -> None:
    no_frame(dataset)
    for roi in dataset.StructureSetROISequence:
        roi.ReferencedFrameOfReferenceUID = "1.2.3.4.5.6"


@pytest.mark.parametrize(
    ("edit", "message"), [(no_frame, "has no frame of reference"), (other_frame, "belongs to another CT")]
)
def test_another_frame_of_reference_or_none_is_refused_unless_told(
    edit: Callable[[Dataset], None], message: str, clinic: Clinic
) -> None:
    clinic.edit(edit)
    with pytest.raises(InputError, match=message):
        clinic.read()
    with pytest.raises(InputError, match=message):
        read_structures(clinic.rtstruct, clinic.geometry, reference=clinic.series)
    read = read_structures(clinic.rtstruct, clinic.geometry, reference=clinic.series, any_frame=True)
    assert read.voxels("Brainstem") == 24
    assert any("as if it were the CT's" in warning for warning in read.warnings)


def test_a_ct_without_a_frame_of_reference_is_refused_unless_told(clinic: Clinic) -> None:
    series = replace(clinic.series, frame_of_reference_uid="")
    with pytest.raises(InputError, match="the CT has no Frame of Reference UID"):
        read_rtstruct(clinic.rtstruct, clinic.geometry, series)
    assert read_rtstruct(clinic.rtstruct, clinic.geometry, series, any_frame=True).voxels("Brainstem") == 24


def test_rois_of_a_second_frame_of_reference_are_left_out(clinic: Clinic) -> None:
    def edit(dataset: Dataset) -> None:
        dataset.StructureSetROISequence[0].ReferencedFrameOfReferenceUID = "1.2.3.4.5.6"

    read = clinic.edit(edit).read()
    assert read.names == ("Parotid_L",)
    assert any("'Brainstem'" in warning for warning in read.warnings)


def test_without_a_series_rois_of_several_frames_of_reference_are_told(clinic: Clinic) -> None:
    """A CT in another format does not say which frame of reference is its own."""

    def edit(dataset: Dataset) -> None:
        dataset.StructureSetROISequence[0].ReferencedFrameOfReferenceUID = "1.2.3.4.5.6"

    assert not read_rtstruct(clinic.rtstruct, clinic.geometry).warnings
    clinic.edit(edit)
    (said,) = read_rtstruct(clinic.rtstruct, clinic.geometry).warnings
    assert "2 frames of reference ('Brainstem'; 'Parotid_L')" in said
    assert not read_rtstruct(clinic.rtstruct, clinic.geometry, any_frame=True).warnings


def test_the_file_s_frame_of_reference_is_that_of_rois_that_name_none(clinic: Clinic) -> None:
    def edit(dataset: Dataset) -> None:
        for roi in dataset.StructureSetROISequence:
            del roi.ReferencedFrameOfReferenceUID

    assert clinic.edit(edit).read().voxels("Brainstem") == 24


# --- how it is stored ----------------------------------------------------------------------------------------
@pytest.mark.parametrize(
    "syntax", [ImplicitVRLittleEndian, ExplicitVRLittleEndian, DeflatedExplicitVRLittleEndian]
)
def test_every_transfer_syntax_is_read(syntax: pydicom.uid.UID, clinic: Clinic) -> None:
    clinic.edit(lambda d: setattr(d.file_meta, "TransferSyntaxUID", syntax))
    assert pydicom.dcmread(clinic.rtstruct).file_meta.TransferSyntaxUID == syntax
    assert clinic.read().voxels("Brainstem") == 24


@pytest.mark.parametrize("seed", range(3))
def test_damage_is_told_and_never_more_than_an_input_error(seed: int, clinic: Clinic) -> None:
    content, rng = clinic.rtstruct.read_bytes(), np.random.default_rng(seed)
    for _ in range(40):
        damaged = bytearray(content)
        at = int(rng.integers(300, len(content)))
        damaged[at : at + int(rng.integers(1, 9))] = rng.bytes(int(rng.integers(0, 9)))
        clinic.rtstruct.write_bytes(damaged)
        try:
            clinic.read()
        except InputError as error:
            assert "rt.dcm" in str(error) and "\n" not in str(error)
