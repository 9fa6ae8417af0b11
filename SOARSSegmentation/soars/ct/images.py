"""Reading and checking a CT: a DICOM folder or a NRRD, NIfTI or MHA file, as int16 HU `SimpleITK.Image`.

Anything that would make contours wrong is refused in one sentence (`InputError`); anything merely unusual is a warning
that travels with the image into the report. Orientation is kept as in the file, in the direction matrix.
"""

from __future__ import annotations

import logging
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import SimpleITK as sitk

from soars.ct.hounsfield import check_range, check_surroundings, to_int16_hu
from soars.ct.image_file import IMAGE_SUFFIXES, is_image_name, read_image_file
from soars.ct.series import CtSeries, is_dicom, read_series, series_of_file
from soars.errors import InputError, keeping_warnings

log = logging.getLogger(__name__)

__all__ = ["IMAGE_SUFFIXES", "CtScan", "read_ct"]

#: Voxels whose values are converted at a time.
SLAB_VOXELS = 1 << 24
#: No CT has voxels outside these: smaller ones mean that the unit is not mm.
LEAST_SPACING_MM, MOST_SPACING_MM = 0.1, 20.0
#: Above this, organs of a few millimetres fall between voxels.
COARSE_SPACING_MM = 6.0
#: Millimetres; a head and neck does not fit in less, and a person does not fill more.
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


def read_ct(path: Path | str, series_uid: str | None = None) -> CtScan:
    """Read a CT from a DICOM folder, from one DICOM file (its whole series), or from a NRRD, NIfTI or MHA file.

    `series_uid` chooses among several DICOM series. Raises `InputError` with one sentence naming the file.
    """
    path = Path(path)
    if not path.exists():
        raise InputError(f"{path}: there is no such file or folder")
    if path.is_dir():
        return _read_dicom(path, path, series_uid)
    if not path.is_file():  # a pipe would be waited for
        raise InputError(f"{path}: is no ordinary file")
    if is_image_name(path):
        if series_uid is not None:
            raise InputError(f"{path}: a series UID can be chosen in a DICOM folder only")
        image, warnings = _read_file(path)
        return CtScan(image, path, None, warnings)
    try:
        dicom = is_dicom(path)
    except OSError as error:
        raise InputError(f"{path}: cannot be read: {error.strerror}") from error
    if dicom:
        return _read_dicom(path, path.parent, series_of_file(path, series_uid))
    if path.stat().st_size == 0:
        raise InputError(f"{path}: the file is empty")
    raise InputError(
        f"{path}: is not a CT; give a DICOM folder or a file ending in {', '.join(IMAGE_SUFFIXES)}"
    )


def _read_dicom(path: Path, folder: Path, series_uid: str | None) -> CtScan:
    image, series, warnings = read_series(folder, series_uid)
    with keeping_warnings(warnings):
        warnings += _check_grid(image, path)
        warnings += check_surroundings(sitk.GetArrayViewFromImage(image))
    return CtScan(image, path, series, warnings)


def _read_file(path: Path) -> tuple[sitk.Image, list[str]]:
    """A CT from one NRRD, NIfTI or MHA file."""
    image, warnings = read_image_file(path, "a CT")
    with keeping_warnings(warnings):
        warnings += _check_grid(image, path)
        values, found = _to_hu(image)
        if not np.isfinite([found.low, found.high]).all():
            raise InputError(f"{path}: every value is NaN or infinite")
        if found.not_finite:
            warnings.append(f"{found.not_finite} voxels that are NaN or infinite were set to air")
        if found.too_high:
            warnings.append(
                f"{found.too_high} voxel{'s' * (found.too_high > 1)} above 32767 HU had to be set to 32767"
            )
        warnings += check_range(found.low, found.high, str(path), declared=False)
        warnings += check_surroundings(values)
    geometry = image.GetSpacing(), image.GetOrigin(), image.GetDirection()
    del image  # a large CT is in memory twice at most from here on
    result = sitk.GetImageFromArray(values)
    result.SetSpacing(geometry[0])
    result.SetOrigin(geometry[1])
    result.SetDirection(geometry[2])
    return result, warnings


@dataclass
class _Met:
    """What the values held: the extremes of the finite ones, and how many were replaced."""

    low: float = np.inf
    high: float = -np.inf
    too_high: int = 0
    not_finite: int = 0


def _to_hu(image: sitk.Image) -> tuple[np.ndarray, _Met]:
    """The values as int16 HU, some slices at a time: a large CT must not be copied whole into every type on the way."""
    view = sitk.GetArrayViewFromImage(image)
    values, met = np.empty(view.shape, np.int16), _Met()
    thickness = max(1, SLAB_VOXELS // max(1, view[0].size))
    for z in range(0, len(view), thickness):
        slab = view[z : z + thickness]
        values[z : z + thickness], too_high, not_finite = to_int16_hu(slab)
        met.too_high += too_high
        met.not_finite += not_finite
        numbers = slab[np.isfinite(slab)] if not_finite else slab
        if numbers.size:
            met.low, met.high = min(met.low, float(numbers.min())), max(met.high, float(numbers.max()))
    return values, met


def _check_grid(image: sitk.Image, path: Path) -> list[str]:
    """Refuse a grid that no CT has; returns warnings about unusual ones."""
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
    wide = " x ".join(f"{v:.3g}" for v in extent)
    if (extent > MOST_EXTENT_MM).any():
        raise InputError(f"{path}: is {wide} mm large, more than any CT; is the spacing in another unit?")
    warnings = []
    if (extent < SMALL_EXTENT_MM).any():
        warnings.append(f"the CT covers only {wide} mm: most organs are outside it")
    if (spacing > COARSE_SPACING_MM).any():
        warnings.append(f"the voxels are coarse ({shown} mm): small organs will be missed")
    return warnings
