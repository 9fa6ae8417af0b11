"""Random windows from a cached case: geometry in one resampling step, then the changes that another scanner would
make."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, fields, replace

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional

AIR_HU = -1000.0


@dataclass(frozen=True)
class Augmentation:
    """Strengths; all zero gives the plain window.

    Attributes:
        rotation_degrees: largest angle about each axis.
        scale: largest relative change of size; stretch: the same for each axis on its own, besides.
        mirror, couch, cut: probabilities of a left-right mirror image, of a couch top behind the patient, and of a
            scan that ends within the window.
        brightness_hu, noise_hu: standard deviation of the shift; largest standard deviation of the noise.
        contrast: largest relative change about 0 HU.
        sharpness: largest share of the detail below two voxels that is taken away or added.
    """

    rotation_degrees: float = 10.0
    scale: float = 0.12
    stretch: float = 0.04
    mirror: float = 0.5
    brightness_hu: float = 15.0
    contrast: float = 0.08
    noise_hu: float = 20.0
    sharpness: float = 0.6
    couch: float = 0.1
    cut: float = 0.1

    def times(self, share: float) -> Augmentation:
        """Every strength except that of mirroring multiplied by `share`; 0 also switches mirroring off."""
        scaled = {f.name: getattr(self, f.name) * share for f in fields(self)}
        return Augmentation(**(scaled | {"mirror": self.mirror if share else 0.0}))

    @staticmethod
    def scaling(share: float) -> Augmentation:
        """Only changes of size, by up to `share`, alike along all axes (the papers')."""
        return Augmentation(**(vars(Augmentation.none()) | {"scale": share}))

    @staticmethod
    def none() -> Augmentation:
        return Augmentation(**{f.name: 0.0 for f in fields(Augmentation)})


@dataclass(frozen=True)
class Window:
    """Where a window's voxels lie in a case: `matrix` maps window offsets (z, y, x) to voxels, about `centre_zyx`."""

    shape: tuple[int, int, int]
    centre_zyx: np.ndarray
    matrix: np.ndarray
    mirrored: bool

    def place(self, point_zyx: np.ndarray) -> np.ndarray:
        """Where in the window a point of the case lies, both in voxels (z, y, x)."""
        offset = np.linalg.solve(self.matrix, np.asarray(point_zyx, float) - self.centre_zyx)
        return offset + (np.asarray(self.shape) - 1) / 2

    def voxels(self) -> list[Tensor]:
        """The case's continuous index along z, y and x at each voxel of the window, three of [z, y, x]."""
        z, y, x = (torch.arange(n, dtype=torch.float32) - (n - 1) / 2 for n in self.shape)
        m, c = self.matrix.tolist(), self.centre_zyx.tolist()
        return [
            c[i] + m[i][0] * z[:, None, None] + m[i][1] * y[None, :, None] + m[i][2] * x[None, None, :]
            for i in range(3)
        ]


def random_window(
    rng: np.random.Generator,
    shape: tuple[int, int, int],
    centre_zyx: np.ndarray,
    strength: Augmentation,
    spacing_zyx: Sequence[float] = (1.0, 1.0, 1.0),
) -> Window:
    """A window about the centre, rotated about all axes, scaled per axis and perhaps mirrored left to right.

    The turn is rigid in millimetres, whatever the voxels' `spacing_zyx`.
    """
    turn = np.eye(3)
    for axis, angle in enumerate(np.deg2rad(rng.uniform(-1, 1, 3) * strength.rotation_degrees)):
        a, b = [i for i in range(3) if i != axis]
        rotation = np.eye(3)
        rotation[a, a] = rotation[b, b] = np.cos(angle)
        rotation[a, b], rotation[b, a] = -np.sin(angle), np.sin(angle)
        turn = rotation @ turn
    common = rng.uniform(-1, 1) * strength.scale
    turn = turn @ np.diag(np.exp(common + rng.uniform(-1, 1, 3) * strength.stretch))
    mirrored = bool(rng.random() < strength.mirror)
    if mirrored:
        turn = turn @ np.diag([1.0, 1.0, -1.0])
    spacing = np.asarray(spacing_zyx, float)
    matrix = turn * spacing[None, :] / spacing[:, None]
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
    # Index in the case -> in the box -> coordinate in [-1, 1], x first (align_corners=False).
    scale = 2 / (hi - lo)
    in_box = replace(
        window, centre_zyx=(window.centre_zyx - lo + 0.5) * scale - 1, matrix=scale[:, None] * window.matrix
    )
    grid = torch.stack(in_box.voxels()[::-1], dim=-1)[None]
    mode = "nearest" if nearest else "bilinear"
    return (
        functional.grid_sample(source, grid, mode=mode, padding_mode="zeros", align_corners=False)[0]
        + outside
    )


def augment_hu(rng: np.random.Generator, hu: Tensor, strength: Augmentation) -> Tensor:
    """Change sharpness, contrast, brightness and noise of a CT window [1, z, y, x] in HU; air outside stays air."""
    changed = hu
    if strength.sharpness:
        detail = float(rng.uniform(-1, 1)) * strength.sharpness
        changed = changed + detail * (changed - _smoothed(changed))
    gain = 1 + float(rng.uniform(-1, 1)) * strength.contrast
    changed = changed * gain + float(rng.normal()) * strength.brightness_hu
    if strength.noise_hu:
        generator = torch.Generator().manual_seed(int(rng.integers(2**31)))
        level = float(rng.uniform(0, strength.noise_hu))
        changed = changed + level * torch.randn(changed.shape, generator=generator)
    return torch.where(hu <= AIR_HU + 5, hu, changed)


def add_couch(
    rng: np.random.Generator, hu: Tensor, window: Window, back: float, strength: Augmentation
) -> Tensor:
    """With probability `couch` a flat slab in the air at the patient's `back` (the case's index along y)."""
    if rng.random() >= strength.couch:
        return hu
    gap, thickness, level = rng.uniform(0, 2), rng.uniform(1, 5), float(rng.uniform(-700, 150))
    behind = window.voxels()[1] - back - gap
    slab = (behind > 0) & (behind < thickness) & (hu < -900)
    return torch.where(slab, torch.full_like(hu, level), hu)


def cut_scan(rng: np.random.Generator, window: Window, strength: Augmentation) -> Tensor | None:
    """With probability `cut` bool [z, y, x]: what lies beyond the end of a shorter scan; None for the whole window."""
    if rng.random() >= strength.cut:
        return None
    half = window.shape[0] / 2
    end = window.centre_zyx[0] + rng.choice((-1, 1)) * rng.uniform(0.1, 0.8) * half
    z = window.voxels()[0]
    return z > end if end > window.centre_zyx[0] else z < end


def _smoothed(hu: Tensor) -> Tensor:
    """The volume filtered with (1, 2, 1) / 4 along each axis (standard deviation 0.7 voxels), edges repeated."""
    out = functional.pad(hu[None], (1,) * 6, mode="replicate")
    for axis in (2, 3, 4):
        n = out.shape[axis]
        out = (out.narrow(axis, 0, n - 2) + 2 * out.narrow(axis, 1, n - 2) + out.narrow(axis, 2, n - 2)) / 4
    return out[0]
