"""Training windows from cached cases: window number n is the same whenever and in whatever process it is drawn."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import Dataset

from soars.cascade.branches import HEATMAP_SD_MM
from soars.cascade.sides import mirrored_channels
from soars.errors import InputError
from soars_training.cohorts.cache import CacheIndex, IndexEntry, read_case
from soars_training.cohorts.regions import UsualRegions
from soars_training.windows.augment import (
    AIR_HU,
    Augmentation,
    Window,
    add_couch,
    augment_hu,
    cut_scan,
    random_window,
    sample,
)
from soars_training.windows.loaded import LoadedCase, load
from soars_training.windows.task import Batch, BranchTask, Sample, collate, ct_channels, require_taught


class WindowDataset(Dataset[Sample]):
    """Augmented windows of the given cases; `data[n]` depends on the seed and n alone, so a run can be resumed.

    With probability `foreground` a window holds a voxel of an annotated class: the class is drawn first, then one of
    the cases that have it, so that a class which few cases have is seen as often as the others. Else it lies anywhere
    in the body. For small_hard a case already is a VOI: the heat-map group is drawn first, and the window lies about
    the VOI's centre, shifted by up to `jitter_mm` as the detector will be off.
    """

    def __init__(
        self,
        folder: Path,
        task: BranchTask,
        shape: tuple[int, int, int],
        entries: Sequence[IndexEntry],
        *,
        seed: int,
        strength: Augmentation,
        voi_shapes: dict[str, tuple[int, int, int]] | None = None,
        guide_folder: Path | None = None,
        foreground: float = 0.7,
        jitter_mm: float = 6.0,
    ) -> None:
        self.index = CacheIndex.load(folder)
        self.task, self.shape, self.seed = task, shape, seed
        self.title: str = task.branch
        self.stackable = task.branch != "small_hard"
        self.strength, self.foreground, self.jitter_mm = strength, foreground, jitter_mm
        self.voi_shapes = voi_shapes or {}
        self.swap = mirrored_channels(task.classes)
        self.anchor_swap = mirrored_channels(task.anchors)
        if (
            not task.paired
        ):  # mirroring would put a left organ where only the right one is known, or the reverse
            self.strength = replace(strength, mirror=0.0)
        usable = [e for e in entries if set(task.members) & set(e.annotated)]
        if not usable:
            raise InputError(
                f"{folder}: none of {len(entries)} cases annotates any of {', '.join(task.classes)}"
            )
        read = [read_case(folder / e.file) for e in usable]
        self.regions = UsualRegions.learn(read)
        drawn = self.index.annotated
        loaded = [
            load(c, e, task, self.regions, guide_folder, drawn) for c, e in zip(read, usable, strict=True)
        ]
        # A volume of interest may lie beside all organs of the task that its patient has.
        self._cases = [case for case in loaded if case.known.any()]
        self.with_class = [
            [c for c in self.cases if len(c.points) > k and len(c.points[k])]
            for k in range(len(task.classes))
        ]
        self.drawable = [k for k, cases in enumerate(self.with_class) if cases]
        self.groups = sorted({c.group for c in self.cases if c.group is not None})

    def __getitem__(self, n: int) -> Sample:
        return self.draw(np.random.default_rng([self.seed, n]))

    @property
    def cases(self) -> list[LoadedCase]:
        return self._cases

    def check_taught(self) -> None:
        """Raises as `require_taught` does, for classes that no case knows."""
        taught = np.any([c.known for c in self.cases], axis=0)
        missing = [name for name, known in zip(self.task.classes, taught, strict=True) if not known]
        require_taught(missing, len(self.cases))

    def collate(self, samples: Sequence[Sample]) -> Batch:
        return collate(samples)

    def draw(self, rng: np.random.Generator) -> Sample:
        if self.groups:
            group = self.groups[int(rng.integers(len(self.groups)))]
            vois = [c for c in self.cases if c.group == group]
            case = vois[int(rng.integers(len(vois)))]
            jitter = rng.uniform(-1, 1, 3) * self.jitter_mm / np.asarray(case.data.spacing_mm[::-1])
            centre = (np.asarray(case.data.ct_hu.shape) - 1) / 2 + jitter
            shape = self.voi_shapes[group]
        else:
            case, centre = self._case_and_centre(rng)
            shape = self.shape
        window = random_window(rng, shape, centre, self.strength, case.data.spacing_mm[::-1])
        return self.cut(case, window, rng)

    def cut(self, case: LoadedCase, window: Window, rng: np.random.Generator) -> Sample:
        """Resample one window of a case; a mirrored one has its left and right channels exchanged."""
        hu = sample(case.data.ct_hu[None], window, outside=AIR_HU, nearest=False)
        beyond = None if case.group is not None else cut_scan(rng, window, self.strength)
        if beyond is not None:
            hu = hu.masked_fill(beyond, AIR_HU)
        hu = augment_hu(rng, add_couch(rng, hu, window, case.back, self.strength), self.strength)
        channels = [ct_channels(hu, self.task.windows_hu)]
        if "anchor" in self.task.inputs:
            guide = sample(case.guide, window, outside=0.0, nearest=False) / 255
            guide = guide if beyond is None else guide.masked_fill(beyond, 0.0)
            channels.append(guide[self.anchor_swap] if window.mirrored else guide)
        known, possible = torch.tensor(case.known), self._possible(case, window)
        target = self._target(case, window, beyond)
        if window.mirrored:
            known = known[self.swap]
            if self.task.softmax:
                possible = possible[self.swap]
                target = torch.tensor([0, *(1 + i for i in self.swap)], dtype=torch.uint8)[target.long()]
            else:
                target = target[self.swap]
        if "heatmap" in self.task.inputs:
            channels.append(self._voi_heatmap(rng, case, window)[None])
        return Sample(torch.cat(channels), target, known, possible)

    def _case_and_centre(self, rng: np.random.Generator) -> tuple[LoadedCase, np.ndarray]:
        if rng.random() < self.foreground and self.drawable:
            k = self.drawable[int(rng.integers(len(self.drawable)))]
            case = self.with_class[k][int(rng.integers(len(self.with_class[k])))]
            size = np.asarray(case.data.ct_hu.shape)
            points = case.points[k]
            centre = points[int(rng.integers(len(points)))] + rng.uniform(-0.25, 0.25, 3) * self.shape
            # About a lateral organ it would be half air: pull it towards the middle of the body by a random share.
            middle = case.middle_yx[int(np.clip(centre[0], 0, size[0] - 1))]
            centre[1:] += rng.random() * (middle - centre[1:])
        else:
            # Anywhere in the body, arms and shoulders included: tissue never seen in training is mistaken for organs.
            case = self.cases[int(rng.integers(len(self.cases)))]
            size = np.asarray(case.data.ct_hu.shape)
            centre = case.body[int(rng.integers(len(case.body)))].astype(float)
        # Keep the window over the scan where the scan is larger than the window.
        margin = np.minimum(np.asarray(self.shape) / 2, size / 2)
        return case, np.clip(centre, margin - 0.5, size - margin - 0.5)

    def _target(self, case: LoadedCase, window: Window, beyond: Tensor | None) -> Tensor:
        if self.task.branch == "detection":
            return heat_maps(case.centres, window, case.data.spacing_mm)
        if self.task.branch == "small_hard":
            target = torch.zeros((len(case.known), *window.shape), dtype=torch.bool)
            target[torch.tensor(case.known)] = sample(case.target, window, outside=0.0, nearest=False) > 0.5
            return target
        labels = sample(case.target, window, outside=0.0, nearest=True).to(torch.uint8)
        labels = labels if self.task.joined else labels[0]
        return labels if beyond is None else labels.masked_fill(beyond, 0)

    def _possible(self, case: LoadedCase, window: Window) -> Tensor:
        """bool [K, z, y, x]: where each class that is not annotated may be (softmax branches, else empty)."""
        if not self.task.softmax:
            return torch.ones((len(case.known), 0, 0, 0), dtype=torch.bool)
        possible = torch.ones((len(case.known), *window.shape), dtype=torch.bool)
        boxes = {k: box for k, box in enumerate(case.regions) if box is not None}
        if boxes:
            index = window.voxels()
            for k, (low, high) in boxes.items():
                for axis in range(3):
                    possible[k] &= (index[axis] > float(low[axis])) & (index[axis] < float(high[axis]))
        return possible

    def _voi_heatmap(self, rng: np.random.Generator, case: LoadedCase, window: Window) -> Tensor:
        """The detector's map as it will look in the VOI: centred on the window, whose centre is the map's peak, but
        lower and wider or narrower than the ideal Gaussian, as predicted maps are."""
        index = window.voxels()
        width = float(rng.uniform(0.7, 1.3))
        peak = float(rng.uniform(0.4, 1.0))
        return peak * gaussian(index, window.centre_zyx, [s / width for s in case.data.spacing_mm])


def heat_maps(centres: Sequence[np.ndarray | None], window: Window, spacing_mm: Sequence[float]) -> Tensor:
    """3D Gaussians (peak 1, sd 8 mm) at the centres, given in the case's voxels, in a window of it [K, z, y, x]; a map
    without centre is zero."""
    index = window.voxels()
    maps = [torch.zeros(window.shape) if c is None else gaussian(index, c, spacing_mm) for c in centres]
    return torch.stack(maps)


def gaussian(index: Sequence[Tensor], centre: np.ndarray, spacing_mm: Sequence[float]) -> Tensor:
    """exp(-d^2 / 2 sd^2) of the distance in mm from a centre given in voxels (z, y, x); spacing is (x, y, z)."""
    z, y, x = (((i - float(c)) * s) ** 2 for i, c, s in zip(index, centre, spacing_mm[::-1], strict=True))
    return torch.exp(-(z + y + x) / (2 * HEATMAP_SD_MM**2))
