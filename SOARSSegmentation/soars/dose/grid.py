"""A dose distribution from a file: RTDOSE, or an image whose values are Gy."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import SimpleITK as sitk

from soars.ct.image_file import is_image_name, read_image_file
from soars.ct.series import CtSeries
from soars.errors import InputError

if TYPE_CHECKING:
    from soars.dicom.rtdose import RtDose


@dataclass
class Dose:
    """``image``: dose in Gy, float32, LPS mm, on its own grid. ``warnings``: what is odd about it."""

    image: sitk.Image
    path: Path
    warnings: list[str] = field(default_factory=list)


def read_dose(
    path: Path | str,
    reference: CtSeries | None = None,
    unit: str | None = None,
    structures: Iterable[Path] = (),
) -> Dose:
    """Read an RTDOSE, or a NRRD, NIfTI or MHA file.

    Patient and frame of reference of an RTDOSE must be those of the CT, if given, else those of ``structures``: the
    files it will be read in, as far as these name any.
    ``unit``, "Gy" or "cGy", is what the values are in when the file does not say (an image: Gy), or says it wrongly.
    Raises `InputError`, with the file, for what cannot be used.
    """
    path = Path(path)
    if is_image_name(path):
        image, warnings = _read_image(path, unit)
        return Dose(image, path, warnings)
    found = _read_rtdose(path, reference, unit, structures)
    return Dose(found.image, path, found.warnings)


def add_doses(
    folder: Path,
    reference: CtSeries | None = None,
    unit: str | None = None,
    structures: Iterable[Path] = (),
) -> Dose:
    """The sum of all RTDOSEs in a folder, each checked as `read_dose` does. `InputError` when there are none, or they
    cannot be added (`soars.dicom.rtdose_sum.add_rtdoses`)."""
    from soars.dicom.rtdose_sum import add_rtdoses

    paths = rtdoses_in(folder)
    if not paths:
        raise InputError(f"{folder}: there is no RTDOSE in it")
    total = add_rtdoses([_read_rtdose(path, reference, unit, structures) for path in paths])
    return Dose(total.image, folder, total.warnings)


def rtdoses_in(folder: Path) -> list[Path]:
    """The RTDOSE files in a folder, by name, and those that are too damaged to say whether they are one: left out of a
    sum, a beam would be missing unnoticed, whereas reading them says what is wrong."""
    files = sorted(p for p in folder.iterdir() if p.is_file() and not p.name.startswith("."))
    return [path for path in files if _may_be_rtdose(path)]


def _may_be_rtdose(path: Path) -> bool:
    from soars.ct.dicom_files import DICOM_SUFFIXES, is_dicom, read_header
    from soars.dicom.rtdose import RT_DOSE_STORAGE

    try:
        if path.stat().st_size == 0:
            return path.suffix.lower() in DICOM_SUFFIXES
        if not is_dicom(path) or path.name.upper() == "DICOMDIR":
            return False
        header = read_header(path)
    except (InputError, OSError):
        return True
    kind, modality = header.text("SOPClassUID"), header.text("Modality")
    return kind == RT_DOSE_STORAGE or modality == "RTDOSE" or not (kind or modality)


def _read_rtdose(
    path: Path, reference: CtSeries | None, unit: str | None, structures: Iterable[Path]
) -> RtDose:
    """Read, and checked against the CT, or else against the structures."""
    from soars.dicom.rtdose import check_belongs, check_structures, read_rtdose

    found = read_rtdose(path, unit)
    if reference is not None:
        check_belongs(found, reference)
    else:
        for one in structures:
            check_structures(found, one)
    return found


def _read_image(path: Path, unit: str | None) -> tuple[sitk.Image, list[str]]:
    from soars.dicom.rtdose import UNITS, check_height

    image, warnings = read_image_file(path, "a dose")
    values = sitk.GetArrayViewFromImage(image)
    if not np.isfinite(values).all():
        raise InputError(f"{path}: holds values that are NaN or infinite")
    dose = sitk.Cast(image, sitk.sitkFloat32) * UNITS[unit or "Gy"]
    check_height(float(sitk.GetArrayViewFromImage(dose).max()), path)
    return dose, warnings
