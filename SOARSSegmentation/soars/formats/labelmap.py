"""Label maps: one image (NRRD, NIfTI, MHA) with a value per organ, and a JSON or CSV file beside it that
names them.

``organs.nii.gz`` goes with ``organs.json``: ``{"labels": {"1": "Eye_L", "2": "Lens_L", "3": ["Eye_L",
"Lens_L"]}}``; a value with several names stands for voxels of all of them, so overlapping organs survive. As
CSV, ``organs.csv`` has the columns ``value,name``, with a row per name. Structures without voxels are kept
because they are listed.
"""

from __future__ import annotations

import csv
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import SimpleITK as sitk

from soars.ct.image_file import read_image_file
from soars.errors import InputError
from soars.files import replacing_files, write_json
from soars.formats.imagefiles import write_image
from soars.structures.model import StructureSet
from soars.structures.naming import describe

IMAGE_SUFFIXES = (".nii.gz", ".nii", ".nrrd", ".mha", ".nhdr", ".mhd")


def image_stem(path: Path) -> str:
    """The file's name without .nrrd, .nii.gz, .seg.nrrd ..."""
    for suffix in (".seg.nrrd", *IMAGE_SUFFIXES):
        if path.name.lower().endswith(suffix):
            return path.name[: -len(suffix)]
    return path.stem


def names_file(path: Path) -> Path:
    """The JSON file that goes with a label map."""
    return path.with_name(image_stem(path) + ".json")


def write_label_map(structures: StructureSet, path: Path | str) -> Path:
    """Write the label map and, beside it, the JSON file with the names; returns the JSON file's path."""
    path = Path(path)
    names_path = names_file(path)
    image, values = structures.to_label_map()
    about = {name: describe(name, structures.info[name]) for name in structures}
    content = {
        "labels": {
            str(value): names[0] if len(names) == 1 else list(names) for value, names in values.items()
        },
        "structures": {
            name: {
                key: info[key]
                for key in ("label", "colour", "terminology", "original_name", "tags")
                if key in info
            }
            for name, info in about.items()
        },
    }
    with replacing_files([path, names_path]) as temporary:
        write_image(image, temporary[path])
        write_json(temporary[names_path], content)
    return names_path


def read_label_map(path: Path | str) -> StructureSet:
    """Read a label map with its names from ``<name>.json`` or ``<name>.csv`` beside it.

    `InputError` when the image is damaged or no labels, or when nothing names the values.
    """
    path = Path(path)
    image, warnings = read_label_image(path)
    base = path.with_name(image_stem(path))
    readers: dict[str, Callable[[Path], tuple[dict[int, tuple[str, ...]], dict[str, Any]]]]
    readers = {".json": _read_json, ".csv": _read_csv}
    for ending, reader in readers.items():
        names_path = base.with_name(base.name + ending)
        if names_path.is_file():
            values, about = reader(names_path)
            break
    else:
        raise InputError(
            f"{path} is a label map without names: "
            f"put {base.name}.json or {base.name}.csv (value,name) beside it"
        )
    structures = StructureSet.from_label_map(image, values)
    structures.warnings = [*warnings, *(f"{path.name}: {text}" for text in structures.warnings)]
    for name in structures:
        info = about.get(name)
        if isinstance(info, dict):
            structures.info[name] = {
                **info,
                **({"colour": tuple(info["colour"])} if "colour" in info else {}),
            }
    return structures


def read_label_image(path: Path) -> tuple[sitk.Image, list[str]]:
    """A three-dimensional image of whole numbers, and what is odd about it; `InputError` with the file when it is not
    one."""
    image, warnings = read_image_file(path, "a label map")
    if image.GetPixelID() in (sitk.sitkFloat32, sitk.sitkFloat64):
        values = sitk.GetArrayViewFromImage(image)
        if not (np.isfinite(values).all() and (values == np.rint(values)).all()):
            raise InputError(f"{path} is not a label map: it has values that are not whole numbers")
        image = sitk.Cast(image, sitk.sitkInt32)
    return image, warnings


def _read_json(path: Path) -> tuple[dict[int, tuple[str, ...]], dict[str, Any]]:
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
        labels = content.get("labels", content)
        values = {int(v): (names,) if isinstance(names, str) else tuple(names) for v, names in labels.items()}
        if not all(isinstance(name, str) for names in values.values() for name in names):
            raise ValueError("a name is not text")
        about = content.get("structures", {}) if "labels" in content else {}
        return values, about if isinstance(about, dict) else {}
    except (OSError, ValueError, TypeError, AttributeError) as error:
        raise InputError(
            f'{path} does not name the labels; it should read {{"labels": {{"1": "Brainstem"}}}} ({error})'
        ) from error


def _read_csv(path: Path) -> tuple[dict[int, tuple[str, ...]], dict[str, Any]]:
    try:
        with path.open(encoding="utf-8-sig", newline="") as file:
            rows = [row for row in csv.reader(file) if row and row[0].strip()]
        if rows and not rows[0][0].strip().lstrip("-").isdigit():
            rows = rows[1:]
        values: dict[int, tuple[str, ...]] = {}
        for value, name, *_ in rows:
            values[int(value)] = (*values.get(int(value), ()), name.strip())
        if not values:
            raise ValueError("it has no rows")
        return values, {}
    except (OSError, ValueError, csv.Error) as error:
        raise InputError(
            f"{path} does not name the labels; it should have the columns value,name ({error})"
        ) from error
