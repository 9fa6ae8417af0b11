"""A user before the module: sees what the window shows, and does what a user can do to it."""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import slicer
from python_slicer import hand_over, playing_child, prepare_results
from reading_desk import Box, blocks
from slicer_hand import paint

from soars.bundle.card import CARD_SECTIONS
from soars.effort.log import EffortLog, read_log, session_logs

ORGANS: dict[str, Box] = {
    "Brainstem": np.s_[5:12, 5:12, 5:12],
    "Parotid_L": np.s_[5:12, 5:12, 12:20],
    "Eye_L": np.s_[2:9, 15:25, 10:20],
    "Lens_L": np.s_[4:6, 17:19, 12:14],
}
"""What the playing child finds; the eye and its lens overlap."""
FREE: Box = np.s_[15:17, 5:9, 5:9]
"""32 voxels of 3 mm3 that belong to no organ."""


class Visit:
    """The opened module, with a CT in the scene, and a child that finds `ORGANS` on it."""

    def __init__(self, application: Any, root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        self.application = application
        self.qt = application.qt
        self.monkeypatch = monkeypatch
        self.folder: Path = application.folder
        self.pictures = root / "build" / "screenshots"
        self._path = os.environ["PATH"]
        install_bundle(self.folder.parent / "bundles")
        self.structures = blocks(ORGANS)
        self.ct = application.core.add_ct(self.structures.geometry, name="Planning CT")
        self.module = application.load(root / "SOARSSegmentation" / "SOARSSegmentation.py")
        from SOARSSegmentationLib import memory

        memory.remember("SessionRoot", str(self.folder / "sessions"))
        memory.remember("bundle", "tester")
        self.widget = application.show(self.module)
        self.window = self.widget.window
        self.asked: list[str] = []
        self.answer = True
        monkeypatch.setattr(slicer.util, "confirmYesNoDisplay", self._ask)
        self.plays("say('read'); say('anchor', 8, 8); say('write', 0, 3)\n" + self.results())

    # --- the child -----------------------------------------------------------------------------------------------
    def plays(self, script: str) -> None:
        """What PythonSlicer does from now on."""
        folder = playing_child(self.folder / "bin", script)
        self.monkeypatch.setenv("PATH", f"{folder}{os.pathsep}{self._path}")

    def results(self, name: str = "results", **options: Any) -> str:
        """A line of script for the child that found `ORGANS`; ``options`` are `prepare_results`'."""
        folder = self.folder / name
        if not folder.exists():
            prepare_results(folder, self.structures, **options)
        return hand_over(folder)

    # --- doing ---------------------------------------------------------------------------------------------------
    def choose_ct(self) -> None:
        self.window.propose.panel.volume.setCurrentNode(self.ct)

    def press_apply(self) -> None:
        self.window.propose.panel.apply.click()

    def propose(self) -> None:
        """Choose the CT, press Apply, and wait for the result."""
        self.choose_ct()
        self.press_apply()
        self.until(lambda: not self.window.desk.running)
        assert self.segmentation is not None, self.window.propose.panel.notice.text

    def write_names(self, case: str = "case-01", reader: str = "R1", study: str = "pilot") -> None:
        for name, text in (("case", case), ("reader", reader), ("study", study)):
            line = getattr(self.window.timing.panel, name)
            line.text = text
            line.editingFinished.emit()

    def crash(self) -> None:
        """As after kill -9 and a new start: nothing more is written, not even an end, and the scene is empty."""
        self.session.recorder.writer._abandon()
        self.session.stop_listening()
        self.window.timing.control.timer.stop()
        self.window.timing.control.session = self.window.desk.session = None
        slicer.mrmlScene.Clear(False)

    def start(self) -> None:
        """A session on the proposal."""
        self.write_names()
        self.window.timing.panel.start.click()
        assert self.window.timing.control.running, self.window.timing.panel.notice.text

    def click(self, organ: str) -> None:
        """In the review table."""
        table = self.window.review.panel.table
        table.widget.setCurrentItem(table._items[organ])

    def paint(self, box: Box = FREE, *, erase: bool = False) -> None:
        """With the brush, the segment that is selected in the editor."""
        paint(self.window.editor.editor.hand, self.window.editor.node, box, erase=erase)
        self.application.settle()

    def until(self, condition: Callable[[], Any], seconds: float = 30.0) -> None:
        end = time.monotonic() + seconds
        while not condition():
            assert time.monotonic() < end, f"not within {seconds} s"
            self.application.settle(0.02)

    def picture(self, name: str) -> Any:
        """What the user sees now, kept as ``build/screenshots/NAME.png``."""
        self.pictures.mkdir(parents=True, exist_ok=True)
        self.application.settle(0.05)
        picture = self.application.main_window.grab()
        assert picture.save(str(self.pictures / f"{name}.png"))
        return picture

    # --- seeing --------------------------------------------------------------------------------------------------
    @property
    def segmentation(self) -> Any:
        return self.window.desk.parameters.segmentation

    @property
    def session(self) -> Any:
        return self.window.timing.control.session

    def row(self, organ: str) -> Any:
        return self.window.review.panel.table.row(organ)

    def cell(self, organ: str, column: int) -> str:
        return str(self.window.review.panel.table._items[organ].text(column))

    def tip(self, organ: str, column: int) -> str:
        return str(self.window.review.panel.table._items[organ].toolTip(column))

    def nodes(self) -> list[str]:
        """What is in the scene and would be saved with it, but for the module's own settings."""
        scene = slicer.mrmlScene
        found = [scene.GetNthNode(index) for index in range(scene.GetNumberOfNodes())]
        return sorted(
            f"{node.GetID()} {node.GetName()}"
            for node in found
            if not node.GetClassName().startswith(("vtkMRMLScriptedModule", "vtkMRMLSegmentEditor"))
        )

    def log(self) -> EffortLog:
        return read_log(session_logs(self.session.folder)[-1])

    def kinds(self) -> list[str]:
        """What the log holds, in words, without what every session has."""
        words = []
        for event in self.log().events:
            what = event.organ or event.name or event.cause or event.input or event.file
            words.append(f"{event.kind} {what}" if what else event.kind)
        boring = ("start", "busy_begin", "busy_end", "saved", "snapshot", "alive", "interaction", "blocked")
        return [word for word in words if word.split()[0] not in boring]

    def _ask(self, question: str, *arguments: Any, **options: Any) -> bool:
        self.asked.append(question)
        return self.answer


def install_bundle(home: Path) -> None:
    """A bundle that can be listed and chosen; no network is behind it."""
    from tiny_networks import WINDOW_HU, Band, branch

    from soars.bundle.store import write_manifest

    folder = home / "tester"
    folder.mkdir(parents=True)
    anchor = branch(folder, "anchor", {"Brainstem": Band(300.0, 50.0), "Eye_L": Band(600.0, 50.0)})
    card = "\n".join(f"# {title}\nOnly for tests. `soars`\n" for title in CARD_SECTIONS)
    (folder / "card.md").write_text(card)
    fields = {
        "name": "tester", "version": "1.0.0", "description": "Nothing is behind it.", "licence": "CC0-1.0",
        "window_hu": list(WINDOW_HU), "branches": {"anchor": anchor.to_dict()}, "voi_mm": {},
    }  # fmt: skip
    write_manifest(folder, fields)
