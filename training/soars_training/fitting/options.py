"""What a training run is asked to do, and what a finished one says of itself."""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Iterable
from dataclasses import MISSING, asdict, dataclass, field, fields, replace
from pathlib import Path
from typing import Any

import torch

from soars.errors import InputError
from soars.files import write_json
from soars.networks.architecture import Architecture
from soars.networks.build import Network, build
from soars.networks.names import BRANCHES, INPUTS, Branch, Input, LayerOrder, NetworkKind
from soars.texts import read_json
from soars_training.cohorts.cache import as_written
from soars_training.windows.augment import Augmentation
from soars_training.windows.task import BranchTask

LAST, BEST = "last.ckpt", "best.ckpt"
RUN_FILE = "run.json"
OPTIMISERS = ("adamw", "radam", "adam")
SCHEDULES = ("cosine", "poly", "constant", "stairs")
MOST_WORKERS = 8


@dataclass(frozen=True, kw_only=True)
class RunOptions:
    """What every training run has, whatever it trains.

    Attributes:
        steps, batch, learning_rate, optimiser, weight_decay: `schedule` is a cosine or nnU-Net's polynomial
            (1 - step / steps)^0.9, both to zero after a short warm-up; or constant; or `stairs`.
        stairs: (share of the steps, factor): from there on the rate is the first one times the factor.
        seed: of weights and windows. train_split: the cache's split to learn from.
        held_out: so many patients of it are kept for validation, every `validate_every` steps (0: only at the end);
            fold: (k, n) keeps the k-th of n parts instead, counted from 1.
        device: auto, cpu, cuda or cuda:1; threads: CPU threads; deterministic: the same bits on every repetition.
        workers: processes that draw the windows; None is one beside a CPU, and for a GPU all cores but one, up to
            `MOST_WORKERS`. How many there are does not alter what is drawn.
        balance: power of the classes' rarity that they weigh by at the start, of independent organs the least share of
            the cross-entropy that an organ's voxels have; falls to zero over the first half.
        ema: decay of the averaged weights.
        max_gradient: longer gradients (the norm over all weights) are shortened to it; 0: none is.
        checkpoint_every: steps between two checkpoints; a run resumes from the last.
    """

    steps: int = 4000
    batch: int = 2
    learning_rate: float = 1.5e-3
    optimiser: str = "adamw"
    weight_decay: float = 1e-2
    schedule: str = "cosine"
    stairs: tuple[tuple[float, float], ...] = ()
    seed: int = 1
    train_split: str = "train"
    held_out: int = 0
    fold: tuple[int, int] | None = None
    validate_every: int = 0
    device: str = "auto"
    threads: int | None = None
    workers: int | None = None
    deterministic: bool = False
    balance: float = 0.0
    ema: float = 0.999
    max_gradient: float = 5.0
    checkpoint_every: int = 250

    def check(self) -> None:
        """Raises `InputError` for numbers that make no sense."""
        if min(self.steps, self.batch, self.checkpoint_every) < 1:
            raise InputError("--steps, --batch and --checkpoint-every must be at least 1")
        if min(self.held_out, self.validate_every, self.seed) < 0:
            raise InputError("--held-out, --validate-every and --seed must be 0 or more")
        if not 0 < self.learning_rate < math.inf:
            raise InputError(f"--learning-rate must be above 0, not {self.learning_rate:g}")
        if any(n is not None and n < 1 for n in (self.workers, self.threads)):
            raise InputError("--workers and --threads must be at least 1")
        if self.optimiser not in OPTIMISERS:
            raise InputError(f"--optimiser {self.optimiser}: choose {' or '.join(OPTIMISERS)}")
        if self.schedule not in SCHEDULES:
            raise InputError(f"schedule {self.schedule}: choose {' or '.join(SCHEDULES)}")

    def to_dict(self) -> dict[str, Any]:
        """As JSON, for the checkpoint: a resumed run must have the same."""
        return json.loads(json.dumps(asdict(self), default=str))


@dataclass(frozen=True)
class FitOptions(RunOptions):
    """One training run of a branch of the cascade.

    Attributes:
        task: what to learn.
        network, order: as `Architecture` has them.
        features, blocks: channels per level, kernel choice per block (3x3x3 everywhere when None).
        patch: window (z, y, x) in voxels; voi_mm (x, y, z) per heat-map group for small_hard.
        init: a finished run to go on from, or of which to take the layers that fit.
        strength: of the augmentation. foreground: share of windows drawn about an organ.
        dice_only: the papers' loss. supervised: decoder levels that answer.
    """

    task: BranchTask
    network: NetworkKind = "unet"
    order: LayerOrder = "conv-norm-act"
    features: tuple[int, ...] = (16, 32, 64, 128, 128)
    blocks: tuple[str, ...] | None = None
    patch: tuple[int, int, int] = (64, 64, 64)
    voi_mm: dict[str, tuple[float, float, float]] | None = None
    init: Path | None = None
    strength: Augmentation = field(default_factory=Augmentation)
    foreground: float = 0.7
    balance: float = field(default=0.5, kw_only=True)
    dice_only: bool = False
    supervised: int = 3

    @property
    def one_shape(self) -> bool:
        """Whether all windows are alike; each group's volumes of interest have a shape of their own."""
        return self.task.branch != "small_hard"

    def architecture(self) -> Architecture:
        return self.architecture_of(self.task)

    def architecture_of(self, task: BranchTask) -> Architecture:
        """The network for a task: channels in and out are the task's, all else is as asked for."""
        plain = Architecture.plain(
            task.in_channels, task.out_channels, self.features, self.network, self.order
        )
        return replace(plain, blocks=self.blocks) if self.blocks else plain

    def check(self) -> None:
        """Raises `InputError` for a patch that the network cannot halve, or numbers that make no sense."""
        divisor = self.architecture().divisor
        if any(n < d or n % d for n, d in zip(self.patch, divisor, strict=True)):
            shown = ",".join(map(str, self.patch))
            raise InputError(
                f"--patch {shown}: each side must be a multiple of {', '.join(map(str, divisor))} (z, y, x), "
                f"since a network of {len(self.features)} levels halves it {len(self.features) - 1} times"
            )
        if self.task.branch == "small_hard" and not 0 <= self.balance < 1:
            raise InputError(
                f"--balance {self.balance:g}: of small_hard it is the share of the loss that an organ's voxels have, "
                "from 0 to less than 1"
            )
        if not 0 <= self.foreground <= 1:
            raise InputError(f"--foreground is a share, from 0 to 1, not {self.foreground:g}")
        if not min(vars(self.strength).values()) >= 0:
            raise InputError("--augmentation must be 0 or more")
        super().check()


