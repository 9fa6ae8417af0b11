"""A small CT series written with pydicom alone, into which a test puts one fault."""

from __future__ import annotations

import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pydicom
import pytest
from pydicom.dataset import Dataset, FileDataset, FileMetaDataset

Edit = Callable[[Dataset, int], None]

ROWS, COLUMNS, SLICES = 16, 20, 6
ROW_SPACING, COLUMN_SPACING, DISTANCE = 0.9, 0.8, 3.0
ORIGIN = (-10.0, -20.0, 30.0)


def ramp_hu(slices: int = SLICES) -> np.ndarray:
    """HU that tell where each voxel is: -1000 + 300 z + 10 y + x, shape (z, y, x)."""
    z, y, x = np.mgrid[:slices, :ROWS, :COLUMNS]
    return (-1000 + 300 * z + 10 * y + x).astype(np.int16)


def write_slices(
    folder: Path,
    *,
    slices: int = SLICES,
    edit: Edit | None = None,
    hu: np.ndarray | None = None,
    prefix: str = "slice",
    series_uid: str = "1.2.3.1",
    slope: float = 1,
    intercept: float = -1024,
    dtype: str = "<u2",
    order: tuple[int, ...] | None = None,
) -> list[Path]:
    """Axial CT slices from feet to head; `edit(dataset, k)` spoils slice k before it is written.

    Files are named by `order` (slice k is called prefix_order[k]), so that names need not follow the slices.
    """
    folder.mkdir(parents=True, exist_ok=True)
    hu = ramp_hu(slices) if hu is None else hu
    files = []
    for k in range(slices):
        meta = FileMetaDataset()
        meta.MediaStorageSOPClassUID = pydicom.uid.CTImageStorage
        meta.MediaStorageSOPInstanceUID = f"{series_uid}.{k + 1}"
        meta.TransferSyntaxUID = pydicom.uid.ExplicitVRLittleEndian
        ds = FileDataset("", {}, file_meta=meta, preamble=b"\0" * 128)
        ds.SOPClassUID, ds.SOPInstanceUID = meta.MediaStorageSOPClassUID, meta.MediaStorageSOPInstanceUID
        ds.ImageType = ["ORIGINAL", "PRIMARY", "AXIAL"]
        ds.Modality = "CT"
        ds.PatientName, ds.PatientID = "Secret^Name", "secret-number"
        ds.StudyInstanceUID, ds.SeriesInstanceUID = "1.2.3", series_uid
        ds.SeriesDescription = "planning"
        ds.FrameOfReferenceUID = "1.2.3.9"
        ds.InstanceNumber = k + 1
        ds.SliceThickness = DISTANCE
        ds.ImagePositionPatient = [ORIGIN[0], ORIGIN[1], ORIGIN[2] + DISTANCE * k]
        ds.ImageOrientationPatient = [1, 0, 0, 0, 1, 0]
        ds.PixelSpacing = [ROW_SPACING, COLUMN_SPACING]
        ds.SamplesPerPixel, ds.PhotometricInterpretation = 1, "MONOCHROME2"
        ds.Rows, ds.Columns = hu.shape[1:]
        bits = np.dtype(dtype).itemsize * 8
        ds.BitsAllocated, ds.BitsStored, ds.HighBit = bits, bits, bits - 1
        ds.PixelRepresentation = int(np.dtype(dtype).kind == "i")
        ds.RescaleSlope, ds.RescaleIntercept = str(slope), str(intercept)
        ds.PixelData = np.rint((hu[k] - float(intercept)) / slope).astype(dtype).tobytes()
        if edit:
            edit(ds, k)
        name = order[k] if order else k
        files.append(folder / f"{prefix}_{name:02d}.dcm")
        ds.save_as(files[-1], enforce_file_format=True)
    return files


def checked_by_dciodvfy(path: Path) -> str:
    """What dciodvfy, an independent checker of DICOM files, has to say against a file: its errors, one a line."""
    program = shutil.which("dciodvfy")
    if program is None:
        pytest.skip("dciodvfy is not installed: apt-get install dicom3tools")
    done = subprocess.run([program, str(path)], capture_output=True, text=True, timeout=60)
    assert done.returncode in (0, 1), f"dciodvfy stopped: {done.stderr}"
    return "\n".join(line for line in (done.stdout + done.stderr).splitlines() if line.startswith("Error"))


@pytest.fixture
def ct_series() -> Callable[..., list[Path]]:
    """`write_slices` (see there)."""
    return write_slices


@pytest.fixture
def ramp() -> Callable[..., np.ndarray]:
    """`ramp_hu` (see there)."""
    return ramp_hu


@pytest.fixture
def dciodvfy() -> Callable[[Path], str]:
    """`checked_by_dciodvfy` (see there)."""
    return checked_by_dciodvfy
