"""A tree of patients: one line each, a summary, and one patient that fails does not stop the others."""

from __future__ import annotations

import copy
import shutil
from pathlib import Path

import numpy as np
import pydicom
import pytest
from pydicom.dataset import Dataset

from soars.cli import main
from soars.ct.series import read_series
from soars.dicom.rtstruct import read_rtstruct, write_rtstruct
from soars.formats.segnrrd import read_seg_nrrd
from soars.structures import Geometry, StructureSet


@pytest.fixture
def tree(tmp_path: Path, ct_series) -> Path:
    """Two patients: A with the RTSTRUCT beside the CT's folder, B with two CTs, the second of which is meant."""
    for patient, uids in (("A", ("1.2.3.1",)), ("B", ("1.2.3.2", "1.2.3.3"))):
        for number, uid in enumerate(uids):
            ct_series(tmp_path / "tree" / patient / f"ct{number}", series_uid=uid)
        image, series, _ = read_series(tmp_path / "tree" / patient / f"ct{len(uids) - 1}")
        structures = StructureSet(Geometry.of(image))
        mask = np.zeros(structures.geometry.shape, bool)
        mask[1:4, 4:9, 5:11] = True
        structures.add("Brainstem", mask)
        write_rtstruct(structures, tmp_path / "tree" / patient / "rtstruct.dcm", series)
    return tmp_path / "tree"


