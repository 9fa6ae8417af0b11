"""The authors' augmentation: slices of a plane are moved by an affine map and bent by a smooth field, alike in all."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import scipy
import torch
from torch import Tensor
from torch.nn import functional

SMOOTHNESS, STRENGTH = 30.0, 1000.0
"""A field of uniform numbers in [-1, 1] is smoothed by a Gaussian of so many voxels (standard deviation) and then
multiplied, which makes displacements with a standard deviation of about 5 voxels."""
CONTROL_SHIFT = 0.04
"""Three points, a third of the plane's shorter side from its middle, are moved by up to so many voxels along each axis,
and all others with them: almost nothing, but it is what the authors do."""
PLANES = ((1, 2), (0, 2), (0, 1))
"""Axes (z, y, x) of the planes xy, xz and yz; the first always bends, each of the others half of the time."""


class Bend:
    """Displacements for one or more planes of a volume, drawn once and applied to CT and masks alike."""

    def __init__(self, rng: np.random.Generator, shape: Sequence[int]) -> None:
        planes = [plane for k, plane in enumerate(PLANES) if k == 0 or rng.random() < 0.5]
        self._fields = [(plane, _field(rng, [shape[a] for a in plane])) for plane in planes]

    def apply(self, volumes: Tensor, *, outside: float, nearest: bool) -> Tensor:
        """Volumes [c, z, y, x] bent, float32: bilinear or nearest, `outside` beyond them."""
        for (a, b), field in self._fields:
            (other,) = {0, 1, 2} - {a, b}
            order = (0, 1 + other, 1 + a, 1 + b)
            planes = volumes.permute(order)
            size = torch.tensor(planes.shape[2:], dtype=torch.float32)
            grid = ((field + 0.5) / size * 2 - 1).flip(-1)[None]
            moved = functional.grid_sample(
                planes.flatten(0, 1)[None].float() - outside,
                grid,
                mode="nearest" if nearest else "bilinear",
                padding_mode="zeros",
                align_corners=False,
            )[0]
            back = tuple(int(i) for i in np.argsort(order))
            volumes = (moved + outside).reshape(planes.shape).permute(back)
        return volumes


def _field(rng: np.random.Generator, shape: Sequence[int]) -> Tensor:
    """Where each voxel of a plane comes from, in voxels [rows, columns, 2]: bent, and then moved by the affine map."""
    at = np.moveaxis(np.indices(tuple(shape)), 0, -1).astype(np.float32)
    for axis in range(2):
        noise = rng.uniform(-1, 1, tuple(shape))
        at[..., axis] += STRENGTH * scipy.ndimage.gaussian_filter(noise, SMOOTHNESS, mode="constant")
    points = control_points(shape)
    return torch.from_numpy(
        affine(at, points, points + rng.uniform(-CONTROL_SHIFT, CONTROL_SHIFT, points.shape))
    )


def control_points(shape: Sequence[int]) -> np.ndarray:
    """Three corners [3, 2] of a square about the middle of a plane."""
    side = min(shape) / 3
    return (np.asarray(shape) - 1) / 2 + side * np.array([[1.0, 1.0], [1.0, -1.0], [-1.0, -1.0]])


def affine(at: np.ndarray, points: np.ndarray, moved: np.ndarray) -> np.ndarray:
    """Places [..., 2] under the affine map that takes three points [3, 2] to where they were moved, float32."""
    matrix = np.linalg.solve(np.c_[points, np.ones(3)], moved)  # [3, 2]
    return (at @ matrix[:2] + matrix[2]).astype(np.float32)
