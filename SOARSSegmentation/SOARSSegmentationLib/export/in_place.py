"""Whether a CT in the scene is still where its DICOM files say it is.

A transform that was applied to a volume ("hardened") moves its voxels, but it keeps the names of its DICOM files:
contours drawn on it would lie elsewhere in the patient if they referred to those files.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from soars.errors import InputError
from SOARSSegmentationLib.scene.ct import voxel_values
from SOARSSegmentationLib.scene.grids import GRID_TOLERANCE, grid_of

if TYPE_CHECKING:
    import numpy.typing as npt
    import SimpleITK as sitk

    from soars.structures import Geometry

_POINTS = 200_000
_EQUAL_HU = 1.0
_EQUAL_SHARE = 0.9
"""Of the voxels of a CT that was only stored in another order: some may have been painted over."""
_KNOWN_HU = (-1000.0, 3000.0)
"""Beyond, programs disagree: what lies outside of the field of view is air to one and -2000 or -1024 to another."""
_PARALLEL = 1e-3
_ALIKE = 0.8
"""Correlation of a CT with a coarser or finer copy of it: that of whole CTs at 3 mm is above 0.9."""


def check_in_place(volume_node: Any, image: sitk.Image) -> None:
    """Raise `InputError` when a CT was moved since it was loaded from the DICOM files that ``image`` (HU, LPS) is of.

    On the same voxels, in whatever order, the HU must be the same. A CT with other voxels, as after cropping or
    resampling, must have the same axes, resemble the image, and do so better than when shifted by a voxel of it.
    """
    import SimpleITK as sitk

    from soars.structures import Geometry

    ours, theirs = grid_of(volume_node), Geometry.of(image)
    values = sitk.GetArrayViewFromImage(image)
    if same_lattice(ours, theirs):
        places = _places(theirs, margin=0)
        hu = _sampled(voxel_values(volume_node), ours.to_index(theirs.to_physical(places)))
        same = np.abs(hu - _known(values[tuple(places.T)])) <= _EQUAL_HU
        in_place = bool(same.mean() >= _EQUAL_SHARE)
    else:
        in_place = _parallel(ours, theirs) and _fits_best_here(
            voxel_values(volume_node), ours, values, theirs
        )
    if not in_place:
        raise InputError(
            "the CT in the scene is not where its DICOM files say it is, as after a transform was applied to it, so "
            "the contours would lie elsewhere in the patient: load the CT from DICOM again and contour that, or "
            "export by SlicerRT, which writes a copy of the CT as it is now"
        )


def same_lattice(one: Geometry, other: Geometry) -> bool:
    """Whether two grids have the same voxels, in whatever axis order: then nothing is lost between them."""
    index = other.to_index(one.corners())
    return bool(
        sorted(one.size) == sorted(other.size)
        and np.abs(index - np.round(index)).max() < GRID_TOLERANCE
        and index.min() > -0.5
        and (index.max(axis=0) < np.array(other.shape) - 0.5).all()
    )


def _parallel(one: Geometry, other: Geometry) -> bool:
    """Whether the axes are the same, in whatever order and direction."""
    cosines = np.abs(np.reshape(one.direction, (3, 3)).T @ np.reshape(other.direction, (3, 3)))
    return bool(np.abs(cosines - np.round(cosines)).max() < _PARALLEL)


def _fits_best_here(
    ours: npt.NDArray[Any], grid: Geometry, theirs: npt.NDArray[Any], their_grid: Geometry
) -> bool:
    places = _places(their_grid, margin=1)
    index = grid.to_index(their_grid.to_physical(places))
    inside = ((index >= 0) & (index <= np.array(grid.shape) - 1)).all(axis=1)
    places, index = places[inside], index[inside]
    if len(places) < 2:
        return False
    hu = _sampled(ours, index)
    here = _known(theirs[tuple(places.T)])
    if not np.ptp(hu) or not np.ptp(here) or np.corrcoef(hu, here)[0, 1] < _ALIKE:
        return False
    shifts = [sign * np.eye(3, dtype=int)[axis] for axis in range(3) for sign in (-1, 1)]
    shifted = [_known(theirs[tuple((places + shift).T)]) for shift in shifts]
    difference = np.abs(hu - here).mean()
    return bool(all(np.abs(hu - there).mean() >= difference for there in shifted))


def _places(grid: Geometry, margin: int) -> npt.NDArray[np.int_]:
    """Voxels (z, y, x), shape (n, 3), all over a grid but for a ``margin``: about `_POINTS` of them."""
    step = max(1, round((np.prod(grid.shape, dtype=float) / _POINTS) ** (1 / 3)))
    axes = [np.arange(margin, n - margin, step) for n in grid.shape]
    return np.stack(np.meshgrid(*axes, indexing="ij"), -1).reshape(-1, 3)


def _sampled(voxels: npt.NDArray[Any], index: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
    """HU at fractional voxel indices (z, y, x), shape (n, 3), linearly between voxels."""
    from scipy.ndimage import map_coordinates

    return _known(map_coordinates(voxels, index.T, np.float64, order=1, mode="nearest"))


def _known(hu: npt.NDArray[Any]) -> npt.NDArray[np.float64]:
    return np.clip(hu.astype(np.float64), *_KNOWN_HU)
