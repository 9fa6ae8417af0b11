"""Reading and checking a CT: a DICOM folder or a NRRD, NIfTI or MHA file, as int16 HU `SimpleITK.Image`.

What would make contours wrong is refused in one sentence (`InputError`); what is merely odd is a warning that travels
with the image into the report. Orientation is kept as it is in the file: the direction matrix carries it.
"""

from __future__ import annotations

import gzip
import logging
import math
import struct
import zlib
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import SimpleITK as sitk

from soars.ct.hounsfield import check_range, to_int16_hu
from soars.ct.itk_messages import itk_messages
from soars.ct.series import CtSeries, is_dicom, read_series, series_of_file
from soars.errors import InputError

log = logging.getLogger(__name__)

#: File names that are read as an image, besides DICOM.
IMAGE_SUFFIXES = (".nrrd", ".nhdr", ".nii", ".nii.gz", ".mha", ".mhd")
#: No CT has voxels outside these: smaller ones mean that the unit is not mm.
LEAST_SPACING_MM, MOST_SPACING_MM = 0.1, 20.0
#: Above this, organs of a few millimetres fall between voxels.
COARSE_SPACING_MM = 6.0
#: A head and neck does not fit in less; a person does not fill more.
SMALL_EXTENT_MM, MOST_EXTENT_MM = 50.0, 2500.0
#: Direction cosines may miss a right angle by this much.
DIRECTION_TOLERANCE = 1e-3


@dataclass
class CtScan:
    """A CT that can be segmented: int16 HU, LPS mm, with the DICOM series it came from (None for other files)."""

    image: sitk.Image
    path: Path
    series: CtSeries | None = None
    warnings: list[str] = field(default_factory=list)

    @property
    def identity(self) -> dict[str, object]:
        """Which CT this is, for reports: no patient name or number."""
        return {
            "series_uid": self.series.series_uid if self.series else None,
            "description": self.series.description if self.series else "",
            "size": list(self.image.GetSize()),
            "spacing_mm": [round(v, 6) for v in self.image.GetSpacing()],
            "origin_mm": [round(v, 4) for v in self.image.GetOrigin()],
            "orientation": orientation_code(self.image),
        }


def read_ct(path: Path | str, series_uid: str | None = None) -> CtScan:
    """Read a CT from a DICOM folder, from one DICOM file (its whole series), or from a NRRD, NIfTI or MHA file.

    `series_uid` chooses among several DICOM series. Raises `InputError` with one sentence naming the file.
    """
    path = Path(path)
    if not path.exists():
        raise InputError(f"{path}: there is no such file or folder")
    if path.is_dir():
        image, series, warnings = read_series(path, series_uid)
        return CtScan(image, path, series, warnings + _check_grid(image, path))
    if _is_image_name(path):
        if series_uid is not None:
            raise InputError(f"{path}: a series UID can be chosen in a DICOM folder only")
        image, warnings = _read_file(path)
        return CtScan(image, path, None, warnings)
    try:
        dicom = is_dicom(path)
    except OSError as error:
        raise InputError(f"{path}: cannot be read: {error.strerror}") from error
    if dicom:
        image, series, warnings = read_series(path.parent, series_uid or series_of_file(path))
        return CtScan(image, path, series, warnings + _check_grid(image, path))
    if path.stat().st_size == 0:
        raise InputError(f"{path}: the file is empty")
    raise InputError(
        f"{path}: is not a CT; give a DICOM folder or a file ending in {', '.join(IMAGE_SUFFIXES)}"
    )


def same_geometry(a: sitk.Image, b: sitk.Image, tol_mm: float = 1e-3) -> bool:
    """Whether two images have the same grid: equal size, and no corner voxel further than `tol_mm` apart."""
    if a.GetSize() != b.GetSize():
        return False
    return bool(np.abs(corners(a) - corners(b)).max() <= tol_mm)


def corners(image: sitk.Image) -> np.ndarray:
    """The centres of the eight corner voxels, LPS mm, shape (8, 3)."""
    x, y, z = (n - 1 for n in image.GetSize())
    indices = [(i, j, k) for k in (0, z) for j in (0, y) for i in (0, x)]
    return np.array([image.TransformIndexToPhysicalPoint(i) for i in indices])


def orientation_code(image: sitk.Image) -> str:
    """Where the x, y and z index run to, as three letters: LPS for the usual axial CT, LPI with z reversed."""
    return str(sitk.DICOMOrientImageFilter.GetOrientationFromDirectionCosines(image.GetDirection()))


def _is_image_name(path: Path) -> bool:
    return path.name.lower().endswith(IMAGE_SUFFIXES)


