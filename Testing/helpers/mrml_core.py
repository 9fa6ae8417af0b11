"""Slicer's real MRML core, booted afresh: a scene with its logics, where the desktop application's would be.

``slicer-core`` has the classes but no application. `boot` makes what ``slicer.mrmlScene`` and
``slicer.modules.<name>.logic()`` are in the application; `Core.close` takes it down in an order that VTK likes.
"""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import slicer
import vtk
from reading_desk import ReadingDesk
from vtk.util import numpy_support

from soars.structures import Geometry

LOGICS = {
    "volumes": "vtkSlicerVolumesLogic",
    "segmentations": "vtkSlicerSegmentationsModuleLogic",
}


class Core:
    """A scene of its own with the logics that Slicer's modules have."""

    def __init__(self) -> None:
        self.scene = slicer.vtkMRMLScene()
        self.application = slicer.vtkSlicerApplicationLogic()
        self.application.SetMRMLScene(self.scene)
        self.colours = slicer.vtkMRMLColorLogic()
        self.colours.SetMRMLScene(self.scene)
        self.colours.AddDefaultColorNodes()
        self.logics: dict[str, Any] = {}
        modules = SimpleNamespace()
        for name, kind in LOGICS.items():
            logic = getattr(slicer, kind)()
            logic.SetMRMLApplicationLogic(self.application)
            logic.SetMRMLScene(self.scene)
            self.logics[name] = logic
            setattr(modules, name, SimpleNamespace(logic=lambda logic=logic: logic))
        self._before = {name: getattr(slicer, name, None) for name in ("mrmlScene", "modules")}
        slicer.mrmlScene, slicer.modules = self.scene, modules

    def close(self) -> None:
        """Everything goes, the nodes first; ``slicer`` is as it was."""
        for name, value in self._before.items():
            if value is None:
                delattr(slicer, name)
            else:
                setattr(slicer, name, value)
        self.scene.Clear(True)
        for logic in (*self.logics.values(), self.colours, self.application):
            logic.SetMRMLScene(None)

    @property
    def subject_hierarchy(self) -> Any:
        return slicer.vtkMRMLSubjectHierarchyNode.GetSubjectHierarchyNode(self.scene)

    def open_mrb(self, path: Path, cache: Path, *, clear: bool = True) -> None:
        """Open a scene file in place of what is there (``clear`` false: beside it), by way of a cache folder as the
        application has one."""
        manager, files = slicer.vtkDataIOManager(), slicer.vtkCacheManager()
        files.SetRemoteCacheDirectory(str(cache))
        manager.SetCacheManager(files)
        self.scene.SetCacheManager(files)
        self.scene.SetDataIOManager(manager)
        assert self.scene.ReadFromMRB(str(path), clear)

    def bend(self, transform_node: Any, volume_node: Any) -> None:
        """Make a grid transform of what Slicer's DICOM reader makes for uneven slices: each is moved along z, here the
        upper half by 1 mm."""
        bounds = [0.0] * 6
        volume_node.GetRASBounds(bounds)
        size, low = (2, 2, 9), bounds[::2]
        spacing = [(bounds[2 * a + 1] - bounds[2 * a]) / (size[a] - 1) for a in range(3)]
        grid = vtk.vtkImageData()
        grid.SetDimensions(size)
        grid.SetOrigin(low)
        grid.SetSpacing(spacing)
        grid.AllocateScalars(vtk.VTK_DOUBLE, 3)
        shifts = numpy_support.vtk_to_numpy(grid.GetPointData().GetScalars()).reshape(*size[::-1], 3)
        shifts[:] = 0.0
        shifts[size[2] // 2 :, :, :, 2] = 1.0
        transform = slicer.vtkOrientedGridTransform()
        transform.SetDisplacementGridData(grid)
        transform.SetInterpolationModeToLinear()
        transform_node.SetAndObserveTransformFromParent(transform)

    def add_ct(self, geometry: Geometry, hu: Any = None, name: str = "CT", study: bool = True) -> Any:
        """A volume node on a grid (LPS), of ``hu`` (int16, [z, y, x]; nothing: zeros), in a patient's study."""
        image = vtk.vtkImageData()
        image.SetDimensions(geometry.size)
        image.AllocateScalars(vtk.VTK_SHORT, 1)
        voxels = numpy_support.vtk_to_numpy(image.GetPointData().GetScalars())
        voxels.reshape(geometry.shape)[:] = 0 if hu is None else hu
        node = self.scene.AddNewNodeByClass("vtkMRMLScalarVolumeNode", name)
        node.SetAndObserveImageData(image)
        node.SetIJKToRASMatrix(matrix_of(np.diag([-1.0, -1.0, 1.0, 1.0]) @ geometry.matrix))
        if study:
            hierarchy = self.subject_hierarchy
            patient = hierarchy.CreateSubjectItem(hierarchy.GetSceneItemID(), "Patient")
            hierarchy.CreateItem(hierarchy.CreateStudyItem(patient, "Study"), node)
        return node


class CoreDesk(ReadingDesk):
    """A reader's desk on a CT and a segmentation that are in a core's scene already."""

    def __init__(self, core: Core, volume: Any, segmentation: Any) -> None:
        self.scene, self.volume, self.segmentation = core.scene, volume, segmentation
        self._take_the_brush()

    def close(self) -> None:
        """Before the core's own `Core.close`."""
        self._put_the_brush_down()


def boot() -> Core:
    return Core()


def matrix_of(array: Any) -> vtk.vtkMatrix4x4:
    matrix = vtk.vtkMatrix4x4()
    matrix.DeepCopy(np.asarray(array, dtype=float).ravel().tolist())
    return matrix