@dataclass(frozen=True)
class FittedRun:
    """What `run.json` beside a checkpoint says: enough to rebuild the network and to export it.

    `guided_by` is the `fingerprint` of the anchors' network whose probabilities it learned with; None of a run that had
    none, and where an earlier version of the program did not say. `learned` are the patients that its weights have
    learned from, those of the runs that it started from among them; None of an earlier version.
    """

    branch: Branch
    classes: tuple[str, ...]
    inputs: tuple[Input, ...]
    anchors: tuple[str, ...]
    spacing_mm: tuple[float, float, float]
    patch: tuple[int, int, int]
    windows_hu: tuple[tuple[float, float], ...]
    voi_mm: dict[str, tuple[float, float, float]]
    architecture: Architecture
    source: str
    cases: int
    held_out: tuple[str, ...]
    validation: dict[str, float]
    options: dict[str, Any]
    seconds: float
    guided_by: str | None = None
    learned: tuple[str, ...] | None = None

    @staticmethod
    def load(folder: Path) -> FittedRun:
        try:
            data = read_json(folder / RUN_FILE)
        except (OSError, ValueError) as error:
            raise InputError(f"{folder}: not a finished training run ({error})") from error
        with as_written(folder / RUN_FILE, "train it again"):
            if "system" in data:
                raise InputError(f"{folder}: is a run of {data['system']}, not of a branch of the cascade")
            missing = sorted({f.name for f in fields(FittedRun) if f.default is MISSING} - set(data))
            if missing:
                raise InputError(
                    f"{folder / RUN_FILE}: lacks {', '.join(missing)}; made by another version, train it again"
                )
            if data["branch"] not in BRANCHES or not set(data["inputs"]) <= set(INPUTS):
                raise ValueError(f"branch {data['branch']!r} with inputs {data['inputs']}")
            data["architecture"] = Architecture.from_dict(data["architecture"])
            for key in ("classes", "inputs", "anchors", "spacing_mm", "patch", "held_out"):
                data[key] = tuple(data[key])
            data["windows_hu"] = tuple((float(low), float(high)) for low, high in data["windows_hu"])
            data["voi_mm"] = {k: tuple(v) for k, v in data["voi_mm"].items()}
            data["learned"] = None if data.get("learned") is None else tuple(data["learned"])
            return FittedRun(**data)

    def save(self, folder: Path) -> None:
        write_json(folder / RUN_FILE, asdict(self) | {"architecture": self.architecture.to_dict()})

    def require_spacing(self, spacing_mm: tuple[float, float, float], cache: Path) -> None:
        """Raise `InputError` for a cache of other voxels than those that the network has learned from."""
        if spacing_mm != self.spacing_mm:
            raise InputError(
                f"{cache}: has voxels of {in_words(spacing_mm)}, and the {self.branch} run learned from voxels of "
                f"{in_words(self.spacing_mm)}; take its cache, or prepare one with its --spacing"
            )

    def task(self) -> BranchTask:
        return BranchTask(self.branch, self.classes, self.inputs, self.anchors, self.windows_hu)

    def network(self, folder: Path) -> Network:
        """The trained network (averaged weights), in evaluation mode, on the CPU. Raises `InputError`."""
        network = build(self.architecture)
        try:
            network.load_state_dict(averaged_weights(folder, "network."))
        except RuntimeError as error:
            raise InputError(
                f"{folder / LAST}: not the weights of this run's network; train it again"
            ) from error
        return network.eval()


def in_words(spacing_mm: Iterable[float]) -> str:
    """A voxel's size for messages: 2 x 2 x 3 mm."""
    return " x ".join(f"{v:g}" for v in spacing_mm) + " mm"


def fingerprint(network: torch.nn.Module) -> str:
    """SHA-256 (hexadecimal) of a network's weights, by which it is known wherever its run lies."""
    digest = hashlib.sha256()
    for name, tensor in sorted(network.state_dict().items()):
        digest.update(f"{name} {tensor.dtype} {tuple(tensor.shape)}\n".encode())
        digest.update(tensor.cpu().contiguous().numpy().tobytes())
    return digest.hexdigest()


def averaged_weights(folder: Path, prefix: str) -> dict[str, torch.Tensor]:
    """The averaged weights of a run's last checkpoint whose names begin with ``prefix``, without it.

    Raises `InputError` for a checkpoint that is missing or damaged.
    """
    path = folder / LAST
    try:
        state = torch.load(path, map_location="cpu", weights_only=True)["averaged"]
    except Exception as error:  # torch raises what pickle and zipfile happen to raise
        raise InputError(f"{path}: not a readable checkpoint ({type(error).__name__})") from error
    return {k.removeprefix(prefix): v for k, v in state.items() if k.startswith(prefix)}
