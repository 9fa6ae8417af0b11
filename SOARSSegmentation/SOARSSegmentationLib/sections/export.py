"""The last section at work: contours and the log are written where the user says."""

from __future__ import annotations

from pathlib import Path

from SOARSSegmentationLib.desktop import waiting
from SOARSSegmentationLib.export.exported import Exported
from SOARSSegmentationLib.export.routes import LOG, RTSTRUCT, SEG_NRRD, SLICERRT, routes
from SOARSSegmentationLib.export.rtstruct import export_rtstruct
from SOARSSegmentationLib.export.seg_nrrd import export_seg_nrrd
from SOARSSegmentationLib.export.session_log import export_log
from SOARSSegmentationLib.export.slicerrt import export_by_slicerrt
from SOARSSegmentationLib.panels.dialogs import ask_export
from SOARSSegmentationLib.panels.export_panel import ExportPanel
from SOARSSegmentationLib.panels.parts import sentence
from SOARSSegmentationLib.sections.desk import Change, Desk, saying
from SOARSSegmentationLib.sections.section import Section

_SHOWN_BY = Change.SCENE | Change.ENTERED | Change.CT | Change.CONTOURS | Change.SESSION


class ExportSection(Section):
    def __init__(self, desk: Desk) -> None:
        self._desk = desk
        self.panel = ExportPanel(self.export)
        self.widget = self.panel.widget
        self.widget.collapsed = True

    def show(self, change: Change) -> None:
        if change & _SHOWN_BY:
            p = self._desk.parameters
            folder = Path(p.session_folder) if p.session_folder else None
            self.panel.show(routes(p.segmentation, self._desk.volume, folder))

    def export(self, key: str) -> None:
        """Ask where to, and write."""
        node = self._desk.parameters.segmentation
        path = ask_export(key, node.GetName() if node is not None else "session")
        if path is None:
            return
        notice = self.panel.notice
        notice.clear()
        with saying(notice), waiting(), self._desk.busy("export"):
            notice.say("done", sentence(self._write(key, path).what))

    def _write(self, key: str, path: Path) -> Exported:
        node, volume = self._desk.parameters.segmentation, self._desk.volume
        ways = {
            SEG_NRRD: lambda: export_seg_nrrd(node, path),
            RTSTRUCT: lambda: export_rtstruct(node, volume, path),
            SLICERRT: lambda: export_by_slicerrt(node, volume, path),
            LOG: lambda: export_log(Path(self._desk.parameters.session_folder), path),
        }
        return ways[key]()
