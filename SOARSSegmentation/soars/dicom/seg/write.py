"""Writing a DICOM Segmentation: one binary segment an organ, one frame a slice of it, on the CT's own grid.

Source of what is in it: DICOM PS3.3, A.51 (Segmentation IOD), C.8.20 and C.7.6.16. Overlapping organs are no problem;
slices without a voxel of an organ are left out.
"""

from __future__ import annotations

from datetime import datetime
from pathlib import Path

import numpy as np
import numpy.typing as npt
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.sequence import Sequence as DicomSequence
from pydicom.uid import UID, ExplicitVRLittleEndian, generate_uid
from pydicom.valuerep import format_number_as_ds

from soars import __version__
from soars.ct.dicom_files import CT_IMAGE
from soars.ct.series import CtSeries
from soars.dicom.document import add_patient_and_study, copied, slice_origins
from soars.dicom.provenance import MANUFACTURER, MODEL_TAG, code_item, dicom_text, generation_algorithm
from soars.dicom.rtstruct_write import SERIES_DESCRIPTION, check_reference
from soars.dicom.seg.read import D50, SEGMENTATION, TO_RGB
from soars.dicom.write import IMPLEMENTATION_UID
from soars.errors import InputError
from soars.files import replacing_file
from soars.structures.model import Colour, StructureInfo, StructureSet
from soars.structures.naming import FALLBACK_COLOUR, catalogue_entry, describe

_CATEGORY = ("123037004", "Anatomical Structure")
_ANY_STRUCTURE = ("91723000", "Anatomical structure")
"""SNOMED CT, for an organ whose own code is not verified: the type of a segment must have one."""
_SOURCE = ("121322", "Source image for image processing operation")
_SEGMENTATION = ("113076", "Segmentation")
_SERIES_NUMBER = 3


def write_seg(structures: StructureSet, path: Path | str, reference: CtSeries) -> None:
    """Write the structures as a binary DICOM SEG that references the CT series ``reference``.

    ``structures`` lie on the grid of the series' image. The file appears whole or not at all. Structures without a
    voxel are left out, since a segment must have a frame. Raises `InputError` when the series lacks an identifier, is
    not the one the structures lie on, or no structure has a voxel.
    """
    check_reference(structures.geometry, reference)
    names = [name for name in structures if not structures.is_empty(name)]
    if not names:
        raise InputError("there is no voxel of any structure: a DICOM SEG cannot be empty")
    origins = slice_origins(structures.geometry, reference)
    dataset = _document(reference)
    dataset.SegmentSequence = DicomSequence(
        _segment(number, name, describe(name, structures.info[name])) for number, name in enumerate(names, 1)
    )
    _add_frames(dataset, structures, names, origins, reference)
    with replacing_file(path) as temporary:
        dataset.save_as(temporary, enforce_file_format=True)


def _document(reference: CtSeries) -> Dataset:
    """Everything but segments and frames."""
    now = datetime.now()
    dataset = Dataset()
    dataset.file_meta = FileMetaDataset()
    dataset.file_meta.MediaStorageSOPClassUID = UID(SEGMENTATION)
    instance = generate_uid(prefix=None)
    dataset.file_meta.MediaStorageSOPInstanceUID, dataset.SOPInstanceUID = instance, instance
    dataset.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
    dataset.file_meta.ImplementationClassUID = IMPLEMENTATION_UID
    dataset.file_meta.ImplementationVersionName = f"SOARS {__version__}"[:16]
    dataset.SpecificCharacterSet = "ISO_IR 192"
    dataset.SOPClassUID = SEGMENTATION
    add_patient_and_study(dataset, reference, None)
    dataset.InstanceCreationDate = dataset.ContentDate = dataset.SeriesDate = now.strftime("%Y%m%d")
    dataset.InstanceCreationTime = dataset.ContentTime = dataset.SeriesTime = now.strftime("%H%M%S")
    dataset.Modality = "SEG"
    dataset.SeriesInstanceUID = generate_uid(prefix=None)
    dataset.SeriesNumber = _SERIES_NUMBER
    dataset.SeriesDescription = SERIES_DESCRIPTION
    dataset.Manufacturer = MANUFACTURER
    dataset.ManufacturerModelName = "SOARS"
    dataset.DeviceSerialNumber = "0"
    dataset.SoftwareVersions = __version__
    dataset.FrameOfReferenceUID = reference.frame_of_reference_uid
    dataset.PositionReferenceIndicator = copied(reference.header, "PositionReferenceIndicator")
    dataset.ImageType = ["DERIVED", "PRIMARY"]
    dataset.InstanceNumber = 1
    dataset.ContentLabel = "SEGMENTATION"
    dataset.ContentDescription = SERIES_DESCRIPTION
    dataset.ContentCreatorName = ""
    dataset.SegmentationType = "BINARY"
    dataset.LossyImageCompression = "00"
    series = Dataset()
    series.SeriesInstanceUID = reference.series_uid
    series.ReferencedInstanceSequence = DicomSequence(_images(reference))
    dataset.ReferencedSeriesSequence = DicomSequence([series])
    return dataset


