"""`soars dose`: from an RTDOSE and contours to DVHs and differences, on a DICOM patient and on folders of cases."""

from __future__ import annotations

import csv
from pathlib import Path

import numpy as np
import pydicom
import pytest
import SimpleITK as sitk

from soars.cli import main
from soars.ct.series import read_series
from soars.dicom.rtdose import read_rtdose
from soars.dicom.rtstruct import write_rtstruct
from soars.dicom.write import write_ct_series, write_rtdose
from soars.formats.segnrrd import write_seg_nrrd
from soars.structures import Geometry, StructureSet


def _organs(
    geometry: Geometry, shift: int = 0, names: tuple[str, ...] = ("Parotid_L", "Parotid_R")
) -> StructureSet:
    structures = StructureSet(geometry)
    for number, name in enumerate(names):
        array = np.zeros(geometry.shape, bool)
        array[4:8, 10:20, 10 + 20 * number + shift : 20 + 20 * number + shift] = True
        structures.add(name, array)
    return structures


@pytest.fixture(scope="module")
def patient(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """CT, RTDOSE (10 Gy + 0.5 Gy/mm towards the left), a reference RTSTRUCT, and contours 2 mm further left."""
    folder = tmp_path_factory.mktemp("patient")
    values = np.full((14, 40, 60), -1000, np.int16)
    values[:, 4:36, 4:56] = 0
    ct = sitk.GetImageFromArray(values)
    ct.SetSpacing((1.0, 1.0, 3.0))
    write_ct_series(ct, folder / "ct", patient_id="P", patient_name="P")
    image, series, _ = read_series(folder / "ct")
    geometry = Geometry.of(image)
    axis = np.arange(31) * 2.0
    dose = sitk.GetImageFromArray(np.broadcast_to(10 + 0.5 * axis, (22, 21, 31)).astype(np.float32))
    dose.SetSpacing((2.0, 2.0, 2.0))
    write_rtdose(dose, folder / "dose.dcm", series)
    write_rtstruct(_organs(geometry), folder / "reference.dcm", series)
    write_seg_nrrd(_organs(geometry, 2), folder / "auto.seg.nrrd")
    write_seg_nrrd(_organs(geometry, 0, ("Parotid_L",)), folder / "reader.seg.nrrd")
    return folder


def _command(patient: Path, *more: str) -> list[str]:
    return [
        "dose",
        *("--dose", str(patient / "dose.dcm"), "--reference", str(patient / "reference.dcm")),
        *("--substitute", str(patient / "auto.seg.nrrd"), "--ct", str(patient / "ct"), *more),
    ]


def _rows(path: Path) -> list[dict[str, str]]:
    with path.open(newline="") as file:
        return list(csv.DictReader(file))


def test_a_dicom_patient_from_dose_to_differences(
    patient: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out, dvh = tmp_path / "dose.csv", tmp_path / "dvh.csv"
    assert main(_command(patient, "--csv", str(out), "--dvh", str(dvh))) == 0
    left, right = _rows(out)
    assert list(left)[:5] == [
        "case",
        "organ",
        "substitute",
        "mean_difference_percent",
        "max_difference_percent",
    ]
    # columns at x = 10 to 19 mm: 15 to 19.5 Gy, mean 17.25; at 30 to 39: 25 to 29.5; the substitute has 1 Gy more
    assert float(left["reference_mean_gy"]) == pytest.approx(17.25, abs=2e-3)
    assert float(left["reference_max_gy"]) == pytest.approx(19.5, abs=2e-3)
    assert float(left["mean_difference_percent"]) == pytest.approx(100 / 17.25, abs=0.02)
    assert float(right["max_difference_percent"]) == pytest.approx(100 / 29.5, abs=0.02)
    assert (left["state"], left["outside_percent"], left["substitute"]) == ("compared", "0", "auto.seg.nrrd")
    curve = [r for r in _rows(dvh) if r["organ"] == "Parotid_L" and r["contour"] == "reference"]
    percent = {round(float(r["dose_gy"]), 1): float(r["percent"]) for r in curve}
    assert (percent[0.0], percent[14.9], percent[15.2], percent[19.4], percent[19.6]) == (100, 100, 90, 10, 0)
    said = capsys.readouterr().out
    assert "2 organs: +" in said and "over 10 % in 0 % of them" in said
    assert main(_command(patient, "--organs", "left parotid")) == 0
    assert "mean dose, 1 organ: +" in capsys.readouterr().out


def test_beams_are_added_only_when_asked(
    patient: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Two parts of the dose are the dose."""
    _, series, _ = read_series(patient / "ct")
    whole = read_rtdose(patient / "dose.dcm").image
    folder = tmp_path / "beams"
    folder.mkdir()
    for number, share in enumerate((0.3, 0.7)):
        path = write_rtdose(whole * share, folder / f"beam{number}.dcm", series, seed=number)
        dataset = pydicom.dcmread(path)
        dataset.DoseSummationType = "BEAM"
        dataset.save_as(path)
    arguments = _command(patient, "--csv", str(tmp_path / "sum.csv"))
    arguments[2] = str(folder)
    assert main(arguments) == 2
    assert "holds several RTDOSEs" in capsys.readouterr().err
    assert not (tmp_path / "sum.csv").exists()
    assert main([*arguments, "--sum"]) == 0
    assert "2 doses were added: beam0.dcm, beam1.dcm" in capsys.readouterr().err
    assert main(_command(patient, "--csv", str(tmp_path / "plan.csv"))) == 0
    for ours, theirs in zip(_rows(tmp_path / "sum.csv"), _rows(tmp_path / "plan.csv"), strict=True):
        assert float(ours["reference_mean_gy"]) == pytest.approx(float(theirs["reference_mean_gy"]), abs=2e-3)
    arguments[2] = str(patient / "dose.dcm")
    assert main([*arguments, "--sum", "--csv", str(tmp_path / "x.csv")]) == 2
    assert "give their folder" in capsys.readouterr().err


def test_the_dose_of_the_only_case_is_found_among_others_by_its_name(patient: Path, tmp_path: Path) -> None:
    """The dose of another case, twice as high, lies beside it."""
    _, series, _ = read_series(patient / "ct")
    folder = tmp_path / "doses"
    folder.mkdir()
    whole = read_rtdose(patient / "dose.dcm").image
    for name, share in (("other", 2), ("reference", 1)):  # the case is called after its reference
        write_rtdose(whole * share, folder / f"{name}.dcm", series, seed=name)
    arguments = _command(patient, "--csv", str(tmp_path / "dose.csv"))
    arguments[2] = str(folder)
    assert main(arguments) == 0
    assert float(_rows(tmp_path / "dose.csv")[0]["reference_mean_gy"]) == pytest.approx(17.25, abs=2e-3)


def test_several_substitutes_stand_side_by_side(patient: Path, tmp_path: Path) -> None:
    out = tmp_path / "dose.csv"
    assert main(_command(patient, str(patient / "reader.seg.nrrd"), "--csv", str(out))) == 2
    command = _command(patient, "--substitute", str(patient / "reader.seg.nrrd"), "--csv", str(out))
    assert main(command) == 0
    states = {(r["substitute"], r["organ"]): (r["state"], r["mean_difference_percent"]) for r in _rows(out)}
    assert states["reader.seg.nrrd", "Parotid_L"] == ("compared", "0")
    assert states["reader.seg.nrrd", "Parotid_R"] == ("missing", "")
    assert len(states) == 4


def test_folders_of_cases(patient: Path, tmp_path: Path) -> None:
    geometry = Geometry.of(read_series(patient / "ct")[0])
    for side in ("dose", "reference", "auto"):
        (tmp_path / side).mkdir()
    for case in ("one", "two"):
        (tmp_path / "dose" / f"{case}.dcm").write_bytes((patient / "dose.dcm").read_bytes())
        write_seg_nrrd(_organs(geometry), tmp_path / "reference" / f"{case}.seg.nrrd")
        write_seg_nrrd(_organs(geometry, len(case)), tmp_path / "auto" / f"{case}.seg.nrrd")
    out = tmp_path / "dose.csv"
    folders = [("--dose", "dose"), ("--reference", "reference"), ("--substitute", "auto")]
    command = ["dose", *(text for option, name in folders for text in (option, str(tmp_path / name)))]
    assert main([*command, "--csv", str(out), "--processes", "2", "--organs", "left parotid"]) == 0
    assert [(r["case"], r["organ"]) for r in _rows(out)] == [("one", "Parotid_L"), ("two", "Parotid_L")]
    chosen = [*command, "--csv", str(out), "--overwrite", "--processes", "1", "--where", "case=tw*"]
    assert main(chosen) == 0 and {r["case"] for r in _rows(out)} == {"two"}
    without_dvhs = _rows(out)
    assert main([*chosen, "--dvh", str(tmp_path / "dvhs.csv")]) == 0
    assert _rows(out) == without_dvhs, "figures do not depend on whether the DVHs are kept"
    if pytest.importorskip("matplotlib"):
        assert main([*command, "--plot", str(tmp_path / "boxes.svg")]) == 0


def test_one_damaged_case_of_several_can_be_left_out(
    patient: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    geometry = Geometry.of(read_series(patient / "ct")[0])
    for side in ("dose", "reference", "substitute"):
        (tmp_path / side).mkdir()
    for case in ("one", "two"):
        (tmp_path / "dose" / f"{case}.dcm").write_bytes((patient / "dose.dcm").read_bytes())
        for side in ("reference", "substitute"):
            write_seg_nrrd(_organs(geometry), tmp_path / side / f"{case}.seg.nrrd")
    (tmp_path / "dose" / "two.dcm").write_bytes((patient / "dose.dcm").read_bytes()[:2000])
    command = ["dose", "--progress", "none", "--processes", "1", "--csv", str(tmp_path / "doses.csv")]
    for side in ("dose", "reference", "substitute"):
        command += [f"--{side}", str(tmp_path / side)]
    assert main(command) == 2
    assert not (tmp_path / "doses.csv").exists()
    capsys.readouterr()
    assert main([*command, "--leave-out"]) == 2
    assert capsys.readouterr().err.splitlines()[-1].endswith("1 of 2 cases were left out: two")
    assert {row["case"] for row in _rows(tmp_path / "doses.csv")} == {"one"}


def test_dvhs_are_drawn(patient: Path, tmp_path: Path) -> None:
    pytest.importorskip("matplotlib")
    assert main(_command(patient, "--plot", str(tmp_path / "dvh.png"))) == 0
    assert (tmp_path / "dvh.png").read_bytes().startswith(b"\x89PNG")


def test_a_dose_that_is_not_this_patients_is_refused(
    patient: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    dataset = pydicom.dcmread(patient / "dose.dcm")
    dataset.FrameOfReferenceUID = "1.2.3"
    dataset.save_as(tmp_path / "other.dcm")
    command = _command(patient)
    command[command.index(str(patient / "dose.dcm"))] = str(tmp_path / "other.dcm")
    assert main(command) == 2
    assert "another frame of reference" in capsys.readouterr().err
    dataset.FrameOfReferenceUID = pydicom.dcmread(patient / "dose.dcm").FrameOfReferenceUID
    dataset.PatientID = "somebody else"
    dataset.save_as(tmp_path / "other.dcm")
    assert main(command) == 2
    said = capsys.readouterr().err
    assert "of another patient than the CT" in said and "somebody else" not in said


def test_an_organ_beyond_the_dose_grid_is_said(
    patient: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    dose = sitk.GetImageFromArray(np.full((22, 21, 11), 30.0, np.float32))
    dose.SetSpacing((2.0, 2.0, 2.0))  # to x = 21 mm
    sitk.WriteImage(dose, str(tmp_path / "dose.nrrd"))
    command = _command(patient, "--csv", str(tmp_path / "d.csv"))
    command[command.index(str(patient / "dose.dcm"))] = str(tmp_path / "dose.nrrd")
    assert main(command) == 0
    assert "100 % of Parotid_R lies beyond the dose grid" in capsys.readouterr().err
    assert [r["reference_outside_percent"] for r in _rows(tmp_path / "d.csv")] == ["0", "100"]


def test_what_a_substitute_has_beyond_the_dose_grid_is_said_too(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """A cord of 1000 voxels in a dose of 20 slices: the reference ends within it, the substitutes are drawn 5 of 25
    slices and a single voxel too far."""
    geometry = Geometry((40, 40, 40), (1.0, 1.0, 1.0), (0.0, 0.0, 0.0))
    sitk.WriteImage(
        sitk.GetImageFromArray(np.full((20, 40, 40), 50, np.float32)), str(tmp_path / "dose.nrrd")
    )
    inside = np.zeros(geometry.shape, bool)
    inside[10:20, 10:20, 10:20] = True
    longer, voxel = inside.copy(), inside.copy()
    longer[20:25, 10:20, 10:20] = True
    voxel[20, 10, 10] = True
    for name, array in (("reference", inside), ("longer", longer), ("voxel", voxel)):
        structures = StructureSet(geometry)
        structures.add("SpinalCord", array)
        write_seg_nrrd(structures, tmp_path / f"{name}.seg.nrrd")
    sides = ("--dose", str(tmp_path / "dose.nrrd"), "--reference", str(tmp_path / "reference.seg.nrrd"))
    command = [
        "dose",
        *sides,
        "--substitute",
        str(tmp_path / "longer.seg.nrrd"),
        str(tmp_path / "voxel.seg.nrrd"),
    ]
    assert main([*command, "--progress", "none"]) == 0
    said = [
        line.partition("reference: ")[2] for line in capsys.readouterr().err.splitlines() if "beyond" in line
    ]
    assert said == [
        "33 % of SpinalCord lies beyond the dose grid in longer.seg.nrrd, and counts as 0 Gy",
        "0.1 % of SpinalCord lies beyond the dose grid in voxel.seg.nrrd, and counts as 0 Gy",
    ]


def test_without_a_ct_contours_of_another_frame_of_reference_are_refused(
    patient: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """The reference an RTSTRUCT, its grid the substitute's: only the RTSTRUCT says which CT it is of."""
    command = _command(patient)
    del command[command.index("--ct") :]
    assert main(command) == 0
    capsys.readouterr()
    dataset = pydicom.dcmread(patient / "dose.dcm")
    dataset.FrameOfReferenceUID = "1.2.3"
    dataset.save_as(tmp_path / "other.dcm")
    command[command.index(str(patient / "dose.dcm"))] = str(tmp_path / "other.dcm")
    assert main(command) == 2
    assert "another frame of reference than" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("more", "said"),
    [
        (["--organs", "Larynx"], "none of the requested organs"),
        (["--sampling", "nearest"], "invalid choice"),
        (["--csv", "{t}/none/d.csv"], "there is no folder"),
        (["--substitute", "{p}/auto.seg.nrrd"], "given twice"),
        (["--substitute", "{p}/none.seg.nrrd"], "no file or folder"),
    ],
)
def test_bad_input_is_one_line(
    patient: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], more: list[str], said: str
) -> None:
    assert main(_command(patient, *[m.format(p=patient, t=tmp_path) for m in more])) == 2
    error = [line for line in capsys.readouterr().err.splitlines() if line.startswith("soars: error:")]
    assert len(error) == 1 and said in error[0]
    assert not list(tmp_path.iterdir())


def test_the_series_is_chosen_among_those_of_the_ct_s_folder(
    patient: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Beside a second scan of the patient on another grid, in `soars dose` as in `soars evaluate`."""
    for file in sorted((patient / "ct").iterdir()):
        (tmp_path / file.name).write_bytes(file.read_bytes())
    other = sitk.Image(20, 20, 10, sitk.sitkInt16)
    write_ct_series(other, tmp_path / "other", patient_id="P", patient_name="P", seed="other")
    for file in sorted((tmp_path / "other").iterdir()):
        file.rename(tmp_path / f"other_{file.name}")
    (tmp_path / "other").rmdir()
    uid = str(
        pydicom.dcmread(next((patient / "ct").iterdir()), specific_tags=["SeriesInstanceUID"])[
            0x0020000E
        ].value
    )
    evaluate = [
        "evaluate",
        str(patient / "auto.seg.nrrd"),
        str(patient / "reference.dcm"),
        "--ct",
        str(tmp_path),
    ]
    dose = [word if word != str(patient / "ct") else str(tmp_path) for word in _command(patient)]
    for command in (evaluate, dose):
        assert main([*command, "--processes", "1"]) == 2
        assert uid in capsys.readouterr().err
        assert main([*command, "--processes", "1", "--series", uid]) == 0
        assert "Parotid_L" in capsys.readouterr().out
        no_ct = command[: command.index("--ct")] + command[command.index("--ct") + 2 :]
        assert main([*no_ct, "--series", uid]) == 2
        assert "give the CT with --ct" in capsys.readouterr().err
