"""Label maps: one image (NRRD, NIfTI, MetaImage) with a value per organ, and a file that names the values.

`soars.formats.labelnames` says which file that is. Values are values, not indices: they may be negative or beyond
16 bits, and where a program stored them as scaled or floating-point numbers they may miss a whole number by
`TOLERANCE`. Structures without voxels are kept because they are listed.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import SimpleITK as sitk

from soars.ct.image_file import IMAGE_SUFFIXES, read_image_file
from soars.errors import InputError
from soars.files import replacing_files, write_json
from soars.formats.imagefiles import write_image
from soars.formats.labelnames import LabelNames, names_beside, read_label_names
from soars.structures.labels import from_label_map, to_label_map
from soars.structures.model import StructureInfo, StructureSet
from soars.structures.naming import describe

TOLERANCE = 0.01
"""How far a value may be from a whole number: what scaled integers and resampling leave."""

_SUFFIXES = (".seg.nrrd", *sorted(IMAGE_SUFFIXES, key=len, reverse=True))


def image_stem(path: Path) -> str:
    """The file's name without .nrrd, .nii.gz, .seg.nrrd ..."""
    for suffix in _SUFFIXES:
        if path.name.lower().endswith(suffix):
            return path.name[: -len(suffix)]
    return path.stem


def names_file(path: Path) -> Path:
    """The JSON file that is written with a label map."""
    return path.with_name(image_stem(path) + ".json")


def names_of(path: Path) -> Path | None:
    """The file that names the values of a label map; None when there is none."""
    return names_beside(path.with_name(image_stem(path)))


def write_label_map(structures: StructureSet, path: Path | str) -> Path:
    """Write the label map and, beside it, the JSON file with the names; returns the JSON file's path."""
    path = Path(path)
    names_path = names_file(path)
    image, values = to_label_map(structures)
    content = {
        "labels": {
            str(value): names[0] if len(names) == 1 else list(names) for value, names in values.items()
        },
        "structures": {name: describe(name, structures.info[name]).to_json() for name in structures},
    }
    with replacing_files([path, names_path]) as temporary:
        write_image(image, temporary[path])
        write_json(temporary[names_path], content)
    return names_path


def read_label_map(path: Path | str, names: Path | None = None) -> StructureSet:
    """Read a label map whose values its own names file names, or else ``names``.

    `InputError` when the image is damaged or no labels, or when nothing names the values.
    """
    path = Path(path)
    image, odd = read_label_image(path)
    named_by = names_of(path) or names
    if named_by is None:
        stem = image_stem(path)
        raise InputError(
            f"{path} is a label map without names: put {stem}.json or {stem}.csv (value,name) beside it, or nnU-Net's "
            f"dataset.json"
        )
    found = read_label_names(named_by)
    structures = from_label_map(image, found.values)
    structures.warnings = [f"{path.name}: {text}" for text in (*odd, *structures.warnings)]
    if named_by != names_of(path):
        structures.warnings.append(f"{path.name}: its values are named by {named_by}")
    _add_info(structures, found)
    return structures


def read_label_image(path: Path) -> tuple[sitk.Image, list[str]]:
    """A three-dimensional image of whole numbers, and what is odd about the file.

    `InputError`, with the file, when it is not one: also when a value is further than `TOLERANCE` from a whole number.
    """
    image, odd = read_image_file(path, "a label map")
    if image.GetPixelID() not in (sitk.sitkFloat32, sitk.sitkFloat64):
        return image, odd
    values = sitk.GetArrayViewFromImage(image)
    if not np.isfinite(values).all():
        raise InputError(f"{path} is not a label map: it has values that are NaN or infinite")
    whole = np.rint(values)
    apart = np.abs(values - whole)
    worst = np.unravel_index(int(apart.argmax()), apart.shape) if apart.size else None
    if worst is not None and apart[worst] > TOLERANCE:
        raise InputError(
            f"{path} is not a label map: it has values that are not whole numbers, e.g. {values[worst]:.6g}"
        )
    if np.abs(whole).max(initial=0) > 2**53:
        raise InputError(f"{path} is not a label map: it has values as large as {np.abs(whole).max():.6g}")
    result = sitk.GetImageFromArray(whole.astype(np.int64))
    result.CopyInformation(image)
    return result, odd


def _add_info(structures: StructureSet, names: LabelNames) -> None:
    for name in structures:
        if name in names.about:
            structures.info[name] = StructureInfo.from_json(names.about[name])
