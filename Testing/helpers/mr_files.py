"""MRs as files: a DICOM series as scanners write it, and image files."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pydicom
import SimpleITK as sitk
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.uid import ExplicitVRLittleEndian, generate_uid

from soars.mr.images import MR_IMAGE


def noise_mr(shape: tuple[int, ...] = (30, 40, 40), spacing_mm: float = 3.0) -> sitk.Image:
    """Nothing but noise, float32."""
    image = sitk.GetImageFromArray(np.random.default_rng(0).normal(100, 9, shape).astype(np.float32))
    image.SetSpacing((spacing_mm,) * image.GetDimension())
    return image


def dicom_mr(
    folder: Path, *, patient: str = "P1", slices: int = 30, series: str | None = None, echo: int | None = None
) -> np.ndarray:
    """An MR as scanners write it: each slice with a slope of its own. Returns its values [z, y, x].

    ``echo``: its number, for several of them in one series; each has other values.
    """
    folder.mkdir(parents=True, exist_ok=True)
    series = series or generate_uid()
    stored = np.random.default_rng(5 + (echo or 0)).integers(0, 4000, (slices, 40, 40)).astype(np.uint16)
    for z, plane in enumerate(stored):
        data = Dataset()
        data.SOPClassUID, data.SOPInstanceUID = MR_IMAGE, generate_uid()
        data.Modality, data.PatientID, data.SeriesDescription = "MR", patient, "T1 ax"
        data.StudyInstanceUID, data.SeriesInstanceUID = "1.2.3", series
        data.ImagePositionPatient, data.ImageOrientationPatient = [0, 0, 3.0 * z], [1, 0, 0, 0, 1, 0]
        data.PixelSpacing, data.SliceThickness = [2.5, 2.0], 3.0
        data.Rows, data.Columns, data.SamplesPerPixel = 40, 40, 1
        data.PhotometricInterpretation, data.PixelRepresentation = "MONOCHROME2", 0
        data.BitsAllocated, data.BitsStored, data.HighBit = 16, 16, 15
        data.RescaleSlope, data.RescaleIntercept = 0.5 + 0.1 * z, -3
        data.PixelData = plane.tobytes()
        if echo is not None:
            data.EchoNumbers = echo
        data.file_meta = FileMetaDataset()
        data.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
        data.file_meta.MediaStorageSOPClassUID = MR_IMAGE
        data.file_meta.MediaStorageSOPInstanceUID = data.SOPInstanceUID
        pydicom.dcmwrite(folder / f"{series[-6:]}_{echo or 0}_{z:03d}.dcm", data, enforce_file_format=True)
    slopes = 0.5 + 0.1 * np.arange(slices)
    return stored * slopes[:, None, None] - 3
