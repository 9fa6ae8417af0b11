"""DeepMind's augmentation: everything in the plane, and everything in one field."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import scipy
import torch
from torch import Tensor
from torch.nn import functional


@dataclass(frozen=True)
class PlaneAugmentation:
    """Strengths, the paper's by default; all uniform but the normal ones.

    Attributes:
        translation_px: largest shift along each axis. rotation_degrees, scale, shear: largest change.
        mirror: probability of a left-right mirror image, with left and right labels exchanged.
        elastic_mm, control_mm: sd of the vectors on a grid of that spacing, joined by cubic B-splines.
        noise_hu: sd of the noise of each pixel.
    """

    translation_px: float = 32.0
    rotation_degrees: float = 9.0
    scale: float = 0.2
    shear: float = 0.1
    mirror: float = 0.5
    elastic_mm: float = 5.0
    control_mm: float = 100.0
    noise_hu: float = 20.0

    @staticmethod
    def none() -> PlaneAugmentation:
        return PlaneAugmentation(0, 0, 0, 0, 0, 0, 100.0, 0)


@dataclass(frozen=True)
class PlaneWarp:
    """Where a square's pixels come from: row and column in the case, float32 [size, size, 2] (y, x)."""

    source_yx: np.ndarray
    mirrored: bool

    def sample(self, planes: Tensor, *, outside: float, nearest: bool) -> Tensor:
        """Slices [n, y, x] in the square, float32 [n, size, size]: bilinear or nearest, `outside` beyond them."""
        extent = np.asarray(planes.shape[1:], np.float32)
        normal = (self.source_yx + 0.5) / extent * 2 - 1
        grid = torch.from_numpy(np.ascontiguousarray(normal[..., ::-1], dtype=np.float32))[None]
        mode = "nearest" if nearest else "bilinear"
        shifted = planes.float()[None] - outside
        found = functional.grid_sample(shifted, grid, mode=mode, padding_mode="zeros", align_corners=False)
        return found[0] + outside


def random_warp(
    rng: np.random.Generator,
    size: int,
    centre_yx: tuple[float, float],
    spacing_yx: tuple[float, float],
    strength: PlaneAugmentation,
) -> PlaneWarp:
    """A square of `size` pixels about a point, moved, turned, scaled, sheared, mirrored and bent."""
    shift = rng.uniform(-1, 1, 2) * strength.translation_px
    angle = np.deg2rad(rng.uniform(-1, 1) * strength.rotation_degrees)
    scale = 1 + rng.uniform(-1, 1) * strength.scale
    shear = rng.uniform(-1, 1) * strength.shear
    mirrored = bool(rng.random() < strength.mirror)
    turn = np.array([[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]])
    matrix = turn @ np.array([[1.0, 0.0], [shear, 1.0]]) / scale
    if mirrored:
        matrix = matrix @ np.diag([1.0, -1.0])
    mm = np.asarray(spacing_yx)
    offsets = np.moveaxis(np.indices((size, size)), 0, -1) - (size - 1) / 2  # pixels (y, x)
    field = (offsets * mm) @ matrix.T / mm + np.asarray(centre_yx) + shift
    if strength.elastic_mm:
        field = field + _bending(rng, size, mm, strength) / mm
    return PlaneWarp(field.astype(np.float32), mirrored)


def _bending(
    rng: np.random.Generator, size: int, spacing_yx: np.ndarray, strength: PlaneAugmentation
) -> np.ndarray:
    """A smooth random field in mm, [size, size, 2]: normal B-spline coefficients on the control grid."""
    at = [np.arange(size) * s / strength.control_mm for s in spacing_yx]
    count = [int(np.ceil(a[-1])) + 4 for a in at]
    points = np.stack(np.meshgrid(at[0] + 1, at[1] + 1, indexing="ij"))
    return np.stack(
        [
            scipy.ndimage.map_coordinates(
                rng.normal(0, strength.elastic_mm, count), points, order=3, prefilter=False
            )
            for _ in range(2)
        ],
        axis=-1,
    )
