"""A mask on another grid, and what of it lies outside that grid."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import SimpleITK as sitk

from soars.structures.box import Box
from soars.structures.geometry import Geometry
from soars.structures.mask import EMPTY_MASK, Mask, tight_mask

_TIE = 1e-4
"""Of a voxel: so far the centres of a grid are moved along each of its axes, to decide ties."""
_SIDES = (("right", "left"), ("front", "back"), ("below", "above"))
"""Before and beyond a patient's x, y and z (LPS)."""


@dataclass(frozen=True)
class Outside:
    """Voxels of a mask whose centres lie outside a grid: how many of how many, and on which of the patient's sides."""

    voxels: int
    of: int
    sides: tuple[str, ...]

    def __str__(self) -> str:
        return f"{self.voxels} of {self.of} voxels lie outside it ({', '.join(self.sides)})"


def resample_mask(mask: Mask, source: Geometry, target: Geometry, *, nearest: bool) -> Mask:
    """The mask on the target grid, computed only where the organ's box lies: the same voxels where those of the two
    grids coincide, else interpolated linearly and cut at one half, or sampled at the nearest voxel.

    A centre exactly halfway between a voxel inside and one outside, as on grids that lie half a voxel apart, is inside
    on the organ's right, front and lower side and outside on the others: were it inside on all, organs would grow.
    """
    if mask.is_empty:
        return mask
    offset = target.offset_of(source)
    if offset is not None:
        moved = Mask(Box.at(mask.start, (0, 0, 0)).relative_to([-o for o in offset]).start, mask.array)
        kept = moved.bounds & target.box
        return moved if kept == moved.bounds else tight_mask(moved.within(kept), kept.start)
    grown = mask.bounds.grown(1)
    grid = source.cropped(grown.start, grown.shape)
    at = target.to_index(grid.corners())
    low = np.floor(at.min(axis=0)).astype(int)
    high = np.ceil(at.max(axis=0)).astype(int) + 1
    box = Box.at(low.tolist(), (high - low).tolist()) & target.box
    if box.is_empty:
        return EMPTY_MASK
    padded = np.pad(mask.array, 1).astype(np.uint8 if nearest else np.float32)
    image = grid.place(sitk.GetImageFromArray(padded))
    part = target.cropped(box.start, box.shape)
    aside = np.zeros(3) if nearest else _aside(source)
    result = sitk.Resample(
        image,
        part.size,
        sitk.Transform(),
        sitk.sitkNearestNeighbor if nearest else sitk.sitkLinear,
        tuple(float(value) for value in part.origin + aside),
        part.spacing,
        part.direction,
        0,
        image.GetPixelID(),
    )
    return tight_mask(sitk.GetArrayViewFromImage(result) >= (1 if nearest else 0.5 - _TIE / 2), box.start)


def _aside(source: Geometry) -> np.ndarray:
    """`_TIE` voxels along each of a grid's axes, to the left, back and upwards whichever way these run, in mm (LPS)."""
    steps = source.to_physical(np.eye(3)) - source.to_physical(np.zeros((1, 3)))
    signs = [np.sign(step[np.abs(step).argmax()]) for step in steps]
    return np.asarray(_TIE * (np.array(signs)[:, None] * steps).sum(axis=0))


def outside(mask: Mask, source: Geometry, target: Geometry) -> Outside | None:
    """What of a mask lies more than half a voxel outside the target grid; None when nothing does."""
    if mask.is_empty:
        return None
    corners = target.to_index(source.cropped(mask.start, mask.shape).corners())
    if not _beyond(corners, target).any():
        return None
    points = source.to_physical(np.argwhere(mask.array) + mask.start)
    gone = _beyond(target.to_index(points), target)
    if not gone.any():
        return None
    ends = target.corners()
    low, high = ends.min(axis=0), ends.max(axis=0)
    lost = points[gone]
    sides = [
        side
        for axis, (before, beyond) in enumerate(_SIDES)
        for side, there in ((before, lost[:, axis] < low[axis]), (beyond, lost[:, axis] > high[axis]))
        if there.any()
    ]
    return Outside(int(gone.sum()), mask.voxels, tuple(sides))


def _beyond(index: np.ndarray, target: Geometry) -> np.ndarray:
    """Which of the points (n, 3), voxel indices (z, y, x), are outside the grid's voxels."""
    edge = 0.5 + 1e-6
    last = np.subtract(target.shape, 1)
    return np.asarray(((index < -edge) | (index > last + edge)).any(axis=1))
