"""Boxes in three dimensions: anchors, codes, overlap, suppression. Numpy only.

A box is (z, y, x, d, h, w) in voxels: its centre, where the centre of voxel 0 is 0, and its sides; the box of voxels
a to b - 1 is centred on (a + b - 1) / 2 and b - a long. Written by hand, since torchvision's boxes are plane, and
MONAI's 3D ones would bring the whole of MONAI to every user for a page of arithmetic.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from soars.networks.regions import STRIDE

Slices = tuple[slice, slice, slice]
CENTRE_SCALE, SIZE_SCALE = 10.0, 5.0
"""Of the codes: 10 times the relative offset, 5 times the logarithm of the relative size."""
_MOST_GROWTH = 4.0
"""Largest logarithm of a decoded size over its anchor's; wild codes of an untrained network stay finite."""


def make_anchors(
    map_shape: Sequence[int], bases: Sequence[float], shapes: Sequence[Sequence[float]]
) -> np.ndarray:
    """[n, 6]: at each voxel of the shared features (z, y, x), in the middle of the voxels that it covers, each base
    times each shape."""
    sizes = np.array([base * np.asarray(shape) for base in bases for shape in shapes])
    centres = np.moveaxis(np.indices(tuple(map_shape)), 0, -1).reshape(-1, 1, 3) * STRIDE + (STRIDE - 1) / 2
    both = np.broadcast_arrays(centres, sizes[None])
    return np.concatenate(both, -1).reshape(-1, 6).astype(np.float32)


def encode(boxes: np.ndarray, anchors: np.ndarray) -> np.ndarray:
    """The codes [n, 6] that lead from anchors [n, 6] to boxes [n, 6]."""
    centre = CENTRE_SCALE * (boxes[:, :3] - anchors[:, :3]) / anchors[:, 3:]
    return np.concatenate((centre, SIZE_SCALE * np.log(boxes[:, 3:] / anchors[:, 3:])), 1)


def decode(codes: np.ndarray, anchors: np.ndarray) -> np.ndarray:
    """The boxes that codes lead to; the inverse of `encode`."""
    centre = codes[:, :3] / CENTRE_SCALE * anchors[:, 3:] + anchors[:, :3]
    size = np.exp(np.clip(codes[:, 3:] / SIZE_SCALE, -_MOST_GROWTH, _MOST_GROWTH)) * anchors[:, 3:]
    return np.concatenate((centre, size), 1)


def ends(boxes: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Lowest and highest corner, each [n, 3]."""
    return boxes[:, :3] - boxes[:, 3:] / 2, boxes[:, :3] + boxes[:, 3:] / 2


def clip(boxes: np.ndarray, shape: Sequence[int]) -> np.ndarray:
    """The parts of boxes inside an image [z, y, x]; what lies outside becomes a voxel at the border."""
    low, high = ends(boxes)
    most = np.asarray(shape) - 0.5
    low, high = np.clip(low, -0.5, most - 1), np.clip(high, 0.5, most)
    high = np.maximum(high, low + 1)
    return np.concatenate(((low + high) / 2, high - low), 1)


def overlap(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """Intersection over union of boxes [n, 6] with boxes [m, 6], [n, m]."""
    (a_low, a_high), (b_low, b_high) = ends(a), ends(b)
    both = np.ones((len(a), len(b)), np.float64)
    for axis in range(3):
        low = np.maximum(a_low[:, None, axis], b_low[None, :, axis])
        both *= np.clip(np.minimum(a_high[:, None, axis], b_high[None, :, axis]) - low, 0, None)
    volume = np.prod(a[:, 3:], 1, dtype=np.float64)[:, None] + np.prod(b[:, 3:], 1, dtype=np.float64)
    return both / (volume - both)


def suppress(boxes: np.ndarray, scores: np.ndarray, most: float) -> np.ndarray:
    """Non-maximum suppression: positions of the boxes that are kept, best first. One is dropped when it overlaps a
    better one that is kept by more than ``most``."""
    kept: list[int] = []
    waiting = np.argsort(-scores, kind="stable")
    low, high = (corner[waiting] for corner in ends(np.asarray(boxes, np.float64)))
    volume = np.prod(high - low, 1)
    while len(waiting):
        kept.append(int(waiting[0]))
        both = np.prod(np.clip(np.minimum(high, high[0]) - np.maximum(low, low[0]), 0, None), 1)
        apart = both <= most * (volume + volume[0] - both)
        apart[0] = False
        waiting, low, high, volume = waiting[apart], low[apart], high[apart], volume[apart]
    return np.array(kept, int)


def box_of_mask(mask: np.ndarray, margin: Sequence[float] = (0, 0, 0)) -> np.ndarray | None:
    """The box [6] of a mask [z, y, x], its sides longer by ``margin``; None for an empty one."""
    where = [np.flatnonzero(mask.any(axis=tuple(a for a in range(3) if a != axis))) for axis in range(3)]
    if not len(where[0]):
        return None
    low, high = np.array([w[0] for w in where]), np.array([w[-1] + 1 for w in where])
    return np.concatenate(((low + high - 1) / 2, high - low + np.asarray(margin, float)))


def on_map(box: np.ndarray, map_shape: Sequence[int]) -> Slices:
    """The voxels of the shared features that a box touches, at least one along each axis."""
    slices = []
    for centre, side, size in zip(box[:3], box[3:], map_shape, strict=True):
        low = int(np.floor((centre - side / 2 + 0.5) / STRIDE))
        high = int(np.ceil((centre + side / 2 + 0.5) / STRIDE))
        low = min(max(low, 0), size - 1)
        slices.append(slice(low, max(min(high, size), low + 1)))
    return slices[0], slices[1], slices[2]
