"""Everything that a training run must remember to continue after a kill as if nothing had happened."""

from __future__ import annotations

import copy
import csv
import json
import math
from collections.abc import Collection, Mapping, Sequence
from dataclasses import MISSING, dataclass, field, fields, is_dataclass
from pathlib import Path
from typing import Any

import torch

from soars.cells import write_table
from soars.errors import InputError
from soars.files import replacing_file
from soars.networks.names import Branch
from soars_training.fitting import processes
from soars_training.fitting.models import Model
from soars_training.fitting.options import BEST, LAST, RunOptions, in_words

LEARNED, HELD_OUT = "learned", "held_out"
LOSS_FILE, DSC_FILE, CASES_FILE = "loss.csv", "validation.csv", "held_out.csv"


@dataclass
class TrainingState:
    """The model, its averaged twin, the optimiser, and what has been seen so far.

    `losses` rows are (step, mean loss since the row before, learning rate, seconds), `scores` rows (step, organ, mean
    DSC), `cases` rows (case, organ, DSC) of the last validation; `pending` holds the losses of the steps since the last
    row. `others` are optimisers beside the weights', and `notes` what a run has to remember besides. `processes` train
    together. `sides`: the names of the cases that are `LEARNED` and `HELD_OUT`; `spacing_mm` (x, y, z) of their voxels.
    """

    options: RunOptions
    model: Model
    averaged: Model
    optimiser: torch.optim.Optimizer
    step: int = 0
    seconds: float = 0.0
    losses: list[tuple[int, float, float, float]] = field(default_factory=list)
    scores: list[tuple[int, str, float]] = field(default_factory=list)
    cases: list[tuple[str, str, float]] = field(default_factory=list)
    pending: list[float] = field(default_factory=list)
    others: dict[str, torch.optim.Optimizer] = field(default_factory=dict)
    notes: list[dict[str, Any]] = field(default_factory=list)
    best: float = -1.0
    processes: int = 1
    sides: Mapping[str, Sequence[str]] = field(default_factory=dict)
    spacing_mm: tuple[float, ...] = ()

    @staticmethod
    def new(
        options: RunOptions,
        model: Model,
        weights: Sequence[torch.nn.Parameter] | None = None,
        sides: Mapping[str, Sequence[str]] | None = None,
        spacing_mm: tuple[float, ...] = (),
    ) -> TrainingState:
        """At step 0; `weights` are what the optimiser changes, all of the model's when None."""
        averaged = copy.deepcopy(model).requires_grad_(False).eval()
        return TrainingState(
            options,
            model,
            averaged,
            make_optimiser(options, weights or list(model.parameters())),
            processes=processes.count(),
            sides=sides or {},
            spacing_mm=spacing_mm,
        )

    def size_bytes(self) -> int:
        """About what a checkpoint takes: the weights, their average and the optimiser's two moments."""
        weights = sum(p.numel() * p.element_size() for p in self.model.state_dict().values())
        return 4 * weights

    def average(self) -> None:
        """Move the averaged weights part of the way to the model's; further at the start."""
        decay = min(self.options.ema, (1 + self.step) / (10 + self.step))
        with torch.no_grad():
            torch._foreach_lerp_(list(self.averaged.parameters()), list(self.model.parameters()), 1.0 - decay)
            for mine, theirs in zip(self.averaged.buffers(), self.model.buffers(), strict=True):
                # A batch normalisation's statistics belong to the weights that they were found with.
                if mine.is_floating_point():
                    mine.lerp_(theirs, 1.0 - decay)
                else:
                    mine.copy_(theirs)

    def save(self, folder: Path) -> None:
        """Write `last.ckpt`, whole or not at all, and the tables."""
        data = {
            "options": self.options.to_dict() | {"processes": self.processes},
            "step": self.step,
            "seconds": self.seconds,
            "model": self.model.state_dict(),
            "averaged": self.averaged.state_dict(),
            "optimiser": self.optimiser.state_dict(),
            "losses": self.losses,
            "scores": self.scores,
            "cases": self.cases,
            "pending": self.pending,
            "others": {name: optimiser.state_dict() for name, optimiser in self.others.items()},
            "notes": self.notes,
            "best": self.best,
            "sides": {side: list(names) for side, names in self.sides.items()},
            "spacing_mm": list(self.spacing_mm),
        }
        _write(data, folder / LAST)
        self.write_tables(folder)

    def save_best(self, folder: Path) -> None:
        _write({"step": self.step, "averaged": self.averaged.state_dict()}, folder / BEST)

    def save_branch(self, folder: Path, name: Branch) -> None:
        """The averaged weights of one branch of several, as the last checkpoint of a run of its own."""
        branch = self.averaged.get_submodule(name)
        _write({"step": self.step, "averaged": branch.state_dict()}, folder / LAST)

    def write_tables(self, folder: Path) -> None:
        _table(folder / LOSS_FILE, ("step", "loss", "learning_rate", "seconds"), self.losses)
        _table(folder / DSC_FILE, ("step", "organ", "dsc"), self.scores)
        _table(folder / CASES_FILE, ("case", "organ", "dsc"), self.cases)

    def resume(self, folder: Path) -> None:
        """Go back to the last checkpoint. Raises `InputError` when there is none, or for a run with other options, on
        other cases or other voxels; one of an earlier version does not say which it was begun on."""
        path = folder / LAST
        try:
            data: dict[str, Any] = torch.load(path, map_location="cpu", weights_only=True)
        except FileNotFoundError:
            raise InputError(f"{folder}: no checkpoint to resume from; start without --resume") from None
        except Exception as error:  # torch passes on whatever pickle and zipfile raise
            raise InputError(
                f"{path}: damaged checkpoint ({type(error).__name__}); train again with --overwrite"
            ) from error
        other = other_settings(self.options, data["options"])
        other += ["processes"] if data["options"].get("processes", 1) != self.processes else []
        if other:
            raise InputError(
                f"{folder}: was started with other settings ({', '.join(sorted(other))}); resume with the same, "
                "or train into another folder"
            )
        strange = other_cases(self.sides, data.get("sides", {}))
        if strange:
            raise InputError(
                f"{folder}: was started on other cases of the cache ({strange}); resume with the cache as it was, or "
                "train into another folder"
            )
        before = tuple(data.get("spacing_mm", self.spacing_mm))
        if before != self.spacing_mm:
            raise InputError(
                f"{folder}: was started on a cache with voxels of {in_words(before)}, not of "
                f"{in_words(self.spacing_mm)}; prepare it as it was, or train into another folder"
            )
        self.model.load_state_dict(data["model"])
        self.averaged.load_state_dict(data["averaged"])
        self.optimiser.load_state_dict(data["optimiser"])
        self.step, self.seconds, self.best = data["step"], data["seconds"], data["best"]
        self.losses = [tuple(row) for row in data["losses"]]
        self.scores = [tuple(row) for row in data["scores"]]
        self.cases = [tuple(row) for row in data["cases"]]
        self.pending, self.notes = list(data["pending"]), list(data["notes"])
        for name, optimiser in self.others.items():
            optimiser.load_state_dict(data["others"][name])


