"""Two processes that meet over gloo learn what one learns with twice the batch; they stop and save together."""

from __future__ import annotations

import csv
import os
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

from soars.networks.names import LayerOrder
from soars_training.cli import main
from soars_training.cohorts.cache import CachedCase, CacheIndex, IndexEntry, write_case
from soars_training.fitting import processes
from soars_training.fitting.loop import _Share
from soars_training.fitting.models import BranchModel, EndToEnd
from soars_training.fitting.options import LAST, FitOptions
from soars_training.windows.task import BranchTask

ORGANS = ("Brainstem", "SpinalCord")


@pytest.fixture(scope="module")
def cache(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Four unlike cases of the window's own size, so that each window holds both organs."""
    folder = tmp_path_factory.mktemp("cache")
    entries = []
    for n in range(4):
        rng = np.random.default_rng(n)
        hu = rng.normal(0, 20, (8, 8, 8))
        masks = {}
        for k, organ in enumerate(ORGANS):
            start = (int(rng.integers(0, 5)), int(rng.integers(0, 5)), 4 * k)
            hu[tuple(slice(s, s + 3) for s in start)] = (300 + 300 * k) * (-1) ** n / (1 + n)
            masks[organ] = (start, np.ones((3, 3, 3), bool))
        case = CachedCase(f"c{n}", hu.astype(np.int16), (0, 0, 0), (3, 3, 3), masks, frozenset(ORGANS))
        write_case(folder / f"c{n}.npz", case)
        entries.append(IndexEntry(f"c{n}", f"c{n}.npz", "train", ORGANS))
    CacheIndex((3, 3, 3), "boxes", entries).save(folder)
    return folder


def _argv(cache: Path, run: Path, batch: int, *more: str) -> list[str]:
    argv = [
        "fit",
        str(cache),
        str(run),
        "--branch",
        "anchor",
        "--organs",
        ",".join(ORGANS),
        "--features",
        "4,8",
    ]
    argv += ["--patch", "8,8,8", "--batch", str(batch), "--device", "cpu", "--threads", "1", "--balance", "0"]
    return [*argv, "--learning-rate", "0.01", "--windows=-500:1000", "--augmentation", "0", *more]


def _together(argv: list[str]) -> list[subprocess.Popen[str]]:
    """The command in two processes, each told by the environment what torchrun tells it."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    found = []
    for rank in range(2):
        told = {
            "RANK": rank,
            "LOCAL_RANK": rank,
            "WORLD_SIZE": 2,
            "MASTER_ADDR": "127.0.0.1",
            "MASTER_PORT": port,
        }
        environment = os.environ | {key: str(value) for key, value in told.items()}
        call = [sys.executable, "-m", "soars_training.cli", *argv]
        found.append(
            subprocess.Popen(call, env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
        )
    return found


def _losses(run: Path) -> np.ndarray:
    with (run / "loss.csv").open() as stream:
        return np.array([[float(row["step"]), float(row["loss"])] for row in csv.DictReader(stream)])


@pytest.mark.slow  # two more interpreters that import torch
def test_two_processes_learn_what_one_learns_with_twice_the_batch(cache: Path, tmp_path: Path) -> None:
    both = _together(_argv(cache, tmp_path / "two", 1, "--steps", "60", "--checkpoint-every", "20"))
    words = [process.communicate(timeout=300) for process in both]
    assert [process.returncode for process in both] == [0, 0], words
    assert "anchor: 4 cases" in words[0][0] and words[1][0] == ""
    assert main(_argv(cache, tmp_path / "one", 2, "--steps", "60")) == 0
    two, one = _losses(tmp_path / "two"), _losses(tmp_path / "one")
    assert list(two[:, 0]) == list(one[:, 0]) == [20, 40, 60]
    assert one[-1, 1] < 0.9 * one[0, 1]
    # The same windows and, with both organs in each, the same mean; what differs is the rounding of bfloat16, which
    # grows from step to step: by 0.01 % over the first twenty, by 1 % over the last.
    np.testing.assert_allclose(two[:, 1], one[:, 1], rtol=0.02)
    # The tolerance means something: with half of the windows the curve is another.
    assert main(_argv(cache, tmp_path / "half", 1, "--steps", "60")) == 0
    assert np.abs(_losses(tmp_path / "half")[:, 1] / one[:, 1] - 1).max() > 0.03


@pytest.mark.slow  # two more interpreters that import torch
def test_asked_to_stop_one_stops_both_at_one_step(cache: Path, tmp_path: Path) -> None:
    run = tmp_path / "run"
    both = _together(_argv(cache, run, 1, "--steps", "100000", "--checkpoint-every", "5"))
    deadline = time.monotonic() + 300
    while not (run / LAST).exists() and time.monotonic() < deadline:
        assert all(process.poll() is None for process in both)
        time.sleep(0.05)
    both[1].send_signal(signal.SIGTERM)
    words = [process.communicate(timeout=120)[1] for process in both]
    assert [process.returncode for process in both] == [130, 130], words
    step = torch.load(run / LAST, weights_only=True)["step"]
    assert all(f"stopped at step {step} of 100000" in said for said in words)


def _branch(order: LayerOrder) -> BranchModel:
    return BranchModel(FitOptions(BranchTask("anchor", ORGANS, ("ct",)), features=(4, 8), order=order))


def test_batch_norms_are_of_all_processes_where_torch_has_that(caplog: pytest.LogCaptureFixture) -> None:
    """On CUDA they become `SyncBatchNorm` with the very weights that the optimiser and a checkpoint know."""
    model = _branch("norm-act-conv")
    weights, names = list(model.parameters()), list(model.state_dict())
    norms = sum(isinstance(m, nn.BatchNorm3d) for m in model.modules())
    processes.synchronised(model, torch.device("cpu"))
    assert norms and sum(isinstance(m, nn.BatchNorm3d) for m in model.modules()) == norms
    assert [r.getMessage().split(",")[0] for r in caplog.records] == [
        "batch normalisation takes each process's windows by themselves here"
    ]
    caplog.clear()
    processes.synchronised(model, torch.device("cuda"))
    kinds = [type(m) for m in model.modules() if isinstance(m, nn.modules.batchnorm._BatchNorm)]
    assert kinds == [nn.SyncBatchNorm] * norms and not caplog.records
    assert all(a is b for a, b in zip(model.parameters(), weights, strict=True))
    assert list(model.state_dict()) == names == list(_branch("norm-act-conv").state_dict())


def test_no_word_is_lost_on_batch_norms_that_are_not_there(caplog: pytest.LogCaptureFixture) -> None:
    processes.synchronised(_branch("conv-norm-act"), torch.device("cpu"))
    first, second = _branch("norm-act-conv"), _branch("norm-act-conv")
    processes.synchronised(EndToEnd(first, second), torch.device("cuda"))  # where they are frozen
    assert not caplog.records and any(isinstance(m, nn.BatchNorm3d) for m in first.modules())


def test_several_processes_synchronise_before_the_first_step(monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[object] = []
    model, device = _branch("norm-act-conv"), torch.device("cuda", 1)
    monkeypatch.setattr(processes, "_several", lambda: True)
    monkeypatch.setattr(processes, "synchronised", lambda *told: seen.extend(told))
    monkeypatch.setattr(
        nn.parallel, "DistributedDataParallel", lambda m, **_: seen.append(m) or nn.Identity()
    )
    processes.loss_of(model, device)
    assert seen[:2] == [model, device] and isinstance(seen[2], processes._LossModule)


def test_another_number_of_processes_does_not_go_on_with_a_run(
    cache: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    argv = _argv(cache, tmp_path, 1, "--steps", "4", "--checkpoint-every", "2")
    assert main(argv) == 0
    data = torch.load(tmp_path / LAST, weights_only=True)
    torch.save(data | {"options": data["options"] | {"processes": 2}}, tmp_path / LAST)
    (tmp_path / "run.json").unlink()
    assert main([*argv, "--resume"]) == 2
    assert "other settings (processes)" in capsys.readouterr().err


def test_a_search_is_refused_under_torchrun(
    cache: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("WORLD_SIZE", "2")
    assert main(["search", *_argv(cache, tmp_path, 1, "--steps", "4")[1:]]) == 2
    assert "a search runs in one process" in capsys.readouterr().err


def test_the_shares_of_all_processes_are_the_windows_of_one() -> None:
    alone = list(_Share(3, 6, 4, 0, 1))
    shares = [list(_Share(3, 6, 2, rank, 2)) for rank in range(2)]
    assert alone == list(range(12, 24)) == sorted(shares[0] + shares[1])
    assert [len(_Share(3, 6, 2, rank, 2)) for rank in range(2)] == [6, 6]
    assert shares[0] == [12, 13, 16, 17, 20, 21]
