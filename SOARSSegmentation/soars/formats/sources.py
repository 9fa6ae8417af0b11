"""Where in a folder the structures of a case lie."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from soars.ct.image_file import is_image_name
from soars.errors import InputError
from soars.formats.labelmap import names_of
from soars.formats.maskfolder import holds_scans_only
from soars.formats.table import LABEL_MAP, MASK_FOLDER, format_of


@dataclass(frozen=True)
class Sources:
    """The structures that a folder holds directly: files, or the folder itself where it is a folder of masks."""

    found: tuple[Path, ...]

    @property
    def only(self) -> Path | None:
        """The one source; None when there are none or several."""
        return self.found[0] if len(self.found) == 1 else None


def structure_source(path: Path, names: Path | None = None) -> Path | None:
    """The file or folder of masks that holds the structures of one case; None for a folder of several cases, or of
    none. A folder leads to what lies in it, or in the only folder in it. In public data sets, the folder of masks lies
    beside the scan (``CT_IMAGE.nrrd`` and ``segmentations``), perhaps with folders of other things.

    Args:
        names: a names file for label maps that have none of their own: with it they are not taken for masks.
    """
    if not path.is_dir():
        return path
    folders = [p for p in sorted(path.iterdir()) if p.is_dir() and not p.name.startswith(".")]
    sources = sources_in(path, names)
    if sources.found:
        if sources.only == path and folders and holds_scans_only(path):
            beside = [found for found in (structure_source(p, names) for p in folders) if found is not None]
            return beside[0] if len(beside) == 1 else None
        return sources.only
    return structure_source(folders[0], names) if len(folders) == 1 else None


def sources_in(folder: Path, names: Path | None = None) -> Sources:
    """What lies directly in a folder. Files of several formats are not mixed: a .seg.nrrd goes before DICOM objects,
    these before label maps, these before masks; CT slices and other files are no structures."""
    files = [p for p in sorted(folder.iterdir()) if p.is_file() and not p.name.startswith(".")]
    by_format: dict[str, list[Path]] = {}
    for path in files:
        try:
            found = format_of(path)
        except InputError:
            continue  # a damaged file is reported when it is requested by name
        if found is not None:
            by_format.setdefault(found.name, []).append(path)
    images = by_format.pop(LABEL_MAP.name, [])
    for paths in by_format.values():
        return Sources(tuple(paths))
    named = [p for p in images if names or names_of(p)]
    if named and len(images) == len(named):
        return Sources(tuple(named))
    if named:
        return Sources(tuple(named) if len(named) == 1 else tuple(images))
    return Sources((folder,) if MASK_FOLDER.recognises(folder) else ())


def is_case_file(path: Path) -> bool:
    """Whether a file in a folder of cases is the structures of a case."""
    if is_image_name(path):
        return True
    try:
        return format_of(path) is not None
    except InputError:
        return True  # damaged: reading it says so
