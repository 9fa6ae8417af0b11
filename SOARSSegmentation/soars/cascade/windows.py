"""A network over a whole grid: overlapping windows whose probabilities are averaged.

Probabilities are added up in 16-bit fixed point on the branch's working grid, so that 43 classes on a 1.5 mm
head-and-neck grid take half a gigabyte instead of the nine that 43 float32 channels on the CT's own grid would.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np
import scipy
import SimpleITK as sitk

from soars.bundle.manifest import BranchSpec
from soars.cascade.engine import Engine
from soars.cascade.preprocess import Grid

STRIDE = (0.5, 0.75, 0.75)
"""Step between windows as a share of the window, along (z, y, x): 32 x 96 x 96 for the paper's 64 x 128 x 128."""
AIR = -1.0
"""The CT channel's value of air, and of all that is outside the body."""

NEAR_BODY_MM = 12.0
"""Farther than this from any tissue there is no organ; a wide airway still is within it."""

IDENTITY = (1.0, 0.0, 0.0, 0.0, 1.0, 0.0, 0.0, 0.0, 1.0)

Slices = tuple[slice, slice, slice]
Step = Callable[[int, int], None]
"""Called before each window with (windows done, windows in all); may raise to stop."""


class Source(Protocol):
    """Something that input channels are cut from."""

    @property
    def outside(self) -> float:
        """The channels' value beyond the grid."""

    def window(self, box: Slices) -> np.ndarray:
        """float32 [channel, z, y, x] of a box that lies inside the grid."""


@dataclass(frozen=True)
class CtChannel:
    """The CT as the networks see it, float32 [z, y, x] in [-1, 1]."""

    values: np.ndarray
    outside: float = AIR

    def window(self, box: Slices) -> np.ndarray:
        return self.values[box][None]


@dataclass
class ProbabilityMap:
    """Class probabilities (or heat maps) on a grid, as sums over the windows that saw a voxel.

    Attributes:
        grid: where the voxels lie.
        sums: uint16 [channel, z, y, x]; a channel per class, and the background first for a softmax branch.
        counts: uint8 [z, y, x], how many windows were added; at least 1 everywhere.
        unit: a probability of 1 adds this much.
        background: whether channel 0 is the background.
    """

    grid: Grid
    sums: np.ndarray
    counts: np.ndarray
    unit: int
    background: bool

    def probability(self, channel: int, box: Slices = (slice(None),) * 3) -> np.ndarray:
        """float32 [z, y, x] of one channel in a box."""
        return self.sums[(channel, *box)] / (self.counts[box] * np.float32(self.unit))

    def labels(self) -> np.ndarray:
        """uint8 [z, y, x]: the most probable channel (all windows of a voxel count alike: no division)."""
        best = self.sums[0].copy()
        labels = np.zeros(best.shape, np.uint8)
        for channel in range(1, len(self.sums)):
            larger = self.sums[channel] > best
            if larger.any():
                labels[larger] = channel
                np.copyto(best, self.sums[channel], where=larger)
        return labels

    def resampled(self, grid: Grid) -> ProbabilityMap:
        """The map on another grid (linear; zero outside this one, the background one), or itself on its own."""
        if grid == self.grid:
            return self
        unit = 65535
        sums = np.empty((len(self.sums), *grid.shape), np.uint16)
        for channel in range(len(self.sums)):
            np.multiply(self.interpolated(channel, grid), unit, out=sums[channel], casting="unsafe")
        return ProbabilityMap(grid, sums, np.ones(grid.shape, np.uint8), unit, self.background)

    def interpolated(self, channel: int, grid: Grid) -> np.ndarray:
        """One channel on another grid, float32 [z, y, x]."""
        ends = np.array([grid.origin_mm, grid.index_to_points(np.asarray(grid.shape) - 1)])
        index = self.grid.points_to_index(ends)
        size = np.asarray(self.grid.shape)
        lo = np.clip(np.floor(index[0]).astype(int) - 1, 0, size - 1)
        hi = np.clip(np.ceil(index[1]).astype(int) + 2, lo + 1, size)
        z, y, x = (slice(int(a), int(b)) for a, b in zip(lo, hi, strict=True))
        image = sitk.GetImageFromArray(self.probability(channel, (z, y, x)))
        image.SetOrigin(self.grid.index_to_points(lo).tolist())
        image.SetSpacing(self.grid.spacing_mm)
        outside = 1.0 if self.background and channel == 0 else 0.0
        placed = sitk.Resample(
            image, grid.size, sitk.Transform(), sitk.sitkLinear, grid.origin_mm, grid.spacing_mm, IDENTITY, outside,
            sitk.sitkFloat32,
        )  # fmt: skip
        return sitk.GetArrayFromImage(placed)


