"""A training run can be killed, stopped, resumed and repeated, and says in a sentence what is wrong with it."""

from __future__ import annotations

import csv
import multiprocessing
import os
import shutil
import signal
import subprocess
import sys
import threading
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from two_boxes import ORGANS, TASK, two_boxes_options, write_two_boxes

import soars_training.fitting.fit
import soars_training.release.guide
from soars.errors import CancelledError, InputError
from soars.supervise import SIGNALS
from soars_training.cli import main
from soars_training.cohorts.cache import CacheIndex
from soars_training.cohorts.splits import hold_out
from soars_training.fitting.fit import fit
from soars_training.fitting.loop import training_device, worker_count
from soars_training.fitting.options import BEST, LAST, FitOptions, FittedRun
from soars_training.fitting.presets import paper_steps, preset
from soars_training.fitting.state import balance, learning_rate
from soars_training.windows.augment import Augmentation
from soars_training.windows.dataset import WindowDataset
from soars_training.windows.task import BranchTask


@pytest.fixture(scope="module")
def cache(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_two_boxes(tmp_path_factory.mktemp("cache"))


def _command(cache: Path, run: Path, checkpoint_every: int) -> list[str]:
    """The same run, on the command line."""
    return [
        "fit", str(cache), str(run), "--branch", "anchor", "--organs", ",".join(ORGANS), "--features", "4,8",
        "--patch", "8,8,8", "--steps", "60", "--batch", "2", "--device", "cpu", "--threads", "1",
        "--deterministic", "--checkpoint-every", str(checkpoint_every), "--held-out", "2", "--learning-rate", "0.01",
        "--windows=-500:1000", "--preset", "laptop",
    ]  # fmt: skip


def _weights(run: Path) -> dict[str, torch.Tensor]:
    return FittedRun.load(run).network(run).state_dict()


@pytest.fixture(scope="module")
def whole(cache: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run from first to last step without a break."""
    output = tmp_path_factory.mktemp("whole")
    fit(cache, output, two_boxes_options())
    return output


def _same_as_whole(run: Path, whole: Path) -> None:
    mine, theirs = _weights(run), _weights(whole)
    assert all(torch.equal(mine[name], theirs[name]) for name in theirs)
    without_time = [[row[:3] for row in csv.reader((f / "loss.csv").open())] for f in (run, whole)]
    assert without_time[0] == without_time[1]


def test_a_run_learns_and_remembers_how_well(whole: Path) -> None:
    rows = list(csv.DictReader((whole / "loss.csv").open()))
    assert [row["step"] for row in rows] == ["20", "40", "60"]
    assert float(rows[-1]["loss"]) < 0.8 * float(rows[0]["loss"])
    run = FittedRun.load(whole)
    assert run.held_out == ("c1", "c4") or len(run.held_out) == 2
    assert set(run.validation) == set(ORGANS)
    assert (whole / BEST).exists()


def test_how_many_processes_draw_windows_does_not_alter_what_is_learned(
    cache: Path, whole: Path, tmp_path: Path
) -> None:
    fit(cache, tmp_path / "run", two_boxes_options(workers=3))
    _same_as_whole(tmp_path / "run", whole)


def test_a_gpu_gets_its_windows_from_as_many_processes_as_there_are_cores(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    cpu, gpu = torch.device("cpu"), torch.device("cuda", 0)
    assert (worker_count(None, cpu), worker_count(5, cpu), worker_count(5, gpu)) == (1, 5, 5)
    for cores, wanted in ((1, 1), (2, 1), (6, 5), (64, 8)):
        monkeypatch.setattr(os, "sched_getaffinity", lambda _, n=cores: set(range(n)), raising=False)
        assert worker_count(None, gpu) == wanted
    with pytest.raises(InputError, match="--workers"):
        two_boxes_options(workers=0).check()


def test_killed_at_any_moment_and_resumed_it_ends_with_the_same_weights(
    cache: Path, whole: Path, tmp_path: Path
) -> None:
    run = tmp_path / "run"
    argv = _command(cache, run, checkpoint_every=10)
    process = subprocess.Popen([sys.executable, "-m", "soars_training.cli", *argv], stderr=subprocess.DEVNULL)
    deadline = time.monotonic() + 600
    while not (run / LAST).exists() and process.poll() is None and time.monotonic() < deadline:
        time.sleep(0.01)
    process.send_signal(signal.SIGKILL)
    process.wait()
    assert (run / LAST).exists() and not (run / "run.json").exists(), "the run was over before it was killed"
    assert main([*argv, "--resume"]) == 0
    # The command's preset supervises three levels; a network of two has one to supervise, as the reference run.
    _same_as_whole(run, whole)


@pytest.mark.parametrize("killed", [False, True])
def test_no_process_is_left_waiting_when_one_that_draws_windows_fails(
    cache: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, killed: bool
) -> None:
    """A system whose memory is full kills one of them, and a program waits for its children when it ends."""

    def fail(_data: WindowDataset, number: int) -> None:
        if killed and number == 0:
            os.kill(os.getpid(), signal.SIGKILL)
        raise ArithmeticError(f"window {number}")

    monkeypatch.setattr(WindowDataset, "__getitem__", fail)
    failure, words = (RuntimeError, "worker") if killed else (ArithmeticError, "window 0")
    with pytest.raises(failure, match=words):
        fit(cache, tmp_path / "run", two_boxes_options(workers=2))
    assert not multiprocessing.active_children()


@pytest.mark.slow  # four more interpreters that import torch
def test_killed_at_three_random_moments_it_ends_with_the_same_weights(
    cache: Path, whole: Path, tmp_path: Path
) -> None:
    run = tmp_path / "run"
    argv = _command(cache, run, checkpoint_every=5)
    code = """
import os, signal, sys
from soars_training.cli import main
from soars_training.fitting import loop
step, last = loop._one_step, int(sys.argv[1])
def to_the_end(state, *more):
    if state.step == last:
        os.kill(os.getpid(), signal.SIGKILL)
    return step(state, *more)
loop._one_step = to_the_end
main(sys.argv[2:])
"""
    moments = sorted(int(step) for step in np.random.default_rng().choice(np.arange(6, 60), 3, replace=False))
    for moment in moments:
        resume = ["--resume"] if (run / LAST).exists() else []
        child = subprocess.run([sys.executable, "-c", code, str(moment), *argv, *resume], capture_output=True)
        assert child.returncode == -signal.SIGKILL and not (run / "run.json").exists(), (
            moments,
            child.stderr,
        )
    assert main([*argv, "--resume"]) == 0
    _same_as_whole(run, whole)


def test_a_run_of_an_earlier_version_goes_on_with_what_was_then_the_only_way(
    cache: Path, whole: Path, tmp_path: Path
) -> None:
    run = tmp_path / "run"
    fit(cache, run, two_boxes_options())
    (run / "run.json").unlink()
    checkpoint = torch.load(run / LAST, weights_only=True)
    for holder, newer in ((checkpoint["options"], "supervised"), (checkpoint["options"]["task"], "joined")):
        del holder[newer]
    torch.save(checkpoint, run / LAST)
    with pytest.raises(InputError, match=r"other settings \(supervised\)"):
        fit(cache, run, two_boxes_options(supervised=1 + FitOptions(TASK).supervised), resume=True)
    with pytest.raises(InputError, match=r"other settings \(task\)"):
        fit(
            cache,
            run,
            replace(two_boxes_options(supervised=FitOptions(TASK).supervised), task=replace(TASK, joined=1)),
            resume=True,
        )
    fit(cache, run, two_boxes_options(supervised=FitOptions(TASK).supervised), resume=True)
    _same_as_whole(run, whole)


def test_a_run_looks_for_room_before_its_first_step(
    cache: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("shutil.disk_usage", lambda _folder: shutil._ntuple_diskusage(9, 9, 100))  # type: ignore[attr-defined]
    with pytest.raises(InputError, match="the checkpoints take about 0 MB, and the disk has 0 MB left"):
        fit(cache, tmp_path / "run", two_boxes_options())
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize("number", SIGNALS)
def test_a_signal_saves_and_the_run_goes_on_later(
    cache: Path, whole: Path, tmp_path: Path, number: signal.Signals
) -> None:
    before = signal.getsignal(number)
    timer = threading.Timer(0.0, lambda: _kill_when(tmp_path / LAST, number))
    timer.start()
    with pytest.raises(CancelledError, match=r"stopped at step \d+ of 60; .*--resume") as stopped:
        fit(cache, tmp_path, two_boxes_options())
    assert stopped.value.exit_code == 130
    timer.join()
    assert signal.getsignal(number) is before
    fit(cache, tmp_path, two_boxes_options(), resume=True)
    _same_as_whole(tmp_path, whole)


@pytest.mark.parametrize("step", [20, 60])
def test_a_request_does_not_wait_for_a_validation_which_is_made_up_for(
    cache: Path, whole: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, step: int
) -> None:
    calls, draw = [], soars_training.fitting.fit.whole_patient_dice

    def asked_meanwhile(*given: Any) -> Any:
        calls.append(len(calls))
        if len(calls) == step // 20:
            signal.raise_signal(signal.SIGTERM)
        return draw(*given)

    options = two_boxes_options(validate_every=20)
    with monkeypatch.context() as patched:
        patched.setattr(soars_training.fitting.fit, "whole_patient_dice", asked_meanwhile)
        with pytest.raises(CancelledError, match=rf"stopped at step {step} of 60"):
            fit(cache, tmp_path, options)
    assert not (tmp_path / "run.json").exists()
    fit(cache, tmp_path, options, resume=True)
    _same_as_whole(tmp_path, whole)
    mine, last = (list(csv.DictReader((f / "validation.csv").open())) for f in (tmp_path, whole))
    assert [row["step"] for row in mine] == ["20", "20", "40", "40", "60", "60"]
    assert mine[4:] == last


@pytest.mark.parametrize("whole_group", [False, True])
def test_the_command_ends_in_one_line_and_code_130_with_a_checkpoint(
    cache: Path, tmp_path: Path, whole_group: bool
) -> None:
    """Also when all of its processes are signalled, as a scheduler does."""
    argv = [
        "fit", str(cache), str(tmp_path), "--branch", "anchor", "--organs", ",".join(ORGANS), "--features", "4,8",
        "--patch", "8,8,8", "--steps", "100000", "--device", "cpu", "--threads", "1", "--checkpoint-every", "5",
    ]  # fmt: skip
    command = [sys.executable, "-m", "soars_training.cli", *argv]
    process = subprocess.Popen(command, stderr=subprocess.PIPE, text=True, start_new_session=True)
    _kill_when(tmp_path / LAST, signal.SIGTERM, -process.pid if whole_group else process.pid)
    said = process.communicate(timeout=120)[1]
    assert process.returncode == 130
    last = said.rstrip().splitlines()[-1]
    assert last.startswith("soars-train: error: stopped at step ") and "--resume goes on from there" in last
    assert "Traceback" not in said
    assert not [path.name for path in tmp_path.iterdir() if path.name.startswith(".soars-")]


def _kill_when(path: Path, number: int, process: int | None = None) -> None:
    deadline = time.monotonic() + 100
    while not path.exists() and time.monotonic() < deadline:
        time.sleep(0.005)
    os.kill(process or os.getpid(), number)


def test_a_finished_run_is_not_overwritten_unasked(cache: Path, whole: Path, tmp_path: Path) -> None:
    with pytest.raises(InputError, match="holds a run already; --resume goes on with it, --overwrite"):
        fit(cache, whole, two_boxes_options())
    with pytest.raises(InputError, match="this run is finished"):
        fit(cache, whole, two_boxes_options(), resume=True)
    with pytest.raises(InputError, match="no checkpoint to resume from"):
        fit(cache, tmp_path, two_boxes_options(), resume=True)


def test_resuming_with_other_settings_names_them(cache: Path, whole: Path, tmp_path: Path) -> None:
    (tmp_path / LAST).write_bytes((whole / LAST).read_bytes())
    with pytest.raises(InputError, match=r"other settings \(learning_rate, steps\)"):
        fit(cache, tmp_path, two_boxes_options(steps=80, learning_rate=2e-2), resume=True)


def test_resuming_on_other_cases_names_them(cache: Path, whole: Path, tmp_path: Path) -> None:
    """Otherwise patients that the run has learned from would be held out; a run of an earlier version does not say."""
    shutil.copytree(cache, tmp_path / "cache")
    run = tmp_path / "run"
    run.mkdir()
    checkpoint = torch.load(whole / LAST, weights_only=True)
    held = sorted(FittedRun.load(whole).held_out)
    assert checkpoint["sides"] == {"held_out": held, "learned": sorted({f"c{n}" for n in range(6)} - {*held})}
    torch.save(checkpoint, run / LAST)
    index = CacheIndex.load(cache)
    changed = index.cases[1:] + [replace(index.cases[0], name="new", patient="new")]
    assert index.cases[0].name == "c0"
    replace(index, cases=changed).save(tmp_path / "cache")
    with pytest.raises(
        InputError, match=r"started on other cases of the cache \(new: new; gone: c0.*resume with"
    ):
        fit(tmp_path / "cache", run, two_boxes_options(), resume=True)
    # the same cases, but two of them are of one patient now, and others are held out
    pair = [replace(e, patient="pair") if e.name in (held[0], "c0") else e for e in index.cases]
    replace(index, cases=pair).save(tmp_path / "cache")
    learn, now = hold_out(pair, 2)
    assert {e.name for e in now} != {*held} and len(learn) + len(now) == 6
    with pytest.raises(InputError, match=r"other cases of the cache \(now "):
        fit(tmp_path / "cache", run, two_boxes_options(), resume=True)
    del checkpoint["sides"]
    torch.save(checkpoint, run / LAST)
    assert fit(tmp_path / "cache", run, two_boxes_options(), resume=True).held_out == tuple(
        sorted({e.patient for e in now})
    )


def test_a_damaged_checkpoint_is_named(cache: Path, whole: Path, tmp_path: Path) -> None:
    (tmp_path / LAST).write_bytes((whole / LAST).read_bytes()[:1000])
    with pytest.raises(InputError, match=r"last\.ckpt: damaged checkpoint"):
        fit(cache, tmp_path, two_boxes_options(), resume=True)


@pytest.mark.parametrize(
    ("changes", "sentence"),
    [
        ({"patch": (9, 8, 8)}, r"--patch 9,8,8: each side must be a multiple of 2, 2, 2 \(z, y, x\)"),
        ({"steps": 0}, "must be at least 1"),
        ({"threads": 0}, "--threads must be at least 1"),
        ({"held_out": -1}, "must be 0 or more"),
        ({"seed": -1}, "must be 0 or more"),
        ({"learning_rate": 0.0}, "--learning-rate must be above 0"),
        ({"foreground": 1.5}, "--foreground is a share"),
        ({"strength": Augmentation().times(-1)}, "--augmentation must be 0 or more"),
        ({"optimiser": "sgd"}, "choose adamw or radam"),
        ({"held_out": 6}, "cannot hold out 6 of 6 patients"),
        ({"task": BranchTask("anchor", ("Larynx",), ("ct",))}, "annotates any of Larynx"),
        ({"task": BranchTask("mid_level", ORGANS, ("ct", "anchor"), ("Eye_L",))}, "run soars-train guide"),
        ({"init": Path("nowhere")}, "not a finished training run"),
    ],
)
def test_what_cannot_be_trained_is_said_in_a_sentence(
    cache: Path, tmp_path: Path, changes: dict[str, object], sentence: str
) -> None:
    task = changes.pop("task", TASK)
    options = two_boxes_options(**changes)
    with pytest.raises(InputError, match=sentence):
        fit(cache, tmp_path, FitOptions(**(vars(options) | {"task": task})))


@pytest.mark.parametrize("option", ["--steps", "--batch", "--learning-rate"])
@pytest.mark.parametrize("chosen", ["laptop", "paper"])
def test_a_zero_is_refused_and_not_replaced_by_the_presets_value(
    cache: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], option: str, chosen: str
) -> None:
    command = ["fit", str(cache), str(tmp_path / "run"), "--branch", "anchor", "--organs", ",".join(ORGANS)]
    command += ["--features", "4,8", "--patch", "8,8,8", "--preset", chosen, option, "0"]
    assert main(command) == 2
    assert option in capsys.readouterr().err
    assert not (tmp_path / "run").exists()


def test_a_gpu_that_is_not_there_is_not_replaced(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(
        "soars_training.fitting.loop.cuda_problem", lambda number: "torch finds no CUDA device"
    )
    with pytest.raises(InputError, match="--device cuda: torch finds no CUDA device; choose --device cpu"):
        training_device("cuda")
    assert training_device("auto").type == "cpu"


def test_the_rate_warms_up_and_falls_to_zero() -> None:
    options = two_boxes_options(steps=1000, learning_rate=0.1)
    rates = [learning_rate(options, step) for step in range(1001)]
    assert rates[0] == pytest.approx(0.1 / 20) and rates[19] == pytest.approx(0.1)
    assert rates[510] == pytest.approx(0.05, rel=1e-3) and rates[1000] == pytest.approx(0, abs=1e-9)
    poly = two_boxes_options(steps=1000, learning_rate=0.1, schedule="poly")
    assert learning_rate(poly, 510) == pytest.approx(0.1 * 0.5**0.9)


def test_rare_organs_weigh_more_in_the_first_half_only() -> None:
    options = two_boxes_options(steps=100, balance=0.4)
    assert [balance(options, s) for s in (0, 25, 50, 99)] == pytest.approx([0.4, 0.2, 0, 0])


def test_the_papers_preset_is_what_the_papers_say() -> None:
    paper = preset("paper", "anchor")
    assert (paper.optimiser, paper.weight_decay, paper.batch, paper.learning_rate) == (
        "radam",
        0.005,
        12,
        0.01,
    )
    assert preset("paper", "small_hard").learning_rate == 0.005
    assert paper.dice_only and paper.patch == (64, 128, 128)
    assert (paper.strength.scale, paper.strength.rotation_degrees, paper.strength.mirror) == (0.2, 0, 0)
    # 142 scans, 42 organs: 57 windows a scan (the paper's "about 70" with its own counting), batches of 12.
    assert paper_steps(142, 42, 12) == 50 * 675


def test_an_organ_that_nobody_drew_is_not_learned(
    cache: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture, capsys: pytest.CaptureFixture[str]
) -> None:
    """It would be drawn at random, since nothing tells the network where it is not."""
    asked = replace(two_boxes_options(steps=2), task=BranchTask("anchor", ("Brainstem", "Eye_L"), ("ct",)))
    with pytest.raises(InputError, match="none of the 4 cases to learn from annotates Eye_L"):
        fit(cache, tmp_path / "run", asked)
    argv = [
        "fit", str(cache), str(tmp_path / "default"), "--features", "4,8", "--patch", "8,8,8", "--steps", "2",
        "--device", "cpu", "--branch",
    ]  # fmt: skip
    assert main([*argv, "anchor"]) == 0
    assert FittedRun.load(tmp_path / "default").classes == ORGANS
    assert "no case annotates them: Cerebellum, Eye_L" in caplog.text
    assert main([*argv, "mid_level"]) == 2
    assert "annotates none of the branch's organs" in capsys.readouterr().err


def test_a_run_that_is_overwritten_stays_until_the_new_one_can_begin(
    cache: Path, whole: Path, tmp_path: Path
) -> None:
    shutil.copytree(whole, tmp_path / "run")
    with pytest.raises(InputError, match="no training cache"):
        fit(tmp_path / "no_cache", tmp_path / "run", two_boxes_options(), overwrite=True)
    with pytest.raises(InputError, match="hold out"):
        fit(cache, tmp_path / "run", replace(two_boxes_options(), held_out=1000), overwrite=True)
    assert FittedRun.load(tmp_path / "run") == FittedRun.load(whole) and (tmp_path / "run" / LAST).exists()
