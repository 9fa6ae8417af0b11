"""An RTSTRUCT that refers to the original CT."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from soars.errors import InputError
from soars.staging import TemporaryFolder
from SOARSSegmentationLib.export.exported import Exported, with_voxels
from SOARSSegmentationLib.export.in_place import check_in_place, same_lattice
from SOARSSegmentationLib.scene.ct import INSTANCES_ATTRIBUTE, check_volume, dicom_files
from SOARSSegmentationLib.scene.reading import structures_of
from SOARSSegmentationLib.translation import _

if TYPE_CHECKING:
    import SimpleITK as sitk

    from soars.ct.series import CtSeries


def export_rtstruct(
    segmentation_node: Any,
    volume_node: Any,
    path: Path,
    *,
    files: Sequence[str] | None = None,
    organs: Iterable[str] | None = None,
) -> Exported:
    """Write an RTSTRUCT that refers to the CT's own slices.

    ``files`` are the CT's DICOM files (default: those in Slicer's database), ``organs`` which to write (default: all
    segments); empty segments are left out. `InputError` when the files are not all there or are no planning CT, when
    the CT was moved since it was loaded, when nothing has voxels, or the file cannot be written.
    """
    from soars.dicom.rtstruct import write_rtstruct
    from soars.structures import Geometry

    check_volume(volume_node)
    known = list(files) if files is not None else dicom_files(volume_node)
    if not known:
        raise InputError(why_not(volume_node, known) or "the CT's DICOM files are not known")
    structures = with_voxels(structures_of(segmentation_node, organs, volume_node))
    with _series(known) as (image, series):
        grid = Geometry.of(image)
        moved = not structures.geometry.same_as(grid)
        if moved:
            check_in_place(volume_node, image)
        placed = structures.resample(grid, nearest=True) if moved else structures.on(grid)
        lost = [name for name in structures if placed.is_empty(name)]
        if lost:
            raise InputError(
                f"{', '.join(lost)} would lie outside the original CT or vanish between its voxels: the CT in the "
                "scene is not where its DICOM files say it is"
            )
        write_rtstruct(placed, path, series)
    what = _("{count} organs on the original CT: {path}").format(count=len(structures), path=path)
    if moved and not same_lattice(structures.geometry, grid):
        what += _(" (resampled onto its voxels, because the CT in the scene has a different grid)")
    return Exported(path, what)


def why_not(volume_node: Any, files: Sequence[str]) -> str:
    """Why no RTSTRUCT can refer to a CT whose DICOM files these are, in a sentence; "" when one can."""
    if volume_node is None:
        return _("There is no CT.")
    if not (volume_node.GetAttribute(INSTANCES_ATTRIBUTE) or "").split():
        return _("The CT was not loaded from DICOM: load it through Slicer's DICOM module.")
    if not files:
        return _("The CT's DICOM files are not all in Slicer's DICOM database: import them again.")
    return ""


@contextmanager
def _series(files: Sequence[str]) -> Iterator[tuple[sitk.Image, CtSeries]]:
    """The CT made of these files. Slicer's database may keep them anywhere, mixed with other files, so they are
    collected in a folder of links, or of copies where links cannot be made."""
    from soars.ct.series import read_series

    absent = [file for file in files if not os.path.isfile(file)]
    if absent:
        raise InputError(f"{len(absent)} of the CT's {len(files)} DICOM files are gone: import the CT again")
    with TemporaryFolder() as folder:
        for number, file in enumerate(files):
            _link(file, folder / f"{number:05}.dcm")
        try:
            image, series, _warnings = read_series(folder)
        except InputError as error:
            text = str(error).replace(f"{folder}: ", "").replace(str(folder), "the CT")
            raise InputError(f"the CT's DICOM files cannot be referred to: {text}") from error
        yield image, series


def _link(file: str, path: Path) -> None:
    for way in (os.symlink, os.link, shutil.copyfile):
        try:
            way(os.path.abspath(file), path)
            return
        except (OSError, NotImplementedError) as error:  # no right to make links, another disk
            if way is shutil.copyfile:
                raise InputError(f"{file} cannot be read: {error}") from error
