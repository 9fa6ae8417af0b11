"""The CT and MR network as a system that can be trained: early fusion with modality dropout.

HaN-Seg's winners registered the MR to the CT and gave a U-Net both as channels (Podobnik et al., Radiother Oncol
2024); mask channel, dropout of the MR and scaling are this project's choice, so that one network serves with and
without an MR.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from torch import Tensor, nn

from soars.catalogue import CATALOGUE
from soars.errors import InputError
from soars.mr.laid import CHANNELS
from soars.networks.architecture import Architecture
from soars.networks.build import build
from soars.systems.ct_mr.system import IN_CHANNELS, NAME, find_organs, window_spec
from soars.systems.trained import Found
from soars_training.cohorts.cache import CachedCase
from soars_training.fitting.losses import marginal_dice_ce
from soars_training.fitting.models import Model
from soars_training.systems.ct_mr.data import CtMrDataset
from soars_training.systems.interface import SystemOptions, SystemRun
from soars_training.systems.loop_system import LoopSystem, unwatched
from soars_training.windows.augment import Augmentation
from soars_training.windows.task import Batch, TrainingData, scaled_ct

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class CtMrOptions(SystemOptions):
    """A run of the CT and MR network.

    Attributes:
        features: channels per level, finest first.
        patch: window in voxels (z, y, x).
        foreground: share of windows drawn about an organ.
        hidden: share of windows whose MR is left out; 1 trains on CT alone, for comparisons.
        strength: of the augmentation.
    """

    features: tuple[int, ...] = (32, 64, 128, 256, 320)
    patch: tuple[int, int, int] = (96, 128, 128)
    foreground: float = 0.7
    hidden: float = 0.5
    balance: float = field(default=0.5, kw_only=True)
    strength: Augmentation = field(default_factory=Augmentation)

    def architecture(self) -> Architecture:
        return Architecture.plain(IN_CHANNELS, len(self.organs) + 1, self.features)

    def check(self) -> None:
        super().check()
        divisor = self.architecture().divisor
        if len(self.patch) != 3 or any(n < d or n % d for n, d in zip(self.patch, divisor, strict=True)):
            raise InputError(f"patch {self.patch}: each side must be a multiple of {divisor} (z, y, x)")
        whole = [o for o in self.organs if set(CATALOGUE[o].parts) & set(self.organs)]
        if whole:
            raise InputError(f"organs: {whole[0]} and a part of it; a voxel is given to one organ alone")
        if not 0 <= self.hidden <= 1:
            raise InputError("hidden must be a share from 0 to 1")


class CtMrModel(Model):
    """The network with its loss."""

    def __init__(self, options: CtMrOptions) -> None:
        super().__init__()
        self.net = build(options.architecture())

    def loss(self, batch: Batch, balance: float) -> Tensor:
        inputs, labels, known = batch
        return marginal_dice_ce(self.net(inputs), labels, known, balance)


class CtMrTraining(LoopSystem[CtMrOptions]):
    """See `soars_training.systems.interface.TrainingSystem`."""

    name = NAME
    presets = ("laptop", "paper")

    def options(self, preset: str, organs: tuple[str, ...]) -> CtMrOptions:
        """`paper`: a U-Net of nnU-Net's size on windows of 96 x 128 x 128, 250,000 steps of 2 (the challenge's paper
        gives no numbers; these are nnU-Net's). `laptop`: 8 to 64 channels on windows of 64 voxels."""
        if preset == "paper":
            return CtMrOptions(organs=organs, steps=250_000, batch=2, learning_rate=1e-3, schedule="poly")
        return CtMrOptions(
            organs=organs,
            steps=3000,
            batch=1,
            learning_rate=2e-3,
            ema=0.995,
            features=(8, 16, 32, 64, 64),
            patch=(64, 64, 64),
        )

    def data(
        self, options: CtMrOptions, cases: Sequence[CachedCase], spacing_mm: Sequence[float]
    ) -> TrainingData:
        with_mr = sum(case.mr is not None for case in cases)
        if options.hidden < 1 and not with_mr:
            raise InputError(
                f"none of {len(cases)} cases has an MR to learn from: prepare them with their MRs, or train on the CTs "
                "alone (--set hidden=1), of which no bundle can be made"
            )
        log.info("%d of %d cases have an MR", with_mr, len(cases))
        return CtMrDataset(
            cases,
            options.organs,
            patch=options.patch,
            window_hu=options.window_hu,
            strength=options.strength,
            foreground=options.foreground,
            hidden=options.hidden,
            seed=options.seed,
        )

    def model(self, options: CtMrOptions) -> Model:
        return CtMrModel(options)

    def untrained(self, settings: Mapping[str, Any]) -> nn.Module:
        return build(Architecture.from_dict(settings["network"]))

    def example_shape(self, settings: Mapping[str, Any]) -> tuple[int, ...]:
        z, y, x = Architecture.from_dict(settings["network"]).divisor
        return (1, IN_CHANNELS, 2 * z, 2 * y, 2 * x)

    def find(self, network: nn.Module, options: CtMrOptions, case: CachedCase) -> Found:
        spec = window_spec(options.organs, options.architecture(), options.patch, case.spacing_mm)
        return find_organs(network, spec, channels_of(case, options), options.organs, unwatched)

    def own_settings(self, options: CtMrOptions) -> dict[str, Any]:
        return {"patch": list(options.patch)}

    def summary(self, options: CtMrOptions) -> str:
        shown = "-".join(map(str, options.features))
        return (
            f"A U-Net of {shown} channels sees the CT and, where there is one, a T1-weighted MR laid onto it; the MR "
            f"was hidden in {options.hidden:.0%} of the windows."
        )

    def write_member(self, folder: Path, path: Path) -> None:
        """Raises `InputError` for a run that has seen no MR: its bundle would take one, of which the network knows as
        much as before its first step."""
        if SystemRun.load(folder).options["hidden"] >= 1:
            raise InputError(f"{folder}: has learned from CTs alone, but a bundle of {self.name} takes an MR")
        super().write_member(folder, path)


def channels_of(case: CachedCase, options: CtMrOptions) -> np.ndarray:
    """A whole case as the network sees it, float32 [3, z, y, x]."""
    mr = np.zeros((CHANNELS, *case.ct_hu.shape), np.float32) if case.mr is None else case.mr
    return np.concatenate([scaled_ct(case.ct_hu, options.window_hu)[None], mr.astype(np.float32)])
