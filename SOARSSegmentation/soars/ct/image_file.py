"""One volume from a NRRD, NIfTI or MetaImage file, for everything that is read from such files: CT, MR, dose, labels.

One check for all of them: what the file holds, whether it is whole, and whether its axes can be believed.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import SimpleITK as sitk

from soars.ct.axes import square_image
from soars.ct.itk_messages import itk_messages
from soars.ct.nifti import is_nifti, read_nifti
from soars.errors import InputError
from soars.headers.metaimage import read_metaimage
from soars.headers.nrrd import check_nrrd

#: File names that are read as an image, besides DICOM.
IMAGE_SUFFIXES = (".nrrd", ".nhdr", ".nii", ".nii.gz", ".mha", ".mhd")
_NIFTI_SUFFIXES = (".nii", ".nii.gz")
_MARKS = {".nrrd": b"NRRD", ".nhdr": b"NRRD", ".mha": b"=", ".mhd": b"="}


def is_image_name(path: Path) -> bool:
    """Whether a file is an image by its name."""
    return path.name.lower().endswith(IMAGE_SUFFIXES)


def read_image_file(path: Path, kind: str = "a CT") -> tuple[sitk.Image, list[str]]:
    """One volume with one number per voxel, in the file's own type (LPS mm, perpendicular axes), and its warnings.

    A fourth dimension of one frame is dropped. ``kind`` is the expected kind, for messages. Raises `InputError` with
    one sentence: no such file, damaged, of another kind, sheared, or placed in two ways that contradict each other.
    """
    if not path.is_file():
        raise InputError(f"{path}: there is no such file")
    try:
        if path.stat().st_size == 0:
            raise InputError(f"{path}: the file is empty")
        if path.name.lower().endswith(_NIFTI_SUFFIXES) or is_nifti(path):
            return read_nifti(path, kind)
        _check_mark(path)
        if path.name.lower().endswith((".mha", ".mhd")):
            image, warnings = read_metaimage(path, kind)
        else:
            warnings = check_nrrd(path)
            image = _read_by_itk(path, kind)
    except OSError as error:
        raise InputError(f"{path}: cannot be read ({error.strerror or error})") from error
    except MemoryError as error:
        raise InputError(f"{path}: there is not enough memory to read it") from error
    return image, warnings + square_image(image, path)


def _check_mark(path: Path) -> None:
    """Refuse a file that is not what its name says, which is a different fault from damage."""
    mark = _MARKS.get(path.suffix.lower())
    with path.open("rb") as file:
        start = file.read(256)
    if mark is not None and not (start.startswith(mark) if mark == b"NRRD" else mark in start):
        raise InputError(f"{path}: is not a {path.suffix.lower()} file, whatever its name says")


def _read_by_itk(path: Path, kind: str) -> sitk.Image:
    reader = sitk.ImageFileReader()
    reader.SetFileName(str(path))
    damaged = f"{path}: cannot be read as an image: damaged or cut off; copy or export it again"
    try:
        with itk_messages():
            reader.ReadImageInformation()
            _check_kind(reader, path, kind)
            size = list(reader.GetSize())
            if len(size) == 4:
                reader.SetExtractSize([*size[:3], 0])
            image = reader.Execute()
    except RuntimeError as error:
        text = str(error).lower()
        if "orthonormal" in text:
            raise InputError(
                f"{path}: its axes are not perpendicular; resample it to a regular grid first"
            ) from error
        if "allocate" in text or "bad_alloc" in text:
            raise InputError(f"{path}: there is not enough memory to read it") from error
        raise InputError(damaged) from error
    geometry = (*image.GetSpacing(), *image.GetOrigin(), *image.GetDirection())
    if not np.isfinite(geometry).all():
        raise InputError(f"{path}: its spacing, origin or direction is not finite; export the image again")
    return image


def _check_kind(reader: sitk.ImageFileReader, path: Path, kind: str) -> None:
    """Refuse anything but one scalar volume."""
    size = reader.GetSize()
    if reader.GetNumberOfComponents() != 1:
        raise InputError(
            f"{path}: has {reader.GetNumberOfComponents()} values per voxel, so it is not {kind}"
        )
    if reader.GetPixelID() in (sitk.sitkComplexFloat32, sitk.sitkComplexFloat64):
        raise InputError(f"{path}: has complex values, so it is not {kind}")
    if len(size) == 4 and size[3] == 1:
        return
    if len(size) != 3:
        raise InputError(
            f"{path}: has {len(size)} dimensions ({' x '.join(map(str, size))}); {kind} has three"
        )
