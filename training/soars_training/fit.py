"""Fit one branch of the cascade with Lightning: anchor first, then mid-level, detection, and small and hard."""

from __future__ import annotations

import json
import logging
import math
import os
import time
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import lightning
import numpy as np
import torch
from torch import Tensor
from torch.utils.data import DataLoader

from soars.cascade.preprocess import Grid
from soars.cascade.torch_engine import cpu_has_bf16
from soars.errors import InputError
from soars.networks.architecture import UNetArchitecture
from soars.networks.unet import UNet
from soars_training.augment import Augmentation
from soars_training.cache import CacheIndex
from soars_training.dataset import BranchTask, WindowDataset, collate
from soars_training.losses import marginal_dice_ce, masked_dice_bce, masked_heatmap_l2

log = logging.getLogger(__name__)

CHECKPOINT = "last.ckpt"
RUN_FILE = "run.json"


@dataclass(frozen=True)
class FitOptions:
    """One training run. `patch` is (z, y, x) voxels; `voi_mm` (x, y, z) per heat-map group for small_hard; `init` a
    finished run to go on from, or of which to take the layers that fit; `augmentation` multiplies the usual strengths;
    `balance` is the power of the classes' rarity that they weigh by."""

    task: BranchTask
    features: tuple[int, ...] = (16, 32, 64, 64, 64)
    blocks: tuple[str, ...] | None = None
    patch: tuple[int, int, int] = (64, 64, 64)
    window_hu: tuple[float, float] = (-500.0, 1000.0)
    voi_mm: dict[str, tuple[float, float, float]] | None = None
    steps: int = 4000
    batch: int = 2
    learning_rate: float = 2e-3
    seed: int = 1
    train_split: str = "train"
    accelerator: str = "auto"
    threads: int | None = None
    init: Path | None = None
    augmentation: float = 1.0
    balance: float = 0.5

    def architecture(self) -> UNetArchitecture:
        plain = UNetArchitecture.plain(self.task.in_channels, self.task.out_channels, self.features)
        return replace(plain, blocks=self.blocks) if self.blocks else plain


@dataclass(frozen=True)
class FittedRun:
    """What `run.json` beside a checkpoint says: enough to rebuild the network and to export it."""

    branch: str
    classes: tuple[str, ...]
    inputs: tuple[str, ...]
    anchors: tuple[str, ...]
    spacing_mm: tuple[float, float, float]
    patch: tuple[int, int, int]
    window_hu: tuple[float, float]
    voi_mm: dict[str, tuple[float, float, float]]
    architecture: UNetArchitecture
    source: str
    cases: int
    steps: int
    batch: int
    seconds: float
    seed: int

    @staticmethod
    def load(folder: Path) -> FittedRun:
        try:
            data = json.loads((folder / RUN_FILE).read_text())
        except (OSError, ValueError) as error:
            raise InputError(f"{folder}: not a finished training run ({error})") from error
        data["architecture"] = UNetArchitecture.from_dict(data["architecture"])
        for key in ("classes", "inputs", "anchors", "spacing_mm", "patch", "window_hu"):
            data[key] = tuple(data[key])
        data["voi_mm"] = {k: tuple(v) for k, v in data["voi_mm"].items()}
        return FittedRun(**data)

    def save(self, folder: Path) -> None:
        data = asdict(self) | {"architecture": self.architecture.to_dict()}
        temporary = folder / (RUN_FILE + ".part")
        temporary.write_text(json.dumps(data, indent=1))
        os.replace(temporary, folder / RUN_FILE)

    def network(self, folder: Path) -> UNet:
        """The trained network, in evaluation mode, on the CPU."""
        network = UNet(self.architecture)
        state = torch.load(folder / CHECKPOINT, map_location="cpu", weights_only=True)["state_dict"]
        network.load_state_dict({k.removeprefix("network."): v for k, v in state.items()})
        return network.eval()


