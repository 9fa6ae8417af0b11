"""The search finds the kernel that a task needs, on held-out data; the choice goes into the bundle."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch

from soars.errors import InputError
from soars.networks.architecture import KERNELS
from soars_training.cli import main
from soars_training.cohorts.cache import CachedCase, CacheIndex, IndexEntry, write_case
from soars_training.cohorts.splits import hold_out
from soars_training.experiments.report import slices_to_show
from soars_training.fitting.loop import _one_step
from soars_training.fitting.options import LAST, FitOptions, FittedRun
from soars_training.fitting.processes import loss_of
from soars_training.fitting.state import TrainingState
from soars_training.search.search import alpha_optimiser, alpha_step, read_blocks
from soars_training.search.supernet import SearchModel
from soars_training.windows.task import Batch, BranchTask

TASK = BranchTask("anchor", ("Brainstem",), ("ct",))
SHAPE = (8, 12, 12)


def _batch(signal: torch.Tensor, labels: torch.Tensor) -> Batch:
    known, possible = torch.ones(1, 1, dtype=torch.bool), torch.ones(1, 1, *SHAPE, dtype=torch.bool)
    return signal[None, None], labels[None].to(torch.uint8), known, possible


def _across(generator: torch.Generator, held_out: bool) -> Batch:
    """A voxel belongs to the organ when the voxel below it is bright: nothing in its own slice says so."""
    signal = torch.randn(SHAPE, generator=generator)
    return _batch(signal, signal.roll(1, 0) > 0)


def _within(generator: torch.Generator, held_out: bool) -> Batch:
    """The neighbour within the slice tells, with noise. In the training patients the slice below tells without noise;
    in the others it tells the opposite, so that a kernel which looks there has learned a lie."""
    labels = torch.rand(SHAPE, generator=generator) > 0.5
    bright = labels.float() * 2 - 1
    within = bright.roll(1, 2) + 0.5 * torch.randn(SHAPE, generator=generator)
    across = bright.roll(-1, 0) * (-1 if held_out else 1)
    return _batch(within + across, labels)


def _found(task: object, seed: int) -> str:
    """The kernel that a network of a single block chooses in a search of 60 steps."""
    torch.manual_seed(seed)
    model = SearchModel(FitOptions(TASK, features=(4,), supervised=1))
    generator = torch.Generator().manual_seed(seed)
    weights = torch.optim.Adam(model.weights(), 0.02)
    alphas = alpha_optimiser(model, 0.05)
    for step in range(60):
        weights.zero_grad()
        model.loss(task(generator, False), 0.0).backward()  # type: ignore[operator]
        weights.step()
        if step >= 24:
            alpha_step(model, alphas, task(generator, True))  # type: ignore[operator]
    return model.choice()[0]


@pytest.mark.parametrize(("task", "kinds"), [(_across, ("3d", "p3d")), (_within, ("2d",))])
def test_the_right_kind_of_kernel_is_found_in_nine_of_ten_seeds(task: object, kinds: tuple[str, ...]) -> None:
    found = [_found(task, seed).split("_")[0] for seed in range(10)]
    assert sum(kind in kinds for kind in found) >= 9, found


@pytest.mark.parametrize("order", ["conv-norm-act", "norm-act-conv"])
def test_a_p_hnn_is_searched_as_well(order: str) -> None:
    options = FitOptions(TASK, network="phnn", order=order, features=(2, 4, 6))  # type: ignore[arg-type]
    model = SearchModel(options)
    model.loss(_across(torch.Generator().manual_seed(0), False), 0.0).backward()
    assert len(model.choice()) == 3 and all(alpha.grad.abs().sum() > 0 for alpha in model.alphas)


def test_the_mixture_begins_even_and_the_alphas_are_not_among_the_weights() -> None:
    model = SearchModel(FitOptions(TASK, features=(4, 8)))
    assert len(model.alphas) == 3
    np.testing.assert_allclose(model.shares(), 1 / 6, atol=1e-3)
    shared = {id(p) for p in model.weights()} & {id(a) for a in model.alphas}
    assert not shared and len(model.weights()) + 3 == len(list(model.parameters()))


def test_an_alpha_step_leaves_the_weights_alone_and_a_weight_step_the_alphas() -> None:
    model = SearchModel(FitOptions(TASK, features=(4,), supervised=1))
    weights = [p.detach().clone() for p in model.weights()]
    alphas = [a.detach().clone() for a in model.alphas]
    alpha_step(model, alpha_optimiser(model, 0.1), _across(torch.Generator().manual_seed(0), True))
    assert all(torch.equal(a, b) for a, b in zip(weights, model.weights(), strict=True))
    assert not torch.equal(alphas[0], model.alphas[0])


@pytest.mark.parametrize("longest", [0.0, 1e-3])
def test_the_alphas_gradients_do_not_add_up_between_their_steps(longest: float) -> None:
    """They would shorten the weights' more and more, until the alphas have their first step. Of the weights' gradients
    none is longer than was asked for; 0 lets every one be."""
    options = FitOptions(TASK, features=(4,), supervised=1, learning_rate=0.0, max_gradient=longest)
    model = SearchModel(options)
    state = TrainingState.new(options, model, model.weights())
    batch = _across(torch.Generator().manual_seed(0), False)
    found, lengths = [], []
    for _ in range(3):
        _one_step(
            state, [batch], torch.device("cpu"), torch.float32, loss_of(model, torch.device("cpu")), False
        )
        assert model.alphas[0].grad is not None
        found.append(model.alphas[0].grad.clone())
        lengths.append(
            float(torch.cat([w.grad.flatten() for w in model.weights() if w.grad is not None]).norm())
        )
    for later in found[1:]:
        np.testing.assert_allclose(later, found[0], rtol=1e-3, atol=1e-6)
    assert lengths[0] > 0.01 if longest == 0 else lengths == pytest.approx([longest] * 3, rel=0.01)


def test_a_search_then_a_network_of_its_choice(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    entries = []
    for n in range(3):
        hu = np.random.default_rng(n).normal(0, 20, (16, 16, 16)).astype(np.int16)
        hu[4:10, 4:10, 4:10] = 400
        masks = {"Brainstem": ((4, 4, 4), np.ones((6, 6, 6), bool))}
        write_case(
            tmp_path / f"c{n}.npz", CachedCase(f"c{n}", hu, (0, 0, 0), (3, 3, 3), masks, frozenset(masks))
        )
        entries.append(IndexEntry(f"c{n}", f"c{n}.npz", "train", ("Brainstem",)))
    CacheIndex((3, 3, 3), "boxes", entries).save(tmp_path)
    common = ["--branch", "anchor", "--organs", "Brainstem", "--features", "2,4", "--patch", "8,8,8"]
    common += ["--steps", "20", "--batch", "1", "--device", "cpu", "--windows=-500:1000"]
    found = tmp_path / "search"
    assert main(["search", str(tmp_path), str(found), *common, "--alpha-rate", "0.05"]) == 0
    data = json.loads((found / "search.json").read_text())
    assert set(data["blocks"]) <= set(KERNELS) and len(data["blocks"]) == 3
    assert [len(row) for row in data["history"][-1]["shares"]] == [6, 6, 6]
    assert data["blocks"] == [KERNELS[int(np.argmax(row))] for row in data["shares"]]
    assert (found / "search.png").read_bytes().startswith(b"\x89PNG")
    sides = torch.load(found / LAST, weights_only=True)["sides"]
    assert sides == {"learned": ["c0", "c1", "c2"], "held_out": []}
    assert main(["fit", str(tmp_path), str(tmp_path / "run"), *common, "--blocks", str(found)]) == 0
    assert (tmp_path / "run" / "report.png").read_bytes().startswith(b"\x89PNG")
    assert FittedRun.load(tmp_path / "run").architecture.blocks == tuple(data["blocks"])


def test_patients_who_are_to_validate_the_network_take_no_part_in_the_choice(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    entries = [IndexEntry(f"c{n}", f"c{n}.npz", "train", ("Brainstem",)) for n in range(7)]
    CacheIndex((3, 3, 3), "none", entries).save(tmp_path)
    seen: list[set[str]] = []

    def drawn(*words: object, **_more: object) -> object:
        seen.append({entry.patient for entry in words[3]})  # type: ignore[attr-defined]
        if len(seen) == 2:
            raise InputError("enough seen")
        return None

    monkeypatch.setattr("soars_training.search.search.window_data", drawn)
    argv = ["search", str(tmp_path), str(tmp_path / "out"), "--branch", "anchor", "--organs", "Brainstem"]
    assert main([*argv, "--device", "cpu", "--held-out", "1"]) == 2
    validating = {entry.patient for entry in hold_out(entries, 1)[1]}
    assert [len(part) for part in seen] == [4, 2] and not seen[0] & seen[1]
    assert not validating & (seen[0] | seen[1])
    assert main([*argv, "--device", "cpu", "--held-out", "5"]) == 2
    assert "three patients or more to learn and choose with, and there are 2" in capsys.readouterr().err


def test_the_slices_of_a_report_lie_within_what_was_drawn() -> None:
    labels = np.zeros((20, 4, 4), np.uint8)
    labels[4:13] = 1
    assert slices_to_show(labels, 3) == [6, 8, 10]
    assert slices_to_show(labels * 0, 1) == [10]


def test_blocks_are_named_found_or_drawn() -> None:
    assert read_blocks("2d_k3,3d_k3,p3d_k5", 2) == ("2d_k3", "3d_k3", "p3d_k5")
    drawn = read_blocks("random:7", 5)
    assert len(read_blocks("random:7", 4, "phnn")) == 4
    assert len(drawn) == 9 and drawn == read_blocks("random:7", 5) != read_blocks("random:8", 5)
    with pytest.raises(InputError, match="nor a finished search"):
        read_blocks("nowhere", 2)
    with pytest.raises(InputError, match="the seed must be a whole number"):
        read_blocks("random:x", 2)
