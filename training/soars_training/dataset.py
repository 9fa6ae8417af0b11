"""Training windows from cached cases: one endless data set per kind of branch."""

from __future__ import annotations

import zipfile
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import IterableDataset

from soars.cascade.branches import HEATMAP_SD_MM
from soars.errors import InputError
from soars_training.augment import (
    Augmentation,
    Window,
    augment_intensity,
    mirrored_channels,
    random_window,
    sample,
)
from soars_training.cache import CachedCase, CacheIndex, IndexEntry, group_members, read_case

GUIDE_SUFFIX = ".guide.npz"
BODY_HU = -500


@dataclass(frozen=True)
class BranchTask:
    """What a branch learns: which outputs from which inputs.

    `branch` is anchor, mid_level, detection or small_hard; `classes` are catalogue names, for detection the heat-map
    groups; `anchors` names the guide's channels when `inputs` holds "anchor"; `groups` the VOIs of small_hard.
    """

    branch: str
    classes: tuple[str, ...]
    inputs: tuple[str, ...]
    anchors: tuple[str, ...] = ()

    @property
    def in_channels(self) -> int:
        return sum({"ct": 1, "anchor": len(self.anchors), "heatmap": 1}[name] for name in self.inputs)

    @property
    def out_channels(self) -> int:
        return len(self.classes) + (1 if self.branch in ("anchor", "mid_level") else 0)


@dataclass(frozen=True)
class Sample:
    """One window: inputs [C, z, y, x], target (labels [z, y, x] or channels [K, z, y, x]), known bool [K]."""

    inputs: Tensor
    target: Tensor
    known: Tensor


