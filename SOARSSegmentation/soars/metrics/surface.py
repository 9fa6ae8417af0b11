"""The surface of a mask as a list of elements with a place and a weight, in one of two definitions.

- ``corners``: an element stands at every corner of the voxel grid that has voxels inside and outside around it, and
  weighs as much as the area of the surface between these eight voxels (`soars.metrics.marching`).
- ``voxels``: an element stands at the centre of every voxel inside that has a voxel outside, or the border of the
  array, among its six neighbours, and all weigh alike.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from soars.metrics.marching import element_areas
from soars.structures.model import BoolArray, Mask

Floats = npt.NDArray[np.float64]
Integers = npt.NDArray[np.int64]


@dataclass(frozen=True, eq=False)
class Surface:
    """Elements of one surface: ``index`` (z, y, x), shape (3, n), on the grid of voxels, or of their lower corners;
    ``weight``, shape (n,), in mm^2 or all 1."""

    index: Integers
    weight: Floats

    def __len__(self) -> int:
        return len(self.weight)


def corner_surface(mask: Mask, spacing_mm: tuple[float, float, float]) -> Surface:
    """Surface elements at the corners of voxels, weighted by area; ``spacing_mm`` (z, y, x). Corner (z, y, x) is
    the one between voxel (z - 1, y - 1, x - 1) and voxel (z, y, x)."""
    if mask.is_empty:
        return _none()
    codes = _neighbourhood_codes(mask.array)
    flat = codes.ravel()
    at = np.flatnonzero(flat - np.uint8(1) < 254)  # neither 0, which wraps to 255, nor 255
    index = _unravel(at, codes.shape, mask.start)
    return Surface(index, element_areas(spacing_mm)[flat[at]])


def voxel_surface(mask: Mask) -> Surface:
    """Voxels inside that have one outside, or the border of the array, beside one of their six faces; all weigh 1.

    The mask's array is its tight box: everything beyond it is outside, so the border of the whole array needs no
    special treatment.
    """
    if mask.is_empty:
        return _none()
    full = padded(mask.array)
    core = full[1:-1, 1:-1, 1:-1]
    inner = full[:-2, 1:-1, 1:-1] & full[2:, 1:-1, 1:-1]
    inner &= full[1:-1, :-2, 1:-1]
    inner &= full[1:-1, 2:, 1:-1]
    inner &= full[1:-1, 1:-1, :-2]
    inner &= full[1:-1, 1:-1, 2:]
    at = np.flatnonzero(core > inner)
    return Surface(_unravel(at, mask.shape, mask.start), np.ones(len(at)))


def _none() -> Surface:
    return Surface(np.zeros((3, 0), np.int64), np.zeros(0))


def padded(array: BoolArray) -> BoolArray:
    """With a layer of voxels outside all around."""
    out = np.zeros(tuple(n + 2 for n in array.shape), dtype=bool)
    out[1:-1, 1:-1, 1:-1] = array
    return out


def _neighbourhood_codes(array: BoolArray) -> npt.NDArray[np.uint8]:
    """Code (bits as `marching.CORNERS`) of the eight voxels around each corner, shape one more than the array's."""
    full = padded(array).view(np.uint8)
    along_x = full[:, :, :-1] | np.left_shift(full[:, :, 1:], np.uint8(1))
    along_y = along_x[:, :-1] | np.left_shift(along_x[:, 1:], np.uint8(2))
    codes: npt.NDArray[np.uint8] = along_y[:-1] | np.left_shift(along_y[1:], np.uint8(4))
    return codes


def _unravel(at: Integers, shape: tuple[int, ...], start: tuple[int, int, int]) -> Integers:
    """Index (z, y, x), shape (3, n), of flat positions in a box that begins at ``start``."""
    index = np.empty((3, len(at)), np.int64)
    rows = at // shape[2]
    np.subtract(at, rows * shape[2], out=index[2])
    np.floor_divide(rows, shape[1], out=index[0])
    np.subtract(rows, index[0] * shape[1], out=index[1])
    index += np.array(start, np.int64)[:, None]
    return index
