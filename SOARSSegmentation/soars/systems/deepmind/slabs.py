"""Drawing a whole CT with a network that sees 21 slices of a fixed size and draws the central one."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from soars.networks.slices import CONTEXT

AIR = -1.0
"""The network's value for air, and for everything beyond the scan."""
REACH = CONTEXT // 2
RunSlab = Callable[[np.ndarray], np.ndarray]
"""float32 [n + 20, size, size] -> probabilities float32 [classes, n, size, size]."""


def window_yx(shape: tuple[int, ...], size: int) -> tuple[int, int]:
    """First row and column, perhaps negative, of the square of that size about the middle of [z, y, x]."""
    return (shape[1] - size) // 2, (shape[2] - size) // 2


def square(ct: np.ndarray, size: int) -> np.ndarray:
    """The middle of each slice, [z, size, size]; air where the scan does not reach."""
    out = np.full((len(ct), size, size), AIR, np.float32)
    inner, outer = zip(*(_overlap(n, size) for n in ct.shape[1:]), strict=True)
    out[(slice(None), *inner)] = ct[(slice(None), *outer)]
    return out


def probabilities(
    run: RunSlab, ct: np.ndarray, classes: int, size: int, slab: int, step: Callable[[int, int], None]
) -> np.ndarray:
    """float16 [classes, z, size, size] of the middle square of ct [z, y, x], drawn `slab` slices at a time."""
    deep = -(-len(ct) // slab) * slab
    padded = np.full((deep + 2 * REACH, size, size), AIR, np.float32)
    padded[REACH : REACH + len(ct)] = square(ct, size)
    out = np.empty((classes, deep, size, size), np.float16)
    for z in range(0, deep, slab):
        step(z // slab, deep // slab)
        out[:, z : z + slab] = run(padded[z : z + slab + 2 * REACH])
    return out[:, : len(ct)]


def _overlap(length: int, size: int) -> tuple[slice, slice]:
    """Where the middle `size` of a line lies in the result, and in the line."""
    start = (length - size) // 2
    low, high = max(start, 0), min(start + size, length)
    return slice(low - start, high - start), slice(low, high)