class WindowDataset(IterableDataset[Sample]):
    """Endless augmented windows of the cases of one split, reproducible by seed.

    A window is centred on a voxel of a randomly drawn annotated class with probability `foreground`, else anywhere
    in the scan. For small_hard the case already is a VOI and the window lies about its centre, shifted by up to
    `jitter_mm` as the detector will be off.
    """

    def __init__(
        self,
        folder: Path,
        task: BranchTask,
        shape: tuple[int, int, int],
        window_hu: tuple[float, float],
        *,
        split: str,
        seed: int,
        strength: Augmentation,
        voi_shapes: dict[str, tuple[int, int, int]] | None = None,
        guide_folder: Path | None = None,
        foreground: float = 0.5,
        jitter_mm: float = 6.0,
    ) -> None:
        self.index = CacheIndex.load(folder)
        self.task, self.shape, self.window_hu, self.seed = task, shape, window_hu, seed
        self.strength, self.foreground, self.jitter_mm = strength, foreground, jitter_mm
        self.voi_shapes = voi_shapes or {}
        self.swap = mirrored_channels(task.classes)
        self.anchor_swap = mirrored_channels(task.anchors)
        paired = _all_paired(task.classes) and _all_paired(task.anchors)
        if not paired:  # mirroring would put a left organ where only the right one is known, or the reverse
            self.strength = Augmentation(**(vars(strength) | {"mirror": 0.0}))
        usable = [e for e in self.index.of_split(split) if self._annotates(e)]
        if not usable:
            raise InputError(
                f"{folder}: no case of split {split!r} annotates any of {', '.join(task.classes)}"
            )
        self.cases = [_Loaded.read(folder, e, task, guide_folder) for e in usable]

    def __iter__(self) -> Iterator[Sample]:
        worker = torch.utils.data.get_worker_info()
        rng = np.random.default_rng([self.seed, worker.id if worker else 0])
        while True:
            yield self.draw(rng)

    def draw(self, rng: np.random.Generator) -> Sample:
        case = self.cases[int(rng.integers(len(self.cases)))]
        if case.group is not None:
            jitter = rng.uniform(-1, 1, 3) * self.jitter_mm / np.asarray(case.data.spacing_mm[::-1])
            centre = (np.asarray(case.data.ct_hu.shape) - 1) / 2 + jitter
            window = random_window(rng, self.voi_shapes[case.group], centre, self.strength)
        else:
            window = random_window(rng, self.shape, self._centre(rng, case), self.strength)
        return self.cut(case, window, rng)

    def cut(self, case: _Loaded, window: Window, rng: np.random.Generator) -> Sample:
        """Resample one window of a case; a mirrored one has its left and right channels exchanged."""
        hu = sample(case.data.ct_hu[None], window, outside=-1000.0, nearest=False)
        ct = torch.from_numpy(scaled_ct(hu.numpy(), self.window_hu))
        channels = [augment_intensity(rng, ct, self.strength)]
        if "anchor" in self.task.inputs:
            guide = sample(case.guide, window, outside=0.0, nearest=False) / 255
            channels.append(guide[self.anchor_swap] if window.mirrored else guide)
        known = torch.tensor(case.known)
        if self.task.branch == "detection":
            target = self._heatmaps(case, window)
        elif self.task.branch == "small_hard":
            target = torch.zeros((len(case.known), *window.shape), dtype=torch.bool)
            target[known] = sample(case.target, window, outside=0.0, nearest=False) > 0.5
        else:
            target = sample(case.target, window, outside=0.0, nearest=True)[0].to(torch.uint8)
        if window.mirrored:
            known = known[self.swap]
            if self.task.branch in ("detection", "small_hard"):
                target = target[self.swap]
            else:
                target = torch.tensor([0, *(1 + i for i in self.swap)], dtype=torch.uint8)[target.long()]
        if "heatmap" in self.task.inputs:
            channels.append(self._voi_heatmap(case, window)[None])
        return Sample(torch.cat(channels), target, known)

    def _annotates(self, entry: IndexEntry) -> bool:
        return bool(set(_members(self.task)) & set(entry.annotated))

    def _centre(self, rng: np.random.Generator, case: _Loaded) -> np.ndarray:
        size = np.asarray(case.data.ct_hu.shape)
        if rng.random() < self.foreground and case.points:
            points = case.points[int(rng.integers(len(case.points)))]
            centre = points[int(rng.integers(len(points)))] + rng.uniform(-0.25, 0.25, 3) * self.shape
            # About a lateral organ it would be half air: pull it towards the middle of the body by a random share.
            middle = case.middle_yx[int(np.clip(centre[0], 0, size[0] - 1))]
            centre[1:] += rng.random() * (middle - centre[1:])
        else:
            # Anywhere in the body, arms and shoulders included: what is never seen is taken for an organ.
            centre = case.body[int(rng.integers(len(case.body)))].astype(float)
        # Keep the window over the scan where the scan is larger than the window.
        margin = np.minimum(np.asarray(self.shape) / 2, size / 2)
        return np.clip(centre, margin - 0.5, size - margin - 0.5)

    def _heatmaps(self, case: _Loaded, window: Window) -> Tensor:
        """3D Gaussians (peak 1, sd 8 mm) at the centres, in window coordinates [K, z, y, x]."""
        spacing = np.asarray(case.data.spacing_mm[::-1])
        maps = torch.zeros((len(self.task.classes), *window.shape))
        axes = [torch.arange(n, dtype=torch.float32) - (n - 1) / 2 for n in window.shape]
        offsets = torch.stack(torch.meshgrid(*axes, indexing="ij"))
        matrix = torch.from_numpy(window.matrix).float()
        voxels = torch.einsum("ij,jzyx->izyx", matrix, offsets)
        for k, centre in enumerate(case.centres):
            if centre is not None:
                away = torch.from_numpy(centre - window.centre_zyx).float()[:, None, None, None]
                squared = (
                    ((voxels - away) * torch.from_numpy(spacing).float()[:, None, None, None]) ** 2
                ).sum(0)
                maps[k] = torch.exp(-squared / (2 * HEATMAP_SD_MM**2))
        return maps

    def _voi_heatmap(self, case: _Loaded, window: Window) -> Tensor:
        """The detector's map as it will look in the VOI: a Gaussian at the window's (jittered) centre."""
        axes = [
            (torch.arange(n, dtype=torch.float32) - (n - 1) / 2) * s
            for n, s in zip(window.shape, case.data.spacing_mm[::-1], strict=True)
        ]
        squared = torch.stack(torch.meshgrid(*axes, indexing="ij")).square().sum(0)
        return torch.exp(-squared / (2 * HEATMAP_SD_MM**2))


