"""Two real observers as the people of one study: what `soars study summarize` says is what `soars evaluate` says."""

from __future__ import annotations

import csv
import math
from pathlib import Path

import numpy as np
import pytest

from soars.cli import main
from soars.formats.segnrrd import write_seg_nrrd
from soars.structures import Geometry, StructureSet, tight_mask
from soars.study.load import open_study
from soars.study.results.consensus import staple
from soars.study.results.summary import analyse_study

CASES = ("0522c0017", "TCGA-CV-A6K0")
ORGANS = ("Brainstem", "Parotid_L", "OpticNrv_R", "Glnd_Submand_L")


@pytest.mark.shared
def test_two_real_observers_agree_as_evaluate_says(tmp_path: Path, shared: Path) -> None:
    observers = shared / "data" / "observers"
    cases = "\n".join(f"  - {{name: {case}}}" for case in CASES)
    (tmp_path / "study.yaml").write_text(
        f"schema: 1\nname: observers\nseed: 1\norgans: [{', '.join(ORGANS)}]\n"
        "arms:\n  - {name: hand, proposal: none}\n"
        f"cases:\n{cases}\nobservers:\n  - {{name: radiographer, contours: {observers / 'radiographer'}}}\n"
        f"  - {{name: oncologist, contours: {observers / 'oncologist'}}}\n"
    )
    table = analyse_study(open_study(tmp_path)).table("pairwise")
    ours = {row[2]: row for row in table.rows}
    assert {row[:2] for row in table.rows} == {("radiographer", "oncologist")}
    for side in ("radiographer", "oncologist"):
        (tmp_path / side).mkdir()
        for case in CASES:
            (tmp_path / side / case).symlink_to(observers / side / case)
    files = [str(tmp_path / "radiographer"), str(tmp_path / "oncologist"), "--csv", str(tmp_path / "e.csv")]
    assert main(["evaluate", *files, "--organs", ",".join(ORGANS), "--progress", "none"]) == 0
    with (tmp_path / "e.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    for organ in ORGANS:
        own = [row for row in rows if row["organ"] == organ]
        assert ours[organ][3] == len(own) == len(CASES)
        for title, column in (
            ("DSC", "dsc"),
            ("HD95 mm", "hd95_mm"),
            ("ASD mm", "asd_mm"),
            ("APL mm", "apl_mm"),
        ):
            theirs = np.mean([float(row[column]) for row in own])
            assert ours[organ][table.columns.index(title)] == pytest.approx(theirs, rel=1e-4), (organ, title)
    every = [float(row["dsc"]) for row in rows]
    assert ours["all"][table.columns.index("DSC")] == pytest.approx(np.mean(every), rel=1e-4)


def test_the_consensus_of_three_is_what_two_of_them_say() -> None:
    """Two equal masks outvote a third that is moved away; of equal ones the consensus is the mask."""
    z, y, x = np.ogrid[:20, :20, :20]
    ball = (z - 10) ** 2 + (y - 10) ** 2 + (x - 10) ** 2 <= 25
    mask, other = tight_mask(ball), tight_mask(np.roll(ball, 3, axis=2))
    assert staple([mask, mask]).equals(mask)
    assert staple([mask, other, mask]).equals(mask)
    empty = tight_mask(np.zeros((4, 4, 4), dtype=bool))
    assert staple([empty, empty, mask]).is_empty and staple([empty, empty]).is_empty
    assert not math.isnan(staple([mask, other]).voxels)


def test_the_consensus_sees_contours_whole_whatever_file_comes_first(tmp_path: Path) -> None:
    """Three people draw boxes 40 voxels long, and the first one half as long, in a file that ends there: DSC 2/3.
    The first one's mandible is whole and the others' in halves; the last one has no lens at all."""
    grid = Geometry((60, 60, 30), (1.0, 1.0, 1.0), (0.0, 0.0, 0.0))

    def box(first: int, last: int) -> np.ndarray:
        array = np.zeros((30, 60, 60), dtype=bool)
        array[5:15, 10:30, first:last] = True
        return array

    for person in "abcd":
        drawn = StructureSet(grid)
        drawn.add("Brainstem", box(10, 30 if person == "a" else 50))
        if person == "a":
            drawn.add("Bone_Mandible", box(10, 30))
        else:
            drawn.add("Bone_Mandible_L", box(20, 30))
            drawn.add("Bone_Mandible_R", box(10, 20))
        if person != "d":
            drawn.add("Lens_L", box(12, 16))
        if person == "a":
            drawn = drawn.resample(Geometry((24, 60, 30), (1.0, 1.0, 1.0), (8.0, 0.0, 0.0)))
        (tmp_path / person).mkdir()
        write_seg_nrrd(drawn, tmp_path / person / "p1.seg.nrrd")
    (tmp_path / "study.yaml").write_text(
        "schema: 1\nname: people\nseed: 1\norgans: [Brainstem, Bone_Mandible, Lens_L]\ncases:\n  - {name: p1}\n"
        "arms:\n  - {name: hand, proposal: none}\nobservers:\n"
        + "".join(f"  - {{name: {person}, contours: {person}}}\n" for person in "abcd")
    )
    table = analyse_study(open_study(tmp_path)).table("consensus")
    found = {(row[0], row[2]): row[3:6] for row in table.rows}  # n, missing, DSC
    assert found["a", "Brainstem"] == (1, 0, pytest.approx(2 / 3))
    assert found["b", "Brainstem"] == (1, 0, 1)
    assert all(found[person, "Bone_Mandible"] == (1, 0, 1) for person in "abcd")
    assert found["a", "Lens_L"] == (1, 0, 1) and found["d", "Lens_L"] == (1, 1, 0)
