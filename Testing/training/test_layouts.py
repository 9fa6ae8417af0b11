"""Cohorts are read as they are published: names, geometry, what was annotated, and what was left out and why."""

from __future__ import annotations

import csv
import gzip
import json
import shutil
import struct
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pydicom
import pytest
import SimpleITK as sitk

from soars.catalogue import resolve
from soars.ct.series import read_series
from soars.dicom.rtstruct_write import write_rtstruct
from soars.dicom.write import write_ct_series
from soars.errors import InputError
from soars.formats.segnrrd import write_seg_nrrd
from soars.phantom import make_phantom
from soars.phantom.export import write_phantom_dicom
from soars.structures import Geometry, StructureSet
from soars_training.cli import main
from soars_training.cohorts.cache import CacheIndex
from soars_training.cohorts.layouts import SEGRAP_NAMES, STRUCTSEG_VALUES, case_files
from soars_training.cohorts.reading import LeftOut, read_cases

GEOMETRY = Geometry((40, 36, 30), (2.0, 2.0, 3.0), (-40.0, -36.0, 0.0))
BOXES = {"brainstem": ((12, 12, 14), (8, 8, 10)), "parotid": ((5, 10, 28), (8, 10, 8))}
"""Two boxes of 7.7 cc: 640 voxels of 12 mm3."""


def _ct(path: Path) -> None:
    hu = np.full(GEOMETRY.shape, -1000, np.int16)
    hu[2:-2, 3:-3, 3:-3] = 30
    path.parent.mkdir(parents=True, exist_ok=True)
    sitk.WriteImage(GEOMETRY.place(sitk.GetImageFromArray(hu)), str(path))


def _box(which: str) -> np.ndarray:
    mask = np.zeros(GEOMETRY.shape, np.uint8)
    start, shape = BOXES[which]
    mask[tuple(slice(s, s + n) for s, n in zip(start, shape, strict=True))] = 1
    return mask


def _mask(path: Path, array: np.ndarray) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    sitk.WriteImage(GEOMETRY.place(sitk.GetImageFromArray(array)), str(path))


def _masks(ct: str, folder: str, brainstem: str, parotid: str, ending: str) -> Callable[[Path], None]:
    def make(root: Path) -> None:
        _ct(root / "a" / ct)
        _mask(root / "a" / folder / f"{brainstem}{ending}", _box("brainstem"))
        _mask(root / "a" / folder / f"{parotid}{ending}", _box("parotid"))

    return make


def _nnunet(root: Path, channels: tuple[str, ...] = ("CT",)) -> None:
    for number, name in enumerate(channels):
        image = root / "imagesTr" / f"a_{number:04d}.nii.gz"
        _ct(image) if name == "CT" else _mask(image, _box("parotid"))
    _mask(root / "labelsTr" / "a.nii.gz", _box("brainstem") + 2 * _box("parotid"))
    labels = {"background": 0, "Brain stem": 1, "left parotid": 2}
    names = {str(number): name for number, name in enumerate(channels)}
    facts = {"channel_names": names, "labels": labels, "numTraining": 1, "file_ending": ".nii.gz"}
    (root / "dataset.json").write_text(json.dumps(facts))


def _hanseg(root: Path) -> None:
    folder = root / "set_1" / "case_01"
    _ct(folder / "case_01_IMG_CT.nrrd")
    for name, which in (("Brainstem", "brainstem"), ("Parotid_L", "parotid")):
        one = StructureSet(GEOMETRY)
        one.add(name, _box(which).astype(bool))
        write_seg_nrrd(one, folder / f"case_01_OAR_{name}.seg.nrrd")


def _structseg(root: Path) -> None:
    """As the challenge has it: 1 is the brainstem, 12 the left parotid gland."""
    _ct(root / "HaN_OAR" / "a" / "data.nii.gz")
    _mask(root / "HaN_OAR" / "a" / "label.nii.gz", _box("brainstem") + 12 * _box("parotid"))


def _segrap(root: Path) -> None:
    folder = root / "a"
    _ct(folder / "image.nii.gz")
    _ct(folder / "image_contrast.nii.gz")
    _mask(folder / "BrainStem.nii.gz", _box("brainstem"))
    _mask(folder / "Parotid_L.nii.gz", _box("parotid"))


