"""An RTSTRUCT, and a copy of the CT that it refers to, by SlicerRT."""

from __future__ import annotations

import importlib
import importlib.util
import os
import shutil
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import slicer

from soars.errors import InputError, SoarsError
from soars.staging import staging_folder
from SOARSSegmentationLib.export.exported import Exported, with_voxels
from SOARSSegmentationLib.scene.building import remove_segmentation
from SOARSSegmentationLib.scene.reading import structures_of
from SOARSSegmentationLib.scene.segments import organ_of
from SOARSSegmentationLib.translation import _

SLICERRT_PLUGIN = "DicomRtImportExportPlugin"


def slicerrt_bytes(segmentation_node: Any, volume_node: Any) -> int:
    """The memory that SlicerRT takes for an export: a byte for every voxel of the CT and every organ with voxels."""
    organs = with_voxels(structures_of(segmentation_node, None, volume_node)).names
    return len(organs) * int(volume_node.GetImageData().GetNumberOfPoints())


def export_by_slicerrt(segmentation_node: Any, volume_node: Any, folder: Path) -> Exported:
    """Write an RTSTRUCT, and the CT that it refers to, into a folder, by SlicerRT.

    Organs without voxels are left out. `InputError` when SlicerRT is not installed, says that it failed, or wrote a
    file without the contours; then the folder is as it was.
    """
    reason = why_not(volume_node)
    if reason:
        raise InputError(reason)
    organs = with_voxels(structures_of(segmentation_node, None, volume_node)).names
    folder = Path(folder)
    try:
        folder.mkdir(parents=True, exist_ok=True)
        staging = staging_folder(folder)
    except OSError as error:
        raise InputError(f"{folder} cannot be written: {error.strerror or error}") from error
    try:
        names = _run_slicerrt(segmentation_node, volume_node, organs, staging)
        path = _check_slicerrt(staging, names)
        _move_all(staging, folder)
    except SoarsError:
        raise
    except Exception as error:  # an extension may raise anything
        raise InputError(f"SlicerRT failed: {type(error).__name__}: {error}") from error
    finally:
        shutil.rmtree(staging, ignore_errors=True)
    what = _("{count} organs and a copy of the CT; import them together: {path}").format(
        count=len(organs), path=folder
    )
    return Exported(folder / path.relative_to(staging), what)


def _run_slicerrt(segmentation_node: Any, volume_node: Any, organs: Iterable[str], folder: Path) -> list[str]:
    """The names of the segments that were to be written: SlicerRT's ROIs have those, in whatever spelling."""
    plugin = importlib.import_module(SLICERRT_PLUGIN).DicomRtImportExportPluginClass()
    hierarchy = slicer.vtkMRMLSubjectHierarchyNode.GetSubjectHierarchyNode(slicer.mrmlScene)
    volume_item = hierarchy.GetItemByDataNode(volume_node)
    study = _study_of(hierarchy, volume_item)
    with _only(segmentation_node, volume_node, organs, study) as (segmentation_item, names):
        exportables = [e for item in (volume_item, segmentation_item) for e in plugin.examineForExport(item)]
        for exportable in exportables:
            exportable.directory = str(folder)
            for tag, text in _patient_tags(hierarchy, study).items():
                exportable.setTag(tag, text)
        message = plugin.export(exportables)
    if message:
        raise InputError(f"SlicerRT could not write the RTSTRUCT: {message}")
    return names


@contextmanager
def _only(
    segmentation_node: Any, volume_node: Any, organs: Iterable[str], study: int
) -> Iterator[tuple[int, list[str]]]:
    """The subject-hierarchy item of a copy with only these organs, in the CT's study, and its segments' names: SlicerRT
    exports every segment, and only what belongs to one study."""
    scene = segmentation_node.GetScene()
    hierarchy = slicer.vtkMRMLSubjectHierarchyNode.GetSubjectHierarchyNode(scene)
    copy = slicer.vtkMRMLSegmentationNode()
    copy.SetName(segmentation_node.GetName())
    segmentation = copy.GetSegmentation()
    segmentation.DeepCopy(segmentation_node.GetSegmentation())
    kept = set(organs)
    for segment_id in list(segmentation.GetSegmentIDs()):
        segment = segmentation.GetSegment(segment_id)
        if (organ_of(segment) or segment.GetName()) not in kept:
            segmentation.RemoveSegment(segment_id)
    scene.AddNode(copy)
    try:
        copy.SetReferenceImageGeometryParameterFromVolumeNode(volume_node)
        item = hierarchy.GetItemByDataNode(copy) or hierarchy.CreateItem(study, copy)
        hierarchy.SetItemParent(item, study)
        ids = segmentation.GetSegmentIDs()
        yield item, [str(segmentation.GetSegment(segment_id).GetName()) for segment_id in ids]
    finally:
        remove_segmentation(copy)


