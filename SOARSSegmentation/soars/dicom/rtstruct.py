"""RTSTRUCT: contours of a `StructureSet` for the planning system, and back.

The file references the CT it belongs to as DICOM wants it: the study, the series, the frame of reference, and
for every contour the SOP instance of its slice; its own series and instance UIDs are new. Contours lie in the
CT's own slice planes, whatever their orientation. See `soars.dicom.contours` for how they are drawn and why
at level 0.6.
"""

from __future__ import annotations

import logging
import struct
import warnings as python_warnings
from collections import Counter
from collections.abc import Sequence
from datetime import datetime
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pydicom
from pydicom.dataelem import RawDataElement
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.sequence import Sequence as DicomSequence
from pydicom.tag import Tag
from pydicom.uid import ImplicitVRLittleEndian, RTStructureSetStorage, generate_uid

from soars import __version__
from soars.dicom.contours import Contour, fill, trace
from soars.dicom.series import CtSeries
from soars.errors import InputError
from soars.structures.atomic import replacing_file
from soars.structures.model import Geometry, StructureSet, tight_mask
from soars.structures.naming import catalogue_entry, describe

logger = logging.getLogger(__name__)

CT_IMAGE_STORAGE = "1.2.840.10008.5.1.4.1.1.2"
STUDY_CLASS = "1.2.840.10008.3.1.2.3.1"
SERIES_DESCRIPTION = "SOARS auto-contours, research use only"
MANUFACTURER = "SOARSSegmentation"
#: A CT slice may lie this far from its place on the regular grid (see `soars.dicom.stack`).
SLICE_TOLERANCE_MM = 0.5
#: Contours may lie this far, in slices, from the slice they are put on, and be this far from flat.
OFF_SLICE = 0.4
OUT_OF_PLANE = 0.1
SAME_PLANE = 0.02
_CONTOUR_DATA = Tag(0x3006, 0x0050)
_CLOSED = ("CLOSED_PLANAR", "CLOSEDPLANAR_XOR")


# --- writing ------------------------------------------------------------------------------------
def write_rtstruct(
    structures: StructureSet,
    path: Path | str,
    reference: CtSeries,
    *,
    level: float = 0.6,
    label: str = "SOARS",
) -> None:
    """Write the structures as an RTSTRUCT that references the CT series ``reference``.

    Args:
        structures: on the grid of the series' image, one slice a file.
        path: the file; it appears whole or not at all.
        reference: the CT, with the SOP instances in the order of the image's slices.
        level: where contours run between a voxel inside (1) and one outside (0), see
            `soars.dicom.contours.trace`.
        label: the structure set's label, at most 16 characters.

    Structures without voxels are kept as an ROI without contours. Every ROI has generation algorithm
    AUTOMATIC and interpreted type ORGAN; the structure set is UNAPPROVED. Raises `InputError` when the series
    lacks an identifier that an RTSTRUCT must reference, or is not the one the structures lie on.
    """
    check_reference(structures.geometry, reference)
    origins = _slice_origins(structures.geometry, reference)
    dataset = _document(structures, reference, label)
    dataset.ROIContourSequence = DicomSequence()
    for number, name in enumerate(structures, start=1):
        info = describe(name, structures.info[name])
        _add_roi(dataset, number, name, info, reference)
        contours = _contours(structures, name, origins, reference, level)
        item = Dataset()
        item.ROIDisplayColor = [int(c) for c in info["colour"]]
        if contours:
            item.ContourSequence = DicomSequence(contours)
        item.ReferencedROINumber = number
        dataset.ROIContourSequence.append(item)
    with replacing_file(path) as temporary:
        dataset.save_as(temporary, enforce_file_format=True)


def check_reference(geometry: Geometry, reference: CtSeries) -> None:
    """Raise `InputError` when an RTSTRUCT cannot reference this series, or the series is not on this grid."""
    where = reference.files[0].parent if reference.files else "the CT"
    missing = [
        text
        for text, uid in (
            ("Study Instance UID", reference.study_uid),
            ("Series Instance UID", reference.series_uid),
            ("Frame of Reference UID", reference.frame_of_reference_uid),
            ("SOP Instance UID", all(reference.sop_instance_uids)),
        )
        if not uid
    ]
    if missing:
        raise InputError(
            f"{where} has no {', '.join(missing)}: an RTSTRUCT cannot reference it; export the CT again"
        )
    if len(set(reference.sop_instance_uids)) < len(reference.sop_instance_uids):
        raise InputError(f"{where}: slices share a SOP Instance UID: an RTSTRUCT cannot tell them apart")
    if len(reference.sop_instance_uids) != geometry.size[2]:
        raise InputError(
            f"the structures have {geometry.size[2]} slices, the CT series {len(reference.sop_instance_uids)}: "
            "they are not on its grid; resample them to the CT first"
        )


