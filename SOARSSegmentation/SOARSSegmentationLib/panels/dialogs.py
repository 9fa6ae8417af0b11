"""Questions for files and folders."""

from __future__ import annotations

import re
from pathlib import Path

import qt
import slicer

from SOARSSegmentationLib.desktop import documents
from SOARSSegmentationLib.export.routes import RTSTRUCT, SEG_NRRD
from SOARSSegmentationLib.memory import recall, remember
from SOARSSegmentationLib.translation import _


def ask_file(title: str, start: str, suffix: str) -> str:
    """A file to write, which ends in ``suffix`` whatever was typed; "" when the user thinks better of it."""
    answer = qt.QFileDialog.getSaveFileName(slicer.util.mainWindow(), title, start, f"*{suffix}")
    path = str(answer[0] if isinstance(answer, tuple) else answer or "")
    return path if not path or path.endswith(suffix) else path + suffix


def ask_existing_file(title: str, start: str, kind: str) -> str:
    """A file to read; "" when the user thinks better of it."""
    answer = qt.QFileDialog.getOpenFileName(slicer.util.mainWindow(), title, start, kind)
    return str(answer[0] if isinstance(answer, tuple) else answer or "")


def ask_folder(title: str, start: str) -> str:
    """A folder; "" when the user thinks better of it."""
    return str(qt.QFileDialog.getExistingDirectory(slicer.util.mainWindow(), title, start) or "")


def file_name(text: str) -> str:
    """A node's name as that of a file on every system. Slicer names what it loads from DICOM like "4: Neck", and
    Windows takes what is before the colon for a disk.

    >>> file_name("4: Neck 1/2")
    '4_ Neck 1_2'
    """
    return re.sub(r'[\x00-\x1f<>:"/\\|?*]', "_", text).strip(" .") or "_"


def ask_export(key: str, name: str) -> Path | None:
    """Where one of `export`'s routes should write: a file named after ``name``, or a folder. None when cancelled."""
    start = recall("ExportFolder") or documents()
    if key in (SEG_NRRD, RTSTRUCT):
        suffix = ".seg.nrrd" if key == SEG_NRRD else ".dcm"
        answer = ask_file(_("Export"), str(Path(start, file_name(name) + suffix)), suffix)
        folder = str(Path(answer).parent)
    else:
        folder = answer = ask_folder(_("Export into a folder"), start)
    if not answer:
        return None
    remember("ExportFolder", folder)
    return Path(answer)