def other_cases(sides: Mapping[str, Sequence[str]], written: Mapping[str, Sequence[str]]) -> str:
    """How the cases of a run differ from these, in a few words; "" where they are the same or one side does not say."""
    if not sides or not written:
        return ""
    mine, theirs = ({name: side for side in on for name in on[side]} for on in (sides, written))
    found = {
        "new": mine.keys() - theirs.keys(),
        "gone": theirs.keys() - mine.keys(),
        "now held out": {
            n for n in mine.keys() & theirs.keys() if (theirs[n], mine[n]) == (LEARNED, HELD_OUT)
        },
        "now learned": {
            n for n in mine.keys() & theirs.keys() if (theirs[n], mine[n]) == (HELD_OUT, LEARNED)
        },
    }
    return "; ".join(f"{what}: {_some(names)}" for what, names in found.items() if names)


def _some(names: Collection[str]) -> str:
    shown = sorted(names)[:3]
    return ", ".join(shown) + (f" and {len(names) - len(shown)} more" if len(names) > len(shown) else "")


def other_settings(options: RunOptions, written: dict[str, Any]) -> list[str]:
    """Which options of a run, as JSON, differ from these and alter what is learned."""
    mine, theirs = options.to_dict(), _with_defaults(options, written)
    return [k for k in mine if mine[k] != theirs.get(k) and k not in _MAY_DIFFER]


