"""Training windows of CT and MR."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import Dataset

from soars.cascade.sides import all_paired, mirrored_channels
from soars.mr.laid import CHANNELS
from soars_training.cohorts.cache import CachedCase
from soars_training.windows.augment import (
    AIR_HU,
    Augmentation,
    augment_hu,
    random_window,
    sample,
)
from soars_training.windows.task import Batch, ct_channels


class CtMrSample(NamedTuple):
    """Inputs [3, z, y, x] (CT, MR, where the MR has a value), labels uint8 [z, y, x], known bool [K]."""

    inputs: Tensor
    labels: Tensor
    known: Tensor


class CtMrDataset(Dataset[CtMrSample]):
    """Augmented windows of the cases; `data[n]` depends on the seed and n alone.

    With probability `foreground` a window is centred near an organ: the organ is drawn first, then one of the cases
    that have it. With probability `hidden` the MR is left out, so that the network learns to do without.
    """

    title, stackable = "ct_mr", True

    def __init__(
        self,
        cases: Sequence[CachedCase],
        organs: Sequence[str],
        *,
        patch: tuple[int, int, int],
        window_hu: tuple[float, float],
        strength: Augmentation,
        foreground: float,
        hidden: float,
        seed: int,
    ) -> None:
        self.cases, self.organs, self.seed = list(cases), tuple(organs), seed
        self.patch, self.window_hu, self.foreground, self.hidden = patch, window_hu, foreground, hidden
        self.swap = mirrored_channels(self.organs)
        self.strength = strength if all_paired(self.organs) else replace(strength, mirror=0.0)
        self.with_organ = {
            o: [c for c in self.cases if o in c.masks and o in c.annotated] for o in self.organs
        }
        self.drawable = [o for o in self.organs if self.with_organ[o]]

    def __getitem__(self, n: int) -> CtMrSample:
        return self.draw(np.random.default_rng([self.seed, n]))

    def collate(self, samples: Sequence[CtMrSample]) -> Batch:
        return tuple(torch.stack(parts) for parts in zip(*samples, strict=True))

    def draw(self, rng: np.random.Generator) -> CtMrSample:
        if self.drawable and rng.random() < self.foreground:
            organ = self.drawable[int(rng.integers(len(self.drawable)))]
            case = self.with_organ[organ][int(rng.integers(len(self.with_organ[organ])))]
            start, crop = case.masks[organ]
            centre = np.asarray(start) + rng.random(3) * crop.shape + rng.uniform(-0.2, 0.2, 3) * self.patch
        else:
            case = self.cases[int(rng.integers(len(self.cases)))]
            centre = rng.random(3) * case.ct_hu.shape
        return self.cut(case, centre, rng)

    def cut(self, case: CachedCase, centre_zyx: np.ndarray, rng: np.random.Generator) -> CtMrSample:
        """One window about a voxel of a case; a mirrored one has left and right organs exchanged."""
        window = random_window(rng, self.patch, centre_zyx, self.strength, case.spacing_mm[::-1])
        hu = sample(case.ct_hu[None], window, outside=AIR_HU, nearest=False)
        channels = [ct_channels(augment_hu(rng, hu, self.strength), [self.window_hu])]
        gain, offset, hidden = rng.uniform(0.85, 1.15), rng.normal(0, 0.1), rng.random() < self.hidden
        if case.mr is None or hidden:
            channels.append(torch.zeros((CHANNELS, *self.patch)))
        else:
            values, seen = sample(case.mr, window, outside=0.0, nearest=False)
            seen = (seen > 0.5).float()
            channels.append(torch.stack(((values * gain + offset) * seen, seen)))
        labels = sample(case.label_map(self.organs)[None], window, outside=0.0, nearest=True)[0].to(
            torch.uint8
        )
        known = torch.tensor([organ in case.annotated for organ in self.organs])
        if window.mirrored:
            labels = torch.tensor([0, *(1 + i for i in self.swap)], dtype=torch.uint8)[labels.long()]
            known = known[self.swap]
        return CtMrSample(torch.cat(channels), labels, known)
