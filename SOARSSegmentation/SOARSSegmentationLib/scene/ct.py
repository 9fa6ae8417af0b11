"""The CT: whether it can be segmented, its file for the child process, and its DICOM files."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import slicer
import vtk
from vtk.util import numpy_support

from soars.errors import InputError

CT_FILE = "ct.nrrd"
MR_FILE = "mr.nrrd"
INSTANCES_ATTRIBUTE = "DICOM.instanceUIDs"
WINDOW_HU = (-160, 240)
"""Soft tissue."""


class UnevenSlicesError(InputError):
    """A CT under a transform that bends space: `evenly_spaced_copy` makes one that can be segmented."""


def check_volume(volume_node: Any) -> None:
    """Raise `InputError` when a volume node cannot be segmented as it is."""
    if volume_node is None:
        raise InputError("no CT is chosen: load one and choose it")
    name = volume_node.GetName()
    image = volume_node.GetImageData()
    if image is None or image.GetNumberOfPoints() == 0:
        raise InputError(f"{name} holds no image: load the CT again")
    if not volume_node.IsA("vtkMRMLScalarVolumeNode") or image.GetNumberOfScalarComponents() != 1:
        raise InputError(f"{name} is not a CT: it has {image.GetNumberOfScalarComponents()} values a voxel")
    if volume_node.IsA("vtkMRMLLabelMapVolumeNode"):
        raise InputError(f"{name} is a label map, not a CT: choose the CT")
    transform = volume_node.GetParentTransformNode()
    if transform is not None and not transform.IsLinear():
        raise UnevenSlicesError(
            f"{name} is under the transform {transform.GetName()}, which Slicer makes for slices that are not evenly "
            "spaced: segment an evenly spaced copy of it"
        )
    if transform is not None:
        raise InputError(f"{name} is under a transform: harden it first, in the Transforms module")


def ct_file(volume_node: Any, folder: Path, name: str = CT_FILE) -> Path:
    """Write a CT (or MR) node, as it is in the scene, to an uncompressed NRRD in ``folder``; returns the file.

    `InputError` when the node is no CT, is under a transform, or the file cannot be written.
    """
    check_volume(volume_node)
    path = folder / name
    storage = slicer.vtkMRMLVolumeArchetypeStorageNode()
    storage.SetFileName(str(path))
    storage.SetUseCompression(0)
    storage.SetScene(volume_node.GetScene())  # collects what went wrong
    image = volume_node.GetImageData()
    expected = image.GetNumberOfPoints() * image.GetScalarSize()
    if not _has_room(folder, expected):
        raise InputError(
            f"the disk of {folder} is full: the CT needs {expected / 1e6:.0f} MB there; free some space"
        )
    if not storage.WriteData(volume_node) or not path.is_file() or path.stat().st_size < expected:
        raise InputError(
            f"the CT could not be written into {folder}: check that the disk is not full and the folder may be written"
        )
    return path


def patient_id(volume_node: Any) -> str:
    """The Patient ID of the patient that a volume lies under in the Data module; "" where there is none."""
    names = slicer.vtkMRMLSubjectHierarchyConstants
    hierarchy = slicer.vtkMRMLSubjectHierarchyNode.GetSubjectHierarchyNode(volume_node.GetScene())
    item = hierarchy.GetItemByDataNode(volume_node) if hierarchy is not None else 0
    patient = hierarchy.GetItemAncestorAtLevel(item, names.GetDICOMLevelPatient()) if item else 0
    if not patient:
        return ""
    return str(hierarchy.GetItemAttribute(patient, names.GetDICOMPatientIDAttributeName()) or "").strip()


def check_same_patient(volume_node: Any, mr_node: Any) -> None:
    """Raise `InputError` for a CT and an MR whose patients in the Data module have different Patient IDs.

    The files that the child process gets do not say whose they are, and another patient's head fits a head.
    """
    mine, theirs = patient_id(volume_node), patient_id(mr_node)
    if mine and theirs and mine != theirs:
        raise InputError(
            f"{mr_node.GetName()} is of another patient than {volume_node.GetName()}: their Patient IDs differ"
        )


def _has_room(folder: Path, size: int) -> bool:
    try:
        return shutil.disk_usage(folder).free > size + 1_000_000
    except OSError:
        return True  # not known: writing will show


def dicom_files(volume_node: Any, file_of: Callable[[str], str] | None = None) -> list[str]:
    """The files of the DICOM CT that a volume node was loaded from; empty when they are not all known and there.

    ``file_of`` gives the file of a SOP instance UID, "" when unknown; without it Slicer's DICOM database is asked.
    """
    uids = ((volume_node.GetAttribute(INSTANCES_ATTRIBUTE) if volume_node else None) or "").split()
    if file_of is None:
        database = getattr(slicer, "dicomDatabase", None)
        if database is None or not uids:
            return []
        file_of = database.fileForInstance
    files = [str(file_of(uid) or "") for uid in uids]
    return files if all(file and os.path.isfile(file) for file in files) else []


class DicomFiles:
    """Caches `dicom_files` for each CT, so that Slicer's database is asked once per slice, not at every click."""

    def __init__(self) -> None:
        self._known: dict[str, list[str]] = {}

    def of(self, volume_node: Any) -> list[str]:
        uids = (volume_node.GetAttribute(INSTANCES_ATTRIBUTE) or "") if volume_node is not None else ""
        if uids not in self._known:
            self._known[uids] = dicom_files(volume_node)
        return self._known[uids]

    def forget(self) -> None:
        """Forget them: files may have been imported or removed meanwhile."""
        self._known = {}