def _move_all(staging: Path, folder: Path) -> None:
    """Every file into a folder that has none of them."""
    written = sorted(file.relative_to(staging) for file in staging.rglob("*") if file.is_file())
    taken = [str(name) for name in written if (folder / name).exists()]
    if taken:
        raise InputError(f"{folder} already holds {taken[0]}: choose an empty folder")
    for name in written:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        os.replace(staging / name, folder / name)


def why_not(volume_node: Any) -> str:
    modules = getattr(slicer, "modules", None)
    if not hasattr(modules, "dicomrtimportexport") or not _can_import(SLICERRT_PLUGIN):
        return _("SlicerRT is not installed: it is in the Extensions Manager.")
    if volume_node is None:
        return _("There is no CT.")
    hierarchy = slicer.vtkMRMLSubjectHierarchyNode.GetSubjectHierarchyNode(slicer.mrmlScene)
    item = hierarchy.GetItemByDataNode(volume_node)
    if not item or not _study_of(hierarchy, item):
        return _("The CT belongs to no study of a patient: move it into one in the Data module.")
    return ""


def _study_of(hierarchy: Any, item: int) -> int:
    """The study in which an item lies; 0 when it lies in none."""
    level = slicer.vtkMRMLSubjectHierarchyConstants.GetDICOMLevelStudy()
    return int(hierarchy.GetItemAncestorAtLevel(item, level))


def _can_import(name: str) -> bool:
    try:
        return importlib.util.find_spec(name) is not None
    except (ImportError, ValueError):  # ValueError: a module without a specification, there all the same
        return True


def _patient_tags(hierarchy: Any, study: int) -> dict[str, str]:
    """What is known about the patient and the study, under SlicerRT's tag names."""
    names = slicer.vtkMRMLSubjectHierarchyConstants
    patient = hierarchy.GetItemParent(study)
    asked = {
        "PatientName": (patient, names.GetDICOMPatientNameAttributeName()),
        "PatientID": (patient, names.GetDICOMPatientIDAttributeName()),
        "PatientBirthDate": (patient, names.GetDICOMPatientBirthDateAttributeName()),
        "PatientSex": (patient, names.GetDICOMPatientSexAttributeName()),
        "StudyID": (study, names.GetDICOMStudyIDAttributeName()),
        "StudyDate": (study, names.GetDICOMStudyDateAttributeName()),
        "StudyTime": (study, names.GetDICOMStudyTimeAttributeName()),
        "StudyDescription": (study, names.GetDICOMStudyDescriptionAttributeName()),
    }
    found = {tag: str(hierarchy.GetItemAttribute(item, name) or "") for tag, (item, name) in asked.items()}
    uid = str(hierarchy.GetItemUID(study, names.GetDICOMUIDName()) or "")
    return {tag: text for tag, text in {**found, "StudyInstanceUID": uid}.items() if text}


def _check_slicerrt(folder: Path, expected: Iterable[str]) -> Path:
    """The RTSTRUCT that was written. SlicerRT's "" means that nothing went wrong, not that the file is right."""
    import pydicom

    for file in sorted(folder.rglob("*")):
        if not file.is_file():
            continue
        try:
            dataset = pydicom.dcmread(file, stop_before_pixels=True)
        except (
            Exception
        ):  # the folder may hold anything: what cannot be read is not the file we are looking for
            continue
        if dataset.get("Modality") != "RTSTRUCT":
            continue
        names = {roi.ROINumber: str(roi.ROIName) for roi in dataset.get("StructureSetROISequence", [])}
        drawn = {
            names.get(roi.ReferencedROINumber)
            for roi in dataset.get("ROIContourSequence", [])
            if len(roi.get("ContourSequence", []))
        }
        absent = [name for name in expected if name not in drawn]
        if absent:
            raise InputError(f"SlicerRT wrote an RTSTRUCT without contours of {', '.join(absent[:5])}")
        return file
    raise InputError("SlicerRT wrote no RTSTRUCT")
