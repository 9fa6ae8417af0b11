"""Writing a CT series and an RTDOSE: what the phantom needs so that everything runs on DICOM without patient data.

UIDs are made from a seed: the same image, names and seed give the same files byte for byte.
Source: DICOM PS3.3, A.3 (CT Image IOD) and A.18 (RT Dose IOD).
"""

from __future__ import annotations

import os
import shutil
import uuid
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import SimpleITK as sitk
from pydicom.dataset import Dataset, FileDataset, FileMetaDataset
from pydicom.uid import UID, CTImageStorage, ExplicitVRLittleEndian, RTDoseStorage
from pydicom.valuerep import format_number_as_ds

from soars import __version__
from soars.ct.series import CtSeries
from soars.errors import InputError
from soars.staging import staging_folder

#: Class UID of this program's files, fixed once: `uid_from("implementation", "SOARS")`.
IMPLEMENTATION_UID = UID("2.25.138993448867320773998705465571704213047")
RT_PLAN_STORAGE = "1.2.840.10008.5.1.4.1.1.481.5"
MANUFACTURER = "SOARS"
_UID_SPACE = uuid.UUID("8f3a5a55-2f0c-5d0e-9a39-0d4a51b7c1f1")
#: Stored value = HU + 1024, as scanners do; an image with higher values is stored without offset.
_INTERCEPT = -1024
#: Steps from zero to the maximum dose. 16 bits, not 32: dciodvfy stops at 32-bit pixels.
_DOSE_STEPS = 65000


def uid_from(*parts: object) -> str:
    """A valid UID (2.25 + UUID, PS3.5 B.2) that depends on `parts` only."""
    return f"2.25.{uuid.uuid5(_UID_SPACE, '/'.join(map(str, parts))).int}"


def write_ct_series(
    image: sitk.Image,
    folder: Path | str,
    *,
    patient_id: str,
    patient_name: str,
    seed: object = 0,
    study_description: str = "",
    series_description: str = "",
    date: str = "20200101",
    patient_position: str = "HFS",
) -> list[Path]:
    """Write `image` (int16 HU, LPS mm, any orthogonal direction) as one CT file per slice, `CT_0001.dcm` and on.

    `seed` makes the UIDs; write several series of one patient with different seeds. `date` is YYYYMMDD. Returns the
    files in the order of the image's z index. The folder is made; files of the same name are replaced, and on failure
    nothing is left. Raises `InputError` for an image that is not int16 or not a volume.
    """
    if image.GetDimension() != 3 or image.GetPixelID() != sitk.sitkInt16:
        raise InputError("a CT series is written from a 3D image of int16 HU")
    key = (seed, patient_id)
    frame = uid_from("frame", *key)
    study, series = uid_from("study", *key), uid_from("series", *key)
    values = sitk.GetArrayViewFromImage(image)
    intercept = _INTERCEPT if int(values.max()) - _INTERCEPT <= np.iinfo(np.int16).max else 0
    direction = np.array(image.GetDirection()).reshape(3, 3)
    spacing = image.GetSpacing()

    datasets = []
    for z in range(image.GetSize()[2]):
        ds = _file(CTImageStorage, uid_from("ct", *key, z), date)
        _patient_and_study(ds, patient_id, patient_name, study, date, study_description)
        ds.ImageType = ["ORIGINAL", "PRIMARY", "AXIAL"]
        ds.Modality = "CT"
        ds.SeriesInstanceUID = series
        ds.SeriesNumber = 1
        ds.SeriesDescription = series_description
        ds.PatientPosition = patient_position
        ds.BodyPartExamined = "HEADNECK"
        ds.FrameOfReferenceUID = frame
        ds.PositionReferenceIndicator = ""
        ds.AcquisitionNumber = 1
        ds.AcquisitionDate, ds.AcquisitionTime = date, "120000"
        ds.InstanceNumber = z + 1
        ds.KVP = "120"
        ds.SliceThickness = _ds(spacing[2])
        ds.ImagePositionPatient = _ds_list(image.TransformIndexToPhysicalPoint((0, 0, z)))
        ds.ImageOrientationPatient = _ds_list((*direction[:, 0], *direction[:, 1]))
        ds.PixelSpacing = _ds_list((spacing[1], spacing[0]))  # between rows, between columns
        ds.RescaleIntercept = str(intercept)
        ds.RescaleSlope = "1"
        ds.RescaleType = "HU"
        ds.WindowCenter = "40"
        ds.WindowWidth = "400"
        stored = np.maximum(values[z].astype(np.int32) - intercept, np.iinfo(np.int16).min)
        _pixels(ds, stored.astype("<i2"))
        datasets.append(ds)
    return _save_all(datasets, Path(folder), [f"CT_{z + 1:04d}.dcm" for z in range(len(datasets))])


