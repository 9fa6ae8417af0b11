"""Image axes that are not quite perpendicular: the nearest perpendicular ones, or the reason for refusing them.

Rounded matrices and tilted gantries leave axes slightly off a right angle (in more than a hundred cases of one public
data set); ITK refuses such images, other programs read them. Everything here is LPS mm.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import numpy.typing as npt
import SimpleITK as sitk

from soars.errors import InputError

FloatArray = npt.NDArray[np.float64]
#: Cosines between axes up to this are repaired; 0.01 is 0.6 degrees, 2 mm at the edge of a large volume.
MOST_SKEW = 0.01
#: Two places that differ by less than this part of a voxel are equal up to rounding, and no warning is given.
TOLERANCE_VOXELS = 0.01


def squared(
    direction: FloatArray,
    spacing: FloatArray,
    origin: FloatArray,
    size: Sequence[int],
    path: Path,
    warnings: list[str],
) -> tuple[FloatArray, FloatArray]:
    """Direction (unit columns) and origin with the nearest perpendicular axes, the volume's centre in its place.

    The nearest in the least squares sense: the orthogonal factor of the polar decomposition. What moves by more than
    rounding becomes a warning; raises `InputError` above `MOST_SKEW`.
    """
    cosines = check_skew(direction, path)
    left, _, right = np.linalg.svd(direction)
    nearest = left @ right
    half = spacing * (np.asarray(size, float) - 1) / 2
    moved = origin + (direction - nearest) @ half
    corners = np.array([half * (2 * np.array(corner) - 1) for corner in np.ndindex(2, 2, 2)])
    worst = float(np.linalg.norm(corners @ (direction - nearest).T, axis=1).max())
    shear_mm = float(cosines.max()) * 2 * float(half.max())  # from one end of the volume to the other
    if shear_mm > TOLERANCE_VOXELS * float(spacing.min()):
        warnings.append(
            f"its axes are not quite perpendicular (off by {_degrees(cosines)}): the nearest "
            f"perpendicular ones were taken, which moves its corners by up to {worst:.2g} mm"
        )
    return nearest, moved


def check_skew(direction: FloatArray, path: Path) -> FloatArray:
    """How far the axes (unit columns) are from a right angle, as cosines (3, 3); `InputError` above `MOST_SKEW`."""
    cosines: FloatArray = np.abs(direction.T @ direction - np.eye(3))
    if not np.isfinite(cosines).all() or cosines.max() > MOST_SKEW:
        raise InputError(
            f"{path}: its axes are not perpendicular (off by {_degrees(cosines)}); resample it to a regular grid first"
        )
    return cosines


def square_image(image: sitk.Image, path: Path) -> list[str]:
    """`squared` of an image, in place; returns the warnings."""
    warnings: list[str] = []
    direction = np.array(image.GetDirection()).reshape(3, 3)
    parts = np.array(image.GetSpacing()), np.array(image.GetOrigin())
    nearest, origin = squared(direction, *parts, image.GetSize(), path, warnings)
    if not np.array_equal(nearest, direction) and np.abs(nearest - direction).max() > 1e-12:
        image.SetDirection(nearest.ravel().tolist())
        image.SetOrigin(origin.tolist())
    return warnings


def _degrees(cosines: FloatArray) -> str:
    worst = float(np.nanmax(cosines)) if np.isfinite(cosines).any() else float("nan")
    return f"{np.degrees(np.arcsin(min(worst, 1.0))):.2g} degrees"