def _slice_origins(geometry: Geometry, reference: CtSeries) -> npt.NDArray[np.float64]:
    """LPS mm of the first pixel of every slice, shape (z, 3): as its file says, where it can be read."""
    grid = geometry.to_physical([(z, 0, 0) for z in range(geometry.size[2])])
    origins = grid.copy()
    for z, file in enumerate(reference.files):
        try:
            with python_warnings.catch_warnings():
                python_warnings.simplefilter("ignore")
                header = pydicom.dcmread(
                    file, stop_before_pixels=True, force=True, specific_tags=["ImagePositionPatient"]
                )
            position = header.get("ImagePositionPatient")
            origins[z] = [float(v) for v in position] if position else grid[z]
        except OSError:  # the CT is no longer there; its grid still is
            break
    off = np.linalg.norm(origins - grid, axis=1)
    if off.max(initial=0.0) > SLICE_TOLERANCE_MM:
        z = int(off.argmax())
        raise InputError(
            f"the structures are not on the grid of the CT series: its slice {reference.files[z].name} lies "
            f"{off[z]:.1f} mm from where they are; resample them to the CT first"
        )
    return origins


def _document(structures: StructureSet, reference: CtSeries, label: str) -> Dataset:
    """Everything but the ROIs."""
    header, now = reference.header, datetime.now()
    instance = generate_uid(prefix=None)
    dataset = Dataset()
    dataset.file_meta = FileMetaDataset()
    dataset.file_meta.MediaStorageSOPClassUID = RTStructureSetStorage
    dataset.file_meta.MediaStorageSOPInstanceUID = instance
    # implicit, because a contour in explicit encoding may not be longer than 64 kB
    dataset.file_meta.TransferSyntaxUID = ImplicitVRLittleEndian
    dataset.SpecificCharacterSet = "ISO_IR 192"
    dataset.InstanceCreationDate, dataset.InstanceCreationTime = (
        now.strftime("%Y%m%d"),
        now.strftime("%H%M%S"),
    )
    dataset.SOPClassUID, dataset.SOPInstanceUID = RTStructureSetStorage, instance

    for keyword in ("PatientName", "PatientID", "PatientBirthDate", "PatientSex"):
        setattr(dataset, keyword, _text(header, keyword))
    dataset.StudyInstanceUID = reference.study_uid
    for keyword in ("StudyDate", "StudyTime", "AccessionNumber", "ReferringPhysicianName", "StudyID"):
        setattr(dataset, keyword, _text(header, keyword))
    if description := _text(header, "StudyDescription"):
        dataset.StudyDescription = description

    dataset.Modality = "RTSTRUCT"
    dataset.SeriesInstanceUID = generate_uid(prefix=None)
    dataset.SeriesNumber = None
    dataset.SeriesDescription = SERIES_DESCRIPTION
    dataset.OperatorsName = ""
    dataset.Manufacturer = MANUFACTURER
    dataset.ManufacturerModelName = "SOARS"
    dataset.SoftwareVersions = __version__

    dataset.FrameOfReferenceUID = reference.frame_of_reference_uid
    dataset.PositionReferenceIndicator = _text(header, "PositionReferenceIndicator")

    dataset.StructureSetLabel = label[:16]
    dataset.StructureSetName = SERIES_DESCRIPTION
    dataset.StructureSetDate, dataset.StructureSetTime = now.strftime("%Y%m%d"), now.strftime("%H%M%S")
    dataset.InstanceNumber = 1
    series = Dataset()
    series.SeriesInstanceUID = reference.series_uid
    series.ContourImageSequence = DicomSequence(
        _image_reference(reference, z) for z in range(structures.geometry.size[2])
    )
    study = Dataset()
    study.ReferencedSOPClassUID = STUDY_CLASS
    study.ReferencedSOPInstanceUID = reference.study_uid
    study.RTReferencedSeriesSequence = DicomSequence([series])
    frame = Dataset()
    frame.FrameOfReferenceUID = reference.frame_of_reference_uid
    frame.RTReferencedStudySequence = DicomSequence([study])
    dataset.ReferencedFrameOfReferenceSequence = DicomSequence([frame])
    dataset.StructureSetROISequence = DicomSequence()
    dataset.RTROIObservationsSequence = DicomSequence()
    dataset.ApprovalStatus = "UNAPPROVED"
    return dataset


