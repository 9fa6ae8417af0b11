"""Random windows from a cached case: rotation, scaling, mirroring and intensity changes in one resampling step."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, fields

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional


@dataclass(frozen=True)
class Augmentation:
    """Strengths; all zero gives the plain window. Angles in degrees, scales relative, HU noise on the [-1, 1] scale."""

    rotation_degrees: float = 12.0
    scale: float = 0.18
    mirror: float = 0.5
    brightness: float = 0.03
    contrast: float = 0.12
    noise: float = 0.03
    blur: float = 0.2

    def times(self, share: float) -> Augmentation:
        """Every strength but the mirroring's multiplied by `share`; 0 mirrors nothing either."""
        scaled = {f.name: getattr(self, f.name) * share for f in fields(self)}
        return Augmentation(**(scaled | {"mirror": self.mirror if share else 0.0}))

    @staticmethod
    def none() -> Augmentation:
        return Augmentation(0, 0, 0, 0, 0, 0, 0)


@dataclass(frozen=True)
class Window:
    """Where a window's voxels lie in a case: `matrix` maps window offsets (z, y, x) to voxels, about `centre_zyx`."""

    shape: tuple[int, int, int]
    centre_zyx: np.ndarray
    matrix: np.ndarray
    mirrored: bool


def random_window(
    rng: np.random.Generator, shape: tuple[int, int, int], centre_zyx: np.ndarray, strength: Augmentation
) -> Window:
    """A window about the centre, rotated about all axes, scaled per axis and perhaps mirrored left to right."""
    angles = np.deg2rad(rng.uniform(-1, 1, 3) * strength.rotation_degrees)
    matrix = np.eye(3)
    for axis, angle in enumerate(angles):
        a, b = [i for i in range(3) if i != axis]
        rotation = np.eye(3)
        rotation[a, a] = rotation[b, b] = np.cos(angle)
        rotation[a, b], rotation[b, a] = -np.sin(angle), np.sin(angle)
        matrix = rotation @ matrix
    common = rng.uniform(-1, 1) * strength.scale
    matrix = matrix @ np.diag(np.exp(common + rng.uniform(-1, 1, 3) * strength.scale / 3))
    mirrored = bool(rng.random() < strength.mirror)
    if mirrored:
        matrix = matrix @ np.diag([1.0, 1.0, -1.0])
    return Window(shape, np.asarray(centre_zyx, float), matrix, mirrored)


def sample(volumes: np.ndarray, window: Window, *, outside: float, nearest: bool) -> Tensor:
    """The window of volumes [channel, z, y, x] as float32 [channel, *window.shape].

    Only the box that the window touches is converted to float, so large cases cost no more than small ones.
    """
    half = (np.asarray(window.shape) - 1) / 2
    reach = np.abs(window.matrix) @ half + 2
    size = np.asarray(volumes.shape[1:])
    lo = np.clip(np.floor(window.centre_zyx - reach).astype(int), 0, size - 1)
    hi = np.clip(np.ceil(window.centre_zyx + reach).astype(int) + 1, lo + 1, size)
    box = volumes[:, lo[0] : hi[0], lo[1] : hi[1], lo[2] : hi[2]]
    # grid_sample pads with zero: shift so that zero means "outside".
    source = torch.from_numpy(np.ascontiguousarray(box)).float()[None] - outside
    extent = np.maximum((hi - lo).astype(float), 1)
    scale = 2 / extent
    theta = np.zeros((3, 4))
    # Window coordinate in [-1, 1] (align_corners=False) -> offset in voxels -> case voxel -> box coordinate.
    to_offset = np.diag(np.asarray(window.shape) / 2)
    theta[:, :3] = np.diag(scale) @ window.matrix @ to_offset
    theta[:, 3] = (window.centre_zyx - lo + 0.5) * scale - 1
    xyz = theta[::-1][:, [2, 1, 0, 3]]
    grid = functional.affine_grid(
        torch.from_numpy(np.ascontiguousarray(xyz)).float()[None], [1, 1, *window.shape], align_corners=False
    )
    mode = "nearest" if nearest else "bilinear"
    return (
        functional.grid_sample(source, grid, mode=mode, padding_mode="zeros", align_corners=False)[0]
        + outside
    )


def augment_intensity(rng: np.random.Generator, ct: Tensor, strength: Augmentation) -> Tensor:
    """Change brightness, contrast, noise and sharpness of a CT window scaled to [-1, 1]; air stays air."""
    changed = ct
    if strength.blur and rng.random() < strength.blur:
        changed = functional.avg_pool3d(changed[None], 3, 1, 1, count_include_pad=False)[0]
    gain = 1 + float(rng.uniform(-1, 1)) * strength.contrast
    shift = float(rng.normal()) * strength.brightness
    # Contrast is about soft tissue (0 HU lies at -1/3 of the window).
    changed = (changed + 1 / 3) * gain - 1 / 3 + shift
    if strength.noise:
        generator = torch.Generator().manual_seed(int(rng.integers(2**31)))
        level = float(rng.uniform(0, strength.noise))
        changed = changed + level * torch.randn(changed.shape, generator=generator)
    return torch.where(ct <= -1, ct, changed).clamp(-1, 1)


def mirrored_channels(names: Sequence[str]) -> list[int]:
    """For each name the position of its mirror image (`_L` <-> `_R`), itself when it has none."""
    position = {name: i for i, name in enumerate(names)}

    def partner(name: str) -> str:
        for end, other in (("_L", "_R"), ("_R", "_L")):
            if name.endswith(end):
                return name[: -len(end)] + other
        return name

    return [position.get(partner(name), i) for i, name in enumerate(names)]
