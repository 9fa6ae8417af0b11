"""RTSTRUCT among the formats: `soars.dicom.rtstruct` does the work."""

from __future__ import annotations

from pathlib import Path

from soars.errors import InputError
from soars.formats.registry import ReadOptions, WriteOptions
from soars.structures.model import StructureSet


def read(path: Path, options: ReadOptions) -> StructureSet:
    """The contours on the CT's grid; `InputError` when no grid is given."""
    from soars.dicom.rtstruct import read_rtstruct

    if options.geometry is None:
        raise InputError(
            f"{path} holds contours but no voxel grid: the CT they were drawn on is needed (--ct)"
        )
    return read_rtstruct(path, options.geometry, options.reference, any_frame=options.any_frame)


def write(structures: StructureSet, path: Path, options: WriteOptions) -> None:
    """Write an RTSTRUCT that references the CT's series; `InputError` when none is given."""
    from soars.dicom.rtstruct import write_rtstruct

    if options.reference is None:
        raise InputError(f"an RTSTRUCT ({path}) references a CT: give its DICOM folder with --ct")
    write_rtstruct(
        structures, path, options.reference, roi_names=options.roi_names, pseudonym=options.pseudonym
    )
