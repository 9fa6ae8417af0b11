"""A network over a whole grid: overlapping windows whose probabilities are averaged by smooth weights.

A network knows least at a window's rim, so a window's weight falls from its middle to its rim as a Gaussian, and the
weights of all windows that see a voxel add up to 1: no window's border is visible in an organ. The windows are
placed by the body, level by level, and not by the grid's corner: a wide field of view or a pair of shoulders costs
no window at the head, and moves none.

Probabilities are added up in 16-bit fixed point on the branch's working grid, so that 43 classes on a 1.5 mm
head-and-neck grid take half a gigabyte instead of the nine that 43 float32 channels on the CT's own grid would.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np
import scipy
import SimpleITK as sitk

from soars.bundle.manifest import BranchSpec
from soars.cascade.engine import LARGE_NETWORK, Engine, multiplications
from soars.cascade.preprocess import Grid

STRIDE = 0.5
"""Largest step between windows as a share of the window, along each axis."""
CLOSE_STRIDE = 0.375
"""The same for a small network: closer windows steady its contours, and cost it seconds."""
WEIGHT_SD = 0.125
"""Standard deviation of a window's weights as a share of the window (nnU-Net's: Isensee et al., 2021)."""
UNIT = 65000
"""What a probability of 1 adds up to; the rest of the 16 bits absorbs the rounding of each window's part."""
AIR = -1.0
"""The CT channel's value for air, and for everything outside the body."""

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
    """Class probabilities (or heat maps) on a grid, as whole numbers.

    Attributes:
        grid: where the voxels lie.
        values: uint16 [channel, z, y, x]; a channel per class, and the background first for a softmax branch.
        unit: a probability of 1.
        background: whether channel 0 is the background.
    """

    grid: Grid
    values: np.ndarray
    unit: int
    background: bool

    def probability(self, channel: int, box: Slices = (slice(None),) * 3) -> np.ndarray:
        """float32 [z, y, x] of one channel in a box."""
        return self.values[(channel, *box)] / np.float32(self.unit)

    def labels(self) -> np.ndarray:
        """uint8 [z, y, x]: the most probable channel."""
        best = self.values[0].copy()
        labels = np.zeros(best.shape, np.uint8)
        for channel in range(1, len(self.values)):
            larger = self.values[channel] > best
            if larger.any():
                labels[larger] = channel
                np.copyto(best, self.values[channel], where=larger)
        return labels

    def resampled(self, grid: Grid) -> ProbabilityMap:
        """The map on another grid (linear; zero outside this one, the background one), or itself on its own."""
        if grid == self.grid:
            return self
        values = np.empty((len(self.values), *grid.shape), np.uint16)
        for channel in range(len(values)):
            np.multiply(self.interpolated(channel, grid), self.unit, out=values[channel], casting="unsafe")
        return ProbabilityMap(grid, values, self.unit, self.background)

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
        return self.map.values[(slice(first, None), *box)] / np.float32(self.map.unit)


