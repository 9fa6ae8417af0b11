"""Training slabs: some neighbouring slices with the context that the network sees, warped in the plane."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import Dataset

from soars.cascade.sides import all_paired, mirrored_channels
from soars.networks.slices import CONTEXT
from soars.systems.deepmind.slabs import window_yx
from soars_training.cohorts.cache import CachedCase
from soars_training.systems.deepmind.warp import PlaneAugmentation, random_warp
from soars_training.windows.augment import AIR_HU
from soars_training.windows.task import Batch, ct_channels

REACH = CONTEXT // 2


class SlabSample(NamedTuple):
    """CT [1, n + 20, size, size] in [-1, 1], masks bool [K, n, size, size], known bool [K, n]."""

    ct: Tensor
    masks: Tensor
    known: Tensor


class SlabDataset(Dataset[SlabSample]):
    """Augmented slabs of the cases; `data[n]` depends on the seed and n alone.

    With probability `foreground` a slab holds a slice of an organ that was drawn: the organ is drawn first, then one of
    the cases that have it. Else it lies anywhere in the scan.
    """

    title, stackable = "deepmind", True

    def __init__(
        self,
        cases: Sequence[CachedCase],
        organs: Sequence[str],
        *,
        size: int,
        slab: int,
        window_hu: tuple[float, float],
        strength: PlaneAugmentation,
        foreground: float,
        seed: int,
    ) -> None:
        self.cases, self.organs, self.seed = list(cases), tuple(organs), seed
        self.size, self.slab, self.window_hu = size, slab, window_hu
        self.strength, self.foreground = strength, foreground
        self.swap = mirrored_channels(self.organs)
        self.with_organ = {o: [c for c in self.cases if o in c.masks] for o in self.organs}
        self.drawable = [o for o in self.organs if self.with_organ[o]]
        # Else a left organ would stand where only the right one is known.
        self.may_mirror = all_paired(self.organs)

    def __getitem__(self, n: int) -> SlabSample:
        return self.draw(np.random.default_rng([self.seed, n]))

    def collate(self, samples: Sequence[SlabSample]) -> Batch:
        return tuple(torch.stack(parts) for parts in zip(*samples, strict=True))

    def draw(self, rng: np.random.Generator) -> SlabSample:
        if self.drawable and rng.random() < self.foreground:
            organ = self.drawable[int(rng.integers(len(self.drawable)))]
            case = self.with_organ[organ][int(rng.integers(len(self.with_organ[organ])))]
            start, crop = case.masks[organ]
            middle = start[0] + int(rng.integers(crop.shape[0]))
        else:
            case = self.cases[int(rng.integers(len(self.cases)))]
            middle = int(rng.integers(case.ct_hu.shape[0]))
        return self.cut(case, middle - int(rng.integers(self.slab)), rng)

    def cut(self, case: CachedCase, first: int, rng: np.random.Generator) -> SlabSample:
        """The slab whose first slice is `first`, which may lie beyond the scan; air is there, and no organ."""
        depth, rows, columns = case.ct_hu.shape
        strength = self.strength
        if not self.may_mirror:
            strength = replace(strength, mirror=0.0)
        # The square of inference, on whole voxels also where rows or columns are odd: half a voxel aside, nearest
        # neighbours of a mask would leave out every second row.
        top, left = window_yx(case.ct_hu.shape, self.size)
        warp = random_warp(
            rng,
            self.size,
            (top + (self.size - 1) / 2, left + (self.size - 1) / 2),
            (case.spacing_mm[1], case.spacing_mm[0]),
            strength,
        )
        hu = torch.full((self.slab + 2 * REACH, rows, columns), AIR_HU)
        low, high = max(first - REACH, 0), min(first + self.slab + REACH, depth)
        if low < high:
            at = low - (first - REACH)
            hu[at : at + high - low] = torch.from_numpy(case.ct_hu[low:high].astype(np.float32))
        hu = warp.sample(hu, outside=AIR_HU, nearest=False)
        if strength.noise_hu:
            generator = torch.Generator().manual_seed(int(rng.integers(2**31)))
            noisy = hu + strength.noise_hu * torch.randn(hu.shape, generator=generator)
            hu = torch.where(hu <= AIR_HU + 5, hu, noisy)
        masks, known = self._labels(case, first)
        there = (masks > 0).flatten(2).any(2)
        warped = torch.zeros((*masks.shape[:2], self.size, self.size), dtype=torch.bool)
        warped[there] = warp.sample(masks[there], outside=0.0, nearest=True) > 0.5
        if warp.mirrored:
            warped, known = warped[self.swap], known[self.swap]
        return SlabSample(ct_channels(hu[None], [self.window_hu]), warped, known)

    def _labels(self, case: CachedCase, first: int) -> tuple[Tensor, Tensor]:
        """Masks uint8 [K, n, y, x] and which of them are labelled, bool [K, n]."""
        depth, rows, columns = case.ct_hu.shape
        masks = torch.zeros((len(self.organs), self.slab, rows, columns), dtype=torch.uint8)
        known = torch.zeros((len(self.organs), self.slab), dtype=torch.bool)
        slices = np.arange(first, first + self.slab)
        inside = (slices >= 0) & (slices < depth)
        for k, organ in enumerate(self.organs):
            known[k] = torch.from_numpy(~inside | case.labelled(organ)[np.clip(slices, 0, depth - 1)])
            if organ not in case.masks:
                continue
            (z, y, x), crop = case.masks[organ]
            low, high = max(first, z), min(first + self.slab, z + crop.shape[0])
            if low < high:
                masks[k, low - first : high - first, y : y + crop.shape[1], x : x + crop.shape[2]] = (
                    torch.from_numpy(crop[low - z : high - z].astype(np.uint8))
                )
        return masks, known
