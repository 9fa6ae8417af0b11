"""The page of a training run: its figures, whom it does worst on, and nothing that a name could smuggle in."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from soars.networks.architecture import Architecture
from soars_training.experiments.run_page import write_page
from soars_training.fitting.options import FitOptions, FittedRun
from soars_training.fitting.state import CASES_FILE, DSC_FILE
from soars_training.windows.task import BranchTask


def _run(folder: Path, **changes: object) -> None:
    task = BranchTask("anchor", ("Brainstem", "Eye_L"), ("ct",))
    options = FitOptions(task, steps=40, features=(4, 8))
    facts: dict[str, object] = {
        "branch": "anchor",
        "classes": task.classes,
        "inputs": task.inputs,
        "anchors": (),
        "spacing_mm": (2.0, 2.0, 3.0),
        "patch": (16, 32, 32),
        "windows_hu": ((-500.0, 1000.0),),
        "voi_mm": {},
        "architecture": Architecture.plain(1, 3, (4, 8)),
        "source": "<b>our</b> cohort",
        "cases": 7,
        "held_out": ("p1", "p2"),
        "validation": {},
        "options": options.to_dict(),
        "seconds": 90.0,
    }
    FittedRun(**(facts | changes)).save(folder)  # type: ignore[arg-type]


@pytest.fixture
def picture(tmp_path: Path) -> Path:
    path = tmp_path / "report.png"
    path.write_bytes(b"\x89PNG picture")
    return path


def test_the_page_has_the_last_and_the_best_dsc_and_the_worst_patients(tmp_path: Path, picture: Path) -> None:
    _run(tmp_path)
    (tmp_path / DSC_FILE).write_text(
        "step,organ,dsc\n20,Brainstem,0.7\n20,Eye_L,0.9\n40,Brainstem,0.8\n40,Eye_L,0.6\n"
    )
    (tmp_path / CASES_FILE).write_text(
        "case,organ,dsc\np1,Brainstem,0.75\np2,Brainstem,0.85\np1,Eye_L,0.7\np2,Eye_L,0.5\n"
    )
    page = write_page(tmp_path, picture).read_text("utf-8")
    assert "DSC at step 40" in page and "at the best, step 20" in page  # means 0.8 and 0.7
    rows = [re.sub(r"<[^>]+>", "|", row) for row in re.findall(r"<tr>(.*?)</tr>", page)]
    found = {cells[0]: cells[1:] for row in rows if (cells := [c for c in row.split("|") if c])}
    assert found["Left eye"][:2] == ["0.600", "0.900"] and found["Left eye"][2] == "p2 0.50, p1 0.70"
    assert found["mean of organs"] == ["0.700", "0.800"]
    assert found["cases"] == ["7 to learn from, 2 patients held out"] and found["time"] == ["1.5 minutes"]


def test_names_are_text_and_nothing_is_fetched_or_run(tmp_path: Path, picture: Path) -> None:
    _run(tmp_path, held_out=())
    for name, header in ((DSC_FILE, "step,organ,dsc\n"), (CASES_FILE, "case,organ,dsc\n")):
        (tmp_path / name).write_text(header)
    page = write_page(tmp_path, picture).read_text("utf-8")
    assert "&lt;b&gt;our&lt;/b&gt; cohort" in page and "<b>our" not in page
    assert "No patients were held out." in page
    assert "default-src &#x27;none&#x27;" in page and "<script" not in page
    assert not re.search(r'(src|href)="(?!data:image/png;base64,)', page)
