"""A segmentation as Slicer's own file."""

from __future__ import annotations

import os
import shutil
from pathlib import Path
from typing import Any

import slicer

from soars.errors import InputError
from soars.staging import staging_folder
from SOARSSegmentationLib.scene.reading import check_readable


def write_by_slicer(segmentation_node: Any, path: Path) -> None:
    """Write a segmentation, with all that Slicer keeps of it, to a .seg.nrrd; the file appears whole or not at all.

    Slicer's own writer: slower than the core's (`soars.formats.write_seg_nrrd`), and needs no package. `InputError`
    when the file cannot be written.
    """
    path = Path(path)
    check_readable(segmentation_node)
    # Slicer joins the label maps of what it writes: not those that the reader is working on.
    copy = slicer.vtkMRMLSegmentationNode()
    copy.GetSegmentation().DeepCopy(segmentation_node.GetSegmentation())
    storage = slicer.vtkMRMLSegmentationStorageNode()
    folder = None
    try:
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            folder = staging_folder(path.parent)
            temporary = folder / "segmentation.seg.nrrd"
            storage.SetFileName(str(temporary))
            written = storage.WriteData(copy)
            if not written or not temporary.is_file():
                raise OSError("Slicer's writer failed; the disk may be full")
            os.replace(temporary, path)
        except OSError as error:
            raise InputError(f"{path} cannot be written: {error.strerror or error}") from error
    finally:
        if folder is not None:
            shutil.rmtree(folder, ignore_errors=True)
