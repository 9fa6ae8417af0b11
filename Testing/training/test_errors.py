"""`soars-train` ends every mistake and every interruption in one line, as `soars` does."""

from __future__ import annotations

import json
import logging
import os
import subprocess
import sys
from pathlib import Path

import pytest
from tqdm import tqdm

from soars.errors import InputError
from soars.networks.architecture import Architecture
from soars_training import cli
from soars_training.cohorts.cache import CacheIndex
from soars_training.fitting.options import FittedRun
from soars_training.systems.interface import SystemRun


@pytest.mark.parametrize(
    ("words", "says"),
    [
        (["prepare", "cache"], "soars-train prepare --help"),
        (["prepare", "cache", "--phantoms", "none"], "--phantoms"),
        (["prepare", "cache", "--phantoms", "0"], "--phantoms must be a whole number of 1 or more, not 0"),
        (["no-such-command"], "invalid choice"),
        (["fit", "no_cache", "run", "--branch", "anchor"], "no_cache"),
        (["fit", "no_cache", "run", "--branch", "anchor", "--heatmap"], "--heatmap are for small_hard"),
        (
            ["fit", "no_cache", "run", "--branch", "mid_level", "--voi", "v.json"],
            "--heatmap are for small_hard",
        ),
        (["fit", "no_cache", "run", "--branch", "anchor", "--guide", "g"], "--guide is for the branches"),
    ],
)
def test_a_mistake_is_one_line(
    words: list[str],
    says: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.chdir(tmp_path)
    assert cli.main(words) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith("soars-train: error: ")
    assert says in line
    assert not list(tmp_path.iterdir())


def test_help_imports_nothing_heavy() -> None:
    """A request to end is heard from the moment that the command is known, so little may come before."""
    code = "import sys, soars_training.cli\n"
    code += (
        "heavy = {'numpy', 'scipy', 'SimpleITK', 'pydicom', 'torch', 'onnxruntime', 'monai', 'matplotlib'}\n"
    )
    code += "soars_training.cli.main(['--help'])\n"
    code += "sys.exit(', '.join(heavy & set(sys.modules)) or 0)"
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    done = subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, text=True)
    assert (done.returncode, done.stderr) == (0, "")


@pytest.mark.parametrize(
    ("error", "code", "says"),
    [
        (KeyboardInterrupt(), 130, "soars-train: error: cancelled"),
        (OSError(28, "No space left on device", "a.npz"), 2, "the disk is full"),
        (ValueError("two\nlines"), 1, "soars-train: internal error: ValueError: two lines"),
    ],
)
def test_any_error_ends_in_one_line(
    error: BaseException,
    code: int,
    says: str,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    def fail(args: object) -> None:
        raise error

    monkeypatch.setattr("soars_training.commands.plan.run", fail)
    assert cli.main(["plan", "cache"]) == code
    (line,) = capsys.readouterr().err.splitlines()
    assert says in line


def test_a_log_stands_above_the_bar_and_says_what_it_is(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def work(args: object) -> None:
        for _ in tqdm(range(3), desc="bar", mininterval=0, file=sys.stderr):
            logging.getLogger("soars_training.cohorts").info("for people")
            logging.getLogger("soars.ct").info("for nobody")
            logging.getLogger("soars.ct").warning("a slice is odd")

    level = logging.getLogger("soars_training").level
    monkeypatch.setattr("soars_training.commands.plan.run", work)
    assert cli.main(["plan", "cache"]) == 0
    lines = [line.rpartition("\r")[2] for line in capsys.readouterr().err.split("\n")]
    assert lines.count("for people") == 3 and lines.count("soars-train: warning: a slice is odd") == 3
    assert not any("for nobody" in line for line in lines)
    assert logging.getLogger("soars_training").level == level and "bar: 100%" in lines[-2]


@pytest.mark.parametrize("text", ["{", "[]", "3", '{"branch": "anchor"}', "null"])
@pytest.mark.parametrize("load", [FittedRun.load, SystemRun.load, CacheIndex.load])
def test_a_record_of_another_shape_is_named(load: object, text: str, tmp_path: Path) -> None:
    for name in ("run.json", "index.json"):
        (tmp_path / name).write_text(text)
    with pytest.raises(InputError, match=str(tmp_path)):
        load(tmp_path)


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("branch", "ancor"),
        ("inputs", ["ct", "dose"]),
        ("windows_hu", [1]),
        ("architecture", {}),
        ("voi_mm", 3),
    ],
)
def test_a_run_with_one_field_of_another_shape_is_named(key: str, value: object, tmp_path: Path) -> None:
    run = {
        "branch": "anchor", "classes": ["Brainstem"], "inputs": ["ct"], "anchors": [], "spacing_mm": [3, 3, 3],
        "patch": [8, 8, 8], "windows_hu": [[-500, 1000]], "voi_mm": {}, "source": "test", "cases": 1,
        "held_out": [], "validation": {}, "options": {}, "seconds": 1.0,
        "architecture": Architecture.plain(1, 2, (4, 8)).to_dict(),
    }  # fmt: skip
    (tmp_path / "run.json").write_text(json.dumps(run))
    assert FittedRun.load(tmp_path).classes == ("Brainstem",)
    (tmp_path / "run.json").write_text(json.dumps({**run, key: value}))
    with pytest.raises(InputError, match=r"run\.json: not as this version writes it .*; train it again"):
        FittedRun.load(tmp_path)