def _text(header: Dataset, keyword: str) -> Any:
    """A value of the CT's header, empty when it is missing or cannot be read."""
    try:
        value = header.get(keyword)
        return "" if value is None else str(value)
    except Exception:  # pydicom raises whatever a damaged value leads to; the attribute may be empty
        logger.warning("%s of the CT cannot be read; it is left empty in the RTSTRUCT", keyword)
        return ""


def _image_reference(reference: CtSeries, z: int) -> Dataset:
    item = Dataset()
    item.ReferencedSOPClassUID = _text(reference.header, "SOPClassUID") or CT_IMAGE_STORAGE
    item.ReferencedSOPInstanceUID = reference.sop_instance_uids[z]
    return item


def _add_roi(dataset: Dataset, number: int, name: str, info: dict[str, Any], reference: CtSeries) -> None:
    """What an ROI is: its entry in the structure set, and its observation."""
    roi = Dataset()
    roi.ROINumber = number
    roi.ReferencedFrameOfReferenceUID = reference.frame_of_reference_uid
    roi.ROIName = _long_string(name)
    roi.ROIDescription = _long_string(info["label"], 1024)
    roi.ROIGenerationAlgorithm = "AUTOMATIC"
    dataset.StructureSetROISequence.append(roi)

    observation = Dataset()
    observation.ObservationNumber = number
    observation.ReferencedROINumber = number
    observation.RTROIInterpretedType = "ORGAN"
    observation.ROIInterpreter = ""
    oar = catalogue_entry(name)
    if oar is not None and oar.snomed_verified:
        code = _code(oar.snomed_code, oar.snomed_meaning)
        if oar.laterality_code and oar.laterality_meaning:
            code.SegmentedPropertyTypeModifierCodeSequence = DicomSequence(
                [_code(oar.laterality_code, oar.laterality_meaning)]
            )
        observation.RTROIIdentificationCodeSequence = DicomSequence([code])
    dataset.RTROIObservationsSequence.append(observation)


def _code(value: str, meaning: str) -> Dataset:
    code = Dataset()
    code.CodeValue = value
    code.CodingSchemeDesignator = "SCT"
    code.CodeMeaning = _long_string(meaning)
    return code


def _long_string(text: str, length: int = 64) -> str:
    """Fit for DICOM: no backslash, which separates values, and not too long."""
    return text.replace("\\", "/")[:length]


def _contours(
    structures: StructureSet, name: str, origins: npt.NDArray[np.float64], reference: CtSeries, level: float
) -> list[Dataset]:
    mask = structures.crop(name)
    if mask.is_empty:
        return []
    axes = structures.geometry.matrix[:3, :2]
    items = []
    for contour in trace(mask.array, level):
        z = contour.z + mask.start[0]
        points = origins[z] + (contour.points + (mask.start[2], mask.start[1])) @ axes.T
        item = Dataset()
        item.ContourImageSequence = DicomSequence([_image_reference(reference, z)])
        item.ContourGeometricType = "CLOSED_PLANAR"
        item.NumberOfContourPoints = len(points)
        # as raw bytes in the file's encoding: else pydicom makes an object of every number, 100 MB of them
        value = _decimal_strings(points.ravel())
        item[_CONTOUR_DATA] = RawDataElement(_CONTOUR_DATA, "DS", len(value), value, 0, False, True)
        item.set_original_encoding(True, True, "iso8859")
        items.append(item)
    return items


def _decimal_strings(numbers: npt.NDArray[np.float64]) -> bytes:
    """Numbers joined by backslashes, to a tenth of a micrometre, which leaves each far below 16
    characters."""
    text = "\\".join(["%.4f"] * len(numbers)) % tuple(numbers.tolist())
    return (text + " " if len(text) % 2 else text).encode("ascii")


