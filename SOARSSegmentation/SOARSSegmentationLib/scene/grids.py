"""The voxel grids of nodes and images of Slicer, as grids of the core (LPS mm)."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import vtk

if TYPE_CHECKING:
    import numpy.typing as npt

    from soars.structures import Geometry

GRID_TOLERANCE = 0.05
"""A label map whose corners lie within this many voxels of the CT's corners is on the CT's grid."""
LPS_TO_RAS = np.diag([-1.0, -1.0, 1.0, 1.0])


def grid_of(volume_node: Any) -> Geometry:
    """A CT node's grid, in LPS mm."""
    from soars.structures import Geometry

    matrix = vtk.vtkMatrix4x4()
    volume_node.GetIJKToRASMatrix(matrix)
    lps = np.diag([-1.0, -1.0, 1.0]) @ [
        [matrix.GetElement(row, column) for column in range(4)] for row in range(3)
    ]
    spacing = np.linalg.norm(lps[:, :3], axis=0)
    x, y, z = volume_node.GetImageData().GetDimensions()
    direction = tuple((lps[:, :3] / spacing).ravel().tolist())
    return Geometry((x, y, z), tuple(spacing.tolist()), tuple(lps[:, 3].tolist()), direction)


def geometry_of_image(image: Any) -> Geometry:
    """A label map's grid in LPS mm; its voxel (0, 0, 0) is the first of the extent."""
    from soars.structures import Geometry

    to_world = vtk.vtkMatrix4x4()
    image.GetImageToWorldMatrix(to_world)
    matrix = LPS_TO_RAS @ [[to_world.GetElement(row, column) for column in range(4)] for row in range(4)]
    spacing = np.linalg.norm(matrix[:3, :3], axis=0)
    x0, x1, y0, y1, z0, z1 = image.GetExtent()
    origin = matrix[:3] @ (x0, y0, z0, 1.0)
    return Geometry(
        (x1 - x0 + 1, y1 - y0 + 1, z1 - z0 + 1),
        tuple(spacing.tolist()),
        tuple(origin.tolist()),
        tuple((matrix[:3, :3] / spacing).ravel().tolist()),
    )


def vtk_matrix(array: npt.NDArray[np.float64]) -> vtk.vtkMatrix4x4:
    matrix = vtk.vtkMatrix4x4()
    matrix.DeepCopy(array.ravel().tolist())
    return matrix
