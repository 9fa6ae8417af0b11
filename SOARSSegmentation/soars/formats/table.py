"""The table of formats (see `soars.formats.registry`), in the order in which they are tried."""

from __future__ import annotations

from pathlib import Path

from soars.ct.image_file import is_image_name
from soars.errors import InputError
from soars.formats import dicomseg, rtstruct
from soars.formats.dicomfile import RTSTRUCT as RTSTRUCT_CLASS
from soars.formats.dicomfile import sop_class
from soars.formats.imagefiles import WRITABLE_SUFFIXES
from soars.formats.labelmap import names_file, read_label_map, write_label_map
from soars.formats.maskfolder import images_in, read_mask_folder, write_mask_folder
from soars.formats.registry import Format
from soars.formats.segnrrd import is_seg_nrrd, read_seg_nrrd, write_seg_nrrd


def _is_seg_nrrd(path: Path) -> bool:
    if not path.is_file():
        return False
    if path.name.lower().endswith(".seg.nrrd"):
        return True
    with path.open("rb") as file:
        return file.read(4) == b"NRRD" and is_seg_nrrd(path)


def _is_folder_of_images(path: Path) -> bool:
    return path.is_dir() and bool(images_in(path))


def _is_masks_or_empty(path: Path) -> bool:
    return path.is_dir() and all(p.name.startswith(".") or is_image_name(p) for p in path.iterdir())


SEG_NRRD = Format(
    name=".seg.nrrd",
    endings=(".seg.nrrd",),
    recognises=_is_seg_nrrd,
    read=lambda path, options: read_seg_nrrd(path),
    write=lambda structures, path, options: write_seg_nrrd(structures, path),
)
RTSTRUCT = Format(
    name="RTSTRUCT",
    endings=(".dcm",),
    recognises=lambda path: sop_class(path) == RTSTRUCT_CLASS,
    read=rtstruct.read,
    write=rtstruct.write,
    has_grid=False,
    needs_series=True,
)
DICOM_SEG = Format(name="DICOM SEG", endings=(".dcm",), recognises=dicomseg.recognises, read=dicomseg.read)
LABEL_MAP = Format(
    name="label map",
    endings=WRITABLE_SUFFIXES,
    recognises=lambda path: path.is_file() and is_image_name(path),
    read=lambda path, options: read_label_map(path, options.names),
    write=lambda structures, path, options: write_label_map(structures, path),
    beside=lambda path: (names_file(path),),
)
MASK_FOLDER = Format(
    name="folder of masks",
    endings=(),
    recognises=_is_folder_of_images,
    read=lambda path, options: read_mask_folder(path),
    write=lambda structures, path, options: write_mask_folder(structures, path),
    ours=_is_masks_or_empty,
)

FORMATS = (SEG_NRRD, RTSTRUCT, DICOM_SEG, LABEL_MAP, MASK_FOLDER)


def format_of(path: Path) -> Format | None:
    """The format that recognises a file or folder; None when none does. `InputError` for a damaged DICOM file."""
    return next((found for found in FORMATS if found.recognises(path)), None)


def format_to_write(path: Path) -> Format:
    """What the ending of a path asks for; `InputError` when it is not known."""
    name = path.name.lower()
    for found in FORMATS:
        if found.write and not found.is_folder and name.endswith(found.endings):
            return found
    if not path.suffix or path.is_dir():
        return MASK_FOLDER
    endings = [ending for found in FORMATS if found.write for ending in found.endings]
    raise InputError(
        f"{path.name} does not say what to write: its ending is one of {', '.join(endings)}, or none for a folder of "
        f"masks"
    )