# --- reading ------------------------------------------------------------------------------------
def read_rtstruct(path: Path | str, geometry: Geometry, reference: CtSeries | None = None) -> StructureSet:
    """The structures of an RTSTRUCT as masks on the CT's grid.

    A voxel is inside when its centre is inside an odd number of the ROI's contours on that slice (so an inner
    contour is a hole, and a keyhole too). A contour goes to the nearest slice, at most 0.4 slices away. Names
    are as in the file.

    Args:
        path: the file.
        geometry: the grid of the CT that the contours were drawn on.
        reference: that CT's series, to check that the file's frame of reference is the CT's.

    ROIs without contours are kept, empty. What is odd (points, open contours, contours between slices) is
    left out with a warning in ``.warnings``. Raises `InputError`, with the file, when it is damaged, no
    RTSTRUCT, has no contours at all, belongs to another frame of reference, or lies wholly outside the CT.
    """
    path = Path(path)
    dataset = _read(path)
    if reference is not None:
        _check_frame(path, dataset, reference)
    out = StructureSet(geometry)
    contours_of = {
        int(item.ReferencedROINumber): item.get("ContourSequence") or []
        for item in dataset.get("ROIContourSequence", [])
    }
    colours = {
        int(item.ReferencedROINumber): tuple(int(c) for c in item.ROIDisplayColor)
        for item in dataset.get("ROIContourSequence", [])
        if item.get("ROIDisplayColor")
    }
    total = placed = 0
    for roi in dataset.StructureSetROISequence:
        number = int(roi.ROINumber)
        name = str(roi.get("ROIName") or f"ROI {number}").strip()
        while name in out:
            out.warnings.append(f"{path.name}: two ROIs are called {name!r}; one is now {name + '_2'!r}")
            name += "_2"
        items = contours_of.get(number, [])
        contours = _placed_contours(path, name, items, out)
        total, placed = total + len(items), placed + len(contours)
        mask = tight_mask(np.zeros((0, 0, 0), dtype=bool))
        if contours:
            start, box = fill(contours)
            mask = _inside(start, box, geometry, name, path, out)
        out.add_mask(name, mask, {"colour": colours[number]} if number in colours else {})
    if not total:
        raise InputError(f"{path} has no contours")
    if not placed or all(out.is_empty(name) for name in out):
        reason = out.warnings[-1] if out.warnings else "its contours enclose no voxel"
        raise InputError(
            f"{path}: no contour lies within the CT ({reason}); is it the CT they were drawn on?"
        )
    return out


def _read(path: Path) -> Dataset:
    damaged = f"{path} is cut short or damaged; copy or export it again"
    try:
        with python_warnings.catch_warnings():
            python_warnings.simplefilter("ignore")
            dataset = pydicom.dcmread(path)
            dataset.file_meta.get("TransferSyntaxUID")
            for element in dataset.elements():
                # pydicom reads a file that ends early without complaint
                raw = isinstance(element, RawDataElement)
                if raw and element.length != 0xFFFFFFFF and len(element.value or b"") < element.length:  # type: ignore[union-attr]
                    raise InputError(damaged)
            modality = dataset.get("SOPClassUID")
            if modality != RTStructureSetStorage:
                kind = getattr(modality, "name", modality) or "without a SOP class"
                raise InputError(f"{path} is no RTSTRUCT but {kind}")
            for keyword in ("StructureSetROISequence", "ROIContourSequence", "RTROIObservationsSequence"):
                for item in dataset.get(keyword) or []:
                    for number in ("ROINumber", "ReferencedROINumber"):
                        item.get(number)
                    for contour in item.get("ContourSequence") or []:
                        contour.get("ContourGeometricType")
    except OSError as error:
        raise InputError(f"cannot read {path}: {error.strerror or error}") from error
    except pydicom.errors.InvalidDicomError as error:
        raise InputError(f"{path} is not a DICOM file") from error
    except (
        EOFError,
        struct.error,
        ValueError,
        KeyError,
        AttributeError,
        TypeError,
        NotImplementedError,
    ) as error:
        raise InputError(damaged) from error
    missing = [k for k in ("StructureSetROISequence", "ROIContourSequence") if not dataset.get(k)]
    if missing:
        raise InputError(f"{path} has no contours: it lacks {' and '.join(missing)}, or is cut short")
    return dataset