@dataclass(frozen=True)
class Foreground:
    """The classes' channels of a map as network input, without the background."""

    map: ProbabilityMap
    outside: float = 0.0

    def window(self, box: Slices) -> np.ndarray:
        first = 1 if self.map.background else 0
        return self.map.sums[(slice(first, None), *box)] / (self.map.counts[box] * np.float32(self.map.unit))


def window_shape(shape: Sequence[int], spec: BranchSpec) -> tuple[int, int, int]:
    """The window for a grid of `shape` (z, y, x): the branch's patch, or less (a multiple of what the network
    divides by) along an axis that is shorter."""
    divisor = spec.architecture.divisor
    z, y, x = (min(p, -(-n // d) * d) for n, p, d in zip(shape, spec.patch, divisor, strict=True))
    return z, y, x


def window_starts(extent: int, window: int, stride: float) -> list[int]:
    """First voxels of windows that cover `extent`, spread evenly, at most `stride` (a share of the window) apart."""
    if extent <= window:
        return [0]
    count = 1 + int(np.ceil((extent - window) / max(1, int(window * stride))))
    return [round(i * (extent - window) / (count - 1)) for i in range(count)]


def slide(
    engine: Engine, spec: BranchSpec, grid: Grid, sources: Sequence[Source], step: Step
) -> ProbabilityMap:
    """Run the network over the grid; `sources` give its input channels in order, the CT first.

    Windows without any body in them are skipped: they are background (heat map zero). So is, for a softmax branch, air
    far from the body: in a window of hardly anything but air the networks' instance norm blows up what little there is.
    """
    shape = grid.shape
    window = window_shape(shape, spec)
    starts = [window_starts(n, w, s) for n, w, s in zip(shape, window, STRIDE, strict=True)]
    most = int(np.prod([_overlap(s, w) for s, w in zip(starts, window, strict=True)]))
    unit = 65535 // most
    result = ProbabilityMap(
        grid,
        sums=np.zeros((spec.architecture.out_channels, *shape), np.uint16),
        counts=np.zeros(shape, np.uint8),
        unit=unit,
        background=spec.activation == "softmax",
    )
    corners = list(itertools.product(*starts))
    for done, corner in enumerate(corners):
        step(done, len(corners))
        z, y, x = (slice(a, min(a + w, n)) for a, w, n in zip(corner, window, shape, strict=True))
        box = (z, y, x)
        if not (sources[0].window(box) > AIR).any():
            continue
        values = engine.run_fixed(_input(sources, box, window), unit)
        inside = tuple(slice(0, s.stop - s.start) for s in box)
        result.sums[(slice(None), *box)] += values[(slice(None), *inside)]
        result.counts[box] += 1
    step(len(corners), len(corners))
    unseen = result.counts == 0
    result.counts[unseen] = 1
    if result.background:
        result.sums[0][unseen] = unit
        far = ~_near_body(sources[0].window((slice(None),) * 3)[0], grid)
        result.sums[1:, far] = 0
        result.sums[0][far] = (result.counts[far] * np.uint32(unit)).astype(np.uint16)
    return result


def _near_body(ct: np.ndarray, grid: Grid) -> np.ndarray:
    """Bool [z, y, x]: within a box of `NEAR_BODY_MM` about tissue."""
    near = ct > AIR
    for axis, spacing in enumerate(grid.spacing_mm[::-1]):
        near = scipy.ndimage.maximum_filter1d(
            near, 2 * round(NEAR_BODY_MM / spacing) + 1, axis, mode="constant"
        )
    return near


def _input(sources: Sequence[Source], box: Slices, window: tuple[int, int, int]) -> np.ndarray:
    parts = []
    for source in sources:
        part = source.window(box)
        missing = [(0, w - n) for w, n in zip(window, part.shape[1:], strict=True)]
        if part.shape[1:] != window:
            part = np.pad(part, [(0, 0), *missing], constant_values=source.outside)
        parts.append(part)
    return np.concatenate(parts)[None]


def _overlap(starts: Sequence[int], window: int) -> int:
    """The largest number of windows that share a voxel along one axis."""
    return max(sum(s <= at < s + window for s in starts) for at in starts)