def window_shape(shape: Sequence[int], spec: BranchSpec) -> tuple[int, int, int]:
    """The window for a grid of `shape` (z, y, x): the branch's patch, or less (a multiple of what the network
    divides by) along an axis that is shorter."""
    divisor = spec.architecture.divisor
    z, y, x = (min(p, -(-n // d) * d) for n, p, d in zip(shape, spec.patch, divisor, strict=True))
    return z, y, x


def window_starts(lo: int, hi: int, extent: int, window: int, stride: float) -> list[int]:
    """First voxels of windows that cover [lo, hi) of an axis of `extent` voxels.

    They are spread evenly, at most `stride` (a share of the window) apart; a single one stands in the middle. They stay
    inside the axis where it is long enough: voxels are better than padding.
    """
    step = max(1, int(window * stride))
    count = 1 + max(0, -(-(hi - lo - window) // step))
    if count == 1:
        return [min(max((lo + hi - window) // 2, 0), max(extent - window, 0))]
    return [lo + round(i * (hi - lo - window) / (count - 1)) for i in range(count)]


def stride_for(spec: BranchSpec) -> float:
    """The stride that the branch's network can afford."""
    return STRIDE if multiplications(spec.architecture) >= LARGE_NETWORK else CLOSE_STRIDE


def window_corners(
    body: np.ndarray, window: tuple[int, int, int], stride: float
) -> list[tuple[int, int, int]]:
    """Where the windows begin that cover the body, bool [z, y, x].

    Along z they are counted from the body's top, so that nothing which is added or cut off below moves those at the
    head. Each level is covered where it holds body: its rows of windows by its own extent along y, each row by what it
    holds along x.
    """
    corners = []
    for z in _levels(body, window[0], stride):
        level = body[z : z + window[0]]
        for y in _starts_over(level, 1, window[1], stride):
            row = level[:, y : y + window[1]]
            for x in _starts_over(row, 2, window[2], stride):
                if row[:, :, x : x + window[2]].any():
                    corners.append((z, y, x))
    return corners


def slide(
    engine: Engine, spec: BranchSpec, grid: Grid, sources: Sequence[Source], step: Step
) -> ProbabilityMap:
    """Run the network over the grid; `sources` give its input channels in order, the CT first.

    Voxels that no window covers are background (heat map zero). So is, for a softmax branch, air far from the body: in
    a window of hardly anything but air the networks' instance norm amplifies what little there is.
    """
    shape = grid.shape
    window = window_shape(shape, spec)
    ct = sources[0].window((slice(None),) * 3)[0]
    boxes = [_box(corner, window, shape) for corner in window_corners(ct > AIR, window, stride_for(spec))]
    weights = window_weights(window)
    total = np.zeros(shape, np.float32)
    for box in boxes:
        total[box] += weights[_inside(box)]
    values = np.zeros((spec.architecture.out_channels, *shape), np.uint16)
    for done, box in enumerate(boxes):
        step(done, len(boxes))
        inside = _inside(box)
        share = np.zeros(window, np.float32)
        np.divide(weights[inside] * np.float32(UNIT), total[box], out=share[inside])
        values[(slice(None), *box)] += engine.run_fixed(_input(sources, box, window), share)[
            (slice(None), *inside)
        ]
    step(len(boxes), len(boxes))
    result = ProbabilityMap(grid, values, UNIT, spec.activation == "softmax")
    if result.background:
        far = (total == 0) | ~_near_body(ct, grid)
        values[1:, far] = 0
        values[0][far] = UNIT
    return result


def window_weights(window: tuple[int, int, int]) -> np.ndarray:
    """float32 [z, y, x]: a Gaussian about the window's middle, 1 there; nowhere 0."""
    z, y, x = (
        np.exp(-0.5 * ((np.arange(n) - (n - 1) / 2) / (n * WEIGHT_SD)) ** 2).astype(np.float32)
        for n in window
    )
    return z[:, None, None] * y[:, None] * x


def _levels(body: np.ndarray, window: int, stride: float) -> list[int]:
    """First slices of the levels of windows, from the top (the last slice: +z is towards the head) down."""
    slices = np.flatnonzero(body.any(axis=(1, 2)))
    if not len(slices):
        return []
    lo, hi = int(slices[0]), int(slices[-1]) + 1
    starts = list(range(hi - window, lo, -max(1, int(window * stride))))
    highest = max(len(body) - window, 0)
    return sorted({min(max(start, 0), highest) for start in (*starts, lo)}, reverse=True)


def _starts_over(body: np.ndarray, axis: int, window: int, stride: float) -> list[int]:
    """`window_starts` along an axis of a part of the body; empty where it holds none."""
    seen = np.flatnonzero(body.any(axis=tuple(a for a in range(3) if a != axis)))
    if not len(seen):
        return []
    return window_starts(int(seen[0]), int(seen[-1]) + 1, body.shape[axis], window, stride)


def _box(corner: tuple[int, int, int], window: tuple[int, int, int], shape: tuple[int, int, int]) -> Slices:
    z, y, x = (slice(a, min(a + w, n)) for a, w, n in zip(corner, window, shape, strict=True))
    return z, y, x


def _inside(box: Slices) -> Slices:
    """The part of a window that lies on the grid."""
    z, y, x = (slice(0, s.stop - s.start) for s in box)
    return z, y, x


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
