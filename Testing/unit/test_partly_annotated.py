"""References that are annotated in part: what nobody drew is no verdict on a prediction."""

from __future__ import annotations

import csv
from pathlib import Path

import numpy as np
import pytest
import SimpleITK as sitk

from soars.cli import main
from soars.formats.labelmap import write_label_map
from soars.formats.segnrrd import write_seg_nrrd
from soars.structures import Geometry, StructureSet

GRID = Geometry((20, 20, 10), (1.0, 1.0, 2.0), (0.0, 0.0, 0.0))
ALL = ("Brainstem", "Parotid_L", "Parotid_R")


def organs(*drawn: str) -> StructureSet:
    """All three by name; those drawn as blocks of 5 x 5 x 4 voxels."""
    out = StructureSet(GRID)
    for number, name in enumerate(ALL):
        mask = np.zeros(GRID.shape, bool)
        if name in drawn:
            mask[2:6, 2:7, 1 + 6 * number : 6 + 6 * number] = True
        out.add(name, mask)
    return out


@pytest.fixture
def sides(tmp_path: Path) -> tuple[Path, Path]:
    """A prediction of all organs; a reference from a template, in which Parotid_R was not drawn."""
    write_seg_nrrd(organs(*ALL), tmp_path / "prediction.seg.nrrd")
    write_label_map(organs("Brainstem", "Parotid_L"), tmp_path / "reference.nii.gz")
    return tmp_path / "prediction.seg.nrrd", tmp_path / "reference.nii.gz"


def scores(path: Path) -> dict[str, dict[str, str]]:
    with path.open(newline="") as file:
        return {row["organ"]: row for row in csv.DictReader(file)}


@pytest.mark.parametrize(
    ("more", "state", "dsc"),
    [
        ([], "not annotated", ""),
        (["--empty", "not-annotated"], "not annotated", ""),
        (["--empty", "absent"], "extra", "0"),
    ],
)
def test_an_empty_structure_of_the_reference_is_not_annotated_unless_said_otherwise(
    sides: tuple[Path, Path],
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    more: list[str],
    state: str,
    dsc: str,
) -> None:
    table = tmp_path / "s.csv"
    assert main(["evaluate", *map(str, sides), "--csv", str(table), *more]) == 0
    rows = scores(table)
    assert (rows["Parotid_R"]["state"], rows["Parotid_R"]["dsc"]) == (state, dsc)
    assert [rows[name]["dsc"] for name in ("Brainstem", "Parotid_L")] == ["1", "1"]
    out, err = capsys.readouterr()
    said = "not annotated in the reference, where they have no voxel: Parotid_R" in err
    assert said == (state == "not annotated")
    line = next(line for line in out.splitlines() if line.startswith("all organs"))
    assert line.split()[2] == ("2" if said else "3")  # organs that count in the mean DSC


@pytest.mark.parametrize(("more", "organs_of_table"), [([], 2), (["--empty", "absent"], 3)])
def test_no_dose_difference_is_reported_where_nobody_drew(
    sides: tuple[Path, Path], tmp_path: Path, more: list[str], organs_of_table: int
) -> None:
    dose = GRID.place(sitk.GetImageFromArray(np.full(GRID.shape, 20, np.float32)))
    sitk.WriteImage(dose, str(tmp_path / "dose.nrrd"))
    words = ["dose", "--dose", str(tmp_path / "dose.nrrd"), "--substitute", str(sides[0])]
    table = tmp_path / "d.csv"
    assert main([*words, "--reference", str(sides[1]), "--csv", str(table), *more]) == 0
    rows = scores(table)
    assert len(rows) == organs_of_table
    assert ("Parotid_R" in rows and rows["Parotid_R"]["state"] == "extra") == bool(more)


def test_a_picture_counts_what_is_missing_and_what_is_extra_alike(
    sides: tuple[Path, Path], tmp_path: Path
) -> None:
    pytest.importorskip("matplotlib")
    write_seg_nrrd(organs("Brainstem", "Parotid_R"), tmp_path / "prediction.seg.nrrd")
    words = ["evaluate", *map(str, sides), "--empty", "absent", "--plot", str(tmp_path / "p.svg")]
    assert main(words) == 0
    text = (tmp_path / "p.svg").read_text()
    assert "Parotid_L (1 missing)" in text and "Parotid_R (1 extra)" in text and "Brainstem (" not in text


def test_extra_is_a_state_and_no_group_of_organs(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for side in ("a", "b"):
        one = StructureSet(GRID)
        one.add_crop("Hippocampus_L", (2, 2, 2), np.ones((2, 3, 4), bool))
        write_seg_nrrd(one, tmp_path / f"{side}.seg.nrrd")
    table = tmp_path / "summary.csv"
    sides = [str(tmp_path / f"{side}.seg.nrrd") for side in ("a", "b")]
    assert main(["evaluate", *sides, "--summary", str(table)]) == 0
    with table.open(newline="") as file:
        groups = [(row["group"], row["name"]) for row in csv.DictReader(file)]
    assert groups == [("organ", "Hippocampus_L"), ("stratum", "beside the strata"), ("all", "all organs")]
