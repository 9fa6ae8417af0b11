"""What differs from one phantom to the next: sizes, positions, pose, and a smooth bending of the whole.

The anatomy is described once in canonical coordinates: LPS mm, head straight, origin midway between the ear canals,
z = 0 the Frankfurt plane (lower orbital rim to upper ear canal). A patient is that anatomy seen through a `Warp`.
"""

from __future__ import annotations

import zlib
from dataclasses import dataclass

import numpy as np
import scipy

LATTICE_MM = 10.0
LATTICE_LO = np.array([-300.0, -300.0, -300.0])
LATTICE_SHAPE = (49, 61, 61)  # z, y, x


class Variation:
    """Random draws by name: the same seed and name give the same number whatever else was drawn before."""

    def __init__(self, seed: int) -> None:
        self.seed = int(seed)

    def rng(self, name: str) -> np.random.Generator:
        return np.random.default_rng([abs(self.seed), int(self.seed < 0), zlib.crc32(name.encode())])

    def normal(self, name: str, sd: float, limit: float = 2.0) -> float:
        """A normal deviate of this standard deviation, truncated at `limit` standard deviations."""
        return float(np.clip(self.rng(name).standard_normal(), -limit, limit) * sd)

    def uniform(self, name: str, lo: float, hi: float) -> float:
        return float(self.rng(name).uniform(lo, hi))

    def chance(self, name: str, probability: float) -> bool:
        return bool(self.rng(name).random() < probability)

    def scale(self, name: str, sd: float = 0.05, side_sd: float = 0.02, side: int = 0) -> float:
        """A factor about 1; the two sides of a paired organ share most of it."""
        factor = 1 + self.normal(name, sd)
        return factor + self.normal(f"{name}:{side}", side_sd) if side else factor

    def shift(self, name: str, sd_mm: float = 1.0, side: int = 0) -> np.ndarray:
        """A displacement in mm; paired organs move mirrored, with a little of their own."""
        move = np.clip(self.rng(name).standard_normal(3), -2, 2) * sd_mm
        if side:
            own = np.clip(self.rng(f"{name}:{side}").standard_normal(3), -2, 2) * sd_mm * 0.35
            return move * np.array([side, 1, 1]) + own
        return move * np.array([0.4, 1, 1])  # the midline stays near the middle


@dataclass(frozen=True)
class Warp:
    """Patient coordinates (LPS mm) to canonical ones, on a fixed lattice so that every grid sees the same anatomy.

    `canonical` is float32 [3 (x, y, z), z, y, x] at LATTICE_LO + index * LATTICE_MM.
    """

    canonical: np.ndarray
    table_shift_mm: np.ndarray

    def coordinates(self, z_mm: np.ndarray, y_mm: np.ndarray, x_mm: np.ndarray) -> tuple[np.ndarray, ...]:
        """Canonical x, y, z (float32 [z, y, x]) on the grid spanned by patient coordinates along each axis."""
        field = self.canonical
        parts = []
        for axis, values in ((0, z_mm), (1, y_mm), (2, x_mm)):
            position = (values - LATTICE_LO[2 - axis]) / LATTICE_MM
            position = np.clip(position, 0, LATTICE_SHAPE[axis] - 1.001)
            first = position.astype(int)
            lo, hi = int(first.min()), int(first.max()) + 2
            weights = np.zeros((len(values), hi - lo), np.float32)
            rows = np.arange(len(values))
            weights[rows, first - lo] = 1 - (position - first)
            weights[rows, first - lo + 1] = position - first
            parts.append((weights, slice(lo, hi)))
        (wz, sz), (wy, sy), (wx, sx) = parts
        out = []
        for axis in range(3):
            block = field[axis, sz, sy, sx]
            block = np.tensordot(wz, block, axes=(1, 0))  # z, cy, cx
            block = np.matmul(wy, block)  # z, y, cx
            out.append(np.matmul(block, wx.T))
        return tuple(out)

    def to_canonical(self, points: np.ndarray) -> np.ndarray:
        """Canonical coordinates of patient points [n, 3] (x, y, z)."""
        index = ((np.asarray(points, float) - LATTICE_LO) / LATTICE_MM).T[::-1]
        return np.stack(
            [
                scipy.ndimage.map_coordinates(self.canonical[k], index, order=1, mode="nearest")
                for k in range(3)
            ],
            axis=1,
        )

    def to_patient(self, points: np.ndarray) -> np.ndarray:
        """Patient coordinates of canonical points [n, 3], by fixed-point iteration (good to about 0.1 mm)."""
        target = np.asarray(points, float)
        guess = target.copy()
        for _ in range(12):
            guess += target - self.to_canonical(guess)
        return guess


def make_warp(v: Variation) -> Warp:
    """Size, pose and smooth deformation of the seed's patient."""
    z, y, x = np.meshgrid(
        *(LATTICE_LO[2 - a] + np.arange(n) * LATTICE_MM for a, n in enumerate(LATTICE_SHAPE)), indexing="ij"
    )
    points = np.stack([x, y, z]).astype(np.float64)

    # head turned and tilted about the upper cervical spine; the neck follows gradually, the chest not at all
    pitch = np.deg2rad(2.0 + v.normal("pitch", 4.0))
    yaw, roll = np.deg2rad(v.normal("yaw", 3.0)), np.deg2rad(v.normal("roll", 2.0))
    pivot = np.array([0.0, 5.0, -60.0]).reshape(3, 1, 1, 1)
    level = np.clip((z - 0.35 * y + 135.0) / 75.0, 0, 1)
    weight = level * level * (3 - 2 * level)
    turned = np.tensordot(_rotation(pitch, yaw, roll).T, points - pivot, axes=1) + pivot
    points = points + weight * (turned - points)

    whole = v.normal("size", 0.035)
    factors = 1 / (1 + whole + np.array([v.normal(f"size {a}", 0.02) for a in "xyz"]))
    points *= factors.reshape(3, 1, 1, 1)
    neck = np.clip((-60.0 - points[2]) / 40.0, 0, 1)
    points[2] += neck * np.clip(-60.0 - points[2], 0, 100) * v.normal("neck length", 0.05)

    rng = v.rng("bending")
    smooth = [
        scipy.ndimage.gaussian_filter(rng.standard_normal(LATTICE_SHAPE), sigma)
        for sigma in (3.5,) * 3 + (1.8,) * 3
    ]
    for k, field in enumerate(smooth):
        amplitude = 2.2 if k < 3 else 0.5
        points[k % 3] += np.clip(field / field.std(), -2.5, 2.5) * amplitude
    shift = np.array([v.normal("table x", 6), v.normal("table y", 8), v.uniform("table z", -250, 250)])
    return Warp(points.astype(np.float32), np.round(shift, 1))


def _rotation(pitch: float, yaw: float, roll: float) -> np.ndarray:
    """Rotation matrix: pitch about x (positive lifts the chin), yaw about z, roll about y."""
    cx, sx, cy, sy, cz, sz = (f(a) for a in (pitch, roll, yaw) for f in (np.cos, np.sin))
    about_x = np.array([[1, 0, 0], [0, cx, -sx], [0, sx, cx]]).T
    about_y = np.array([[cy, 0, sy], [0, 1, 0], [-sy, 0, cy]])
    about_z = np.array([[cz, -sz, 0], [sz, cz, 0], [0, 0, 1]])
    return about_z @ about_y @ about_x
