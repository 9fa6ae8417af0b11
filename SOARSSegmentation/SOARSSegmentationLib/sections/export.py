"""The logic of the last section: contours and the log are written where the user chooses."""

from __future__ import annotations

from pathlib import Path

import slicer

from SOARSSegmentationLib.desktop import waiting
from SOARSSegmentationLib.export.exported import Exported
from SOARSSegmentationLib.export.routes import LOG, RTSTRUCT, SEG_NRRD, SLICERRT, routes
from SOARSSegmentationLib.export.rtstruct import export_rtstruct
from SOARSSegmentationLib.export.seg_nrrd import export_seg_nrrd
from SOARSSegmentationLib.export.session_log import export_log
from SOARSSegmentationLib.export.slicerrt import export_by_slicerrt, slicerrt_bytes
from SOARSSegmentationLib.panels.dialogs import ask_export
from SOARSSegmentationLib.panels.export_panel import ExportPanel
from SOARSSegmentationLib.panels.parts import sentence
from SOARSSegmentationLib.scene.ct import DicomFiles
from SOARSSegmentationLib.sections.desk import Change, Desk, saying
from SOARSSegmentationLib.sections.section import Section
from SOARSSegmentationLib.translation import _

_MUCH_BYTES = 200_000_000
"""Memory from which the user is asked first."""
_SHOWN_BY = Change.SCENE | Change.ENTERED | Change.CT | Change.CONTOURS | Change.SESSION


class ExportSection(Section):
    def __init__(self, desk: Desk) -> None:
        self._desk = desk
        self._files = DicomFiles()
        self.panel = ExportPanel(self.export)
        self.widget, self.notice = self.panel.widget, self.panel.notice
        self.widget.collapsed = True

    def show(self, change: Change) -> None:
        if change & Change.ENTERED:
            self._files.forget()
        if change & _SHOWN_BY:
            p = self._desk.parameters
            folder = Path(p.session_folder) if p.session_folder else None
            volume = self._desk.volume
            self.panel.show(routes(p.segmentation, volume, self._files.of(volume), folder))

    def export(self, key: str) -> None:
        """Ask where to, and write."""
        node = self._desk.parameters.segmentation
        with saying(self.notice):
            if key == SLICERRT and not self._confirm_size():
                return
            path = ask_export(key, node.GetName() if node is not None else "session")
            if path is None:
                return
            self.notice.clear()
            with waiting(), self._desk.busy("export"):
                exported = self._write(key, path)
            self.notice.say("done", sentence(exported.what))

    def _confirm_size(self) -> bool:
        size = slicerrt_bytes(self._desk.parameters.segmentation, self._desk.volume)
        if size < _MUCH_BYTES:
            return True
        question = _(
            "SlicerRT makes an image as large as the CT for every organ, {size:.1f} GB of memory, and Slicer does not "
            "answer meanwhile. The RTSTRUCT on the original CT needs neither. Go on?"
        ).format(size=size / 1e9)
        return bool(slicer.util.confirmOkCancelDisplay(question, _("SOARS Segmentation")))

    def _write(self, key: str, path: Path) -> Exported:
        node, volume = self._desk.parameters.segmentation, self._desk.volume
        ways = {
            SEG_NRRD: lambda: export_seg_nrrd(node, path),
            RTSTRUCT: lambda: export_rtstruct(node, volume, path),
            SLICERRT: lambda: export_by_slicerrt(node, volume, path),
            LOG: lambda: export_log(Path(self._desk.parameters.session_folder), path),
        }
        return ways[key]()
