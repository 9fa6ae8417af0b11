"""`Geometry`: the voxel grid that masks lie on, in LPS mm (DICOM, SimpleITK); arrays are [z, y, x]."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import SimpleITK as sitk

from soars.errors import InputError
from soars.structures.box import Box

SAME_GRID_VOXELS = 0.01
"""Two grids are the same when no voxel's place differs by more than this part of a voxel: the one rule everywhere.
Single precision, as NIfTI keeps it, and decimal strings of DICOM stay far below; no contour moves by as much."""


@dataclass(frozen=True)
class Geometry:
    """A voxel grid: ``size`` in voxels and ``spacing`` in mm along (x, y, z), ``origin`` (LPS mm) of the centre of
    voxel (0, 0, 0), ``direction`` the nine direction cosines row by row, as in SimpleITK."""

    size: tuple[int, int, int]
    spacing: tuple[float, float, float]
    origin: tuple[float, float, float]
    direction: tuple[float, ...] = (1.0, 0.0, 0.0, 0.0, 1.0, 0.0, 0.0, 0.0, 1.0)

    @classmethod
    def of(cls, image: sitk.Image) -> Geometry:
        """The grid of a three-dimensional image."""
        if image.GetDimension() != 3:
            raise InputError(f"an image of 3 dimensions is needed, this one has {image.GetDimension()}")
        return cls(image.GetSize(), image.GetSpacing(), image.GetOrigin(), image.GetDirection())

    @property
    def shape(self) -> tuple[int, int, int]:
        """Shape of an array on this grid, (z, y, x)."""
        return (self.size[2], self.size[1], self.size[0])

    @property
    def box(self) -> Box:
        """All voxels of the grid."""
        return Box.of(self.shape)

    @property
    def voxel_cc(self) -> float:
        """Volume of one voxel in cubic centimetres."""
        return float(np.prod(self.spacing)) / 1000.0

    @property
    def matrix(self) -> npt.NDArray[np.float64]:
        """4 x 4 matrix from a voxel index (x, y, z, 1) to LPS mm."""
        matrix = np.eye(4)
        matrix[:3, :3] = np.reshape(self.direction, (3, 3)) * np.asarray(self.spacing)
        matrix[:3, 3] = self.origin
        return matrix

    def to_physical(self, index_zyx: npt.ArrayLike) -> npt.NDArray[np.float64]:
        """LPS mm (x, y, z), shape (..., 3), of voxel indices (z, y, x), which may be fractions."""
        xyz = np.asarray(index_zyx, dtype=np.float64)[..., ::-1]
        matrix = self.matrix
        return xyz @ matrix[:3, :3].T + matrix[:3, 3]

    def to_index(self, point_lps: npt.ArrayLike) -> npt.NDArray[np.float64]:
        """Voxel indices (z, y, x), shape (..., 3) and fractional, of points in LPS mm (x, y, z)."""
        matrix = self.matrix
        xyz = (np.asarray(point_lps, dtype=np.float64) - matrix[:3, 3]) @ np.linalg.inv(matrix[:3, :3]).T
        return xyz[..., ::-1]

    def corners(self) -> npt.NDArray[np.float64]:
        """LPS mm of the eight corner voxels' centres, shape (8, 3)."""
        return self.to_physical(
            np.stack(np.meshgrid(*[(0, n - 1) for n in self.shape], indexing="ij"), -1).reshape(8, 3)
        )

    def same_as(self, other: Geometry, tolerance_voxels: float = SAME_GRID_VOXELS) -> bool:
        """Whether both grids have the same size and no voxel's place differs by more than a part of a voxel."""
        if tuple(self.size) != tuple(other.size):
            return False
        apart = self.to_index(self.corners()) - self.to_index(other.corners())
        return bool(np.abs(apart).max() <= tolerance_voxels)

    def offset_of(self, other: Geometry) -> tuple[int, int, int] | None:
        """The voxel (z, y, x) of this grid, possibly beyond it, at which the other grid's first voxel lies; None when
        the voxels of the two do not coincide."""
        at = self.to_index(other.corners())
        first = np.rint(at[0])
        if np.abs(at - first - other.to_index(other.corners())).max() > SAME_GRID_VOXELS:
            return None
        z, y, x = (int(v) for v in first)
        return (z, y, x)

    def cropped(self, start: Sequence[int], shape: Sequence[int]) -> Geometry:
        """The grid of a box of this one, which may reach beyond it: ``start`` and ``shape`` in voxels (z, y, x)."""
        z, y, x = (int(n) for n in shape)
        ox, oy, oz = self.to_physical(start).tolist()
        return Geometry((x, y, z), self.spacing, (ox, oy, oz), self.direction)

    def covering(self, *others: Geometry) -> Geometry:
        """This grid, continued on every side as far as the others reach: same spacing, axes and voxel centres."""
        box = self.box
        for other in others:
            at = self.to_index(other.corners())
            low = np.floor(at.min(axis=0) + SAME_GRID_VOXELS).astype(int)
            high = np.ceil(at.max(axis=0) - SAME_GRID_VOXELS).astype(int) + 1
            box = box | Box.at(low.tolist(), (high - low).tolist())
        return self if box == self.box else self.cropped(box.start, box.shape)

    def place(self, image: sitk.Image) -> sitk.Image:
        """Give an image of the same size this grid's spacing, origin and direction; returns the image."""
        image.SetSpacing(self.spacing)
        image.SetOrigin(self.origin)
        image.SetDirection(self.direction)
        return image

    def describe(self) -> str:
        """Size and spacing in words, for messages."""
        size = " x ".join(str(n) for n in self.size)
        spacing = " x ".join(f"{s:g}" for s in self.spacing)
        return f"{size} voxels of {spacing} mm from ({', '.join(f'{o:g}' for o in self.origin)})"