def _class_of(reference: CtSeries) -> str:
    return copied(reference.header, "SOPClassUID") or CT_IMAGE


def _images(reference: CtSeries) -> list[Dataset]:
    sop_class = _class_of(reference)
    items = []
    for uid in dict.fromkeys(reference.sop_instance_uids):
        item = Dataset()
        item.ReferencedSOPClassUID, item.ReferencedSOPInstanceUID = sop_class, uid
        items.append(item)
    return items


def _segment(number: int, name: str, info: StructureInfo) -> Dataset:
    item = Dataset()
    item.SegmentNumber = number
    item.SegmentLabel = dicom_text(name)
    item.SegmentDescription = dicom_text(info.label)
    item.SegmentAlgorithmType = generation_algorithm(info)
    if item.SegmentAlgorithmType != "MANUAL":  # drawn by hand it has no algorithm (type 1C, PS3.3 C.8.20.2)
        item.SegmentAlgorithmName = dicom_text(info.tags.get(MODEL_TAG, "") or "SOARS")
    item.SegmentedPropertyCategoryCodeSequence = DicomSequence([code_item(*_CATEGORY)])
    oar = catalogue_entry(name)
    known = oar is not None and oar.snomed_verified
    kind = code_item(oar.snomed_code, oar.snomed_meaning) if known and oar else code_item(*_ANY_STRUCTURE)
    if known and oar and oar.laterality_code and oar.laterality_meaning:
        kind.SegmentedPropertyTypeModifierCodeSequence = DicomSequence(
            [code_item(oar.laterality_code, oar.laterality_meaning)]
        )
    item.SegmentedPropertyTypeCodeSequence = DicomSequence([kind])
    item.RecommendedDisplayCIELabValue = _cielab(info.colour or FALLBACK_COLOUR)
    return item


