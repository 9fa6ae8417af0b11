"""Slicer's own file."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from SOARSSegmentationLib.export.exported import Exported
from SOARSSegmentationLib.scene.seg_file import write_by_slicer
from SOARSSegmentationLib.translation import _


def export_seg_nrrd(segmentation_node: Any, path: Path) -> Exported:
    """Write the segmentation with all that Slicer keeps of it. `InputError` when it cannot be written."""
    write_by_slicer(segmentation_node, path)
    count = segmentation_node.GetSegmentation().GetNumberOfSegments()
    return Exported(path, _("{count} segments, for opening in Slicer: {path}").format(count=count, path=path))
