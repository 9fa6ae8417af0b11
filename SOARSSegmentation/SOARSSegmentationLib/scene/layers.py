"""One label map that several organs share, and where it differs from what its organs are known to be."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    import numpy.typing as npt

    from soars.structures import Mask

SLAB_BYTES = 2_000_000
"""Label maps are compared slab by slab, in pieces that fit into the processor's cache."""


@dataclass
class Layer:
    """A label map and the organs in it: ``voxels`` [z, y, x] begins at ``start`` (z, y, x) of the CT's grid."""

    voxels: npt.NDArray[Any]
    start: tuple[int, int, int]
    labels: dict[str, int]

    def reaches(self, mask: Mask) -> bool:
        """Whether all of a mask lies within the label map."""
        low, high = self.box_of(mask)
        return bool(mask.is_empty or ((low >= 0).all() and (high <= self.voxels.shape).all()))

    def box_of(self, mask: Mask) -> tuple[npt.NDArray[np.int_], npt.NDArray[np.int_]]:
        """A mask's first voxel and the first beyond it in the label map's own indices; of none, an empty box."""
        if mask.is_empty:
            return np.array(self.voxels.shape), np.zeros(3, dtype=int)
        return np.subtract(mask.start, self.start), np.subtract(mask.stop, self.start)

    def slabs(self) -> Iterator[tuple[int, npt.NDArray[Any], npt.NDArray[Any]]]:
        """First slice, voxels, and zeros of the same shape, which are used again for the next slab."""
        depth, rows, columns = self.voxels.shape
        step = min(depth, max(1, SLAB_BYTES // max(1, rows * columns * self.voxels.itemsize)))
        buffer = np.empty((step, rows, columns), dtype=self.voxels.dtype)
        for z in range(0, depth, step):
            slab = self.voxels[z : z + step]
            zeros = buffer[: len(slab)]
            zeros[:] = 0
            yield z, slab, zeros


def paste(slab: npt.NDArray[Any], origin: tuple[int, int, int], mask: Mask, label: int) -> bool:
    """Write a label into the voxels of a mask; False when some of them had one already."""
    from soars.structures.box import Box

    if mask.is_empty:
        return True
    whole = Box.at(origin, slab.shape)
    common = mask.bounds & whole
    if common.is_empty:
        return True
    into, voxels = slab[common.slices_in(whole)], mask.array[common.slices_in(mask.bounds)]
    free = not into[voxels].any()
    into[voxels] = label
    return free