class BranchModule(lightning.LightningModule):
    """One branch with its loss; RAdam with a cosine to zero after a short warm-up."""

    def __init__(self, options: FitOptions) -> None:
        super().__init__()
        self.network = UNet(options.architecture())
        self.branch, self.balance = options.task.branch, options.balance
        self.steps, self.learning_rate = options.steps, options.learning_rate

    def forward(self, x: Tensor) -> Tensor:
        return self.network(x)

    def training_step(self, batch: tuple[Tensor, Tensor, Tensor], _: int) -> Tensor:
        inputs, target, known = batch
        output = self.network(inputs)
        if self.branch == "detection":
            loss = masked_heatmap_l2(output, target, known)
        elif self.branch == "small_hard":
            loss = masked_dice_bce(output, target, known, self.balance)
        else:
            loss = marginal_dice_ce(output, target, known, self.balance)
        self.log("loss", loss, prog_bar=True)
        return loss

    def configure_optimizers(self) -> Any:
        optimiser = torch.optim.RAdam(
            self.parameters(), self.learning_rate, weight_decay=1e-2, decoupled_weight_decay=True
        )
        warm_up = max(1, self.steps // 50)

        def rate(step: int) -> float:
            if step < warm_up:
                return (step + 1) / warm_up
            return 0.5 * (1 + math.cos(math.pi * min(1.0, (step - warm_up) / max(1, self.steps - warm_up))))

        schedule = torch.optim.lr_scheduler.LambdaLR(optimiser, rate)
        return {"optimizer": optimiser, "lr_scheduler": {"scheduler": schedule, "interval": "step"}}


def fit(cache: Path, output: Path, options: FitOptions, guide_folder: Path | None = None) -> FittedRun:
    """Train one branch from a cache and write checkpoint and `run.json` into `output`.

    Runs in bf16 where the processor or GPU computes in it. Raises `InputError` when the cache does not annotate any
    class, or the guide is missing.
    """
    if options.threads:
        torch.set_num_threads(options.threads)
    lightning.seed_everything(options.seed, verbose=False)
    output.mkdir(parents=True, exist_ok=True)
    index = CacheIndex.load(cache)
    architecture = options.architecture()
    voi_shapes = {
        g: voi_shape(mm, index.spacing_mm, architecture) for g, mm in (options.voi_mm or {}).items()
    }
    data = WindowDataset(
        cache,
        options.task,
        options.patch,
        options.window_hu,
        split=options.train_split,
        seed=options.seed,
        strength=Augmentation().times(options.augmentation),
        voi_shapes=voi_shapes,
        guide_folder=guide_folder,
    )
    # VOIs differ in shape, so the small and hard branch sees one at a time and averages gradients over the batch.
    single = options.task.branch == "small_hard"
    loader = DataLoader(data, batch_size=1 if single else options.batch, collate_fn=collate, num_workers=1)
    module = BranchModule(options)
    if options.init is not None:
        start_from(module.network, options.init, options.task)
    on_gpu = options.accelerator in ("auto", "gpu", "cuda") and torch.cuda.is_available()
    trainer = lightning.Trainer(
        accelerator="gpu" if on_gpu else "cpu",
        devices=1,
        precision="bf16-mixed" if on_gpu or cpu_has_bf16() else "32-true",
        max_steps=options.steps,
        accumulate_grad_batches=options.batch if single else 1,
        gradient_clip_val=5.0,
        log_every_n_steps=20,
        enable_model_summary=False,
        enable_checkpointing=False,
        logger=lightning.pytorch.loggers.CSVLogger(output, name=None, version=""),
        default_root_dir=output,
    )
    started = time.monotonic()
    trainer.fit(module, loader)
    trainer.save_checkpoint(output / CHECKPOINT, weights_only=True)
    run = FittedRun(
        branch=options.task.branch,
        classes=options.task.classes,
        inputs=options.task.inputs,
        anchors=options.task.anchors,
        spacing_mm=index.spacing_mm,
        patch=options.patch,
        window_hu=options.window_hu,
        voi_mm=options.voi_mm or {},
        architecture=architecture,
        source=index.source,
        cases=len(data.cases),
        steps=options.steps,
        batch=options.batch,
        seconds=round(time.monotonic() - started, 1),
        seed=options.seed,
    )
    run.save(output)
    return run


def start_from(network: UNet, folder: Path, task: BranchTask) -> None:
    """Give a network the weights of a finished run.

    All of them when the run was for the same organs and inputs; else those of the layers between: the channels of the
    first convolution that both see (the CT comes first), and everything but the head. Channels that the run did not
    see start at zero. Raises `InputError` when the layers in between differ.
    """
    before = FittedRun.load(folder)
    old, new = before.architecture, network.architecture
    if (old.features, old.strides, old.blocks) != (new.features, new.strides, new.blocks):
        raise InputError(f"{folder}: its network has other layers than this one; cannot start from it")
    weights = before.network(folder).state_dict()
    if (before.classes, before.inputs, before.anchors) != (task.classes, task.inputs, task.anchors):
        shared = 1 + (
            len(task.anchors) if (before.anchors, before.inputs) == (task.anchors, task.inputs) else 0
        )
        own = network.state_dict()
        first = next(iter(weights))
        widened = torch.zeros_like(own[first])
        widened[:, :shared] = weights[first][:, :shared]
        weights = {k: v for k, v in weights.items() if not k.startswith("head.")} | {first: widened}
        weights |= {k: v for k, v in own.items() if k.startswith("head.")}
    network.load_state_dict(weights)


def voi_shape(
    extent_mm: tuple[float, float, float],
    spacing_mm: tuple[float, float, float],
    architecture: UNetArchitecture,
) -> tuple[int, int, int]:
    """Shape (z, y, x) of a VOI, rounded up to what the network can halve; the same rule as at inference."""
    return Grid.around(np.zeros(3), extent_mm, spacing_mm, architecture.divisor).shape
