"""A reader's desk on Slicer's real MRML core: a CT, a segmentation, and the segment editor's logic as the hand.

What the desktop application's effects do in the end, paint, erase, undo, is done here by the same C++ code.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import slicer
import vtk
from vtk.util import numpy_support

from soars.structures import Geometry, StructureSet

Box = tuple[slice, slice, slice]


class ReadingDesk:
    """A scene with a CT on ``structures``' grid and a segment of each structure, all in shared label maps."""

    def __init__(self, structures: StructureSet) -> None:
        self.scene = slicer.vtkMRMLScene()
        self._application = slicer.vtkSlicerApplicationLogic()
        self._application.SetMRMLScene(self.scene)
        self._segmentations = slicer.vtkSlicerSegmentationsModuleLogic()
        self._segmentations.SetMRMLApplicationLogic(self._application)
        self._segmentations.SetMRMLScene(self.scene)
        self.volume = self.add_volume(structures.geometry)
        self.segmentation = self.add_segmentation(structures)
        self._take_the_brush()

    def _take_the_brush(self) -> None:
        """The segment editor's logic and node, on the segmentation and the CT that are in the scene."""
        self.history = slicer.vtkSegmentationHistory()
        self.history.SetSegmentation(self.segmentation.GetSegmentation())
        self.editor = self.scene.AddNode(_editor_node("SegmentEditor"))
        self.hand = slicer.vtkSlicerSegmentEditorLogic()
        self.hand.SetMRMLScene(self.scene)
        self.hand.SetSegmentEditorNode(self.editor)
        self.hand.SetSegmentationHistory(self.history)
        self.hand.SetSegmentationNode(self.segmentation)
        self.hand.SetSourceVolumeNode(self.volume)

    def _put_the_brush_down(self) -> None:
        """Before the scene goes."""
        self.hand.SetSegmentationNode(None)
        self.hand.SetSourceVolumeNode(None)
        self.hand.SetSegmentationHistory(None)
        self.hand.SetSegmentEditorNode(None)
        self.hand.SetMRMLScene(None)
        self.history.SetSegmentation(None)

    def close(self) -> None:
        """Take the scene down in order; left to Python's garbage collector, VTK objects may go in a wrong one."""
        self._put_the_brush_down()
        self.scene.Clear(True)
        self._segmentations.SetMRMLScene(None)
        self._application.SetMRMLScene(None)

    def add_volume(self, geometry: Geometry) -> Any:
        image = vtk.vtkImageData()
        image.SetDimensions(geometry.size)
        image.AllocateScalars(vtk.VTK_SHORT, 1)
        image.GetPointData().GetScalars().Fill(0)
        node = self.scene.AddNewNodeByClass("vtkMRMLScalarVolumeNode", "CT")
        node.SetAndObserveImageData(image)
        to_ras = np.diag([-1.0, -1.0, 1.0, 1.0]) @ geometry.matrix
        matrix = vtk.vtkMatrix4x4()
        matrix.DeepCopy(to_ras.ravel().tolist())
        node.SetIJKToRASMatrix(matrix)
        return node

    def add_segmentation(self, structures: StructureSet) -> Any:
        """Structures that overlap come into another layer, as from a .seg.nrrd file."""
        node = self.scene.AddNewNodeByClass("vtkMRMLSegmentationNode", "Organs")
        node.CreateDefaultDisplayNodes()
        node.SetReferenceImageGeometryParameterFromVolumeNode(self.volume)
        segmentation = node.GetSegmentation()
        segmentation.SetSourceRepresentationName("Binary labelmap")
        to_world = vtk.vtkMatrix4x4()
        self.volume.GetIJKToRASMatrix(to_world)
        for layer in _layers(structures):
            image = slicer.vtkOrientedImageData()
            image.SetDimensions(structures.geometry.size)
            image.AllocateScalars(vtk.VTK_UNSIGNED_CHAR, 1)
            image.SetImageToWorldMatrix(to_world)
            voxels = numpy_support.vtk_to_numpy(image.GetPointData().GetScalars())
            voxels[:] = 0
            voxels = voxels.reshape(structures.geometry.shape)
            for label, organ in enumerate(layer, start=1):
                mask = structures.crop(organ)
                voxels[mask.slices][mask.array] = label
                segment = slicer.vtkSegment()
                segment.SetName(organ)
                segment.SetTag("SOARS.organ", organ)
                segment.SetLabelValue(label)
                segment.AddRepresentation("Binary labelmap", image)
                segmentation.AddSegment(segment, f"segment of {organ}")
        return node

    def add_editor(self, name: str) -> Any:
        """Another editor node, as a second module would have."""
        return self.scene.AddNode(_editor_node(name))

    def segment_id(self, organ: str) -> str:
        return str(self.segmentation.GetSegmentation().GetSegmentIdBySegmentName(organ))

    def turn_to(self, organ: str | None) -> None:
        """Click an organ in the editor's own table."""
        self.editor.SetSelectedSegmentID(self.segment_id(organ) if organ else "")

    def paint(self, box: Box, *, erase: bool = False) -> None:
        """Paint the selected segment over a box [z, y, x] of the CT, as one stroke that can be undone."""
        self.hand.SaveStateForUndo()
        self.hand.UpdateReferenceGeometryImage()
        self.hand.ResetModifierLabelmapToDefault()
        stroke = self.hand.GetModifierLabelmap()
        x0, x1, y0, y1, z0, z1 = stroke.GetExtent()
        voxels = numpy_support.vtk_to_numpy(stroke.GetPointData().GetScalars())
        voxels.reshape(z1 - z0 + 1, y1 - y0 + 1, x1 - x0 + 1)[box] = 1
        stroke.Modified()
        mode = self.hand.ModificationModeRemove if erase else self.hand.ModificationModeAdd
        self.hand.ModifySegmentByLabelmap(
            self.segmentation, self.editor.GetSelectedSegmentID(), stroke, mode, False, False
        )

    def undo(self) -> None:
        self.hand.Undo()

    def redo(self) -> None:
        self.hand.Redo()

    def voxels(self, organ: str) -> np.ndarray:
        """The organ on the CT's grid [z, y, x], by Slicer's own resampling of what the segment holds."""
        image = slicer.vtkOrientedImageData()
        self.segmentation.GetBinaryLabelmapRepresentation(self.segment_id(organ), image)
        out = np.zeros(self.volume.GetImageData().GetDimensions()[::-1], dtype=bool)
        if image.IsEmpty():
            return out
        x0, x1, y0, y1, z0, z1 = image.GetExtent()
        part = numpy_support.vtk_to_numpy(image.GetPointData().GetScalars())
        part = part.reshape(z1 - z0 + 1, y1 - y0 + 1, x1 - x0 + 1)
        out[z0 : z1 + 1, y0 : y1 + 1, x0 : x1 + 1] = part != 0
        return out


def blocks(boxes: Mapping[str, Box], size: Sequence[int] = (40, 30, 20)) -> StructureSet:
    """Structures that are boxes, on a grid of ``size`` (x, y, z) with unequal spacing."""
    structures = StructureSet(Geometry((size[0], size[1], size[2]), (1.0, 1.5, 2.0), (-10.0, -20.0, 5.0)))
    for organ, box in boxes.items():
        full = np.zeros(structures.geometry.shape, dtype=bool)
        full[box] = True
        structures.add(organ, full)
    return structures


def _editor_node(tag: str) -> Any:
    node = slicer.vtkMRMLSegmentEditorNode()
    node.SetSingletonTag(tag)
    return node


def _layers(structures: StructureSet) -> list[list[str]]:
    layers: list[list[str]] = []
    for organ in structures:
        for layer in layers:
            if all(not structures.crop(organ).common_voxels(structures.crop(other)) for other in layer):
                layer.append(organ)
                break
        else:
            layers.append([organ])
    return layers