PUBLISHED: dict[str, Callable[[Path], None]] = {
    "nnunet": _nnunet,
    "hanseg": _hanseg,
    "pddca": _masks("img.nrrd", "structures", "BrainStem", "Parotid_L", ".nrrd"),
    "deepmind": _masks("CT_IMAGE.nrrd", "segmentations", "Brainstem", "Parotid_Lt", ".nrrd"),
    "totalsegmentator": _masks("ct.nii.gz", "segmentations", "brainstem", "parotid_gland_left", ".nii.gz"),
    "structseg": _structseg,
    "segrap": _segrap,
    "folders": _masks("ct.nii.gz", "structures", "Brainstem", "Parotid_L", ".nii.gz"),
}


@pytest.mark.parametrize("layout", PUBLISHED)
def test_a_published_layout_gives_the_same_case(layout: str, tmp_path: Path) -> None:
    PUBLISHED[layout](tmp_path)
    left_out = LeftOut()
    (case,) = read_cases(case_files(layout, tmp_path), left_out)
    assert case.name in ("a", "case_01") and not left_out.rows
    assert case.annotated == {"Brainstem", "Parotid_L"}
    for organ, which in (("Brainstem", "brainstem"), ("Parotid_L", "parotid")):
        np.testing.assert_array_equal(case.structures.full(organ), _box(which).astype(bool))


def _parts(folder: Path, boxes: dict[str, tuple[tuple[int, int, int], tuple[int, int, int]]]) -> None:
    """A case of HaN-Seg with these boxes, (start, shape) in voxels of 12 mm3 (z, y, x), a file each."""
    _ct(folder / f"{folder.name}_IMG_CT.nrrd")
    for name, (start, shape) in boxes.items():
        mask = np.zeros(GEOMETRY.shape, bool)
        mask[tuple(slice(s, s + n) for s, n in zip(start, shape, strict=True))] = True
        one = StructureSet(GEOMETRY)
        one.add(name, mask)
        write_seg_nrrd(one, folder / f"{folder.name}_OAR_{name}.seg.nrrd")


def test_what_hanseg_draws_in_parts_is_there_whole(tmp_path: Path) -> None:
    """A left eye of 5 x 8 x 3 and 5 x 8 x 9 voxels that share one layer, 440 voxels or 5.28 cc; a larynx of two boxes
    of 512, 12.3 cc; and a right eye whose front nobody drew, which is unknown."""
    boxes = {
        "Eye_AL": ((20, 5, 22), (5, 3, 8)),
        "Eye_PL": ((20, 7, 22), (5, 9, 8)),
        "Eye_PR": ((20, 7, 8), (5, 9, 8)),
        "Glottis": ((4, 10, 12), (8, 8, 8)),
        "Larynx_SG": ((12, 10, 12), (8, 8, 8)),
    }
    _parts(tmp_path / "case_01", boxes)
    # Parts too small for an eye in all, 40 voxels or 0.48 cc, and a whole that was drawn beside its parts.
    tiny = {"Eye_AL": ((20, 5, 22), (2, 2, 5)), "Eye_PL": ((20, 7, 22), (2, 2, 5))}
    _parts(tmp_path / "case_02", tiny | {"Eye_PR": boxes["Eye_PR"]})
    own = ((19, 4, 8), (7, 9, 10))
    _parts(tmp_path / "case_03", {"Eye_AR": ((20, 5, 8), (5, 3, 8)), "Eye_PR": boxes["Eye_PR"], "Eye_R": own})
    left_out = LeftOut()
    first, second, third = read_cases(case_files("hanseg", tmp_path), left_out)
    assert first.annotated == {*boxes, "Eye_L", "Larynx"}
    assert (first.structures.voxels("Eye_L"), first.structures.voxels("Larynx")) == (5 * 11 * 8, 1024)
    assert first.structures.volume_cc("Eye_L") == pytest.approx(5.28)
    assert second.annotated == {"Eye_AL", "Eye_PL", "Eye_PR"}
    assert [row[:2] for row in left_out.rows] == [("case_02", "Eye_L")]
    assert "Eye_AL and Eye_PL together: 0.48 cc is impossible" in left_out.rows[0][2]
    assert third.structures.voxels("Eye_R") == 7 * 9 * 10