def write_rtdose(dose_gy: sitk.Image, path: Path | str, reference: CtSeries, *, seed: object = 0) -> Path:
    """Write `dose_gy` (Gy, LPS mm, its own grid) as a RTDOSE of the patient, study and frame of `reference`.

    Values are stored as 16-bit integers, so the step is a 65,000th of the maximum (1.1 mGy for 72 Gy). `seed`
    makes the UIDs. The file appears complete or not at all. Raises `InputError` for negative or not finite dose.
    """
    values = sitk.GetArrayFromImage(sitk.Cast(dose_gy, sitk.sitkFloat64))
    if values.ndim != 3 or not np.isfinite(values).all() or values.min() < 0:
        raise InputError("a RTDOSE is written from a 3D image of finite dose in Gy, zero or more")
    origin = np.array(dose_gy.GetOrigin())
    direction = np.array(dose_gy.GetDirection()).reshape(3, 3)
    spacing = dose_gy.GetSpacing()
    # frames go along the normal (row x column): a mirrored grid is written from its other end
    if np.linalg.det(direction) < 0:
        origin = np.array(dose_gy.TransformIndexToPhysicalPoint((0, 0, dose_gy.GetSize()[2] - 1)))
        values = values[::-1]
    scale = float(format_number_as_ds(max(float(values.max()), 1e-6) / _DOSE_STEPS))
    header = reference.header
    key = (seed, reference.series_uid)
    date = str(header.get("StudyDate") or "20200101")

    ds = _file(RTDoseStorage, uid_from("rtdose", *key), date)
    _patient_and_study(ds, header.get("PatientID", ""), header.get("PatientName", ""), reference.study_uid, date,
                       header.get("StudyDescription") or "")  # fmt: skip
    for keyword in (
        "PatientBirthDate",
        "PatientSex",
        "StudyTime",
        "StudyID",
        "AccessionNumber",
        "ReferringPhysicianName",
    ):
        if keyword in header:
            ds[keyword] = header[keyword]
    ds.Modality = "RTDOSE"
    ds.SeriesInstanceUID = uid_from("rtdose series", *key)
    ds.SeriesNumber = 2
    ds.SeriesDescription = "Dose"
    ds.OperatorsName = ""
    ds.FrameOfReferenceUID = reference.frame_of_reference_uid
    ds.PositionReferenceIndicator = ""
    ds.InstanceNumber = 1
    ds.SliceThickness = _ds(spacing[2])
    ds.ImagePositionPatient = _ds_list(origin)
    ds.ImageOrientationPatient = _ds_list((*direction[:, 0], *direction[:, 1]))
    ds.PixelSpacing = _ds_list((spacing[1], spacing[0]))
    ds.NumberOfFrames = values.shape[0]
    ds.FrameIncrementPointer = 0x3004000C
    ds.GridFrameOffsetVector = _ds_list([spacing[2] * z for z in range(values.shape[0])])
    ds.DoseUnits = "GY"
    ds.DoseType = "PHYSICAL"
    ds.DoseSummationType = "PLAN"
    ds.DoseGridScaling = format_number_as_ds(scale)
    plan = Dataset()
    plan.ReferencedSOPClassUID = RT_PLAN_STORAGE
    plan.ReferencedSOPInstanceUID = uid_from("rtplan", *key)
    ds.ReferencedRTPlanSequence = [plan]
    _pixels(ds, np.rint(values / scale).astype("<u2"))
    path = Path(path)
    return _save_all([ds], path.parent, [path.name])[0]


