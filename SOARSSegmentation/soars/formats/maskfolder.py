"""Folders with one mask image per organ, named after it (``Parotid_L.nii.gz``), as in public data sets."""

from __future__ import annotations

import hashlib
import logging
import re
import unicodedata
from collections.abc import Sequence
from pathlib import Path
from urllib.parse import unquote

import numpy as np
import SimpleITK as sitk

from soars.ct.image_file import is_image_name
from soars.errors import InputError
from soars.files import staged_folder
from soars.formats.imagefiles import write_image
from soars.formats.labelmap import image_stem, read_label_image
from soars.structures.mask import Mask, tight_mask
from soars.structures.model import Geometry, StructureSet

log = logging.getLogger(__name__)

_UNSAFE = '%<>:"/\\|?*'
_DEVICES = re.compile(r"(con|prn|aux|nul|com\d|lpt\d)(\W|$)", re.IGNORECASE)
_LONGEST = 255
"""Bytes of a file's name, on all usual file systems."""
_MOST_LABELS = 1000
"""An image with more different values is no label map either, but an image such as a CT."""


def write_mask_folder(structures: StructureSet, folder: Path | str, *, suffix: str = ".nii.gz") -> list[Path]:
    """Write a 0/1 image per structure, empty ones too; returns the paths.

    Masks of the same names are replaced, files other than images stay, and other images are refused.

    Names that files cannot have on every system (see `_file_names`) are written with some characters as %xx, which the
    reader turns back. A name too long for a file is cut, with a warning.
    """
    folder = Path(folder)
    files = _file_names(tuple(structures), suffix)
    others = [p.name for p in images_in(folder) if p.name not in files.values()] if folder.is_dir() else []
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


def _file_names(names: Sequence[str], suffix: str) -> dict[str, str]:
    """Files for names: nothing that leads elsewhere, is hidden or means a device on Windows; no two that differ only in
    case, which are one file on Windows and macOS."""
    files: dict[str, str] = {}
    taken: set[str] = set()
    for name in names:
        # macOS composes letters and their accents, so those that come apart must not reach it
        plain = unicodedata.normalize("NFC", name) == name
        parts = [c if _is_safe(c) and (plain or c.isascii()) else _quoted(c) for c in name]
        if name.startswith(".") or _DEVICES.match(name):
            parts[0] = _quoted(name[0])
        for k, character in enumerate(name):
            if "".join(parts).casefold() not in taken:
                break
            parts[k] = _quoted(character)
        taken.add("".join(parts).casefold())
        files[name] = "".join(parts) + suffix
        if len(files[name].encode()) > _LONGEST:
            files[name] = _cut(parts, name, suffix)
            log.warning("%s ...: the name is too long for a file, which is called %s", name[:30], files[name])
    return files


def _cut(parts: Sequence[str], name: str, suffix: str) -> str:
    """As many of a name's parts as a file can have, and the beginning of its hash, which keeps it unique."""
    end = f"~{hashlib.sha256(name.encode('utf-8', 'surrogatepass')).hexdigest()[:8]}{suffix}"
    lengths = np.cumsum([len(part.encode()) for part in parts])
    return "".join(parts[: int(np.searchsorted(lengths, _LONGEST - len(end.encode()), "right"))]) + end


def _is_safe(character: str) -> bool:
    return character.isprintable() and character not in _UNSAFE


def _quoted(character: str) -> str:
    return "".join(f"%{byte:02X}" for byte in character.encode("utf-8", "surrogatepass"))


def images_in(folder: Path) -> list[Path]:
    """The image files of a folder that are not hidden, by name."""
    return sorted(
        p for p in folder.iterdir() if p.is_file() and is_image_name(p) and not p.name.startswith(".")
    )


def read_mask_folder(folder: Path | str) -> StructureSet:
    """Read every image of the folder as the mask of the organ it is named after: 0, and one other value.

    Masks that each lie on a grid of their own (cropped to their organ, say) are put on one that covers them all. An
    image with grey values, such as the CT beside the masks, is left out with a warning. `InputError` when there is no
    mask, one is damaged, or one has several labels.
    """
    folder = Path(folder)
    paths = images_in(folder)
    masks: dict[str, tuple[Mask, Geometry]] = {}
    warnings: list[str] = []
    for path in paths:
        found = _read_mask(path, warnings)
        if found is None:
            continue
        name = unquote(unicodedata.normalize("NFC", image_stem(path)))
        if name in masks:
            raise InputError(f"{folder} has two masks for {name}: {path.name} is one of them; remove one")
        masks[name] = found
    if not masks:
        why = f" ({warnings[0]})" if warnings else ""
        raise InputError(
            f"{folder} holds no masks{why}: .nii.gz, .nrrd or .mha files named after organs are needed"
        )
    return _on_one_grid(folder, masks, warnings)


def holds_scans_only(folder: Path) -> bool:
    """Whether every image of a folder has grey values, as the CT beside a folder of masks. One that is damaged, or a
    label map, is no scan: reading the folder says what it is."""
    try:
        return all(_read_mask(path, []) is None for path in images_in(folder))
    except InputError:
        return False


def _read_mask(path: Path, warnings: list[str]) -> tuple[Mask, Geometry] | None:
    """The mask and its grid; None, with a warning, for an image with grey values."""
    try:
        image, odd = read_label_image(path)
    except InputError as error:
        if "not whole numbers" not in str(error):
            raise
        warnings.append(f"{path.name} is an image with grey values, not a mask: left out")
        return None
    values = sitk.GetArrayViewFromImage(image)
    # the middle slice of a scan is enough to tell it, and takes a hundredth of the time
    present = _values_of(values[len(values) // 2])
    if not _is_grey(present):
        present = _values_of(values)
    if _is_grey(present):
        span = f"{values.min()} to {values.max()}"
        warnings.append(f"{path.name} is an image with values from {span}, not a mask: left out")
        return None
    if len(present) > 1:
        listed = ", ".join(map(str, present[:4])) + (" ..." if len(present) > 4 else "")
        raise InputError(
            f"{path} has the values {listed}: it is a label map, not the mask of one organ; put a file that names the "
            f"values beside it ({image_stem(path)}.json, or nnU-Net's dataset.json)"
        )
    warnings += [f"{path.name}: {text}" for text in odd]
    return tight_mask(values), Geometry.of(image)


def _values_of(array: np.ndarray) -> np.ndarray:
    """The different values of an image, ascending, without 0."""
    values = np.unique(array)
    return np.asarray(values[values != 0])


def _is_grey(values: np.ndarray) -> bool:
    return len(values) > _MOST_LABELS or (len(values) > 1 and bool(values.min() < 0))


def _on_one_grid(folder: Path, masks: dict[str, tuple[Mask, Geometry]], warnings: list[str]) -> StructureSet:
    first = next(iter(masks.values()))[1]
    geometry = first
    for _, own in masks.values():
        if not own.same_as(geometry):
            geometry = geometry.covering(own)
    structures = StructureSet(geometry)
    structures.warnings = warnings
    moved = []
    for name, (mask, own) in masks.items():
        if own.same_as(geometry):
            structures.add_mask(name, mask)
            continue
        if not own.same_as(first):
            moved.append(name)
        alone = StructureSet(own)
        alone.add_mask(name, mask)
        structures.add_mask(name, alone.resample(geometry).crop(name))
    if moved:
        structures.warnings.append(
            f"{folder.name}: {', '.join(moved[:5])}{' ...' if len(moved) > 5 else ''} lie on other grids than "
            f"{next(iter(masks))}; all were put on one that covers them"
        )
    return structures
