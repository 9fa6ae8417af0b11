"""The distance of every element of one surface to the nearest element of another, exactly and fast.

Contours that are worth comparing lie near each other: for most elements the other surface is a few voxels away. So
the places around an element are looked up in the order of their distance until one holds an element; the first is
the nearest. Elements still without a neighbour after about a thousand places, far from the other surface, are
looked up in a k-d tree.
"""

from __future__ import annotations

from functools import lru_cache

import numpy as np
import numpy.typing as npt

Floats = npt.NDArray[np.float64]
Integers = npt.NDArray[np.int64]

_PLACES = 1500
"""How many places around an element are looked up: about what a search in the tree costs."""
_MANY, _LOOK_UPS = 512, 1 << 14
"""For more elements than the first one place is looked up at a time, for fewer as many as make the second in
all."""
_MOST_VOXELS = 1 << 28
"""Largest box, in voxels, in which places are looked up."""


def nearest_distances(points: Integers, others: Integers, spacing_mm: tuple[float, float, float]) -> Floats:
    """Distance in mm from each point to the nearest of the others, shape (n,); infinite when there are no others.

    Both are grid indices (z, y, x), shapes (3, n) and (3, m), of a grid of ``spacing_mm`` (z, y, x). The arithmetic
    is that of scipy's distance transform, so that a distance of just the tolerance is within it in both.
    """
    distances = np.full(points.shape[1], np.inf)
    if not points.shape[1] or not others.shape[1]:
        return distances
    left = _look_around(points, others, spacing_mm, distances)
    if len(left):
        distances[left] = _in_tree(points[:, left], others, spacing_mm)
    return distances


def _look_around(
    points: Integers, others: Integers, spacing: tuple[float, float, float], distances: Floats
) -> Integers:
    """Set the distances of points that have one of the others around them; returns which have not."""
    offsets, away, margin = _places(spacing)
    low = np.minimum(points.min(axis=1), others.min(axis=1)) - margin
    shape = np.maximum(points.max(axis=1), others.max(axis=1)) + margin + 1 - low
    left = np.arange(points.shape[1])
    if shape.prod() > _MOST_VOXELS:
        return left
    steps = np.array([shape[1] * shape[2], shape[2], 1])
    occupied = np.zeros(int(shape.prod()), dtype=bool)
    occupied[_flat(others, low, steps)] = True
    # places are counted from the margin, so that `occupied` from a jump on, at a point, is the place that jump away
    at, jumps = _flat(points, low + margin, steps), _flat(offsets, -margin, steps)
    first = 0
    while len(left) and first < len(jumps):
        if len(left) > _MANY:
            hits = occupied[jumps[first] :].take(at)
            distances[left[hits]] = away[first]
            alone = np.flatnonzero(~hits)
            first += 1
        else:
            last = first + _LOOK_UPS // len(left)
            around = occupied.take(at[:, None] + jumps[first:last])
            which = around.argmax(axis=1)
            found = around[np.arange(len(at)), which]
            distances[left] = np.where(found, away[first + which], np.inf)
            alone = np.flatnonzero(~found)
            first = last
        left, at = left.take(alone), at.take(alone)
    return left


@lru_cache(maxsize=16)
def _places(spacing: tuple[float, float, float]) -> tuple[Integers, Floats, Integers]:
    """Offsets (z, y, x), shape (3, n), in ascending order of length, their lengths in mm, and how far they reach."""
    reach = (_PLACES * np.prod(spacing) * 3 / (4 * np.pi)) ** (1 / 3)
    axes = [np.arange(-int(reach / s), int(reach / s) + 1) for s in spacing]
    offsets = np.stack([axis.ravel() for axis in np.meshgrid(*axes, indexing="ij")])
    squares = _squares(offsets, spacing)
    order = np.argsort(squares, kind="stable")
    order = order[squares[order] <= reach**2]
    return offsets[:, order], np.sqrt(squares[order]), offsets.max(axis=1)


def _in_tree(points: Integers, others: Integers, spacing: tuple[float, float, float]) -> Floats:
    from scipy.spatial import cKDTree

    tree = cKDTree(others.T * spacing, leafsize=12, compact_nodes=False, balanced_tree=False)
    _, which = tree.query(points.T * spacing)
    return np.asarray(np.sqrt(_squares(points - others[:, which], spacing)))


def _squares(offsets: Integers, spacing: tuple[float, float, float]) -> Floats:
    z, y, x = (offset * step for offset, step in zip(offsets, spacing, strict=True))
    return np.asarray(z * z + y * y + x * x)


def _flat(index: Integers, low: Integers, steps: Integers) -> Integers:
    """Positions in a flat box that begins at ``low``."""
    flat = index[0] * steps[0]
    flat += index[1] * steps[1]
    flat += index[2]
    flat -= low @ steps
    return np.asarray(flat)