def _check_frame(path: Path, dataset: Dataset, reference: CtSeries) -> None:
    frames = {
        str(f.get("FrameOfReferenceUID", "")) for f in dataset.get("ReferencedFrameOfReferenceSequence") or []
    }
    frames |= {str(roi.get("ReferencedFrameOfReferenceUID", "")) for roi in dataset.StructureSetROISequence}
    frames.discard("")
    if frames and reference.frame_of_reference_uid and reference.frame_of_reference_uid not in frames:
        raise InputError(
            f"{path} belongs to another CT: its frame of reference is {', '.join(sorted(frames))}, "
            f"the CT's is {reference.frame_of_reference_uid}"
        )


def _placed_contours(path: Path, name: str, items: Sequence[Dataset], out: StructureSet) -> list[Contour]:
    """The closed contours of an ROI on the grid's slices."""
    found: dict[int, list[tuple[float, Contour]]] = {}
    left_out: Counter[str] = Counter()
    for item in items:
        kind = str(item.get("ContourGeometricType", ""))
        points = _points(path, name, item) if kind in _CLOSED else np.zeros((0, 3))
        if len(points) < 3:
            left_out[
                "fewer than 3 points" if kind in _CLOSED else f"{kind or 'no type'}, not CLOSED_PLANAR"
            ] += 1
            continue
        index = out.geometry.to_index(points)
        level = float(np.median(index[:, 0]))
        if np.abs(index[:, 0] - level).max() > OUT_OF_PLANE:
            raise InputError(
                f"{path}: a contour of {name!r} is not parallel to the slices of the CT; convert it there"
            )
        z = round(level)
        if abs(level - z) > OFF_SLICE:
            left_out["halfway between slices"] += 1
        elif not 0 <= z < out.geometry.size[2]:
            left_out["above or below the CT"] += 1
        else:
            found.setdefault(z, []).append((level, Contour(z, index[:, :0:-1])))
    contours = []
    for z, on_slice in found.items():
        # of several planes that come to lie on one slice the nearest counts: together they would cancel each
        # other
        nearest = min((level for level, _ in on_slice), key=lambda level: abs(level - z))
        kept = [contour for level, contour in on_slice if abs(level - nearest) < SAME_PLANE]
        if len(kept) < len(on_slice):
            left_out["another plane is nearer to the slice"] += len(on_slice) - len(kept)
        contours += kept
    for kind, count in left_out.items():
        out.warnings.append(f"{path.name}: {count} contour{'s' * (count > 1)} of {name!r} left out: {kind}")
    return contours


def _points(path: Path, name: str, item: Dataset) -> npt.NDArray[np.float64]:
    """LPS mm, shape (n, 3)."""
    try:
        element = item.get_item(_CONTOUR_DATA)
        value = element.value if element is not None else b""
        if isinstance(value, bytes):  # not yet parsed by pydicom
            numbers = np.array(value.rstrip(b" \0").split(b"\\") if value.strip() else [], dtype=np.float64)
        else:
            numbers = np.array([float(v) for v in value or []], dtype=np.float64)
        points = numbers.reshape(-1, 3)
        if not np.isfinite(points).all():
            raise ValueError("not a number")
    except (ValueError, TypeError) as error:
        raise InputError(f"{path}: the points of a contour of {name!r} are damaged ({error})") from error
    return points


def _inside(
    start: tuple[int, int, int],
    box: npt.NDArray[np.bool_],
    geometry: Geometry,
    name: str,
    path: Path,
    out: StructureSet,
) -> Any:
    """The part of a filled box that lies on the grid; a warning when some does not."""
    mask = tight_mask(box, start)
    if mask.is_empty:
        out.warnings.append(f"{path.name}: the contours of {name!r} enclose no voxel centre")
        return mask
    whole = mask.voxels
    low = [max(0, v) for v in mask.start]
    high = [min(v, n) for v, n in zip(mask.stop, geometry.shape, strict=True)]
    inside = tight_mask(mask.box(low, [max(0, b - a) for a, b in zip(low, high, strict=True)]), low)
    if inside.voxels < whole:
        out.warnings.append(
            f"{path.name}: {name!r} reaches beyond the CT; {whole - inside.voxels} voxels were cut off"
        )
    return inside
