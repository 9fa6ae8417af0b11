"""Folders with one mask image per organ, named after it (``Parotid_L.nii.gz``), as public data sets come."""

from __future__ import annotations

from pathlib import Path
from urllib.parse import quote, unquote

import numpy as np
import SimpleITK as sitk

from soars.errors import InputError
from soars.files import staged_folder
from soars.formats.imagefiles import write_image
from soars.formats.labelmap import IMAGE_SUFFIXES, image_stem, read_label_image
from soars.structures.model import Geometry, StructureSet, tight_mask

_SAFE = " +-_.,()=&'"
_TOLERANCE_MM = 0.01  # NIfTI keeps its geometry in single precision


def write_mask_folder(structures: StructureSet, folder: Path | str, *, suffix: str = ".nii.gz") -> list[Path]:
    """Write a 0/1 image per structure, empty ones too; returns the paths.

    Masks of the same names are replaced, files that are no images stay, and other images are refused.

    Characters that a file name cannot have are written as %xx, which the reader turns back.
    """
    folder = Path(folder)
    files = {name: f"{quote(name, safe=_SAFE)}{suffix}" for name in structures}
    if len({file.lower() for file in files.values()}) < len(files):
        raise InputError(f"cannot write {folder}: two structures differ only in upper and lower case")
    others = [p.name for p in _images(folder) if p.name not in files.values()] if folder.is_dir() else []
    if others:
        raise InputError(
            f"{folder} holds other masks, which would be read together with these ({', '.join(others[:5])}"
            f"{' ...' if len(others) > 5 else ''}): remove them or choose another folder"
        )
    with staged_folder(folder, list(files.values()), overwrite=True) as staging:
        for name, file in files.items():
            image = structures.geometry.place(sitk.GetImageFromArray(structures.full(name).view(np.uint8)))
            write_image(image, staging / file)
    return [folder / file for file in files.values()]


def _images(folder: Path) -> list[Path]:
    return sorted(p for p in folder.iterdir() if p.is_file() and p.name.lower().endswith(IMAGE_SUFFIXES))


def read_mask_folder(folder: Path | str, geometry: Geometry | None = None) -> StructureSet:
    """Read every image of the folder as the mask (value not 0) of the organ it is named after.

    `InputError` when there is none, one is damaged, or one lies on another grid than the first (or than
    ``geometry``).
    """
    folder = Path(folder)
    paths = _images(folder)
    if not paths:
        raise InputError(
            f"{folder} holds no masks: .nii.gz, .nrrd or .mha files named after organs are needed"
        )
    structures = StructureSet(geometry) if geometry is not None else None
    for path in paths:
        image, warnings = read_label_image(path)
        own = Geometry.of(image)
        if structures is None:
            structures = StructureSet(own)
        elif not own.same_as(structures.geometry, _TOLERANCE_MM):
            first = "the reference image" if geometry is not None else paths[0].name
            raise InputError(
                f"{path} lies on another grid ({own.describe()}) "
                f"than {first} ({structures.geometry.describe()})"
            )
        name = unquote(image_stem(path))
        if name in structures:
            raise InputError(f"{folder} has two masks for {name}: {path.name} is one of them; remove one")
        structures.warnings += warnings
        structures.add_mask(name, tight_mask(sitk.GetArrayViewFromImage(image)))
    assert structures is not None
    return structures
