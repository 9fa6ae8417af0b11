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
from soars.dicom.rtdose import RtDose, check_belongs, check_structures, read_rtdose
from soars.dicom.rtdose_sum import add_rtdoses
from soars.dicom.rtstruct import write_rtstruct
from soars.dicom.seg.write import write_seg
from soars.dicom.write import write_ct_series, write_rtdose
from soars.dose.grid import add_doses
from soars.errors import InputError
from soars.structures import Geometry, StructureSet

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


def test_dose_of_another_patient_is_refused_unless_the_id_was_taken_away(
    path: Path, reference: CtSeries
) -> None:
    """The same frame of reference: UIDs that were not made unique, or a copy of another patient's plan."""
    dose = read_rtdose(_edited(path, _set(PatientID="Q")))
    with pytest.raises(InputError, match="another patient than the CT: their Patient IDs differ") as caught:
        check_belongs(dose, reference)
    assert str(path) in str(caught.value) and "\n" not in str(caught.value)
    for edit in (_set(PatientID="Q", PatientIdentityRemoved="YES"), _set(PatientID=""), _set(PatientID=None)):
        dose = read_rtdose(_edited(path, edit))
        check_belongs(dose, reference)
        assert not dose.warnings


# --- structures in place of a CT -----------------------------------------------------------------------------------
def _contours(folder: Path, reference: CtSeries, kind: str, edit: Edit) -> Path:
    organs = StructureSet(Geometry((8, 9, 10), (20.0, 20.0, 20.0), (0.0, 0.0, 0.0)))
    organs.add_crop("Brainstem", (3, 3, 3), np.ones((3, 3, 3), bool))
    write = write_rtstruct if kind == "RTSTRUCT" else write_seg
    write(organs, folder / "s.dcm", reference)
    return _edited(folder / "s.dcm", edit)


def _of_frame(uid: str) -> Edit:
    """The frame of reference everywhere a file names one, "" in none."""

    def edit(ds: Dataset) -> None:
        for item in (
            ds,
            *ds.get("ReferencedFrameOfReferenceSequence", []),
            *ds.get("StructureSetROISequence", []),
        ):
            for keyword in ("FrameOfReferenceUID", "ReferencedFrameOfReferenceUID"):
                if keyword in item:
                    setattr(item, keyword, uid)

    return edit


@pytest.mark.parametrize("kind", ["RTSTRUCT", "SEG"])
def test_without_a_ct_the_dose_is_held_to_the_structures(
    path: Path, tmp_path: Path, reference: CtSeries, kind: str
) -> None:
    dose = read_rtdose(path)
    check_structures(dose, _contours(tmp_path, reference, kind, lambda ds: None))
    assert not dose.warnings
    with pytest.raises(InputError, match="another frame of reference than .*s.dcm"):
        check_structures(dose, _contours(tmp_path, reference, kind, _of_frame("1.2.3")))
    with pytest.raises(InputError, match="another patient than the dose"):
        check_structures(dose, _contours(tmp_path, reference, kind, _set(PatientID="Q")))
    check_structures(dose, _contours(tmp_path, reference, kind, _of_frame("")))
    assert dose.warnings == ["dose.dcm: s.dcm has no frame of reference: check that they belong together"]


def test_the_frame_of_the_rois_counts_not_another_that_the_file_lists(
    path: Path, tmp_path: Path, reference: CtSeries
) -> None:
    """An RTSTRUCT lists the frames of all its images; its ROIs may be in that of the MR."""

    def in_the_mr(ds: Dataset) -> None:
        for item in ds.StructureSetROISequence:
            item.ReferencedFrameOfReferenceUID = "1.2.3"

    dose = read_rtdose(path)
    with pytest.raises(InputError, match="another frame of reference"):
        check_structures(dose, _contours(tmp_path, reference, "RTSTRUCT", in_the_mr))


def test_structures_that_name_no_frame_of_reference_are_not_checked(path: Path, tmp_path: Path) -> None:
    (tmp_path / "organ.nii.gz").write_bytes(b"anything but DICOM")
    dose = read_rtdose(path)
    check_structures(dose, tmp_path / "organ.nii.gz")
    check_structures(dose, tmp_path)
    assert not dose.warnings


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


def _uniform(name: str, kind: str, gy: float) -> RtDose:
    image = sitk.GetImageFromArray(np.full((3, 3, 3), gy, np.float32))
    return RtDose(image, Path(f"{name}.dcm"), "1.2", "1.3", kind, name)


@pytest.mark.parametrize(
    "doses",
    [
        [("PLAN", 50), ("PLAN", 20), ("MULTI_PLAN", 70)],  # the sum of the plans, beside them: 140 Gy
        [("BEAM", 30), ("BEAM", 40), ("FRACTION", 2)],
        [("PLAN", 70), ("", 60)],
        [("", 70), ("BEAM", 30)],
        [("BEAM", 30), ("PLAN", 70)],
    ],
)
def test_doses_of_different_kinds_are_not_added(doses: list[tuple[str, float]]) -> None:
    with pytest.raises(InputError, match="counts double") as caught:
        add_rtdoses([_uniform(str(number), kind, gy) for number, (kind, gy) in enumerate(doses)])
    said = str(caught.value)
    assert all((kind or "none given") in said for kind, _ in doses) and "\n" not in said


