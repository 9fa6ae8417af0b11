"""RTDOSE: the dose comes out where and how much it is, or is refused in one sentence that names the file."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pydicom
import pytest
import SimpleITK as sitk
from pydicom.dataset import Dataset

from soars.ct.series import CtSeries, read_series
from soars.dicom.rtdose import RtDose, add_rtdoses, check_belongs, read_rtdose
from soars.dicom.write import write_ct_series, write_rtdose
from soars.errors import InputError

Edit = Callable[[Dataset], None]


@pytest.fixture(scope="module")
def reference(tmp_path_factory: pytest.TempPathFactory) -> CtSeries:
    ct = sitk.Image([8, 9, 10], sitk.sitkInt16) - 1000
    ct[2:6, 2:6, 2:6] = sitk.Image([4, 4, 4], sitk.sitkInt16)
    ct.SetSpacing((20.0, 20.0, 20.0))
    folder = tmp_path_factory.mktemp("ct")
    write_ct_series(ct, folder, patient_id="P", patient_name="P")
    return read_series(folder)[1]


def _dose() -> sitk.Image:
    values = np.random.default_rng(0).uniform(0, 70, (5, 6, 7))
    image = sitk.GetImageFromArray(values.astype(np.float32))
    image.SetOrigin((-20.0, -30.0, 40.0))
    image.SetSpacing((2.5, 2.0, 3.0))
    return image


@pytest.fixture
def path(tmp_path: Path, reference: CtSeries) -> Path:
    return write_rtdose(_dose(), tmp_path / "dose.dcm", reference)


def _edited(path: Path, edit: Edit) -> Path:
    dataset = pydicom.dcmread(path)
    edit(dataset)
    dataset.save_as(path)
    return path


def _assert_same(found: sitk.Image, wanted: sitk.Image) -> None:
    np.testing.assert_allclose(sitk.GetArrayFromImage(found), sitk.GetArrayFromImage(wanted), atol=70 / 65000)
    for a, b in (
        (found.GetOrigin(), wanted.GetOrigin()),
        (found.GetSpacing(), wanted.GetSpacing()),
        (found.GetDirection(), wanted.GetDirection()),
    ):
        np.testing.assert_allclose(a, b, atol=1e-6)


def test_dose_is_read_as_it_was_written(path: Path, reference: CtSeries) -> None:
    dose = read_rtdose(path)
    _assert_same(dose.image, _dose())
    assert dose.summation == "PLAN" and not dose.warnings
    check_belongs(dose, reference)


def test_frames_counted_from_the_position_and_frames_at_z_coordinates_are_the_same(path: Path) -> None:
    """Both conventions of PS3.3 C.8.8.3.2."""

    def absolute(ds: Dataset) -> None:
        ds.GridFrameOffsetVector = [40.0 + 3 * k for k in range(5)]

    _assert_same(read_rtdose(_edited(path, absolute)).image, _dose())


@pytest.mark.parametrize("absolute", [False, True])
def test_frames_from_head_to_foot_are_put_in_order(path: Path, absolute: bool) -> None:
    def turn(ds: Dataset) -> None:
        ds.ImagePositionPatient = [-20, -30, 40 + 4 * 3]
        ds.GridFrameOffsetVector = [(52.0 if absolute else 0.0) - 3 * k for k in range(5)]
        frames = np.frombuffer(ds.PixelData[: 2 * 5 * 6 * 7], "<u2").reshape(5, -1)[::-1]
        ds.PixelData = frames.tobytes()

    _assert_same(read_rtdose(_edited(path, turn)).image, _dose())


def test_32_bit_doses_are_read(path: Path) -> None:
    def widen(ds: Dataset) -> None:
        stored = np.frombuffer(ds.PixelData[: 2 * 5 * 6 * 7], "<u2").astype("<u4") * 1000
        ds.BitsAllocated = ds.BitsStored = 32
        ds.HighBit = 31
        ds.PixelData = stored.tobytes()
        ds.DoseGridScaling = float(ds.DoseGridScaling) / 1000

    _assert_same(read_rtdose(_edited(path, widen)).image, _dose())


def test_a_sagittal_dose_grid_lies_where_its_cosines_say(path: Path) -> None:
    def sagittal(ds: Dataset) -> None:
        ds.ImageOrientationPatient = [0, 1, 0, 0, 0, 1]

    image = read_rtdose(_edited(path, sagittal)).image
    np.testing.assert_allclose(image.TransformIndexToPhysicalPoint((1, 0, 0)), (-20, -30 + 2.5, 40))
    np.testing.assert_allclose(image.TransformIndexToPhysicalPoint((0, 1, 0)), (-20, -30, 40 + 2))
    np.testing.assert_allclose(image.TransformIndexToPhysicalPoint((0, 0, 1)), (-20 + 3, -30, 40))


def _set(**values: object) -> Edit:
    def edit(ds: Dataset) -> None:
        for keyword, value in values.items():
            if value is None:
                delattr(ds, keyword)
            else:
                setattr(ds, keyword, value)

    return edit


@pytest.mark.parametrize(
    ("edit", "said"),
    [
        (_set(DoseUnits="RELATIVE"), "relative, not in Gy"),
        (_set(DoseUnits=None), "without a unit"),
        (_set(DoseType="ERROR"), "differences of doses"),
        (_set(DoseGridScaling=None), "Dose Grid Scaling is missing"),
        (_set(DoseGridScaling="0"), "Dose Grid Scaling is 0"),
        (_set(GridFrameOffsetVector=None), "Grid Frame Offset Vector is missing"),
        (_set(GridFrameOffsetVector=[0, 3, 6]), "has 3 numbers where 5 are needed"),
        (_set(GridFrameOffsetVector=[0, 3, 6, 9, 13]), r"not evenly spaced \(3 to 4 mm\)"),
        (_set(GridFrameOffsetVector=[0, 3, 3, 6, 9]), "same place"),
        (_set(GridFrameOffsetVector=[7, 10, 13, 16, 19]), "neither 0 nor the z of its position"),
        (_set(ImagePositionPatient=None), r"Image Position \(Patient\) is missing"),
        (_set(ImageOrientationPatient=[1, 0, 0, 1, 0, 0]), "not two perpendicular"),
        (_set(Modality="CT", SOPClassUID="1.2.840.10008.5.1.4.1.1.2"), r"another kind \(CT\)"),
        (_set(PixelData=b"\0" * 20), "missing, damaged or cut off"),
        (_set(PixelData=None), "missing, damaged or cut off"),
    ],
)
def test_what_would_put_dose_in_the_wrong_place_is_refused(path: Path, edit: Edit, said: str) -> None:
    with pytest.raises(InputError, match=said) as caught:
        read_rtdose(_edited(path, edit))
    assert str(path) in str(caught.value) and "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("edit", "said"),
    [(_set(DoseSummationType="BEAM"), r"a part \(BEAM\)"), (_set(DoseType="EFFECTIVE"), "effective")],
)
def test_what_is_merely_odd_is_a_warning(path: Path, edit: Edit, said: str) -> None:
    (warning,) = read_rtdose(_edited(path, edit)).warnings
    assert re.search(said, warning)


def test_files_that_are_no_dose_are_refused(tmp_path: Path) -> None:
    text = tmp_path / "dose.dcm"
    text.write_text("not DICOM")
    for bad, said in (
        (text, "not a DICOM file"),
        (tmp_path, "is a folder"),
        (tmp_path / "none", "no such file"),
    ):
        with pytest.raises(InputError, match=said):
            read_rtdose(bad)


def test_a_dose_without_a_frame_of_reference_is_told(path: Path, reference: CtSeries) -> None:
    def forget(dataset: Dataset) -> None:
        del dataset.FrameOfReferenceUID

    dose = read_rtdose(_edited(path, forget))
    check_belongs(dose, reference)
    assert any("no frame of reference" in warning for warning in dose.warnings)


def test_dose_of_another_frame_of_reference_is_refused(path: Path, reference: CtSeries) -> None:
    dose = read_rtdose(_edited(path, _set(FrameOfReferenceUID="1.2.3")))
    with pytest.raises(InputError, match="another frame of reference"):
        check_belongs(dose, reference)


# --- several doses -----------------------------------------------------------------------------------------------
def _part(path: Path, share: float, reference: CtSeries, kind: str = "BEAM", **values: object) -> RtDose:
    image = _dose() * share
    write_rtdose(image, path, reference, seed=path.name)
    return read_rtdose(_edited(path, _set(DoseSummationType=kind, **values)))


def test_beams_add_up_to_their_plan(tmp_path: Path, reference: CtSeries) -> None:
    beams = [_part(tmp_path / f"beam{n}.dcm", share, reference) for n, share in enumerate((0.2, 0.5, 0.3))]
    total = add_rtdoses(beams)
    np.testing.assert_allclose(
        sitk.GetArrayFromImage(total.image), sitk.GetArrayFromImage(_dose()), atol=3 * 70 / 65000
    )
    assert total.frame_of_reference_uid == reference.frame_of_reference_uid
    assert total.warnings == ["3 doses were added: beam0.dcm, beam1.dcm, beam2.dcm"]


def test_what_would_count_dose_twice_or_elsewhere_is_not_added(tmp_path: Path, reference: CtSeries) -> None:
    plan = _part(tmp_path / "plan.dcm", 1, reference, "PLAN")
    beam = _part(tmp_path / "beam.dcm", 0.5, reference)
    moved = _part(tmp_path / "moved.dcm", 0.5, reference, ImagePositionPatient=[-19, -30, 40])
    foreign = _part(tmp_path / "foreign.dcm", 0.5, reference, FrameOfReferenceUID="1.2.3")
    for pair, said in (
        ((beam, beam), "given twice"),
        ((plan, beam), "counts double"),
        ((beam, moved), "different grids"),
        ((beam, foreign), "different frames of reference"),
    ):
        with pytest.raises(InputError, match=said):
            add_rtdoses(pair)
