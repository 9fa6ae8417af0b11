"""`Mask`: the voxels of one organ, kept in their bounding box."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from soars.structures.box import Box

BoolArray = npt.NDArray[np.bool_]


@dataclass(frozen=True, eq=False)
class Mask:
    """One organ's voxels: ``array`` (bool, [z, y, x], read-only) is the tight bounding box, whose first voxel
    is at ``start`` (z, y, x) of the reference geometry. An empty organ has an array of shape (0, 0, 0)."""

    start: tuple[int, int, int]
    array: BoolArray

    @property
    def shape(self) -> tuple[int, int, int]:
        return self.array.shape

    @property
    def bounds(self) -> Box:
        """The bounding box; empty for an empty organ."""
        return Box.at(self.start, self.shape)

    @property
    def stop(self) -> tuple[int, int, int]:
        """First voxel (z, y, x) beyond the bounding box."""
        return self.bounds.stop

    @property
    def slices(self) -> tuple[slice, slice, slice]:
        """Where the bounding box lies in a full array."""
        return self.bounds.slices

    @property
    def is_empty(self) -> bool:
        return self.array.size == 0

    @property
    def voxels(self) -> int:
        return int(np.count_nonzero(self.array))

    def within(self, box: Box) -> BoolArray:
        """The mask in another box of the same grid, as a new array; False outside the organ's own box."""
        out = np.zeros(box.shape, dtype=bool)
        common = self.bounds & box
        if not common.is_empty:
            out[common.slices_in(box)] = self.array[common.slices_in(self.bounds)]
        return out

    def box(self, start: Sequence[int], shape: Sequence[int]) -> BoolArray:
        """`within` the box of ``shape`` at ``start`` (z, y, x)."""
        return self.within(Box.at(start, shape))

    def equals(self, other: Mask) -> bool:
        """Whether both are the same voxels."""
        if self.is_empty or other.is_empty:
            return self.is_empty and other.is_empty
        return self.start == other.start and np.array_equal(self.array, other.array)

    def common_voxels(self, other: Mask) -> int:
        """How many voxels both have."""
        box = self.bounds & other.bounds
        if box.is_empty:
            return 0
        ours, theirs = self.array[box.slices_in(self.bounds)], other.array[box.slices_in(other.bounds)]
        return int(np.count_nonzero(ours & theirs))


def tight_mask(array: npt.ArrayLike, start: Sequence[int] = (0, 0, 0)) -> Mask:
    """The `Mask` of a boolean (or 0/1) array whose first voxel is at ``start`` (z, y, x); copies the bounding
    box."""
    full = np.asarray(array)
    if full.dtype != bool:
        full = full != 0
    if full.ndim != 3:
        raise ValueError(f"a mask has 3 dimensions [z, y, x], not {full.ndim}")
    slices = np.flatnonzero(full.any(axis=(1, 2)))
    if slices.size == 0:
        return EMPTY_MASK
    low, high = [int(slices[0])], [int(slices[-1]) + 1]
    shadow: BoolArray = np.asarray(full[low[0] : high[0]].any(axis=0))
    for lines in (shadow.any(axis=1), shadow.any(axis=0)):
        hit = np.flatnonzero(lines)
        low.append(int(hit[0]))
        high.append(int(hit[-1]) + 1)
    view = full[low[0] : high[0], low[1] : high[1], low[2] : high[2]]
    crop = np.array(view, dtype=bool, order="C", copy=True)
    crop.flags.writeable = False
    return Mask((low[0] + int(start[0]), low[1] + int(start[1]), low[2] + int(start[2])), crop)


def dice(first: Mask, second: Mask) -> float:
    """Dice similarity coefficient of two masks on one grid, 2 |A and B| / (|A| + |B|); 0 when one is empty, nan when
    both are, since there is nothing to compare."""
    total = first.voxels + second.voxels
    return 2 * first.common_voxels(second) / total if total else float("nan")


def union(masks: Iterable[Mask]) -> Mask:
    """The voxels of any of the masks."""
    parts = [mask for mask in masks if not mask.is_empty]
    if len(parts) < 2:
        return parts[0] if parts else EMPTY_MASK
    box = Box.around(mask.bounds for mask in parts)
    out = np.zeros(box.shape, dtype=bool)
    for mask in parts:
        out[mask.bounds.slices_in(box)] |= mask.array
    out.flags.writeable = False
    return Mask(box.start, out)  # tight, because its parts are


def _empty() -> Mask:
    array = np.zeros((0, 0, 0), dtype=bool)
    array.flags.writeable = False
    return Mask((0, 0, 0), array)


EMPTY_MASK = _empty()
"""The mask of an organ without voxels."""