def test_doses_of_one_kind_are_added(reference: CtSeries) -> None:
    for kind, gy, total in (("PLAN", (50, 20), 70), ("BEAM", (30, 25, 15), 70), ("", (50, 20), 70)):
        found = add_rtdoses([_uniform(str(number), kind, value) for number, value in enumerate(gy)])
        assert np.unique(sitk.GetArrayViewFromImage(found.image)).tolist() == [total]
        assert any("Dose Summation Type" in warning for warning in found.warnings) == (not kind)


def test_a_dose_exported_twice_is_not_added(tmp_path: Path, reference: CtSeries) -> None:
    """Under another SOP Instance UID, in 16 bits and in 32, after another dose; sessions of a plan may be alike."""
    other, plan = (
        _part(tmp_path / f"{n}.dcm", share, reference, "PLAN") for n, share in (("a", 0.4), ("b", 1))
    )

    def widen(ds: Dataset) -> None:
        # 4294967295 = 65537 x 65535: the highest value of the dose is that of 16 bits
        stored = np.rint(
            sitk.GetArrayFromImage(_dose()).astype(np.float64) / float(ds.DoseGridScaling) * 65537
        )
        ds.BitsAllocated = ds.BitsStored = 32
        ds.HighBit = 31
        ds.PixelData = stored.astype("<u4").tobytes()
        ds.DoseGridScaling = f"{float(ds.DoseGridScaling) / 65537:.10g}"

    write_rtdose(_dose(), tmp_path / "again.dcm", reference, seed="again")
    again = read_rtdose(_edited(tmp_path / "again.dcm", widen))
    assert again.instance_uid != plan.instance_uid
    assert np.abs(sitk.GetArrayFromImage(again.image) - sitk.GetArrayFromImage(plan.image)).max() > 0
    with pytest.raises(InputError, match=r"b.dcm and .*again.dcm hold the same dose") as caught:
        add_rtdoses([other, plan, again])
    assert "\n" not in str(caught.value)
    for dose in (plan, again):
        dose.summation = "FRACTION_SESSION"
    total = add_rtdoses([plan, again])
    np.testing.assert_allclose(
        sitk.GetArrayFromImage(total.image), 2 * sitk.GetArrayFromImage(_dose()), atol=3 * 70 / 65000
    )


def _of(plan: str, beam: str = "", group: str = "1") -> Edit:
    """A dose of a plan, or of a beam in one of its fraction groups (PS3.3 C.8.8.3)."""

    def edit(ds: Dataset) -> None:
        item, groups, beams = Dataset(), Dataset(), Dataset()
        item.ReferencedSOPClassUID = "1.2.840.10008.5.1.4.1.1.481.5"
        item.ReferencedSOPInstanceUID = plan
        ds.ReferencedRTPlanSequence = [item]
        ds.DoseSummationType = "PLAN"
        if beam:
            ds.DoseSummationType = "BEAM"
            beams.ReferencedBeamNumber = beam
            groups.ReferencedFractionGroupNumber = group
            groups.ReferencedBeamSequence = [beams]
            item.ReferencedFractionGroupSequence = [groups]

    return edit


@pytest.mark.parametrize(
    ("edits", "said"),
    [
        ((_of("1.2"), _of("1.2")), "the same plan"),  # recalculated: 1 and 0.97 of one dose
        ((_of("1.2", "3"), _of("1.2", "3")), "the same beam"),
        ((_of("1.2"), _of("1.3")), ""),
        ((_of("1.2", "3"), _of("1.2", "4")), ""),
        ((_of("1.2", "3"), _of("1.3", "3")), ""),
        ((_of("1.2", "3"), _of("1.2", "3", group="2")), ""),
        ((_set(DoseType="PHYSICAL"), _set(DoseType="EFFECTIVE")), "PHYSICAL and EFFECTIVE"),  # protons
        ((_set(DoseType="EFFECTIVE"), _set(DoseType="EFFECTIVE")), ""),
    ],
)
def test_two_doses_of_one_thing_are_not_added(
    tmp_path: Path, reference: CtSeries, edits: tuple[Edit, Edit], said: str
) -> None:
    doses = []
    for name, share, edit in zip("ab", (1, 0.97), edits, strict=True):
        written = write_rtdose(_dose() * share, tmp_path / f"{name}.dcm", reference, seed=name)
        doses.append(read_rtdose(_edited(written, edit)))
    if said:
        with pytest.raises(InputError, match=said):
            add_rtdoses(doses)
        return
    np.testing.assert_allclose(
        sitk.GetArrayFromImage(add_rtdoses(doses).image),
        1.97 * sitk.GetArrayFromImage(_dose()),
        atol=2 * 70 / 65000,
    )


def test_what_was_lost_of_a_beam_is_not_left_out_of_the_sum(tmp_path: Path, reference: CtSeries) -> None:
    """A file that says by its SOP class alone what it is counts; one too damaged to say it is refused by name."""
    for number, share in enumerate((0.2, 0.5, 0.3)):
        _part(tmp_path / f"beam{number}.dcm", share, reference)
    (tmp_path / "notes.txt").write_text("three beams")
    last = tmp_path / "beam2.dcm"

    def unnamed(ds: Dataset) -> None:
        del ds.Modality

    _edited(last, unnamed)
    np.testing.assert_allclose(
        sitk.GetArrayFromImage(add_doses(tmp_path).image),
        sitk.GetArrayFromImage(_dose()),
        atol=3 * 70 / 65000,
    )
    whole = last.read_bytes()
    for kept in (0, 300, len(whole) // 2):
        last.write_bytes(whole[:kept])
        with pytest.raises(InputError, match=r"beam2\.dcm"):
            add_doses(tmp_path)
