"""Settings that go together: the papers', a laptop's, a large GPU's."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace

from soars.networks.names import Branch, LayerOrder, NetworkKind
from soars_training.windows.augment import Augmentation
from soars_training.windows.task import WINDOWS_HU

PAPER_EPOCHS = 50
RANDOM_WINDOWS = 15
"""In an epoch, the papers take from every scan one window centred in each organ and this many random ones."""


@dataclass(frozen=True)
class Preset:
    """Defaults of a run; see `FitOptions` for the fields. `steps` None: the papers' epochs (`paper_steps`)."""

    features: tuple[int, ...]
    patch: tuple[int, int, int]
    steps: int | None
    batch: int
    learning_rate: float
    optimiser: str
    weight_decay: float
    schedule: str
    dice_only: bool
    supervised: int
    ema: float
    strength: Augmentation
    windows_hu: tuple[tuple[float, float], ...]
    network: NetworkKind = "unet"
    order: LayerOrder = "conv-norm-act"


LAPTOP = Preset(
    features=(16, 32, 64, 128, 128),
    patch=(64, 64, 64),
    steps=7000,
    batch=1,
    learning_rate=1.5e-3,
    optimiser="adamw",
    weight_decay=1e-2,
    schedule="cosine",
    dice_only=False,
    supervised=3,
    ema=0.999,
    strength=Augmentation(),
    windows_hu=(*WINDOWS_HU, (-160.0, 240.0)),
)
GPU = replace(
    LAPTOP,
    features=(32, 64, 128, 256, 320, 320),
    patch=(64, 128, 128),
    steps=100_000,
    batch=4,
    learning_rate=1e-3,
    supervised=4,
    ema=0.9995,
)

_NAMED = {"laptop": LAPTOP, "gpu": GPU}


def preset(name: str, branch: Branch) -> Preset:
    """The defaults of that name for a branch. `paper`: SOARS, CVPR 2020, sections 4.1 and 4.2, on nnU-Net's U-Net as in
    the later study, with batch norm and ReLU before each convolution: RAdam (momentum 0.9, weight decay 0.005), Dice
    loss, batch 12, rate 0.01 (small and hard 0.005), scaling by 0.8 to 1.2 as the only augmentation, windows of
    128 x 128 x 64. The decay of the rate is not given there; nnU-Net's is taken."""
    if name in _NAMED:
        return _NAMED[name]
    return replace(
        GPU,
        steps=None,
        batch=12,
        learning_rate=0.005 if branch == "small_hard" else 0.01,
        optimiser="radam",
        weight_decay=0.005,
        schedule="poly",
        dice_only=True,
        supervised=1,
        ema=0.0,
        strength=Augmentation.scaling(0.2),
        order="norm-act-conv",
        windows_hu=WINDOWS_HU,
    )


def paper_steps(cases: int, classes: int, batch: int) -> int:
    """Optimiser steps of the papers' 50 epochs for this many scans and organs."""
    return PAPER_EPOCHS * math.ceil(cases * (classes + RANDOM_WINDOWS) / batch)