def evenly_spaced_copy(volume_node: Any) -> Any:
    """A copy of a CT with the transform it is under applied: resampled to even slices, in the place of the patient.

    The copy is no longer what its DICOM files say, so it does not name them. `InputError` when it cannot be made.
    """
    scene, name = volume_node.GetScene(), f"{volume_node.GetName()} evenly spaced"
    copy = slicer.vtkSlicerVolumesLogic.CloneVolume(scene, volume_node, name)
    if copy is None:
        raise InputError(f"{volume_node.GetName()} could not be copied: the memory may be full")
    copy.SetAndObserveTransformNodeID(volume_node.GetTransformNodeID())
    if not copy.HardenTransform():
        scene.RemoveNode(copy)
        raise InputError(f"the transform of {volume_node.GetName()} could not be applied to a copy of it")
    copy.SetAttribute(INSTANCES_ATTRIBUTE, None)
    return copy


def voxel_values(volume_node: Any) -> npt.NDArray[Any]:
    """A volume's voxels, shape (z, y, x), without a copy."""
    image = volume_node.GetImageData()
    scalars = numpy_support.vtk_to_numpy(image.GetPointData().GetScalars())
    return np.asarray(scalars.reshape(image.GetDimensions()[::-1]))


def volume_of_image(mrml_scene: Any, ct: Any, name: str) -> Any:
    """Add a SimpleITK image (int16, LPS) to the scene; returns the volume node."""
    import SimpleITK as sitk

    image = vtk.vtkImageData()
    image.SetDimensions(ct.GetSize())
    image.AllocateScalars(vtk.VTK_SHORT, 1)
    voxels = numpy_support.vtk_to_numpy(image.GetPointData().GetScalars())
    voxels.reshape(ct.GetSize()[::-1])[:] = sitk.GetArrayFromImage(ct)
    node = mrml_scene.AddNewNodeByClass("vtkMRMLScalarVolumeNode", name)
    node.SetAndObserveImageData(image)
    to_world = np.diag([-1.0, -1.0, 1.0])
    directions = to_world @ np.reshape(ct.GetDirection(), (3, 3)) @ np.diag(ct.GetSpacing())
    origin = to_world @ ct.GetOrigin()
    matrix = vtk.vtkMatrix4x4()
    for row in range(3):
        for column in range(3):
            matrix.SetElement(row, column, directions[row, column])
        matrix.SetElement(row, 3, origin[row])
    node.SetIJKToRASMatrix(matrix)
    node.CreateDefaultDisplayNodes()
    display = node.GetDisplayNode()
    if display is not None:
        display.SetAutoWindowLevel(False)
        display.SetWindowLevelMinMax(*WINDOW_HU)
    return node
