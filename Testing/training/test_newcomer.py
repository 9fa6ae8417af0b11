"""The first page of docs/training.md works as it is written: its commands, with fewer steps, in an empty folder."""

from __future__ import annotations

import re
import shlex
from collections.abc import Callable
from pathlib import Path

import pytest

from soars.cli import main as soars
from soars.dicom.write import write_ct_series
from soars.phantom import make_phantom
from soars_training.cli import main as soars_train

PAGE = Path(__file__).resolve().parents[2] / "docs" / "training.md"
HEADING = "## From three phantoms to a bundle and back"


def commands() -> list[list[str]]:
    """The lines of the section's code, with its variable put in."""
    section = PAGE.read_text("utf-8").split(HEADING)[1].split("\n## ")[0]
    (block,) = re.findall(r"```\n(.*?)```", section, re.DOTALL)
    variables: dict[str, str] = {}
    found = []
    for line in block.strip().splitlines():
        assigned = re.fullmatch(r'([A-Z]+)="([^"]*)"', line)
        if assigned:
            variables[assigned[1]] = assigned[2]
        else:
            found.append(shlex.split(re.sub(r"\$([A-Z]+)", lambda m: variables[m[1]], line)))
    return found


ORGANS = {"anchor": "Brainstem,Bone_Mandible_L,Bone_Mandible_R", "mid_level": "Cavity_Oral"}
"""Of all organs that a branch has, whose contours after so few steps are noise that takes long to draw."""


def _small(argv: list[str]) -> list[str]:
    """The same with fewer steps and organs, and a coarser phantom to be scored on."""
    fewer = (
        ["--steps", "40", "--organs", ORGANS[argv[argv.index("--branch") + 1]]] if "--branch" in argv else []
    )
    return [*argv, *fewer, *(["--spacing", "4"] if argv[1] == "evaluate" else [])]


def _demo(argv: list[str]) -> int:
    """The part of `soars demo` that the page needs, its CT; the demo has tests of its own."""
    folder = Path(argv[argv.index("--output") + 1]) / "ct"
    write_ct_series(
        make_phantom(3, spacing_mm=(3.0, 3.0, 4.0)).ct, folder, patient_id="demo", patient_name="demo"
    )
    return 0


@pytest.mark.slow  # two trainings, a bundle, and the cascade twice
def test_the_page_leads_from_phantoms_to_contours(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    doors: dict[str, Callable[[list[str]], int]] = {"soars-train": soars_train, "soars": soars}
    seen = []
    for program, *argv in map(_small, commands()):
        run = _demo if argv[0] == "demo" else doors[program]
        assert run(argv) == 0, (program, argv, capsys.readouterr().err)
        seen.append(argv[0])
    assert seen == ["prepare", "fit", "guide", "fit", "export", "evaluate", "demo", "segment"]
    result = tmp_path / "work" / "result"
    assert {"report.html", "run.json"} <= {path.name for path in result.iterdir()}
    assert list(result.glob("*.dcm")) and list(result.glob("*.seg.nrrd"))
    assert "| Brainstem | 1 |" in capsys.readouterr().out
    assert (tmp_path / "work" / "dsc.csv").read_text().startswith("case,organ,dsc")
