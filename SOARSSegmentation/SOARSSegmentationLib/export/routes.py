"""The ways out of Slicer, and why one is not open.

Two ways lead to an RTSTRUCT. Ours refers to the original CT's slices, as planning systems expect, and needs the CT's
DICOM files. SlicerRT's does not: it writes a new copy of the CT, and contours that refer to that copy.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from SOARSSegmentationLib.export import rtstruct, session_log, slicerrt
from SOARSSegmentationLib.translation import _

SEG_NRRD, RTSTRUCT, SLICERRT, LOG = "seg_nrrd", "rtstruct", "slicerrt", "log"


@dataclass(frozen=True)
class Route:
    """A way out: ``title`` for people; ``why_not`` says what it lacks when it is not ``available``."""

    key: str
    title: str
    available: bool
    why_not: str = ""


def routes(
    segmentation_node: Any,
    volume_node: Any,
    dicom_files: Sequence[str],
    session_folder: Path | None = None,
) -> list[Route]:
    """Every export route for these contours on this CT, given the CT's DICOM files."""
    nothing = _("There are no contours yet.") if segmentation_node is None else ""
    log = session_folder is not None and session_log.logs_of(session_folder)
    return [
        _route(SEG_NRRD, _("Slicer segmentation (.seg.nrrd)"), nothing),
        _route(
            RTSTRUCT, _("RTSTRUCT on the original CT"), nothing or rtstruct.why_not(volume_node, dicom_files)
        ),
        _route(
            SLICERRT,
            _("RTSTRUCT and a copy of the CT, by SlicerRT"),
            nothing or slicerrt.why_not(volume_node),
        ),
        _route(LOG, _("Log of the session"), "" if log else _("There is no session yet.")),
    ]


def _route(key: str, title: str, why_not: str) -> Route:
    return Route(key, title, not why_not, why_not)