def test_the_challenges_names_are_the_catalogues_where_it_knows_the_organ() -> None:
    """StructSeg numbers 22 organs, of which the catalogue lacks the middle ears; the cord is 20, the chiasm 8."""
    known = [name for name in STRUCTSEG_VALUES.values() if not name.startswith("Ear_Middle")]
    assert len(STRUCTSEG_VALUES) == 22 and all(resolve(name).name == name for name in known)
    assert (STRUCTSEG_VALUES[8], STRUCTSEG_VALUES[20]) == ("OpticChiasm", "SpinalCord")
    assert all(resolve(name).name == name for name in SEGRAP_NAMES.values())


def test_a_hospitals_dicom_tree_is_read(tmp_path: Path) -> None:
    phantom = make_phantom(3, spacing_mm=(4.0, 4.0, 6.0))
    for patient in ("one", "two"):
        ct = write_phantom_dicom(phantom, tmp_path / patient / "plan")
        _, series, _ = read_series(ct)
        (tmp_path / patient / "structures").mkdir()
        write_rtstruct(phantom.structures, tmp_path / patient / "structures" / "rs.dcm", series)
    write_rtstruct(phantom.structures, tmp_path / "two" / "structures" / "old.dcm", series)
    left_out = LeftOut()
    (case,) = read_cases(case_files("dicom", tmp_path), left_out)
    assert case.name == "one" and "Brainstem" in case.annotated
    found, true = case.structures.volume_cc("Brainstem"), phantom.structures.volume_cc("Brainstem")
    assert found == pytest.approx(true, rel=0.01)
    assert left_out.rows[-1] == ("two", "", "2 RTSTRUCT or SEG files where one is needed")


