"""The search: weights learn on two thirds of the patients, the choice of kernels on the held-out third alone."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import torch

from soars.errors import InputError
from soars.files import write_json
from soars.networks.architecture import KERNELS, Architecture, block_count
from soars.networks.names import NetworkKind
from soars.texts import read_json
from soars_training.cohorts.splits import hold_out
from soars_training.fitting import processes
from soars_training.fitting.begin import begin
from soars_training.fitting.fit import window_data
from soars_training.fitting.loop import deterministic, train, training_precision
from soars_training.fitting.options import FitOptions
from soars_training.fitting.state import TrainingState
from soars_training.search.supernet import SearchModel
from soars_training.windows.task import Batch, collate

SEARCH_FILE = "search.json"
FIXED_SHARE = 20 / 50
"""The papers keep the alphas fixed for 20 epochs, then train both for 30."""
HELD_OUT = 1 / 3
ALPHA_RATE = 3e-4
RECORD_EVERY = 20


def search(
    cache: Path,
    output: Path,
    options: FitOptions,
    guide_folder: Path | None = None,
    *,
    alpha_rate: float = ALPHA_RATE,
    resume: bool = False,
    overwrite: bool = False,
) -> tuple[str, ...]:
    """Choose the kernel of each block for a branch; returns the blocks and writes `search.json` into `output`.

    `options.blocks` is not used: all kernels take part. The patients that the options hold out, to validate the network
    afterwards, take no part; of the others a third is for the choice alone. Train the network from scratch afterwards
    (`fit` with these blocks). Raises as `fit` does.
    """
    options = replace(options, blocks=None)
    processes.alone("a search")
    start = begin(cache, output, options, resume=resume, overwrite=overwrite, few_shapes=options.one_shape)
    device, index = start.device, start.index
    patients = len({e.patient for e in start.learn})
    if patients < 3:
        raise InputError(
            f"{cache}: a search needs three patients or more to learn and choose with, and there are {patients}"
        )
    learn, held = hold_out(start.learn, round(patients * HELD_OUT))
    data = window_data(cache, index, options, learn, guide_folder)
    unseen = window_data(cache, index, replace(options, seed=options.seed + 1), held, guide_folder)
    model = SearchModel(options).to(device)
    state = TrainingState.new(options, model, model.weights(), start.sides, index.spacing_mm)
    alphas = alpha_optimiser(model, alpha_rate)
    state.others["alphas"] = alphas
    if resume:
        state.resume(output)
    precision = training_precision(device)

    def after_step() -> None:
        if state.step > FIXED_SHARE * options.steps:
            batch = collate([unseen[state.step * options.batch + i] for i in range(options.batch)])
            with torch.autocast(device.type, precision, precision != torch.float32):
                alpha_step(model, alphas, tuple(part.to(device) for part in batch))
        if state.step % RECORD_EVERY == 0 or state.step == options.steps:
            state.notes.append({"step": state.step, "shares": model.shares()})

    with deterministic(options.deterministic):
        train(state, data, output, device, list, after_step)
    _write(output / SEARCH_FILE, options.architecture(), model, state)
    return model.choice()


def alpha_optimiser(model: SearchModel, rate: float = ALPHA_RATE) -> torch.optim.Optimizer:
    """Adam with the settings of DARTS (Liu et al., ICLR 2019), on the alphas alone."""
    return torch.optim.Adam(model.alphas.parameters(), rate, betas=(0.5, 0.999), weight_decay=1e-3)


def alpha_step(model: SearchModel, optimiser: torch.optim.Optimizer, batch: Batch) -> None:
    """One first-order step of the alphas on a batch of held-out patients; the weights stay as they are."""
    model.zero_grad(set_to_none=True)
    model.loss(batch, 0.0).backward()
    optimiser.step()
    model.zero_grad(set_to_none=True)


def read_blocks(text: str, levels: int, network: NetworkKind = "unet") -> tuple[str, ...]:
    """Blocks for a network of that kind with `levels` levels: their names with commas between, the folder of a search,
    or `random:SEED` for the control of a random architecture. Raises `InputError`."""
    if text.startswith("random:"):
        seed = text.removeprefix("random:")
        if not seed.isdigit():
            raise InputError(f"--blocks {text}: the seed must be a whole number")
        drawn = np.random.default_rng(int(seed)).integers(len(KERNELS), size=block_count(levels, network))
        return tuple(KERNELS[i] for i in drawn)
    if "," in text or text in KERNELS:
        return tuple(text.split(","))
    try:
        data = read_json(Path(text) / SEARCH_FILE)
        return tuple(str(block) for block in data["blocks"])
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise InputError(
            f"--blocks {text}: neither kernels with commas between ({', '.join(KERNELS)}), nor a finished search "
            f"({error})"
        ) from error


def _write(path: Path, architecture: Architecture, model: SearchModel, state: TrainingState) -> None:
    data = {
        "features": list(architecture.features),
        "kernels": list(KERNELS),
        "blocks": list(model.choice()),
        "shares": model.shares(),
        "history": state.notes,
        "options": state.options.to_dict(),
    }
    write_json(path, data)
