"""The hand on the brush: what Slicer's paint and erase effects do in the end, by the segment editor's own logic."""

from __future__ import annotations

from typing import Any

from vtk.util import numpy_support

Box = tuple[slice, slice, slice]


def paint(logic: Any, editor_node: Any, box: Box, *, erase: bool = False) -> None:
    """Paint the selected segment over a box [z, y, x] of the CT, as one stroke that can be undone.

    ``logic`` is a ``vtkSlicerSegmentEditorLogic`` on ``editor_node``.
    """
    logic.SaveStateForUndo()
    logic.UpdateReferenceGeometryImage()
    logic.ResetModifierLabelmapToDefault()
    stroke = logic.GetModifierLabelmap()
    x0, x1, y0, y1, z0, z1 = stroke.GetExtent()
    voxels = numpy_support.vtk_to_numpy(stroke.GetPointData().GetScalars())
    voxels.reshape(z1 - z0 + 1, y1 - y0 + 1, x1 - x0 + 1)[box] = 1
    stroke.Modified()
    mode = logic.ModificationModeRemove if erase else logic.ModificationModeAdd
    logic.ModifySegmentByLabelmap(
        editor_node.GetSegmentationNode(), editor_node.GetSelectedSegmentID(), stroke, mode, False, False
    )
