"""Contours out of Slicer: for planning systems, for Slicer itself, and the log of the session.

Two ways lead to an RTSTRUCT. Ours refers to the original CT's slices, which planning systems want; it needs the CT's
DICOM files. SlicerRT's needs none: it writes a new copy of the CT, and contours that refer to the copy.
"""

from __future__ import annotations

import importlib
import importlib.util
import os
import shutil
import tempfile
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import slicer

from soars.errors import InputError, SoarsError
from SOARSSegmentationLib.scene import scene
from SOARSSegmentationLib.scene.label_maps import GRID_TOLERANCE
from SOARSSegmentationLib.translation import _

if TYPE_CHECKING:
    import SimpleITK as sitk

    from soars.ct.series import CtSeries
    from soars.structures import StructureSet

SEG_NRRD, RTSTRUCT, SLICERRT, LOG = "seg_nrrd", "rtstruct", "slicerrt", "log"
SLICERRT_PLUGIN = "DicomRtImportExportPlugin"
RESULT_FILES = ("proposal.seg.nrrd", "result.seg.nrrd")
"""What lies beside an effort log."""


@dataclass(frozen=True)
class Route:
    """A way out: ``title`` for people; ``why_not`` says what it lacks when it is not ``available``."""

    key: str
    title: str
    available: bool
    why_not: str = ""


@dataclass(frozen=True)
class Exported:
    """What was written: the file or folder, and a sentence for people."""

    path: Path
    what: str


def routes(volume_node: Any, session_folder: Path | None = None) -> list[Route]:
    """Every way out, for the contours of this CT; asks whether files exist, and reads none."""
    titles = {
        SEG_NRRD: _("Slicer segmentation (.seg.nrrd)"),
        RTSTRUCT: _("RTSTRUCT on the original CT"),
        SLICERRT: _("RTSTRUCT and a copy of the CT, by SlicerRT"),
        LOG: _("Log of the session"),
    }
    reasons = {
        SEG_NRRD: "",
        RTSTRUCT: _why_no_rtstruct(volume_node),
        SLICERRT: _why_no_slicerrt(volume_node),
        LOG: "" if session_folder is not None and _logs(session_folder) else _("There is no session yet."),
    }
    return [Route(key, titles[key], not reason, reason) for key, reason in reasons.items()]


# --- Slicer's own file -------------------------------------------------------------------------------------------
def export_seg_nrrd(segmentation_node: Any, path: Path) -> Exported:
    """Write the segmentation with all that Slicer keeps of it. `InputError` when it cannot be written."""
    scene.write_seg_nrrd(segmentation_node, path)
    count = segmentation_node.GetSegmentation().GetNumberOfSegments()
    return Exported(
        path, _("{count} segments, to be opened in Slicer: {path}").format(count=count, path=path)
    )


# --- RTSTRUCT on the original CT ---------------------------------------------------------------------------------
def export_rtstruct(
    segmentation_node: Any,
    volume_node: Any,
    path: Path,
    *,
    files: Sequence[str] | None = None,
    organs: Iterable[str] | None = None,
    level: float = 0.6,
) -> Exported:
    """Write an RTSTRUCT that refers to the CT's own slices.

    ``files`` are the CT's DICOM files (without: those that Slicer's database knows), ``organs`` which to write
    (without: all segments); those without voxels are left out. ``level`` as of `soars.dicom.rtstruct.write_rtstruct`.
    `InputError` when the files are not all there or are no planning CT, when nothing has voxels, or the file cannot be
    written.
    """
    from soars.dicom.rtstruct import write_rtstruct
    from soars.structures import Geometry

    scene.check_volume(volume_node)
    known = list(files) if files is not None else scene.dicom_files(volume_node)
    if not known:
        raise InputError(_why_no_rtstruct(volume_node, known) or "the CT's DICOM files are not known")
    structures = _with_voxels(scene.structures_of(segmentation_node, organs, volume_node))
    with _series(known) as (image, series):
        grid = Geometry.of(image)
        moved = not structures.geometry.same_as(grid, 1e-2)
        placed = structures.resample(grid, nearest=True) if moved else structures.on(grid)
        lost = [name for name in structures if placed.is_empty(name)]
        if lost:
            raise InputError(
                f"{', '.join(lost)} would lie outside of the original CT, or vanish between its voxels: the CT in the "
                "scene is not where its DICOM files say it is"
            )
        write_rtstruct(placed, path, series, level=level)
    what = _("{count} organs on the original CT: {path}").format(count=len(structures), path=path)
    if moved and not _same_lattice(structures.geometry, grid):
        what += _(" (put onto its voxels, as the CT in the scene has others)")
    return Exported(path, what)


