"""Writing an RTSTRUCT that a planning system accepts on the original CT.

Source of what is in it: DICOM PS3.3, A.19 (RT Structure Set IOD) and C.8.8.5, C.8.8.6, C.8.8.8. All attributes of
type 1 and 2 are there, no private ones.
"""

from __future__ import annotations

import logging
from collections.abc import Iterator, Mapping, Sequence
from datetime import datetime
from pathlib import Path

import numpy as np
import numpy.typing as npt
from pydicom.dataelem import RawDataElement
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.sequence import Sequence as DicomSequence
from pydicom.tag import Tag
from pydicom.uid import ImplicitVRLittleEndian, RTStructureSetStorage, generate_uid

from soars import __version__
from soars.ct.dicom_files import CT_IMAGE
from soars.ct.series import CtSeries
from soars.dicom.contours import trace
from soars.dicom.document import PATIENT, STUDY, add_patient_and_study, copied, slice_origins
from soars.dicom.provenance import MANUFACTURER, add_models, code_item, describe_generation, dicom_text
from soars.dicom.roi_names import site_names
from soars.dicom.write import IMPLEMENTATION_UID
from soars.errors import InputError
from soars.files import replacing_file
from soars.structures.model import Geometry, StructureInfo, StructureSet
from soars.structures.naming import FALLBACK_COLOUR, catalogue_entry, describe

logger = logging.getLogger(__name__)

STUDY_CLASS = "1.2.840.10008.3.1.2.3.1"
SERIES_DESCRIPTION = "SOARS auto-contours, research use only"
Image = tuple[str, str, int | None]
"""SOP class, SOP instance and frame number of a slice."""
_CONTOUR_DATA = Tag(0x3006, 0x0050)


def write_rtstruct(
    structures: StructureSet,
    path: Path | str,
    reference: CtSeries,
    *,
    level: float = 0.6,
    label: str = "SOARS",
    roi_names: Mapping[str, str] | None = None,
    pseudonym: str | None = None,
) -> None:
    """Write the structures as an RTSTRUCT that references the CT series ``reference``.

    Args:
        structures: on the grid of the series' image, one slice a file. How a structure was made, its ROI
            generation algorithm, is AUTOMATIC unless its tag `GENERATION_TAG` says SEMIAUTOMATIC (edited by
            hand) or MANUAL. Its tags `MODEL_TAG` and `MODEL_HASH_TAG` become its ROI generation description, and the
            model with its whole hash an item of the contributing equipment.
        path: the file; it appears whole or not at all.
        reference: the CT, with the SOP instances in the order of the image's slices.
        level: where contours run between a voxel inside (1) and one outside (0), see
            `soars.dicom.contours.trace`.
        label: the structure set's label, at most 16 characters.
        roi_names: the site's names of structures, see `soars.dicom.roi_names`; others keep theirs.
        pseudonym: write a de-identified file: this replaces the patient's name and ID, everything else about patient
            and study is empty, and no dates or times are written. The UIDs stay, because they are what ties the
            contours to the CT: de-identify the CT itself first where UIDs count as identifying.

    Structures without voxels are kept as an ROI without contours. Every ROI has the interpreted type ORGAN, and
    its SNOMED code where the catalogue's is verified; the structure set is UNAPPROVED. Raises `InputError` when the
    series lacks an identifier that an RTSTRUCT must reference, or is not the one the structures lie on, or two ROIs
    would have one name.
    """
    check_reference(structures.geometry, reference)
    names = site_names(structures, roi_names or {})
    origins = slice_origins(structures.geometry, reference)
    images = list(_image_references(reference))
    dataset = _document(reference, images, label, pseudonym)
    dataset.ROIContourSequence = DicomSequence()
    for number, name in enumerate(structures, start=1):
        info = describe(name, structures.info[name])
        _add_roi(dataset, number, name, names[name], info, reference)
        contours = _contours(structures, name, origins, images, level)
        item = Dataset()
        item.ROIDisplayColor = [int(c) for c in info.colour or FALLBACK_COLOUR]
        if contours:
            item.ContourSequence = DicomSequence(contours)
        item.ReferencedROINumber = number
        dataset.ROIContourSequence.append(item)
    add_models(dataset, (structures.info[name] for name in structures))
    # the plainest character set that holds the texts: not every planning system knows UTF-8
    dataset.SpecificCharacterSet = "ISO_IR 100" if _is_latin1(dataset) else "ISO_IR 192"
    with replacing_file(path) as temporary:
        dataset.save_as(temporary, enforce_file_format=True)