def test_every_patient_is_converted_there_and_back(tree: Path, tmp_path: Path, capsys) -> None:
    assert main(["convert", str(tree), str(tmp_path / "seg"), "--each", "seg.nrrd"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[0] == f"A: rtstruct.dcm: 1 structure -> {tmp_path / 'seg' / 'A' / 'rtstruct.seg.nrrd'}"
    assert lines[1].startswith("B: rtstruct.dcm: 1 structure -> ") and lines[2:] == ["2 converted, 0 failed"]
    for patient in "AB":
        found = read_seg_nrrd(tmp_path / "seg" / patient / "rtstruct.seg.nrrd")
        assert found.voxels("Brainstem") == 3 * 5 * 6
        (tree / patient / "rtstruct.dcm").unlink()
        shutil.copy(tmp_path / "seg" / patient / "rtstruct.seg.nrrd", tree / patient / "organs.seg.nrrd")
    shutil.rmtree(tree / "B" / "ct0")
    assert main(["convert", str(tree), str(tmp_path / "rt"), "--each", "dcm", "--pseudonym", "X1"]) == 0
    image, series, _ = read_series(tree / "B" / "ct1")
    back = read_rtstruct(tmp_path / "rt" / "B" / "organs.dcm", Geometry.of(image), series)
    assert back.crop("Brainstem").equals(found.crop("Brainstem"))
    assert str(pydicom.dcmread(tmp_path / "rt" / "B" / "organs.dcm").PatientName) == "X1"


def test_localizers_and_a_second_image_do_not_hide_the_ct(
    tree: Path, tmp_path: Path, ct_series, capsys
) -> None:
    def localizer(ds: Dataset, k: int) -> None:
        ds.ImageType = ["ORIGINAL", "PRIMARY", "LOCALIZER"]

    ct_series(tree / "A" / "scout", series_uid="1.2.3.7", slices=1, edit=localizer)
    path = tree / "B" / "rtstruct.dcm"
    ds = pydicom.dcmread(path)
    frames = ds.ReferencedFrameOfReferenceSequence
    mr = copy.deepcopy(frames[0])
    mr.RTReferencedStudySequence[0].RTReferencedSeriesSequence[0].SeriesInstanceUID = "1.2.3.8"
    frames.insert(0, mr)
    ds.save_as(path)
    seg = tmp_path / "seg"
    assert main(["convert", str(tree), str(seg), "--each", "seg.nrrd"]) == 0
    (tree / "A" / "rtstruct.dcm").unlink()  # which says whose it is, as a .seg.nrrd does not
    shutil.copy(seg / "A" / "rtstruct.seg.nrrd", tree / "A" / "organs.seg.nrrd")
    assert main(["convert", str(tree), str(tmp_path / "rt"), "--each", "dcm"]) == 0
    assert pydicom.dcmread(tmp_path / "rt" / "A" / "organs.dcm").Modality == "RTSTRUCT"


def test_one_that_fails_does_not_stop_the_others(tree: Path, tmp_path: Path, capsys) -> None:
    damaged = tree / "A" / "rtstruct.dcm"
    damaged.write_bytes(damaged.read_bytes()[:-100])
    (tree / "C").mkdir()
    out = tmp_path / "out"
    assert main(["convert", str(tree), str(out), "--each", "nii.gz"]) == 2
    said = capsys.readouterr()
    lines = said.out.splitlines()
    assert lines[0].startswith("A: rtstruct.dcm: FAILED: ") and "damaged" in lines[0]
    assert lines[1].startswith("B: rtstruct.dcm: 1 structure -> ")
    assert lines[2] == "C: FAILED: no RTSTRUCT, DICOM segmentation or .seg.nrrd in it"
    assert lines[3] == "1 converted, 2 failed"
    assert said.err.endswith("soars: error: 2 of 3 could not be converted; each says why above\n")
    assert sorted(p.name for p in (out / "B").iterdir()) == ["rtstruct.json", "rtstruct.nii.gz"]
    # Again: what is there stays, unless it is to be replaced.
    assert main(["convert", str(tree), str(out), "--each", "nii.gz"]) == 2
    assert "B: rtstruct.dcm: FAILED" in capsys.readouterr().out
    assert main(["convert", str(tree), str(out), "--each", "nii.gz", "--overwrite"]) == 2
    assert "1 converted, 2 failed" in capsys.readouterr().out


def test_a_ct_that_is_not_known_is_told(tree: Path, tmp_path: Path, capsys) -> None:
    shutil.copy(tree / "B" / "rtstruct.dcm", tree / "A" / "rtstruct.dcm")
    shutil.rmtree(tree / "A" / "ct0")
    shutil.rmtree(tree / "B")
    assert main(["convert", str(tree), str(tmp_path / "out"), "--each", "masks"]) == 2
    assert "there is no CT in it" in capsys.readouterr().out


def test_voxels_with_a_grid_of_their_own_need_no_ct(tree: Path, tmp_path: Path, capsys) -> None:
    """But as contours they do."""
    assert main(["convert", str(tree), str(tmp_path / "seg"), "--each", "seg.nrrd"]) == 0
    capsys.readouterr()
    assert main(["convert", str(tmp_path / "seg"), str(tmp_path / "out"), "--each", "nii.gz"]) == 0
    assert "0 failed" in capsys.readouterr().out
    assert (tmp_path / "out" / "A" / "rtstruct.nii.gz").is_file()
    assert main(["convert", str(tmp_path / "seg"), str(tmp_path / "rt"), "--each", "dcm"]) == 2
    assert "there is no CT in it" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("more", "said"),
    [
        (["--ct", "x"], "leave --ct"),
        (["--roi-names", "x.csv"], "--each dcm"),
        (["--each", "doc"], "invalid choice"),
    ],
)
def test_options_that_do_not_fit_are_refused(tree: Path, tmp_path: Path, capsys, more, said) -> None:
    assert main(["convert", str(tree), str(tmp_path / "out"), "--each", "seg.nrrd", *more]) == 2
    assert said in capsys.readouterr().err
    assert not (tmp_path / "out").exists()


def test_places_that_cannot_be_are_refused(tree: Path, tmp_path: Path, capsys) -> None:
    (tmp_path / "empty").mkdir()
    for source, target in (
        (tree, tree / "out"),
        (tmp_path / "empty", tmp_path / "o"),
        (tmp_path / "no", tmp_path / "o"),
    ):
        assert main(["convert", str(source), str(target), "--each", "seg.nrrd"]) == 2
    assert "outside the tree" in capsys.readouterr().err