def _why_no_rtstruct(volume_node: Any, files: Sequence[str] | None = None) -> str:
    if volume_node is None:
        return _("There is no CT.")
    if not (volume_node.GetAttribute("DICOM.instanceUIDs") or "").split():
        return _("The CT was not loaded from DICOM: load it through Slicer's DICOM module.")
    if not (scene.dicom_files(volume_node) if files is None else files):
        return _("The CT's DICOM files are not all in Slicer's DICOM database: import them again.")
    return ""


@contextmanager
def _series(files: Sequence[str]) -> Iterator[tuple[sitk.Image, CtSeries]]:
    """The CT that these files are. Slicer's database may keep them anywhere, among others: they are brought together
    in a folder of links, or of copies where there are no links."""
    from soars.ct.series import read_series

    absent = [file for file in files if not os.path.isfile(file)]
    if absent:
        raise InputError(f"{len(absent)} of the CT's {len(files)} DICOM files are gone: import the CT again")
    with tempfile.TemporaryDirectory(prefix="soars-ct-") as folder:
        for number, file in enumerate(files):
            _link(file, Path(folder, f"{number:05}.dcm"))
        try:
            image, series, _warnings = read_series(folder)
        except InputError as error:
            text = str(error).replace(f"{folder}: ", "").replace(folder, "the CT")
            raise InputError(f"the CT's DICOM files cannot be referred to: {text}") from error
        yield image, series


def _link(file: str, path: Path) -> None:
    for way in (os.symlink, os.link, shutil.copyfile):
        try:
            way(os.path.abspath(file), path)
            return
        except (OSError, NotImplementedError) as error:  # no right to make links, another disk
            if way is shutil.copyfile:
                raise InputError(f"{file} cannot be read: {error}") from error


def _with_voxels(structures: StructureSet) -> StructureSet:
    names = [name for name in structures if not structures.is_empty(name)]
    if not names:
        raise InputError("no organ has voxels: there is nothing to write")
    return structures.subset(names)


def _same_lattice(one: Any, other: Any) -> bool:
    """Whether two grids have the same voxels, however stored: then nothing is lost between them."""
    import numpy as np

    index = other.to_index(one.corners())
    return bool(
        sorted(one.size) == sorted(other.size) and np.abs(index - np.round(index)).max() < GRID_TOLERANCE
    )


# --- by SlicerRT -------------------------------------------------------------------------------------------------
def export_by_slicerrt(segmentation_node: Any, volume_node: Any, folder: Path) -> Exported:
    """Write an RTSTRUCT, and the CT that it refers to, into a folder, by SlicerRT.

    `InputError` when SlicerRT is not installed, says that it failed, or wrote a file without the contours; then the
    folder is as it was.
    """
    reason = _why_no_slicerrt(volume_node)
    if reason:
        raise InputError(reason)
    organs = _with_voxels(scene.structures_of(segmentation_node, None, volume_node)).names
    plugin = importlib.import_module(SLICERRT_PLUGIN).DicomRtImportExportPluginClass()
    hierarchy = slicer.vtkMRMLSubjectHierarchyNode.GetSubjectHierarchyNode(slicer.mrmlScene)
    volume_item = hierarchy.GetItemByDataNode(volume_node)
    segmentation_item = hierarchy.GetItemByDataNode(segmentation_node)
    study = _study_of(hierarchy, volume_item)
    if _study_of(hierarchy, segmentation_item) != study:
        hierarchy.SetItemParent(segmentation_item, study)  # SlicerRT takes what is under one study
    folder = Path(folder)
    try:
        folder.mkdir(parents=True, exist_ok=True)
        staging = Path(tempfile.mkdtemp(prefix=".soars-", dir=folder))
    except OSError as error:
        raise InputError(f"{folder} cannot be written: {error.strerror or error}") from error
    try:
        exportables = [e for item in (volume_item, segmentation_item) for e in plugin.examineForExport(item)]
        for exportable in exportables:
            exportable.directory = str(staging)
            for tag, text in _patient_tags(hierarchy, study).items():
                exportable.setTag(tag, text)
        message = plugin.export(exportables)
        if message:
            raise InputError(f"SlicerRT could not write the RTSTRUCT: {message}")
        path = _check_slicerrt(staging, organs)
        written = sorted(file.relative_to(staging) for file in staging.rglob("*") if file.is_file())
        taken = [str(name) for name in written if (folder / name).exists()]
        if taken:
            raise InputError(f"{folder} already holds {taken[0]}: choose an empty folder")
        for name in written:
            (folder / name).parent.mkdir(parents=True, exist_ok=True)
            os.replace(staging / name, folder / name)
    except SoarsError:
        raise
    except Exception as error:  # whatever an extension may raise
        raise InputError(f"SlicerRT failed: {type(error).__name__}: {error}") from error
    finally:
        shutil.rmtree(staging, ignore_errors=True)
    what = _("{count} organs and a copy of the CT, to be imported together: {path}").format(
        count=len(organs), path=folder
    )
    return Exported(folder / path.relative_to(staging), what)