def _add_frames(
    dataset: Dataset,
    structures: StructureSet,
    names: list[str],
    origins: npt.NDArray[np.float64],
    reference: CtSeries,
) -> None:
    geometry = structures.geometry
    columns, rows, _ = geometry.size
    dataset.Rows, dataset.Columns = rows, columns
    dataset.SamplesPerPixel, dataset.PhotometricInterpretation = 1, "MONOCHROME2"
    dataset.BitsAllocated = dataset.BitsStored = 1
    dataset.HighBit = dataset.PixelRepresentation = 0
    direction = np.array(geometry.direction).reshape(3, 3)
    orientation, measures, shared = Dataset(), Dataset(), Dataset()
    orientation.ImageOrientationPatient = _ds([*direction[:, 0], *direction[:, 1]])
    measures.PixelSpacing = _ds([geometry.spacing[1], geometry.spacing[0]])
    measures.SliceThickness = measures.SpacingBetweenSlices = _ds([geometry.spacing[2]])[0]
    shared.PlaneOrientationSequence = DicomSequence([orientation])
    shared.PixelMeasuresSequence = DicomSequence([measures])
    dataset.SharedFunctionalGroupsSequence = DicomSequence([shared])

    organization = Dataset()
    organization.DimensionOrganizationUID = generate_uid(prefix=None)
    dataset.DimensionOrganizationSequence = DicomSequence([organization])
    dataset.DimensionIndexSequence = DicomSequence(
        _dimension(organization.DimensionOrganizationUID, pointer, group)
        for pointer, group in ((0x0062000B, 0x0062000A), (0x00200032, 0x00209113))
    )
    sop_class = _class_of(reference)
    groups, packed = [], []
    held = np.zeros(0, bool)
    for number, name in enumerate(names, 1):
        mask = structures.crop(name)
        for offset in np.flatnonzero(mask.array.any(axis=(1, 2))).tolist():
            z = mask.start[0] + offset
            frame = np.zeros((rows, columns), bool)
            frame[mask.slices[1:]] = mask.array[offset]
            # frames follow each other bit by bit, without a gap (PS3.5 8.1.1)
            bits = np.concatenate([held, frame.ravel()])
            whole = len(bits) // 8 * 8
            packed.append(np.packbits(bits[:whole], bitorder="little").tobytes())
            held = bits[whole:]
            groups.append(_frame(number, z, origins[z], _source(reference, sop_class, z)))
    packed.append(np.packbits(held, bitorder="little").tobytes())
    pixels = b"".join(packed)
    dataset.NumberOfFrames = len(groups)
    dataset.PerFrameFunctionalGroupsSequence = DicomSequence(groups)
    dataset.add_new(0x7FE00010, "OB", pixels + b"\0" * (len(pixels) % 2))


def _frame(number: int, z: int, origin: npt.NDArray[np.float64], source: Dataset) -> Dataset:
    content, place, segment, group = Dataset(), Dataset(), Dataset(), Dataset()
    content.DimensionIndexValues = [number, z + 1]
    place.ImagePositionPatient = _ds(origin.tolist())
    segment.ReferencedSegmentNumber = number
    group.FrameContentSequence = DicomSequence([content])
    group.PlanePositionSequence = DicomSequence([place])
    group.SegmentIdentificationSequence = DicomSequence([segment])
    group.DerivationImageSequence = DicomSequence([source])
    return group


def _source(reference: CtSeries, sop_class: str, z: int) -> Dataset:
    """The slice that a frame was made from."""
    image, derivation = Dataset(), Dataset()
    image.ReferencedSOPClassUID = sop_class
    image.ReferencedSOPInstanceUID = reference.sop_instance_uids[z]
    if reference.frame_numbers:
        image.ReferencedFrameNumber = reference.frame_numbers[z]
    image.PurposeOfReferenceCodeSequence = DicomSequence([code_item(*_SOURCE, "DCM")])
    derivation.SourceImageSequence = DicomSequence([image])
    derivation.DerivationCodeSequence = DicomSequence([code_item(*_SEGMENTATION, "DCM")])
    return derivation


def _dimension(organization: str, pointer: int, group: int) -> Dataset:
    item = Dataset()
    item.DimensionOrganizationUID = organization
    item.DimensionIndexPointer = pointer
    item.FunctionalGroupPointer = group
    return item


def _cielab(colour: Colour) -> list[int]:
    """RGB (sRGB) as DICOM's 16-bit CIELab (PS3.3 C.10.7.1.1); what `soars.dicom.seg.read` undoes."""
    rgb = np.array(colour) / 255
    linear = np.where(rgb <= 0.04045, rgb / 12.92, ((rgb + 0.055) / 1.055) ** 2.4)
    t = np.linalg.solve(TO_RGB, linear) / D50
    f = np.where(t > (6 / 29) ** 3, np.cbrt(t), t / (3 * (6 / 29) ** 2) + 4 / 29)
    lab = np.array([116 * f[1] - 16, 500 * (f[0] - f[1]), 200 * (f[1] - f[2])])
    scaled = (lab + [0, 128, 128]) / [100, 255, 255] * 65535
    return [int(v) for v in np.clip(np.rint(scaled), 0, 65535)]


def _ds(values: list[float]) -> list[str]:
    return [format_number_as_ds(float(value) + 0.0) for value in values]
