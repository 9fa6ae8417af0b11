"""How sure the networks are of an organ's contour: the soft Dice confidence.

For a mask and the probabilities that it was made from, ``2 sum(p in the mask) / (sum(p) + voxels of the mask)`` is the
DSC that the mask would have on average if the probabilities were right (B. Borges et al., Soft Dice Confidence: a
near-optimal confidence estimator for selective prediction in semantic segmentation, 2024, eq. 7). A blurred border, and
probability outside the mask that was not classified as organ or was removed as a piece, lower it. Networks are
overconfident, so the number is meaningful only through a bundle's calibration (`soars.findings.review.Calibration`).
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass

import numpy as np
import scipy

from soars.cascade.preprocess import Grid
from soars.cascade.windows import ProbabilityMap, Slices
from soars.structures import StructureSet

MARGIN_VOXELS = 8
"""An organ's probability is kept this far around the voxels that are most probably the organ."""


@dataclass(frozen=True)
class SoftOrgan:
    """An organ's probability near it: uint16 [z, y, x] multiples of 1 / `unit`, a voxel (0, 0, 0) at `start` of the
    grid (z, y, x)."""

    grid: Grid
    start: tuple[int, int, int]
    values: np.ndarray
    unit: int


def soft_organs(map: ProbabilityMap, classes: Sequence[str], wanted: Collection[str]) -> dict[str, SoftOrgan]:
    """The wanted classes' probabilities near each organ; one that is nowhere the most probable is left out."""
    first = 1 if map.background else 0
    labels = map.labels() if map.background else None
    found = {}
    for number, name in enumerate(classes):
        if name not in wanted:
            continue
        channel = map.values[first + number]
        inside = labels == first + number if labels is not None else channel > map.unit // 2
        boxes = scipy.ndimage.find_objects(inside.astype(np.uint8))
        if not boxes:
            continue
        box = _wider(boxes[0], channel.shape)
        z, y, x = (s.start for s in box)
        found[name] = SoftOrgan(map.grid, (z, y, x), channel[box].copy(), map.unit)
    return found


def soft_dice(structures: StructureSet, name: str, soft: SoftOrgan) -> float:
    """The soft Dice confidence of a mask, 0 to 1, from the probabilities around it."""
    mask, geometry = structures.crop(name), structures.geometry
    index = np.indices(soft.values.shape).reshape(3, -1).T + soft.start
    at = np.rint(geometry.to_index(soft.grid.index_to_points(index))).astype(int) - mask.start
    there = np.all((at >= 0) & (at < mask.shape), axis=1)
    inside = np.zeros(len(at), bool)
    inside[there] = mask.array[tuple(at[there].T)]
    p = soft.values.reshape(-1) / soft.unit
    total = float(p.sum()) + int(inside.sum())
    return 2 * float(p[inside].sum()) / total if total else 0.0


def spill(soft: SoftOrgan) -> float:
    """The share of an organ's probability, 0 to 1, in voxels that are no more likely the organ than not.

    A contour leaves it out. It is large when the networks are torn about a part of the organ.
    """
    total = float(soft.values.sum(dtype=np.int64))
    return float(soft.values[soft.values <= soft.unit // 2].sum(dtype=np.int64)) / total if total else 0.0


def _wider(box: Slices, shape: Sequence[int]) -> Slices:
    z, y, x = (
        slice(max(s.start - MARGIN_VOXELS, 0), min(s.stop + MARGIN_VOXELS, n))
        for s, n in zip(box, shape, strict=True)
    )
    return z, y, x
