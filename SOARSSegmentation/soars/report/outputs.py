"""The files of a run's folder: the names under which they are written, read, listed and explained."""

from __future__ import annotations

SEGMENTATION = "segmentation.seg.nrrd"
RTSTRUCT = "rtstruct.dcm"
REPORT = "report.html"
RECORD = "run.json"

WHAT_IS_IN = {
    SEGMENTATION: "contours, to edit in 3D Slicer",
    RTSTRUCT: "contours, for the planning system",
    REPORT: "pictures and warnings: look here first",
    RECORD: "the same for programs",
}
OUTPUTS = tuple(WHAT_IS_IN)
"""All of them; a run writes no RTSTRUCT for a CT that did not come from DICOM files."""
