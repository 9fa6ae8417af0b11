"""The authors' elastic augmentation: slices of a plane are bent by a smooth random field, alike in all of them."""

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
    """Where each voxel of a plane comes from, in voxels [rows, columns, 2]."""
    at = np.moveaxis(np.indices(tuple(shape)), 0, -1).astype(np.float32)
    for axis in range(2):
        noise = rng.uniform(-1, 1, tuple(shape))
        at[..., axis] += STRENGTH * scipy.ndimage.gaussian_filter(noise, SMOOTHNESS, mode="constant")
    return torch.from_numpy(at)
