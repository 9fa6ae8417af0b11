"""DICOM SEG among the formats: `soars.dicom.seg.read` does the work."""

from __future__ import annotations

from pathlib import Path

from soars.formats.dicomfile import sop_class
from soars.formats.registry import ReadOptions
from soars.structures.model import StructureSet


def recognises(path: Path) -> bool:
    """Whether the file is a DICOM segmentation or label map, by its SOP class."""
    from soars.dicom.seg.read import LABEL_MAP, SEGMENTATION

    return sop_class(path) in (SEGMENTATION, LABEL_MAP)


def read(path: Path, options: ReadOptions) -> StructureSet:
    """The segments on the grid of the file's own frames."""
    from soars.dicom.seg.read import read_seg

    return read_seg(path, options.reference, grid=options.geometry, any_frame=options.any_frame)
