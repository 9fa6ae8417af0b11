"""Windows for all branches at once: labels of anchors and mid-level organs, heat maps, and the volume of interest of a
small organ that lies in the window, turned as the window is."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional

from soars.cascade.sides import mirrored_channels
from soars_training.cohorts.cache import IndexEntry, read_case
from soars_training.windows.augment import (
    AIR_HU,
    Augmentation,
    Window,
    augment_hu,
    random_window,
    sample,
)
from soars_training.windows.dataset import WindowDataset, heat_maps
from soars_training.windows.loaded import LoadedCase, group_centres, load
from soars_training.windows.task import Batch, BranchTask, collate, ct_channels

REACH_MM = 8.0
"""So far from the true centre the volume of interest can be cut where the detector finds its organ. With the turning
and scaling of the augmentation, more would often reach beyond the margin of the cached volumes: there is only air."""
ABOUT_SMALL = 0.5


@dataclass(frozen=True)
class FineVolumes:
    """The small organs' volumes of interest to learn from.

    Attributes:
        folder, entries: their cache.
        task: of the small organs' branch.
        shapes: voxels (z, y, x) of each heat-map group's volume, as at inference.
    """

    folder: Path
    entries: Sequence[IndexEntry]
    task: BranchTask
    shapes: Mapping[str, tuple[int, int, int]]


@dataclass(frozen=True)
class VoiPlace:
    """Where a volume of interest lies in a window, both axis by axis (z, y, x).

    Attributes:
        channel: its heat map.
        centre: the true centre in the window's voxels.
        step: the window's voxels that one of the volume's measures. reach: voxels of the volume kept on every side.
    """

    channel: int
    centre: Tensor
    step: Tensor
    reach: Tensor

    def start(self, heat_map: Tensor) -> list[int]:
        """First voxel of the volume, in the wider one that was cut, when it lies about the largest voxel of a heat map
        [z, y, x]; as near as the wider one allows."""
        peak = torch.tensor(np.unravel_index(int(heat_map.detach().argmax()), heat_map.shape))
        off = ((peak - self.centre) / self.step).round()
        return [int(v) for v in (self.reach + torch.clamp(off, -self.reach, self.reach)).long()]

    def map_in(self, heat_map: Tensor, start: Sequence[int], shape: Sequence[int]) -> Tensor:
        """A heat map [z, y, x] at the voxels of the volume of that start and shape, linear between its voxels, zero
        beyond them; gradients pass."""
        axes = []
        for axis, n in enumerate(shape):
            middle = (n - 1) / 2 + float(self.reach[axis])
            at = float(self.centre[axis]) + (torch.arange(n) + start[axis] - middle) * float(self.step[axis])
            axes.append((2 * at + 1) / heat_map.shape[axis] - 1)
        grid = torch.stack(torch.meshgrid(*axes, indexing="ij")[::-1], -1).to(heat_map)
        return functional.grid_sample(heat_map[None, None], grid[None], align_corners=False)[0, 0]

    def packed(self) -> Tensor:
        """As a row of numbers, which a batch can hold."""
        return torch.cat((torch.tensor([float(self.channel)]), self.centre, self.step, self.reach))

    @staticmethod
    def unpacked(row: Tensor) -> VoiPlace:
        values = row.cpu()
        return VoiPlace(int(values[0]), values[1:4], values[4:7], values[7:10])


class StagedWindows(WindowDataset):
    """Windows of a task that joins the softmax branches, with what the other branches learn from the same window.

    A batch holds after the four tensors of `collate`: heat maps [N, G, z, y, x] and which are known [N, G]; with `fine`
    also a volume of interest, wider by `REACH_MM` than its network sees: CT channels [N, C, z, y, x], masks
    [N, K, z, y, x], which are known [N, K], and its `VoiPlace`, packed. Where none lies in the window it has no voxel.
    Half of the windows are drawn about a small organ then.
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
        foreground: float,
        groups: Sequence[str],
        fine: FineVolumes | None = None,
    ) -> None:
        paired = BranchTask("detection", tuple(groups), ("ct",)).paired and (fine is None or fine.task.paired)
        if not paired:
            strength = replace(strength, mirror=0.0)
        super().__init__(folder, task, shape, entries, seed=seed, strength=strength, foreground=foreground)
        self.stackable = fine is None
        self.map_names, self.map_swap = tuple(groups), mirrored_channels(groups)
        drawn = self.index.annotated
        self.maps = {case.data.name: group_centres(case.data, groups, drawn) for case in self.cases}
        self.fine, self.vois = fine, self._load(fine)
        self.fine_swap = mirrored_channels(fine.task.classes if fine else ())

    def draw(self, rng: np.random.Generator) -> Any:
        if self.vois and rng.random() < ABOUT_SMALL:
            patient, group = list(self.vois)[int(rng.integers(len(self.vois)))]
            case = next(c for c in self.cases if c.data.name == patient)
            centre = self._centre(case, group) + rng.uniform(-0.25, 0.25, 3) * self.shape
        else:
            case, centre = self._case_and_centre(rng)
        window = random_window(rng, self.shape, centre, self.strength, case.data.spacing_mm[::-1])
        centres = self.maps[case.data.name][1]
        maps = heat_maps(centres, window, case.data.spacing_mm)
        known = torch.tensor(self.maps[case.data.name][0])
        if window.mirrored:
            maps, known = maps[self.map_swap], known[self.map_swap]
        first = self.cut(case, window, rng)
        return first, (maps, known, *(self._voi(case, window, rng) if self.fine else ()))

    def collate(self, samples: Sequence[Any]) -> Batch:
        rest = zip(*(more for _, more in samples), strict=True)
        return (*collate([first for first, _ in samples]), *(torch.stack(part) for part in rest))

    def _load(self, fine: FineVolumes | None) -> dict[tuple[str, str], LoadedCase]:
        """The volumes of interest of the cases that take part, by case and group."""
        if fine is None:
            return {}
        there = {
            (case.data.name, group)
            for case in self.cases
            for group, centre in zip(self.map_names, self.maps[case.data.name][1], strict=True)
            if centre is not None
        }
        seen = BranchTask("small_hard", fine.task.classes, ("ct",))
        wanted = [e for e in fine.entries if (e.case, str(e.group)) in there]
        drawn = self.index.annotated
        loaded = {
            (e.case, str(e.group)): load(read_case(fine.folder / e.file), e, seen, self.regions, None, drawn)
            for e in wanted
        }
        return {key: case for key, case in loaded.items() if case.known.any()}

    def _centre(self, case: LoadedCase, group: str) -> np.ndarray:
        centre = self.maps[case.data.name][1][self.map_names.index(group)]
        assert centre is not None
        return centre

    def _voi(self, case: LoadedCase, window: Window, rng: np.random.Generator) -> tuple[Tensor, ...]:
        """The volume of one of the small organs whose centre lies in the window."""
        assert self.fine is not None
        patient, here = case.data.name, []
        for group in (g for p, g in self.vois if p == patient):
            at = window.place(self._centre(case, group))
            if ((at >= 0) & (at <= np.asarray(self.shape) - 1)).all():
                here.append((group, at))
        windows, classes = len(self.fine.task.windows_hu), len(self.fine.task.classes)
        if not here:
            nothing = torch.zeros((windows, 0, 0, 0)), torch.zeros((classes, 0, 0, 0), dtype=torch.bool)
            return *nothing, torch.zeros(classes, dtype=torch.bool), torch.full((10,), -1.0)
        group, at = here[int(rng.integers(len(here)))]
        voi = self.vois[patient, group]
        spacing, fine_mm = np.asarray(case.data.spacing_mm[::-1]), np.asarray(voi.data.spacing_mm[::-1])
        turn = window.matrix * spacing[:, None] / spacing[None, :]
        reach = np.ceil(REACH_MM / fine_mm).astype(int)
        z, y, x = (int(n + 2 * r) for n, r in zip(self.fine.shapes[group], reach, strict=True))
        middle = (np.asarray(voi.data.ct_hu.shape) - 1) / 2
        wide = Window((z, y, x), middle, turn * fine_mm[None, :] / fine_mm[:, None], window.mirrored)
        hu = augment_hu(rng, sample(voi.data.ct_hu[None], wide, outside=AIR_HU, nearest=False), self.strength)
        masks = torch.zeros((classes, *wide.shape), dtype=torch.bool)
        known = torch.tensor(voi.known)
        masks[known] = sample(voi.target, wide, outside=0.0, nearest=False) > 0.5
        channel = self.map_names.index(group)
        if window.mirrored:
            masks, known, channel = masks[self.fine_swap], known[self.fine_swap], self.map_swap[channel]
        numbers = (torch.as_tensor(v, dtype=torch.float32) for v in (at, fine_mm / spacing, reach))
        return ct_channels(hu, self.fine.task.windows_hu), masks, known, VoiPlace(channel, *numbers).packed()
