"""From probabilities on a working grid to masks on the CT's own grid.

Probabilities, not labels, are interpolated (trilinear, voxel centre to voxel centre in physical space), and the
classes compete again at each CT voxel: contours come out smooth at the CT's resolution. Only the boxes in which an
organ is most probable are visited, slab by slab, so memory does not grow with the number of classes.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Sequence

import numpy as np
import scipy
import SimpleITK as sitk

from soars.cascade.preprocess import Grid
from soars.cascade.windows import ProbabilityMap, Slices, Step
from soars.structures import Geometry
from soars.structures.box import Box

SLAB_VOXELS = 1 << 22
"""Voxels of the CT that are looked at together."""


def _no_step(done: int, of: int) -> None:
    pass


Placed = dict[str, tuple[tuple[int, int, int], np.ndarray]]
"""Organ -> (start (z, y, x) on the CT, bool crop [z, y, x])."""


def place_softmax(
    map: ProbabilityMap,
    classes: Sequence[str],
    geometry: Geometry,
    wanted: Collection[str],
    step: Step = _no_step,
) -> Placed:
    """Masks of the wanted classes, each voxel of the CT going to the class (or background) that is most probable there.

    Channel 0 of the map is background, channel k is ``classes[k - 1]``. A class without a voxel is left out.
    """
    found = scipy.ndimage.find_objects(map.labels(), max_label=len(classes))
    boxes = {
        k: box
        for k, slices in enumerate(found, start=1)
        if slices is not None and not (box := _on_ct(map.grid, slices, geometry)).is_empty
    }
    aims = {k: box for k, box in boxes.items() if classes[k - 1] in wanted}
    masks = {k: np.zeros(box.shape, bool) for k, box in aims.items()}
    slabs = list(_slabs(list(aims.values())))
    for done, slab in enumerate(slabs):
        step(done, len(slabs))
        here = {k: part for k, box in boxes.items() if not (part := box & slab).is_empty}
        best = _probability_on(map, 0, geometry, slab, outside=1.0)
        labels = np.zeros(slab.shape, np.uint8)
        for k, part in here.items():
            value = _probability_on(map, k, geometry, part)
            at = part.slices_in(slab)
            larger = value > best[at]
            labels[at][larger] = k
            np.copyto(best[at], value, where=larger)
        for k in masks.keys() & here.keys():
            masks[k][here[k].slices_in(boxes[k])] = labels[here[k].slices_in(slab)] == k
    return {classes[k - 1]: (boxes[k].start, mask) for k, mask in masks.items() if mask.any()}


def place_sigmoid(
    map: ProbabilityMap, channel: int, geometry: Geometry
) -> tuple[tuple[int, int, int], np.ndarray] | None:
    """The mask of one channel where its probability is above one half; None when that is nowhere."""
    inside = map.values[channel] > map.unit // 2
    if not inside.any():
        return None
    slices = scipy.ndimage.find_objects(inside.astype(np.uint8))[0]
    box = _on_ct(map.grid, slices, geometry)
    if box.is_empty:
        return None
    mask = _probability_on(map, channel, geometry, box) > 0.5
    return (box.start, mask) if mask.any() else None


def _on_ct(grid: Grid, slices: Slices, geometry: Geometry) -> Box:
    """The CT's box that voxels of a working grid can reach: one working voxel more on every side."""
    ends = [(s.start - 1, s.stop) for s in slices]
    corners = np.array([[ends[a][c[a]] for a in range(3)] for c in np.ndindex(2, 2, 2)], float)
    index = geometry.to_index(grid.index_to_points(corners))
    lo = np.maximum(np.floor(index.min(axis=0)).astype(int), 0)
    hi = np.minimum(np.ceil(index.max(axis=0)).astype(int) + 1, geometry.shape)
    return Box.between(lo, hi)


def _slabs(boxes: Sequence[Box]) -> Iterator[Box]:
    """The boxes' common box cut along the CT's slices; a slab is trimmed to the boxes that reach into it."""
    whole = Box.around(boxes)
    if whole.is_empty:
        return
    (first, low_y, low_x), (last, high_y, high_x) = whole.start, whole.stop
    depth = max(1, SLAB_VOXELS // ((high_y - low_y) * (high_x - low_x)))
    for z in range(first, last, depth):
        slab = Box((z, low_y, low_x), (z + depth, high_y, high_x))
        trimmed = Box.around(box & slab for box in boxes)
        if not trimmed.is_empty:
            yield trimmed


def _probability_on(
    map: ProbabilityMap, channel: int, geometry: Geometry, box: Box, outside: float = 0.0
) -> np.ndarray:
    """A channel interpolated at the CT's voxels of a box: float32 [z, y, x]; `outside` where the map does not reach."""
    target = geometry.cropped(box.start, box.shape)
    index = map.grid.points_to_index(target.corners())
    size = np.asarray(map.grid.shape)
    lo = np.clip(np.floor(index.min(axis=0)).astype(int) - 2, 0, size - 1)
    hi = np.clip(np.ceil(index.max(axis=0)).astype(int) + 3, lo + 1, size)
    values = map.probability(channel, Box.between(lo, hi).slices)
    image = sitk.GetImageFromArray(_sharpened(values))
    image.SetOrigin(map.grid.index_to_points(lo).tolist())
    image.SetSpacing(map.grid.spacing_mm)
    result = sitk.Resample(
        image, target.size, sitk.Transform(), sitk.sitkLinear, target.origin, target.spacing, target.direction,
        outside, sitk.sitkFloat32,
    )  # fmt: skip
    return sitk.GetArrayFromImage(result)


def _sharpened(values: np.ndarray) -> np.ndarray:
    """Undo, on average over a cell, what linear interpolation takes off a curved surface.

    A value interpolated linearly over a voxel h is off by h^2/12 of the second derivative in the mean, which moves the
    surface of a ball inward by h^2/(6 r): 12 % of the volume of a 6 mm ball on a 3 mm grid. Flat surfaces stay.
    """
    out = values.copy()
    for axis in range(3):
        if values.shape[axis] < 3:
            continue
        after = [slice(None)] * 3
        at, before = after.copy(), after.copy()
        after[axis], at[axis], before[axis] = slice(2, None), slice(1, -1), slice(None, -2)
        second = values[tuple(after)] + values[tuple(before)] - 2 * values[tuple(at)]
        out[tuple(at)] -= second / np.float32(12)
    return out
