"""A network over a whole grid: overlapping windows whose probabilities are averaged by smooth weights.

A network knows least at a window's rim, so a window's weight falls from its middle to its rim as a Gaussian, and the
weights of all windows that see a voxel add up to 1: no window's border is visible in an organ. The windows are laid
out about the patient (`soars.cascade.layout`).

Probabilities are added up in 16-bit fixed point on the branch's working grid, so that 43 classes on a 1.5 mm
head-and-neck grid take half a gigabyte instead of the nine that 43 float32 channels on the CT's own grid would.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np
import scipy
import SimpleITK as sitk

from soars.bundle.manifest import BranchSpec
from soars.cascade.engine import Engine
from soars.cascade.layout import (
    Corner,
    centred,
    middle_of,
    stride_for,
    window_corners,
    window_shape,
    window_weights,
)
from soars.cascade.preprocess import Grid

UNIT = 65000
"""What a probability of 1 adds up to; the rest of the 16 bits absorbs the rounding of each window's part."""
AIR = -1.0
"""The CT channel's value for air, and for everything outside the body."""

REACH_MM = 160.0
"""No organ lies farther from the patient's middle to the left or right: arms and shoulders need no window."""
HEAD_DEPTH_MM, HEAD_WIDTH_MM = 230.0, 190.0
"""What the windows at a head have to cover, the couch's and the middle's play included."""
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


@dataclass(frozen=True)
class Exchange:
    """How a branch's channels change places in a mirror image: for each input and output channel, which one it becomes.

    With it, windows on the patient's right are shown to the network as their mirror image, so that it sees every window
    with the patient's middle on the same side: a mirrored patient gets exactly the mirrored organs.
    """

    inputs: tuple[int, ...]
    outputs: tuple[int, ...]

    def run(self, engine: Engine, window: np.ndarray, units: np.ndarray) -> np.ndarray:
        """`Engine.run_fixed` on the mirror image, brought back."""
        turned = np.ascontiguousarray(window[:, self.inputs, :, :, ::-1])
        found = engine.run_fixed(turned, np.ascontiguousarray(units[:, :, ::-1]))
        return found[list(self.outputs), :, :, ::-1]


def slide(
    engine: Engine,
    spec: BranchSpec,
    grid: Grid,
    sources: Sequence[Source],
    step: Step,
    middle: Corner | None = None,
    exchange: Exchange | None = None,
) -> ProbabilityMap:
    """Run the network over the grid; `sources` give its input channels in order, the CT first.

    Voxels that no window covers are background (heat map zero). So is, for a softmax branch, air far from the body: in
    a window of hardly anything but air the networks' instance norm amplifies what little there is.

    Args:
        middle: from where the windows are laid out, see `soars.cascade.layout.window_corners`.
        exchange: show windows on the patient's right mirrored.
    """
    shape = grid.shape
    window = window_shape(shape, spec)
    ct = sources[0].window((slice(None),) * 3)[0]
    body = ct > AIR
    middle = middle_of(body) if middle is None else middle
    reach = math.ceil(REACH_MM / grid.spacing_mm[0])
    body[:, :, : max(middle[2] - reach, 0)] = body[:, :, middle[2] + reach :] = False
    stride = stride_for(spec)
    depth, width = (
        centred(window[axis], stride, half_mm, grid.spacing_mm[2 - axis])
        for axis, half_mm in ((1, HEAD_DEPTH_MM / 2), (2, HEAD_WIDTH_MM / 2))
    )
    corners = window_corners(body, window, stride, middle, (depth, width and exchange is None))
    weights = window_weights(window)
    total = np.zeros(shape, np.float32)
    for corner in corners:
        total[_box(corner, window, shape)] += weights[_inside(corner, window, shape)]
    values = np.zeros((spec.architecture.out_channels, *shape), np.uint16)
    for done, corner in enumerate(corners):
        step(done, len(corners))
        box, inside = _box(corner, window, shape), _inside(corner, window, shape)
        share = np.zeros(window, np.float32)
        np.divide(weights[inside] * np.float32(UNIT), total[box], out=share[inside])
        seen = _input(sources, box, inside, window)
        mirrored = exchange is not None and corner[2] + window[2] // 2 < middle[2]
        found = exchange.run(engine, seen, share) if exchange and mirrored else engine.run_fixed(seen, share)
        values[(slice(None), *box)] += found[(slice(None), *inside)]
    step(len(corners), len(corners))
    result = ProbabilityMap(grid, values, UNIT, spec.activation == "softmax")
    if result.background:
        far = (total == 0) | ~_near_body(ct, grid)
        values[1:, far] = 0
        values[0][far] = UNIT
    return result


def _box(corner: Corner, window: tuple[int, int, int], shape: tuple[int, int, int]) -> Slices:
    """The part of the grid that lies in a window."""
    z, y, x = (slice(max(a, 0), min(a + w, n)) for a, w, n in zip(corner, window, shape, strict=True))
    return z, y, x


def _inside(corner: Corner, window: tuple[int, int, int], shape: tuple[int, int, int]) -> Slices:
    """The part of a window that lies on the grid."""
    z, y, x = (slice(max(-a, 0), min(w, n - a)) for a, w, n in zip(corner, window, shape, strict=True))
    return z, y, x


def _near_body(ct: np.ndarray, grid: Grid) -> np.ndarray:
    """Bool [z, y, x]: within a box of `NEAR_BODY_MM` about tissue."""
    near = ct > AIR
    for axis, spacing in enumerate(grid.spacing_mm[::-1]):
        near = scipy.ndimage.maximum_filter1d(
            near, 2 * round(NEAR_BODY_MM / spacing) + 1, axis, mode="constant"
        )
    return near


def _input(
    sources: Sequence[Source], box: Slices, inside: Slices, window: tuple[int, int, int]
) -> np.ndarray:
    """The channels in a window.

    Beside the patient there is air. Beyond the ends of the scan the patient goes on as in a mirror, so that a scan that
    ends within a window hardly changes the network's norms, and with them what it finds.
    """
    parts = []
    for source in sources:
        part = source.window(box)
        if part.shape[1:] != window:
            ends, *beside = [(s.start, w - s.stop) for s, w in zip(inside, window, strict=True)]
            part = np.pad(part, [(0, 0), (0, 0), *beside], constant_values=source.outside)
            part = np.pad(part, [(0, 0), ends, (0, 0), (0, 0)], mode="reflect")
        parts.append(part)
    return np.concatenate(parts)[None]
