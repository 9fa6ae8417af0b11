"""Two real observers as the people of one study: what `soars study summarize` says is what `soars evaluate` says."""

from __future__ import annotations

import csv
import math
from pathlib import Path

import numpy as np
import pytest

from soars.cli import main
from soars.structures import tight_mask
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