def test_what_cannot_be_used_is_left_out_with_its_reason_and_the_rest_is_kept(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    data = tmp_path / "data"
    PUBLISHED["folders"](data)
    structures = data / "a" / "structures"
    larynx = np.zeros(GEOMETRY.shape, np.uint8)
    larynx[15, 15, 15:17] = 1  # 0.02 cc
    _mask(structures / "Larynx.nii.gz", larynx)
    _mask(structures / "PTV70.nii.gz", _box("parotid"))
    _mask(structures / "Esophagus.nii.gz", np.zeros(GEOMETRY.shape, np.uint8))
    (data / "b").mkdir()
    (data / "b" / "ct.nii.gz").write_bytes(b"no image")
    _mask(data / "b" / "structures" / "Brainstem.nii.gz", _box("brainstem"))
    cache = tmp_path / "cache"
    assert main(["prepare", str(cache), "--data", str(data), "--layout", "folders", "--spacing", "4"]) == 0
    rows = {(r["case"], r["organ"]): r["why"] for r in csv.DictReader((cache / "left_out.csv").open())}
    assert set(rows) == {("a", "Larynx"), ("a", "PTV70"), ("a", "Esophagus"), ("b", "")}
    assert "0.024 cc is impossible" in rows["a", "Larynx"]
    assert "unknown organ 'PTV70'" in rows["a", "PTV70"]
    assert rows["a", "Esophagus"] == "it has no voxel"
    assert "ct.nii.gz" in rows["b", ""]
    assert "4 structures or cases were left out" in capsys.readouterr().out
    (entry,) = CacheIndex.load(cache).cases
    assert entry.annotated == ("Brainstem", "Parotid_L")


def test_a_mandible_in_one_piece_is_halved_too(tmp_path: Path) -> None:
    _ct(tmp_path / "a" / "ct.nii.gz")
    arch = np.zeros(GEOMETRY.shape, np.uint8)
    arch[8:20, 20:28, 8:14] = arch[8:20, 20:28, 26:32] = arch[8:20, 16:20, 8:32] = 1
    _mask(tmp_path / "a" / "structures" / "Mandible.nii.gz", arch)
    (case,) = read_cases(case_files("folders", tmp_path), LeftOut())
    assert case.annotated == {"Bone_Mandible", "Bone_Mandible_L", "Bone_Mandible_R"}
    assert case.structures.voxels("Bone_Mandible_L") == case.structures.voxels("Bone_Mandible_R")


@pytest.mark.parametrize("axes", [(1, 1, 1), (-1, -1, 1), (-1, 1, 1), (1, -1, -1)])
def test_the_left_half_of_a_mandible_is_the_patients_left(axes: tuple[int, int, int], tmp_path: Path) -> None:
    """Whichever way the file's axes run: x of DICOM's patient coordinates grows to the patient's left."""
    arch = np.zeros(GEOMETRY.shape, np.uint8)
    arch[8:20, 20:28, 8:14] = arch[8:20, 20:28, 26:32] = arch[8:20, 16:20, 8:32] = 1
    hu = np.where(np.pad(np.ones((26, 30, 34)), ((2, 2), (3, 3), (3, 3))) > 0, 30, -1000).astype(np.int16)
    geometry = replace(GEOMETRY, direction=tuple(np.diag(axes).astype(float).ravel()))
    (tmp_path / "a" / "structures").mkdir(parents=True)
    for name, array in (("ct", hu), ("structures/Mandible", arch)):
        image = geometry.place(sitk.GetImageFromArray(array))
        sitk.WriteImage(image, str(tmp_path / "a" / f"{name}.nii.gz"))
    (case,) = read_cases(case_files("folders", tmp_path), LeftOut())
    left, right = (case.structures.centre_of_mass(f"Bone_Mandible_{side}")[0] for side in "LR")
    assert left - right == pytest.approx(2 * 15.0, abs=1)  # the halves' centres are 15 voxels of 2 mm apart


def test_raw_data_of_nnunets_first_version_is_read(tmp_path: Path) -> None:
    _nnunet(tmp_path)
    labels = {"0": "background", "1": "Brain stem", "2": "left parotid"}
    facts = {"modality": {"0": "CT"}, "labels": labels, "tensorImageSize": "4D", "numTraining": 1}
    (tmp_path / "dataset.json").write_text(json.dumps(facts))
    (case,) = read_cases(case_files("nnunet", tmp_path), LeftOut())
    assert case.annotated == {"Brainstem", "Parotid_L"}


def test_of_several_channels_of_nnunet_the_ct_is_read(tmp_path: Path) -> None:
    _nnunet(tmp_path, ("T1", "CT"))
    (case,) = read_cases(case_files("nnunet", tmp_path), LeftOut())
    assert sitk.GetArrayViewFromImage(case.ct).min() == -1000
    _nnunet(tmp_path / "mr", ("T1", "T2"))
    left_out = LeftOut()
    assert not list(read_cases(case_files("nnunet", tmp_path / "mr"), left_out))
    assert left_out.rows == [("a", "", "0 of its channels are called CT")]


def test_a_label_map_with_voxels_that_nobody_looked_at_is_not_taught(tmp_path: Path) -> None:
    """nnU-Net's label `ignore`: an organ may be there, so its absence must not be learned."""
    _nnunet(tmp_path)
    facts = json.loads((tmp_path / "dataset.json").read_text())
    facts["labels"]["ignore"] = 3
    (tmp_path / "dataset.json").write_text(json.dumps(facts))
    assert len(list(read_cases(case_files("nnunet", tmp_path), LeftOut()))) == 1  # none in this case
    partly = _box("brainstem") + 2 * _box("parotid")
    partly[:3] = 3  # a tenth of 30 slices
    _mask(tmp_path / "labelsTr" / "a.nii.gz", partly)
    left_out = LeftOut()
    assert not list(read_cases(case_files("nnunet", tmp_path), left_out))
    assert "10.0% of its voxels have the label 3 (ignore)" in left_out.rows[0][2]


def test_a_label_map_with_the_file_that_names_its_values_is_one_case(tmp_path: Path) -> None:
    _ct(tmp_path / "a" / "ct.nii.gz")
    _mask(tmp_path / "a" / "structures.nii.gz", _box("brainstem") + 2 * _box("parotid"))
    names = {"labels": {"1": "Brainstem", "2": "Parotid_L"}}
    (tmp_path / "a" / "structures.json").write_text(json.dumps(names))
    (case,) = read_cases(case_files("folders", tmp_path), LeftOut())
    assert case.annotated == {"Brainstem", "Parotid_L"}


def test_a_ct_that_does_not_say_how_the_patient_lies_is_noted(tmp_path: Path) -> None:
    """Left and right may be exchanged in all of its organs: a person must hear of it."""
    PUBLISHED["folders"](tmp_path)
    path = tmp_path / "a" / "ct.nii.gz"
    raw = bytearray(gzip.decompress(path.read_bytes()))
    struct.pack_into("<hh", raw, 252, 0, 0)  # nifti1.h: qform_code and sform_code
    path.write_bytes(gzip.compress(bytes(raw)))
    left_out = LeftOut(quiet=True)
    list(read_cases(case_files("folders", tmp_path), left_out))
    assert any("a: the CT: " in words and "check left and right" in words for words in left_out.unsaid)


def test_of_several_series_the_one_that_was_drawn_on_is_read(tmp_path: Path) -> None:
    """And contours of another patient are refused, as everywhere."""
    hu = np.full(GEOMETRY.shape, -1000, np.int16)
    hu[2:-2, 3:-3, 3:-3] = 30
    drawn = StructureSet(GEOMETRY)
    drawn.add("Brainstem", _box("brainstem").astype(bool))
    for name, more in (("a", 100), ("b", 0)):  # the other one comes first, and is 100 HU brighter
        image = GEOMETRY.place(sitk.GetImageFromArray(hu + np.int16(more)))
        write_ct_series(image, tmp_path / "one" / name, patient_id="p", patient_name="n^n", seed=name)
    _, series, _ = read_series(tmp_path / "one" / "b")
    write_rtstruct(drawn, tmp_path / "one" / "rs.dcm", series)
    shutil.copytree(tmp_path / "one", tmp_path / "two")
    contours = pydicom.dcmread(tmp_path / "two" / "rs.dcm")
    contours.PatientID = "somebody else"
    contours.save_as(tmp_path / "two" / "rs.dcm")
    left_out = LeftOut()
    (case,) = read_cases(case_files("dicom", tmp_path), left_out)
    assert case.name == "one"
    np.testing.assert_array_equal(sitk.GetArrayViewFromImage(case.ct), hu)
    assert left_out.rows[-1][0] == "two" and "another patient" in left_out.rows[-1][2]


def test_two_folders_of_one_patient_are_one_patient(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """The planning CT and the next one, beside another patient, one without Patient ID, and a folder without a CT."""
    hu = np.full(GEOMETRY.shape, -1000, np.int16)
    hu[2:-2, 3:-3, 3:-3] = 30
    drawn = StructureSet(GEOMETRY)
    drawn.add("Brainstem", _box("brainstem").astype(bool))
    image = GEOMETRY.place(sitk.GetImageFromArray(hu))
    ids = {"anna": "SECRET-1", "anna_again": "SECRET-1", "berta": "SECRET-2", "nobody": "", "zoe": ""}
    for name, patient_id in ids.items():
        write_ct_series(image, tmp_path / name / "ct", patient_id=patient_id, patient_name="n^n", seed=name)
        _, series, _ = read_series(tmp_path / name / "ct")
        write_rtstruct(drawn, tmp_path / name / "rs.dcm", series)
    (tmp_path / "zz").mkdir()
    shutil.copy(tmp_path / "anna" / "rs.dcm", tmp_path / "zz")
    files = case_files("dicom", tmp_path)
    patients = {case.name: case.patient for case in files if not case.problem}
    assert patients == {
        "anna": "anna",
        "anna_again": "anna",
        "berta": "berta",
        "nobody": "nobody",
        "zoe": "zoe",
    }
    assert "SECRET" not in repr(files) and "anna and anna_again" in caplog.text
    found = {case.name: case.patient for case in read_cases(files, LeftOut(quiet=True))}
    assert found == patients


def test_a_folder_in_another_layout_says_what_was_expected(tmp_path: Path) -> None:
    _nnunet(tmp_path)
    with pytest.raises(InputError, match=r"no case in the layout pddca; expected .*CASE/img\.nrrd"):
        case_files("pddca", tmp_path)
    with pytest.raises(InputError, match="there is no folder"):
        case_files("pddca", tmp_path / "nowhere")


def test_a_folder_without_a_layout_is_asked_for_one(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["prepare", str(tmp_path / "cache"), "--data", str(tmp_path)]) == 2
    assert "--data needs --layout" in capsys.readouterr().err