def _file(sop_class: str, instance_uid: str, date: str) -> FileDataset:
    """An empty file of a kind, with what every kind needs."""
    meta = FileMetaDataset()
    meta.MediaStorageSOPClassUID = UID(sop_class)
    meta.MediaStorageSOPInstanceUID = UID(instance_uid)
    meta.TransferSyntaxUID = ExplicitVRLittleEndian
    meta.ImplementationClassUID = IMPLEMENTATION_UID
    meta.ImplementationVersionName = f"SOARS {__version__}"
    ds = FileDataset("", {}, file_meta=meta, preamble=b"\0" * 128)
    ds.SpecificCharacterSet = "ISO_IR 192"
    ds.SOPClassUID = sop_class
    ds.SOPInstanceUID = instance_uid
    ds.InstanceCreationDate = ds.SeriesDate = ds.ContentDate = date
    ds.InstanceCreationTime = ds.SeriesTime = ds.ContentTime = "120000"
    ds.Manufacturer = MANUFACTURER
    ds.ManufacturerModelName = MANUFACTURER
    ds.SoftwareVersions = __version__
    return ds


def _patient_and_study(
    ds: Dataset, patient_id: str, patient_name: object, study_uid: str, date: str, description: str
) -> None:
    ds.PatientName = str(patient_name)
    ds.PatientID = str(patient_id)
    ds.PatientBirthDate = ""
    ds.PatientSex = ""
    ds.StudyInstanceUID = study_uid
    ds.StudyDate = date
    ds.StudyTime = "120000"
    ds.StudyID = "1"
    ds.AccessionNumber = ""
    ds.ReferringPhysicianName = ""
    ds.StudyDescription = description


def _pixels(ds: Dataset, stored: np.ndarray) -> None:
    """The pixel module for integers, shape (rows, columns) or (frames, rows, columns)."""
    bits = stored.dtype.itemsize * 8
    ds.SamplesPerPixel = 1
    ds.PhotometricInterpretation = "MONOCHROME2"
    ds.Rows, ds.Columns = stored.shape[-2:]
    ds.BitsAllocated = ds.BitsStored = bits
    ds.HighBit = bits - 1
    ds.PixelRepresentation = 1 if stored.dtype.kind == "i" else 0
    raw = stored.tobytes()
    ds.add_new(0x7FE00010, "OW", raw + b"\0" * (len(raw) % 2))


def _save_all(datasets: Sequence[FileDataset], folder: Path, names: Sequence[str]) -> list[Path]:
    """Save into a temporary folder, then move in place, so that a failure leaves nothing behind."""
    made = not folder.exists()
    folder.mkdir(parents=True, exist_ok=True)
    work = staging_folder(folder)
    try:
        for ds, name in zip(datasets, names, strict=True):
            ds.save_as(work / name, enforce_file_format=True)
        for name in names:
            os.replace(work / name, folder / name)
    except BaseException:
        shutil.rmtree(work)
        if made and not any(folder.iterdir()):
            folder.rmdir()
        raise
    work.rmdir()
    return [folder / name for name in names]


def _ds(value: float) -> str:
    """A decimal string of at most 16 characters (PS3.5, 6.2)."""
    return format_number_as_ds(float(value) + 0.0)


def _ds_list(values: Sequence[float] | np.ndarray) -> list[str]:
    return [_ds(v) for v in values]
