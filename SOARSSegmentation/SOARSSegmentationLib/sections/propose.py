"""The first section at work: a CT and a model become contours."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from soars.errors import InputError
from SOARSSegmentationLib.panels.inputs_panel import InputsPanel
from SOARSSegmentationLib.panels.parts import sentence
from SOARSSegmentationLib.run import dependencies
from SOARSSegmentationLib.run.results import Result
from SOARSSegmentationLib.run.run_control import RunControl
from SOARSSegmentationLib.run.runner import Failure, RunOptions
from SOARSSegmentationLib.scene.ct import check_volume
from SOARSSegmentationLib.sections.desk import Change, Desk, saying
from SOARSSegmentationLib.sections.section import Section
from SOARSSegmentationLib.translation import _

_RUN_BRANCHES = ("anchor", "mid_level", "detection", "small_hard")
_ALLOWED_BY = Change.SCENE | Change.ENTERED | Change.CT | Change.MODEL | Change.RUN | Change.SESSION


class ProposeSection(Section):
    """``on_result(result)`` is called when a run has put its contours into the scene."""

    def __init__(self, desk: Desk, on_result: Callable[[Result], None]) -> None:
        self._desk = desk
        self._on_result = on_result
        self._gpu: dependencies.Gpu | None = None
        self.run = RunControl(self._progressed, self._over, on_result, self._failed)
        self.panel = InputsPanel(desk.protocols, desk.put, self.apply)
        self.widget = self.panel.widget

    def show(self, change: Change) -> None:
        if change & (Change.SCENE | Change.ENTERED):
            self.panel.show(self._desk.parameters, self._gpu)
        if change & _ALLOWED_BY:
            self.panel.allow(self._why_not())

    def enter(self) -> None:
        self._gpu = dependencies.find_gpu()

    def scene_closes(self) -> None:
        if self.run.cancel():
            self.panel.notice.say("note", _("Cancelled, because the scene was closed."))

    def node_leaves(self, node: Any) -> None:
        if self.run.running and node is self.run.volume:
            self.run.cancel()
            self.panel.notice.say("error", _("The CT was removed from the scene: the run was cancelled."))

    def close(self) -> None:
        self.run.cancel()

    def apply(self) -> None:
        """Start a run, or cancel the one that is running."""
        if self.run.running:
            self.run.cancel()
            self.panel.notice.say("note", _("Cancelled. Nothing was changed."))
            return
        self.panel.notice.clear()
        with saying(self.panel.notice):
            self._start()

    def _start(self) -> None:
        p = self._desk.parameters
        check_volume(p.volume)
        protocol = self._desk.protocols.find(p.protocol)
        options = RunOptions(p.bundle, p.device, protocol.chosen(self.panel.covered))
        problem = options.problem()
        if problem is not None:
            raise InputError(problem)
        dependencies.ask_and_install(dependencies.missing(p.device, self._gpu))
        self.panel.show(p, self._gpu)  # what runs may be another engine now
        entry = self.panel.entry
        branches = entry.bundle.branches if entry is not None and entry.bundle is not None else _RUN_BRANCHES
        self.run.start(p.volume, options, branches)
        self._show_running(True)

    def _progressed(self) -> None:
        self.panel.progress.show(self.run.stages)

    def _over(self) -> None:
        self._show_running(False)

    def _failed(self, failure: Failure) -> None:
        self.panel.notice.say(
            "error", sentence(failure.message), details=failure.log_tail, report=failure.report
        )

    def _show_running(self, on: bool) -> None:
        self._desk.running = on
        self.panel.set_running(on)
        self._desk.tell(Change.RUN)

    def _why_not(self) -> str | None:
        if self._desk.running:
            return None  # the button is Cancel
        if self._desk.parameters.volume is None:
            return _("Choose a CT first.")
        if self.panel.entry is None:
            return _("No model is installed.")
        if self.panel.entry.bundle is None:
            return sentence(self.panel.entry.problem or "")
        if self._desk.running_session is not None:
            return _("A session is running: finish it first.")
        return None
