"""Where the slice views look."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import slicer

from SOARSSegmentationLib.scene.grids import grid_of

if TYPE_CHECKING:
    from soars.structures import Mask


def centre_of(mask: Mask, volume_node: Any) -> tuple[float, float, float] | None:
    """The centre of a mask's bounding box in RAS mm; None if it is empty. The mask is on the CT's grid."""
    if mask.is_empty:
        return None
    middle = (np.add(mask.start, mask.stop) - 1) / 2
    x, y, z = (float(v) for v in grid_of(volume_node).to_physical(middle))
    return point_of((x, y, z))


def centre_views(volume_node: Any, ras: tuple[float, float, float]) -> None:
    """Move all slice views to a point (RAS mm) of a CT, wherever a transform puts that, and centre them on it."""
    place = [0.0, 0.0, 0.0]
    volume_node.TransformPointToWorld(ras, place)
    nodes = slicer.mrmlScene.GetNodesByClass("vtkMRMLSliceNode")
    nodes.UnRegister(None)
    for index in range(nodes.GetNumberOfItems()):
        nodes.GetItemAsObject(index).JumpSliceByCentering(*place)


def point_of(lps_mm: tuple[float, float, float]) -> tuple[float, float, float]:
    """A point of the core (LPS mm) in RAS mm."""
    x, y, z = lps_mm
    return (-x, -y, z)