@dataclass(frozen=True)
class _Loaded:
    """A case in memory with what the task needs of it."""

    data: CachedCase
    group: str | None
    known: np.ndarray
    target: np.ndarray
    points: list[np.ndarray]
    centres: list[np.ndarray | None]
    guide: np.ndarray
    body: np.ndarray
    middle_yx: np.ndarray

    @staticmethod
    def read(folder: Path, entry: IndexEntry, task: BranchTask, guide_folder: Path | None) -> _Loaded:
        data = read_case(folder / entry.file)
        target, points, centres = np.zeros((0, 1, 1, 1), np.uint8), [], []
        if task.branch == "detection":
            members = [group_members(group) for group in task.classes]
            known = np.array([all(o in data.annotated for o in organs) for organs in members])
            centres = [_centre_of(data, organs) for organs in members]
            points = [c[None] for c, k in zip(centres, known, strict=True) if k and c is not None]
        elif task.branch == "small_hard":
            # Whatever small organs lie in the VOI are learned, not its own alone: several times as much to learn from.
            here = {*group_members(entry.group or ""), *data.masks}
            known = np.array([o in here and o in data.annotated for o in task.classes])
            target = np.stack([data.full_mask(o) for o in np.asarray(task.classes)[known]]).astype(np.uint8)
        else:
            known = np.array([o in data.annotated for o in task.classes])
            label_map = data.label_map(task.classes)
            points = [p for k in range(len(known)) if len(p := np.argwhere(label_map == k + 1)) and known[k]]
            target = label_map[None]
        guide = np.zeros((0, *data.ct_hu.shape), np.uint8)
        if "anchor" in task.inputs:
            if guide_folder is None:
                raise InputError(
                    f"branch {task.branch} takes the anchor's probabilities: run soars-train guide first"
                )
            guide = _read_guide(guide_folder / f"{entry.name}{GUIDE_SUFFIX}", task.anchors, data.ct_hu.shape)
        body = np.argwhere(data.ct_hu[::4, ::4, ::4] > BODY_HU).astype(np.int16) * 4
        return _Loaded(data, entry.group, known, target, points, centres, guide, body, _middle(data.ct_hu))


def scaled_ct(hu: np.ndarray, window_hu: tuple[float, float]) -> np.ndarray:
    """HU clipped to the window and scaled linearly to [-1, 1], float32, as the networks take it."""
    low, high = window_hu
    return (np.clip(hu, low, high) - np.float32(low)) * np.float32(2 / (high - low)) - np.float32(1)


def collate(samples: Sequence[Sample]) -> tuple[Tensor, Tensor, Tensor]:
    """Stack samples of one shape to (inputs, targets, known)."""
    return (
        torch.stack([s.inputs for s in samples]),
        torch.stack([s.target for s in samples]),
        torch.stack([s.known for s in samples]),
    )


def _members(task: BranchTask) -> tuple[str, ...]:
    if task.branch == "detection":
        return tuple(o for group in task.classes for o in group_members(group))
    return task.classes


def _all_paired(names: Sequence[str]) -> bool:
    swap = mirrored_channels(names)
    return all(swap[i] != i for i, name in enumerate(names) if name.endswith(("_L", "_R")))


def _centre_of(case: CachedCase, organs: Sequence[str]) -> np.ndarray | None:
    points = [np.argwhere(case.masks[o][1]) + case.masks[o][0] for o in organs if o in case.masks]
    return np.concatenate(points).mean(0) if points else None


def _middle(ct_hu: np.ndarray) -> np.ndarray:
    """The body's centre (y, x) in each slice, the scan's centre where a slice is empty."""
    middle = np.tile((np.asarray(ct_hu.shape[1:]) - 1) / 2, (len(ct_hu), 1))
    for z, inside in enumerate(ct_hu > BODY_HU):
        points = np.argwhere(inside)
        if len(points):
            middle[z] = points.mean(0)
    return middle


def _read_guide(path: Path, anchors: tuple[str, ...], shape: tuple[int, ...]) -> np.ndarray:
    try:
        with np.load(path) as data:
            names, values = tuple(data["anchors"].tolist()), data["probabilities"]
    except (OSError, KeyError, ValueError, zipfile.BadZipFile) as error:
        raise InputError(f"{path}: no anchor probabilities ({error}); run soars-train guide") from error
    if names != anchors or values.shape[1:] != shape:
        raise InputError(f"{path}: made for other anchors or another cache; run soars-train guide again")
    return values