def _with_defaults(options: Any, written: dict[str, Any]) -> dict[str, Any]:
    """A run's options as JSON, with what an earlier version of the program did not write yet: it had the default."""
    found = dict(written)
    for one in fields(options):
        if one.name not in found and one.default is not MISSING:
            found[one.name] = json.loads(json.dumps(one.default, default=str))
        elif is_dataclass(getattr(options, one.name)) and isinstance(found.get(one.name), dict):
            found[one.name] = _with_defaults(getattr(options, one.name), found[one.name])
    return found


_MAY_DIFFER = ("device", "threads", "workers", "checkpoint_every", "validate_every", "init")
"""Options that may differ in a resumed run: they do not alter what is learned."""


def make_optimiser(options: RunOptions, weights: Sequence[torch.nn.Parameter]) -> torch.optim.Optimizer:
    """AdamW in one fused pass (a tenth of a step's time less than RAdam on a CPU), or the papers' RAdam
    or Adam with their own coupled weight decay."""
    if options.optimiser == "radam":
        return torch.optim.RAdam(
            weights,
            options.learning_rate,
            weight_decay=options.weight_decay,
        )
    if options.optimiser == "adam":
        return torch.optim.Adam(weights, options.learning_rate, weight_decay=options.weight_decay, fused=True)
    return torch.optim.AdamW(weights, options.learning_rate, weight_decay=options.weight_decay, fused=True)


def learning_rate(options: RunOptions, step: int) -> float:
    """A linear warm-up over the first fiftieth, then a cosine or a polynomial to zero; or constant, or stairs, from the
    first step."""
    if options.schedule == "constant":
        return options.learning_rate
    if options.schedule == "stairs":
        passed = [factor for share, factor in options.stairs if step >= share * options.steps]
        return options.learning_rate * (passed[-1] if passed else 1.0)
    warm_up = max(1, options.steps // 50)
    if step < warm_up:
        return options.learning_rate * (step + 1) / warm_up
    done = min(1.0, (step - warm_up) / max(1, options.steps - warm_up))
    if options.schedule == "poly":
        return options.learning_rate * (1 - done) ** 0.9
    return options.learning_rate * 0.5 * (1 + math.cos(math.pi * done))


def balance(options: RunOptions, step: int) -> float:
    """The power of rarity, or the share of an organ's voxels (see `losses`): falls linearly to zero over the first
    half, so that in the end all voxels count alike and no organ is drawn too large."""
    return options.balance * max(0.0, 1 - 2 * step / options.steps)


def _write(data: dict[str, Any], path: Path) -> None:
    with replacing_file(path) as temporary:
        torch.save(data, temporary)


def read_log(path: Path) -> list[dict[str, str]]:
    """The rows of one of a run's tables (`LOSS_FILE`, `DSC_FILE`, `CASES_FILE`)."""
    with path.open(newline="", encoding="utf-8") as stream:
        return list(csv.DictReader(stream))


def _table(path: Path, header: tuple[str, ...], rows: list[Any]) -> None:
    write_table(path, header, ([f"{v:.6g}" if isinstance(v, float) else v for v in row] for row in rows))
