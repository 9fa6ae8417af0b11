"""Where a network's windows lie: laid out about the patient, so that the same patient gets the same windows.

Windows stand on a lattice about the patient's middle, and on levels counted from the crown down. More or less of the
body below, wider shoulders, a couch or another field of view add or take away windows at the rim, and move none. The
patient's mirror image gets the mirror image of the windows.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence

import numpy as np

from soars.bundle.manifest import BranchSpec
from soars.cascade.engine import LARGE_NETWORK, multiplications

STRIDE = 0.5
"""Largest step between windows as a share of the window, along each axis."""
CLOSE_STRIDE = 0.375
"""The same for a small network: closer windows steady its contours, and cost it seconds."""
WEIGHT_SD = 0.125
"""Standard deviation of a window's weights as a share of the window (nnU-Net's: Isensee et al., 2021)."""

Corner = tuple[int, int, int]
"""Voxels (z, y, x): the first one of a window, which may lie before the grid's first."""


def window_shape(shape: Sequence[int], spec: BranchSpec) -> tuple[int, int, int]:
    """The window for a grid of `shape` (z, y, x): the branch's patch, or less (a multiple of what the network
    divides by) along an axis that is shorter."""
    divisor = spec.architecture.divisor
    z, y, x = (min(p, -(-n // d) * d) for n, p, d in zip(shape, spec.patch, divisor, strict=True))
    return z, y, x


def stride_for(spec: BranchSpec) -> float:
    """The stride that the branch's bundle names, or else one that its network can afford."""
    if spec.stride is not None:
        return spec.stride
    return STRIDE if multiplications(spec.architecture) >= LARGE_NETWORK else CLOSE_STRIDE


def window_weights(window: tuple[int, int, int]) -> np.ndarray:
    """float32 [z, y, x]: a Gaussian about the window's middle, 1 there; nowhere 0."""
    z, y, x = (
        np.exp(-0.5 * ((np.arange(n) - (n - 1) / 2) / (n * WEIGHT_SD)) ** 2).astype(np.float32)
        for n in window
    )
    return z[:, None, None] * y[:, None] * x


def middle_of(body: np.ndarray) -> Corner:
    """Where the windows over a body, bool [z, y, x], are laid out from when nobody knows better: just beyond its last
    slice, and the middle of its box, as the first voxel beyond."""
    top, *middle = (int(n) for n in body.shape)
    seen = np.flatnonzero(body.any(axis=(1, 2)))
    if len(seen):
        top = int(seen[-1]) + 1
    for axis, across in ((1, (0, 2)), (2, (0, 1))):
        along = np.flatnonzero(body.any(axis=across))
        middle[axis - 1] = (int(along[0]) + int(along[-1]) + 2) // 2 if len(along) else middle[axis - 1] // 2
    return top, middle[0], middle[1]


def centred(window: int, stride: float, half_mm: float, spacing_mm: float) -> bool:
    """Whether fewer windows cover `half_mm` to both sides of the middle when one of them stands in the middle."""
    beyond = (half_mm / spacing_mm - window / 2) / _step(window, stride)
    return 2 * max(0, math.ceil(beyond)) + 1 < 2 * max(1, math.ceil(beyond + 0.5))


def window_corners(
    body: np.ndarray,
    window: tuple[int, int, int],
    stride: float,
    middle: Corner | None = None,
    in_the_middle: tuple[bool, bool] = (False, False),
) -> list[Corner]:
    """Where the windows begin that cover the body, bool [z, y, x].

    Args:
        middle: the voxel just beyond the crown, and the first voxels (y, x) beyond the patient's middle;
            `middle_of` the body when left out.
        in_the_middle: along y and x, whether a window stands in the middle, or the first ones half a step beside it.
    """
    top, y0, x0 = middle_of(body) if middle is None else middle
    steps = [_step(w, stride) for w in window]
    corners = []
    for z in _levels(body, top, window[0], steps[0]):
        level = body[max(z, 0) : z + window[0]]
        for y in _about(level, 1, y0, window[1], steps[1], in_the_middle[0]):
            row = level[:, max(y, 0) : y + window[1]]
            for x in _about(row, 2, x0, window[2], steps[2], in_the_middle[1]):
                if row[:, :, max(x, 0) : x + window[2]].any():
                    corners.append((z, y, x))
    return corners


def _levels(body: np.ndarray, top: int, window: int, step: int) -> Iterator[int]:
    """First slices of the levels of windows, from the top (+z is towards the head) down."""
    slices = np.flatnonzero(body.any(axis=(1, 2)))
    if not len(slices):
        return
    lo, hi = int(slices[0]), int(slices[-1]) + 1
    start = top - window + step * max(0, -(-(hi - top) // step))
    while True:
        yield start
        if start <= lo:
            return
        start -= step


def _step(window: int, stride: float) -> int:
    return max(2, int(window * stride) // 2 * 2)


def _about(body: np.ndarray, axis: int, middle: int, window: int, step: int, in_the_middle: bool) -> range:
    """First voxels of windows along an axis that cover a part of the body: the one in the middle, or the two beside it,
    and as many whole steps further as it takes; none where there is no body."""
    seen = np.flatnonzero(body.any(axis=tuple(a for a in range(3) if a != axis)))
    if not len(seen):
        return range(0)
    base = middle - window // 2 + (0 if in_the_middle else step // 2)
    first = min((int(seen[0]) - base) // step, 0 if in_the_middle else -1)
    last = max(-((base + window - int(seen[-1]) - 1) // step), 0)
    return range(base + first * step, base + last * step + 1, step)