def _read_file(path: Path) -> tuple[sitk.Image, list[str]]:
    """A CT from one NRRD, NIfTI or MHA file."""
    if path.stat().st_size == 0:
        raise InputError(f"{path}: the file is empty")
    if path.name.lower().endswith((".nii", ".nii.gz")):
        _check_nifti_complete(path)
    reader = sitk.ImageFileReader()
    reader.SetFileName(str(path))
    damaged = f"{path}: cannot be read as an image: damaged or cut off; copy or export it again"
    try:
        with itk_messages() as said:
            reader.ReadImageInformation()
            _check_kind(reader, path)
            size = list(reader.GetSize())
            if len(size) == 4:
                reader.SetExtractSize([*size[:3], 0])
            image = reader.Execute()
    except RuntimeError as error:
        if "orthonormal" in str(error).lower():
            raise InputError(
                f"{path}: its axes are not perpendicular; resample it to a regular grid first"
            ) from error
        raise InputError(damaged) from error
    if said and path.name.lower().endswith((".mha", ".mhd")):
        raise InputError(damaged)  # MetaIO says "Uncompress failed" and goes on
    warnings = _check_grid(image, path)
    view = sitk.GetArrayViewFromImage(image)
    values, too_high, not_finite = to_int16_hu(view)
    if not_finite:
        warnings.append(f"{not_finite} voxels that are no number were set to air")
    if too_high:
        warnings.append(f"{too_high} voxel{'s' * (too_high > 1)} above 32767 HU had to be set to 32767")
    finite = view[np.isfinite(view)] if not_finite else view
    if not finite.size:
        raise InputError(f"{path}: holds no number")
    warnings += check_range(float(finite.min()), float(finite.max()), str(path), declared=False)
    result = sitk.GetImageFromArray(values)
    result.CopyInformation(image)
    return result, warnings


def _check_nifti_complete(path: Path) -> None:
    """Raise `InputError` for a NIfTI file that ends too early or is damaged: ITK fills what is missing with zeros.

    Header layout: nifti1.h. A compressed file is read through, which also checks its sum.
    """
    damaged = InputError(f"{path}: the NIfTI file is damaged or cut off; copy it again")
    try:
        opened = gzip.open(path, "rb") if path.name.lower().endswith(".gz") else path.open("rb")
        with opened as file:
            header = file.read(540)
            size = len(header)
            while chunk := file.read(1 << 20):
                size += len(chunk)
        order = next((o for o in "<>" if struct.unpack_from(o + "i", header)[0] in (348, 540)), None)
        if order is None:
            raise InputError(f"{path}: is not a NIfTI file, whatever its name says")
        if struct.unpack_from(order + "i", header)[0] == 540:
            raise InputError(f"{path}: is a NIfTI-2 file, which is not read here; save it as NIfTI-1 or NRRD")
        dim = struct.unpack_from(order + "8h", header, 40)
        (bits,) = struct.unpack_from(order + "h", header, 72)
        offset = int(struct.unpack_from(order + "f", header, 108)[0])
        if size < offset + math.prod(max(n, 1) for n in dim[1 : 1 + max(dim[0], 0)]) * bits // 8:
            raise damaged
    except (EOFError, zlib.error, gzip.BadGzipFile, struct.error, ValueError, OverflowError) as error:
        raise damaged from error
    except OSError as error:
        raise InputError(f"{path}: cannot be read ({error.strerror})") from error


def _check_kind(reader: sitk.ImageFileReader, path: Path) -> None:
    """Refuse what is not one scalar volume."""
    size = reader.GetSize()
    if reader.GetNumberOfComponents() != 1:
        raise InputError(f"{path}: has {reader.GetNumberOfComponents()} values per voxel, so it is not a CT")
    if reader.GetPixelID() in (sitk.sitkComplexFloat32, sitk.sitkComplexFloat64):
        raise InputError(f"{path}: has complex values, so it is not a CT")
    if len(size) == 4 and size[3] == 1:
        return
    if len(size) != 3:
        raise InputError(f"{path}: has {len(size)} dimensions ({' x '.join(map(str, size))}); a CT has three")


def _check_grid(image: sitk.Image, path: Path) -> list[str]:
    """Refuse a grid that no CT has; returns warnings for odd ones."""
    spacing = np.array(image.GetSpacing())
    size = np.array(image.GetSize())
    shown = " x ".join(f"{v:g}" for v in spacing)
    if not np.isfinite(spacing).all() or (spacing <= 0).any() or not np.isfinite(image.GetOrigin()).all():
        raise InputError(f"{path}: its voxel spacing {shown} mm or origin is not usable")
    if (size < 3).any():
        raise InputError(f"{path}: is a single slice ({' x '.join(map(str, size))} voxels); a CT is a volume")
    direction = np.array(image.GetDirection()).reshape(3, 3)
    if (
        not np.isfinite(direction).all()
        or np.abs(direction.T @ direction - np.eye(3)).max() > DIRECTION_TOLERANCE
    ):
        raise InputError(f"{path}: its axes are not perpendicular; resample it to a regular grid first")
    if (spacing < LEAST_SPACING_MM).any() or (spacing > MOST_SPACING_MM).any():
        raise InputError(
            f"{path}: its voxels are {shown} mm, which no CT has ({LEAST_SPACING_MM} to {MOST_SPACING_MM} mm); is the "
            f"spacing in another unit?"
        )
    extent = spacing * size
    wide = " x ".join(f"{v:.0f}" for v in extent)
    if (extent > MOST_EXTENT_MM).any():
        raise InputError(f"{path}: is {wide} mm large, more than any CT; is the spacing in another unit?")
    warnings = []
    if (extent < SMALL_EXTENT_MM).any():
        warnings.append(f"the CT covers only {wide} mm: most organs are outside it")
    if (spacing > COARSE_SPACING_MM).any():
        warnings.append(f"the voxels are coarse ({shown} mm): small organs will be missed")
    return warnings