def _why_no_slicerrt(volume_node: Any) -> str:
    modules = getattr(slicer, "modules", None)
    if not hasattr(modules, "dicomrtimportexport") or not _can_import(SLICERRT_PLUGIN):
        return _("SlicerRT is not installed: it is in the Extensions Manager.")
    if volume_node is None:
        return _("There is no CT.")
    hierarchy = slicer.vtkMRMLSubjectHierarchyNode.GetSubjectHierarchyNode(slicer.mrmlScene)
    item = hierarchy.GetItemByDataNode(volume_node)
    if not item or not _study_of(hierarchy, item):
        return _("The CT is in no patient's study: put it into one in the Data module.")
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
    """What is known of the patient and the study, by the names of SlicerRT's tags."""
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


def _check_slicerrt(folder: Path, organs: Iterable[str]) -> Path:
    """The RTSTRUCT that was written. SlicerRT's "" means that nothing went wrong, not that the file is right."""
    import pydicom

    for file in sorted(folder.rglob("*")):
        if not file.is_file():
            continue
        try:
            dataset = pydicom.dcmread(file, stop_before_pixels=True)
        except Exception:  # anything may lie there: what cannot be read is not the file looked for
            continue
        if dataset.get("Modality") != "RTSTRUCT":
            continue
        names = {roi.ROINumber: str(roi.ROIName) for roi in dataset.get("StructureSetROISequence", [])}
        drawn = {
            names.get(roi.ReferencedROINumber)
            for roi in dataset.get("ROIContourSequence", [])
            if len(roi.get("ContourSequence", []))
        }
        absent = [organ for organ in organs if organ not in drawn]
        if absent:
            raise InputError(f"SlicerRT wrote an RTSTRUCT without contours of {', '.join(absent[:5])}")
        return file
    raise InputError("SlicerRT wrote no RTSTRUCT")


# --- the session -------------------------------------------------------------------------------------------------
def export_log(session_folder: Path, folder: Path) -> Exported:
    """Copy a session's logs, and the proposal and the result beside them, into a folder, all or none.

    `InputError` when there is no log, the folder holds such files already, or cannot be written.
    """
    from soars.files import staged_folder

    logs = _logs(session_folder)
    if not logs:
        raise InputError(f"there is no effort log in {session_folder}")
    files = [*logs, *(session_folder / name for name in RESULT_FILES if (session_folder / name).is_file())]
    with staged_folder(Path(folder), [file.name for file in files]) as staging:
        for file in files:
            try:
                shutil.copyfile(file, staging / file.name)
            except OSError as error:
                raise InputError(f"{file.name} cannot be copied: {error.strerror or error}") from error
    what = _("{count} files of the session: {path}").format(count=len(files), path=folder)
    return Exported(Path(folder), what)


def _logs(session_folder: Path) -> list[Path]:
    from soars.effort.log import session_logs

    return session_logs(Path(session_folder))