def check_reference(geometry: Geometry, reference: CtSeries) -> None:
    """Raise `InputError` when an RTSTRUCT cannot reference this series, or the series is not on this grid."""
    where = reference.files[0].parent if reference.files else "the CT"
    missing = [
        what
        for what, uid in (
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
    if len(set(_instances(reference))) < len(reference.sop_instance_uids):
        raise InputError(f"{where}: slices share a SOP Instance UID: an RTSTRUCT cannot distinguish them")
    if len(reference.sop_instance_uids) != geometry.size[2]:
        raise InputError(
            f"the structures have {geometry.size[2]} slices, the CT series {len(reference.sop_instance_uids)}: "
            "they are not on its grid; resample them to the CT first"
        )


def _document(reference: CtSeries, images: Sequence[Image], label: str, pseudonym: str | None) -> Dataset:
    """Everything but the ROIs."""
    now = datetime.now()
    date, time = ("", "") if pseudonym is not None else (now.strftime("%Y%m%d"), now.strftime("%H%M%S"))
    instance = generate_uid(prefix=None)
    dataset = Dataset()
    dataset.file_meta = FileMetaDataset()
    dataset.file_meta.MediaStorageSOPClassUID = RTStructureSetStorage
    dataset.file_meta.MediaStorageSOPInstanceUID = instance
    # implicit, because a contour in explicit encoding may not be longer than 64 kB
    dataset.file_meta.TransferSyntaxUID = ImplicitVRLittleEndian
    dataset.file_meta.ImplementationClassUID = IMPLEMENTATION_UID
    dataset.file_meta.ImplementationVersionName = f"SOARS {__version__}"[:16]
    if date:
        dataset.InstanceCreationDate, dataset.InstanceCreationTime = date, time
    dataset.SOPClassUID, dataset.SOPInstanceUID = RTStructureSetStorage, instance

    add_patient_and_study(dataset, reference, pseudonym)
    dataset.Modality = "RTSTRUCT"
    dataset.SeriesInstanceUID = generate_uid(prefix=None)
    dataset.SeriesNumber = 1
    dataset.SeriesDescription = SERIES_DESCRIPTION
    dataset.OperatorsName = ""
    dataset.Manufacturer = MANUFACTURER
    dataset.ManufacturerModelName = "SOARS"
    dataset.SoftwareVersions = __version__

    dataset.FrameOfReferenceUID = reference.frame_of_reference_uid
    dataset.PositionReferenceIndicator = copied(reference.header, "PositionReferenceIndicator")

    dataset.StructureSetLabel = dicom_text(label, 16)
    dataset.StructureSetName = SERIES_DESCRIPTION
    dataset.StructureSetDate, dataset.StructureSetTime = date, time
    dataset.InstanceNumber = 1
    series = Dataset()
    series.SeriesInstanceUID = reference.series_uid
    series.ContourImageSequence = DicomSequence(_image_item(*image) for image in images)
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


def _instances(reference: CtSeries) -> list[tuple[str, int | None]]:
    """SOP instance of every slice, and its frame there where a file holds several."""
    frames: Sequence[int | None] = reference.frame_numbers or [None] * len(reference.sop_instance_uids)
    return list(zip(reference.sop_instance_uids, frames, strict=True))


def _image_references(reference: CtSeries) -> Iterator[Image]:
    """SOP class, instance and frame of every slice."""
    sop_class = copied(reference.header, "SOPClassUID") or CT_IMAGE
    return ((sop_class, uid, frame) for uid, frame in _instances(reference))


def _image_item(sop_class: str, instance: str, frame: int | None) -> Dataset:
    item = Dataset()
    item.ReferencedSOPClassUID = sop_class
    item.ReferencedSOPInstanceUID = instance
    if frame is not None:
        item.ReferencedFrameNumber = frame
    return item


def _add_roi(
    dataset: Dataset, number: int, name: str, roi_name: str, info: StructureInfo, reference: CtSeries
) -> None:
    """What an ROI is: its entry in the structure set, and its observation."""
    roi = Dataset()
    roi.ROINumber = number
    roi.ReferencedFrameOfReferenceUID = reference.frame_of_reference_uid
    roi.ROIName = dicom_text(roi_name)
    roi.ROIDescription = dicom_text(info.label, 1024)
    describe_generation(roi, info)
    dataset.StructureSetROISequence.append(roi)

    observation = Dataset()
    observation.ObservationNumber = number
    observation.ReferencedROINumber = number
    observation.RTROIInterpretedType = "ORGAN"
    observation.ROIInterpreter = ""
    oar = catalogue_entry(name)
    if oar is not None and oar.snomed_verified:
        code = code_item(oar.snomed_code, oar.snomed_meaning)
        if oar.laterality_code and oar.laterality_meaning:
            code.SegmentedPropertyTypeModifierCodeSequence = DicomSequence(
                [code_item(oar.laterality_code, oar.laterality_meaning)]
            )
        observation.RTROIIdentificationCodeSequence = DicomSequence([code])
    dataset.RTROIObservationsSequence.append(observation)


def _is_latin1(dataset: Dataset) -> bool:
    texts = [str(dataset.get(keyword, "")) for keyword in (*PATIENT, *STUDY, "StudyDescription")]
    texts += [dataset.StructureSetLabel, str(dataset.get("DeidentificationMethod", ""))]
    for roi in dataset.StructureSetROISequence:
        texts += [roi.ROIName, roi.ROIDescription, str(roi.get("ROIGenerationDescription", ""))]
    texts += [item.ContributionDescription for item in dataset.get("ContributingEquipmentSequence", [])]
    return all(ord(c) < 256 for text in texts for c in text)


def _contours(
    structures: StructureSet,
    name: str,
    origins: npt.NDArray[np.float64],
    images: Sequence[Image],
    level: float,
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
        item.ContourImageSequence = DicomSequence([_image_item(*images[z])])
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
