"""Reading structures from whichever file they are in."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import TYPE_CHECKING

from soars.errors import InputError
from soars.formats.labelmap import IMAGE_SUFFIXES, read_label_map
from soars.formats.maskfolder import read_mask_folder
from soars.formats.segnrrd import is_seg_nrrd, read_seg_nrrd
from soars.structures.model import Geometry, StructureSet
from soars.structures.naming import use_catalogue_names

if TYPE_CHECKING:
    from soars.ct.series import CtSeries

logger = logging.getLogger(__name__)

_TOLERANCE_MM = 0.01


def read_structures(
    path: Path | str,
    geometry: Geometry | None = None,
    *,
    reference: CtSeries | None = None,
    catalogue_names: bool = True,
    any_frame: bool = False,
) -> StructureSet:
    """Read a .seg.nrrd, a label map with its names, a folder of masks, or an RTSTRUCT.

    Args:
        path: the file or folder.
        geometry: the grid the structures shall be on, the CT's. Needed for an RTSTRUCT, which has contours
            but no grid; elsewhere structures on another grid are resampled to it, with a warning.
        reference: the CT's series, to check that an RTSTRUCT belongs to it.
        catalogue_names: rename structures that the catalogue knows by another spelling to their TG-263 names
            (``info[name]["original_name"]`` keeps the file's); others are kept as named, with a warning.
        any_frame: take an RTSTRUCT in another frame of reference than the CT's, or in none, as if it were in it.

    What is odd is in ``.warnings`` and in the log. Raises `InputError`, with the file, for anything damaged
    or not understood.
    """
    path = Path(path)
    if not path.exists():
        raise InputError(f"there is no file or folder {path}")
    structures = _read(path, geometry, reference, any_frame)
    if geometry is not None and structures.geometry is not geometry:
        if structures.geometry.same_as(geometry, _TOLERANCE_MM):
            warnings = structures.warnings
            structures = structures.on(geometry)
            structures.warnings = warnings
        else:
            warning = f"{path.name} was on another grid ({structures.geometry.describe()}); it was resampled"
            warnings = [*structures.warnings, warning]
            structures = structures.resample(geometry)
            structures.warnings = warnings
    if catalogue_names:
        use_catalogue_names(structures)
    for warning in structures.warnings:
        logger.warning("%s", warning)
    return structures


def _read(path: Path, geometry: Geometry | None, reference: CtSeries | None, any_frame: bool) -> StructureSet:
    if path.is_dir():
        files = [p for p in path.iterdir() if p.is_file() and not p.name.startswith(".")]
        if len(files) == 1 and is_dicom(files[0]):
            return _read(files[0], geometry, reference, any_frame)
        return read_mask_folder(path)
    lower = path.name.lower()
    if lower.endswith((".nrrd", ".nhdr")) and is_seg_nrrd(path):
        return read_seg_nrrd(path)
    if lower.endswith(".seg.nrrd"):
        raise InputError(f"{path} has no segments in its header: it is not a segmentation of Slicer's")
    if lower.endswith(IMAGE_SUFFIXES):
        return read_label_map(path)
    if lower.endswith(".dcm") or is_dicom(path):
        if geometry is None:
            raise InputError(
                f"{path} holds contours but no voxel grid: the CT they were drawn on is needed (--ct)"
            )
        from soars.dicom.rtstruct import read_rtstruct

        return read_rtstruct(path, geometry, reference, any_frame=any_frame)
    raise InputError(
        f"{path} is not understood: RTSTRUCT, .seg.nrrd, a label map or a folder of masks is needed"
    )


def is_dicom(path: Path) -> bool:
    """Whether the file is DICOM by its content, with a preamble or without."""
    from soars.ct.dicom_files import is_dicom as looks_like_dicom

    try:
        return looks_like_dicom(path)
    except OSError:
        return False
