"""Reading structures from whichever file they are in."""

from __future__ import annotations

import logging
from pathlib import Path

from soars.ct.series import CtSeries
from soars.errors import InputError
from soars.formats.dicomfile import kind, sop_class
from soars.formats.registry import ReadOptions
from soars.formats.sources import sources_in, structure_source
from soars.formats.table import FORMATS, format_of
from soars.structures.model import Geometry, StructureSet
from soars.structures.naming import use_catalogue_names

log = logging.getLogger(__name__)


def read_structures(
    path: Path | str,
    geometry: Geometry | None = None,
    *,
    reference: CtSeries | None = None,
    catalogue_names: bool = True,
    any_frame: bool = False,
    names: Path | None = None,
) -> StructureSet:
    """Read structures of any of the formats in `soars.formats.table`.

    Args:
        path: the file or folder; what it is, is decided by its content.
        geometry: the grid the structures shall be on, the CT's. Needed for an RTSTRUCT, which has contours
            but no grid; elsewhere structures on another grid are resampled to it, with a warning that also says
            which voxels lie outside it.
        reference: the CT's series, to check that an RTSTRUCT belongs to it.
        catalogue_names: rename structures that the catalogue knows by another spelling to their TG-263 names
            (``info[name].original_name`` keeps the file's); others are kept as named, with a warning.
        any_frame: take an RTSTRUCT in another frame of reference than the CT's, or in none, as if it were in it.
        names: a names file for a label map that has none.

    Anything unusual is in ``.warnings`` and in the log. Raises `InputError`, with the file, for anything damaged or
    not understood.
    """
    structures = read_as_stored(path, ReadOptions(geometry, reference, any_frame, names))
    if geometry is not None:
        structures = on_grid(structures, geometry, Path(path).name)
    if catalogue_names:
        use_catalogue_names(structures)
    for warning in structures.warnings:
        log.warning("%s", warning)
    return structures


def read_as_stored(path: Path | str, options: ReadOptions) -> StructureSet:
    """The structures on the file's own grid (contours: on ``options.geometry``), with the file's names."""
    path = Path(path)
    if not path.exists():
        raise InputError(f"there is no file or folder {path}")
    source = structure_source(path, options.names)
    if source is None:
        raise _nothing_in(path, options.names)
    found = format_of(source)
    if found is None:
        raise _not_understood(source)
    return found.read(source, options)


def on_grid(structures: StructureSet, geometry: Geometry, what: str) -> StructureSet:
    """The structures on another grid; with a warning, which names them ``what``, when they had to be resampled."""
    if structures.geometry is geometry:
        return structures
    if structures.geometry.same_as(geometry):
        return structures.on(geometry)
    out = structures.resample(geometry)
    if geometry.offset_of(structures.geometry) is not None:
        return out
    out.warnings.append(f"{what} was on another grid ({structures.geometry.describe()}); it was resampled")
    return out


def _nothing_in(folder: Path, names: Path | None) -> InputError:
    found = sources_in(folder, names).found
    if found:
        listed = ", ".join(path.name for path in found[:3]) + (" ..." if len(found) > 3 else "")
        return InputError(f"{folder} holds the structures of several cases ({listed}): name one of them")
    return InputError(f"{folder} holds no masks and no other structures; {_NEEDED}")


def _not_understood(path: Path) -> InputError:
    uid = sop_class(path)
    if uid is not None:
        return InputError(f"{path} is {kind(uid)}: {_NEEDED}")
    return InputError(f"{path} is not a known format: {_NEEDED}")


_NEEDED = f"one of these is needed: {', '.join(f.name for f in FORMATS)}"
