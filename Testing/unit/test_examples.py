"""The scripts in `examples/` run as they are written, and print what they promise."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

EXAMPLES = Path(__file__).resolve().parents[2] / "examples"


def run(name: str, *arguments: Path) -> str:
    environment = {**os.environ, "PYTHONPATH": str(EXAMPLES.parent / "SOARSSegmentation")}
    command = [sys.executable, str(EXAMPLES / name), *map(str, arguments)]
    result = subprocess.run(command, capture_output=True, text=True, env=environment)
    assert result.returncode == 0, result.stderr
    return result.stdout


def test_every_example_is_tested_and_listed() -> None:
    scripts = {path.name for path in EXAMPLES.glob("*.py")}
    assert len(scripts) == 3
    tests = Path(__file__).read_text(encoding="utf-8")
    listed = (EXAMPLES / "README.md").read_text(encoding="utf-8")
    assert all(f'run("{name}"' in tests and f"`{name}`" in listed for name in scripts)


@pytest.mark.slow
def test_segment_and_read_doses(tmp_path: Path) -> None:
    lines = run("01_segment_and_read_doses.py", tmp_path / "out").splitlines()
    table = {line.split()[0]: [float(v) for v in line.split()[1:]] for line in lines if line[0].isupper()}
    assert set(table) == {"Brainstem", "SpinalCord", "Bone_Mandible_L", "Bone_Mandible_R"}
    assert all(volume > 5 and 0 <= mean <= hottest < 80 for volume, mean, hottest in table.values())
    assert (tmp_path / "out" / "rtstruct.dcm").is_file()


def test_compare_two_readers() -> None:
    first, second = run("02_compare_two_readers.py").splitlines()
    assert first.split()[:2] == ["Parotid_L", "compared"]
    dsc = float(re.findall(r"DSC (\d\.\d+)", first)[0])
    growth = float(re.findall(r"volume \+(\d+) %", first)[0]) / 100
    # One set contains the other: DSC = 2 / (2 + growth).
    assert dsc == pytest.approx(2 / (2 + growth), abs=0.003)
    assert second.split()[:2] == ["Glnd_Submand_L", "missing"]


def test_contours_on_another_grid(tmp_path: Path) -> None:
    through_a_file, there_and_back = run("03_contours_on_another_grid.py", tmp_path).splitlines()
    assert re.findall(r"DSC (\d\.\d+)", through_a_file) == ["1.000", "1.000"]
    eye, lens = (float(dsc) for dsc in re.findall(r"DSC (\d\.\d+)", there_and_back))
    assert lens < eye < 1  # the smaller the organ, the more a coarse grid costs
