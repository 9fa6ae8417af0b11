"""The formats of structures: one table that says of each how it is recognised, read and written.

To add a format, write a module with its functions and add it to `FORMATS` (in `soars.formats.table`). The format of a
file is recognised by its content, in the table's order; the format to write is chosen by the ending.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from soars.ct.series import CtSeries
from soars.files import Ours
from soars.structures.model import Geometry, StructureSet


@dataclass(frozen=True)
class ReadOptions:
    """What a reader may need beside the file.

    Attributes:
        geometry: the CT's grid, for contours, which have none of their own.
        reference: the CT's series, to check that contours belong to it.
        any_frame: take contours of another frame of reference, or of none, as if they were in the CT's.
        names: a names file for label maps that have none (see `soars.formats.labelnames`).
    """

    geometry: Geometry | None = None
    reference: CtSeries | None = None
    any_frame: bool = False
    names: Path | None = None


@dataclass(frozen=True)
class WriteOptions:
    """What a writer may need beside the structures: the CT's series and, for an RTSTRUCT, a site's names of ROIs and
    the pseudonym of a de-identified file."""

    reference: CtSeries | None = None
    roi_names: Mapping[str, str] = field(default_factory=dict)
    pseudonym: str | None = None


@dataclass(frozen=True)
class Format:
    """One format.

    Attributes:
        name: for messages.
        endings: of its files, the one to write first; empty for a folder.
        recognises: whether a file or folder is of this format, by its content; raises `InputError` for one that is
            damaged so early that it cannot be known.
        read: returns the structures with the names of the file.
        write: None for a format that is read only. All or nothing; existing files are replaced.
        has_grid: False for contours, which are read onto the grid in `ReadOptions`.
        needs_series: whether writing needs the CT's DICOM series in `WriteOptions`.
        beside: other files that `write` makes for a path.
        ours: whether an existing file may be replaced when the user asks for it; None where `recognises` decides.
    """

    name: str
    endings: tuple[str, ...]
    recognises: Callable[[Path], bool]
    read: Callable[[Path, ReadOptions], StructureSet]
    write: Callable[[StructureSet, Path, WriteOptions], object] | None = None
    has_grid: bool = True
    needs_series: bool = False
    beside: Callable[[Path], tuple[Path, ...]] = lambda path: ()
    ours: Ours | None = None

    @property
    def is_folder(self) -> bool:
        return not self.endings

    def may_replace(self, path: Path) -> bool:
        """Whether an existing file is of this format, so that an explicit wish to replace it can be followed."""
        return (self.ours or self.recognises)(path)
