"""The logic of the first section: from a CT and a model to contours."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import qt

from soars.effort.records import SCRATCH
from soars.errors import InputError
from soars.networks.names import BRANCHES
from SOARSSegmentationLib.desktop import waiting
from SOARSSegmentationLib.panels.inputs_panel import InputsPanel
from SOARSSegmentationLib.panels.parts import sentence
from SOARSSegmentationLib.run import dependencies
from SOARSSegmentationLib.run.results import Result
from SOARSSegmentationLib.run.run_control import RunControl
from SOARSSegmentationLib.run.runner import Failure, RunOptions
from SOARSSegmentationLib.scene.ct import (
    UnevenSlicesError,
    check_same_patient,
    check_volume,
    evenly_spaced_copy,
)
from SOARSSegmentationLib.sections.desk import Change, Desk, saying
from SOARSSegmentationLib.sections.models import ModelReadiness
from SOARSSegmentationLib.sections.section import Section
from SOARSSegmentationLib.translation import _

if TYPE_CHECKING:
    from soars.bundle.store import Bundle

_GPU_LOOK_MS = 100
_ALLOWED_BY = Change.SCENE | Change.ENTERED | Change.CT | Change.MODEL | Change.RUN | Change.SESSION


class ProposeSection(Section):
    """``on_result(result)`` is called when a run has put its contours into the scene."""

    def __init__(self, desk: Desk, on_result: Callable[[Result], None]) -> None:
        self._desk = desk
        self._on_result = on_result
        self._gpu: dependencies.Gpu | None = None
        self._search: dependencies.GpuSearch | None = None
        self._closed = self._starting = False
        self.run = RunControl(self._progressed, self._over, on_result, self._failed)
        self.panel = InputsPanel(desk.protocols, desk.put, self.apply, self._follow)
        self.widget, self.notice = self.panel.widget, self.panel.notice
        self.models = ModelReadiness(self.notice, self._model_changed)

    def show(self, change: Change) -> None:
        if change & (Change.SCENE | Change.ENTERED):
            self.panel.show(self._desk.parameters, self._gpu)
        elif change & (Change.CT | Change.MODEL):
            self.panel.show_choices(self._desk.parameters)
        if change & (Change.SCENE | Change.ENTERED | Change.MODEL):
            self._show_state()
        if change & _ALLOWED_BY:
            self.panel.allow(self._why_not())

    def _show_state(self) -> None:
        """What the chosen model lacks here; looked up when the module is in sight."""
        bundle = self._bundle
        if bundle is not None:
            self.panel.show_state(self.models.state(bundle))
            if self._search is not None:  # entered
                self.models.look(bundle)

    @property
    def _bundle(self) -> Bundle | None:
        return self.panel.entry.bundle if self.panel.entry is not None else None

    def _model_changed(self) -> None:
        if not self._closed and self._desk.parameters is not None:
            self._show_state()
            self._desk.tell(Change.RUN)

    def _follow(self, link: str) -> None:
        """A link in the model's description."""
        if link == "get" and self._bundle is not None:
            with saying(self.notice):
                self.models.get(self._bundle, self._device, self._gpu)
        elif link == "scratch":
            self._desk.put("arm", SCRATCH)
            self.notice.say(
                "note", _("The task is now to draw from scratch: write the names below and start a session.")
            )

    def enter(self) -> None:
        if self._search is None:
            self._search = dependencies.GpuSearch()
            self._look_for_gpu()

    def _look_for_gpu(self) -> None:
        """Called from time to time until the search is over."""
        if self._search is None or self._closed:
            return
        if not self._search.over:
            qt.QTimer.singleShot(_GPU_LOOK_MS, self._look_for_gpu)
            return
        self._gpu = self._search.wait()
        if self._desk.parameters is not None:
            self.panel.show_gpu(self._gpu)

    def scene_closes(self) -> None:
        if self.run.cancel():
            self.notice.say("note", _("Cancelled, because the scene was closed."))

    def node_leaves(self, node: Any) -> None:
        if self.run.running and node is self.run.volume:
            self.run.cancel()
            self.notice.say("error", _("The CT was removed from the scene: the run was cancelled."))

    def close(self) -> None:
        self._closed = True
        self.run.close()
        self.models.close()

    def apply(self) -> None:
        """Start a run, or cancel the one that is running."""
        if self.run.running:
            self.run.cancel()
            self.notice.say("note", _("Cancelled. Nothing was changed."))
            return
        if self._starting:  # installing packages lets the application go on
            return
        self.notice.clear()
        self._starting = True
        self.panel.set_starting()
        try:
            with saying(self.notice):
                self._start_or_offer_a_copy()
        finally:
            self._starting = False
            self.panel.set_running(self.run.running)
            self._desk.tell(Change.RUN)

    def _start_or_offer_a_copy(self) -> None:
        try:
            self._start()
        except UnevenSlicesError as error:
            self.notice.say(
                "error",
                sentence(str(error)),
                action=(_("Make an evenly spaced copy"), self.use_evenly_spaced_copy),
            )

    def use_evenly_spaced_copy(self) -> None:
        """Choose a copy of the CT whose slices are evenly spaced, in place of the CT."""
        self.notice.clear()
        with saying(self.notice), waiting():
            copy = evenly_spaced_copy(self._desk.parameters.volume)
            self.panel.volume.setCurrentNode(copy)

    def _start(self) -> None:
        p = self._desk.parameters
        check_volume(p.volume)
        if self._search is not None:
            self._gpu = self._search.wait()
        protocol = self._desk.protocols.find(p.protocol)
        device = self._device
        options = RunOptions(p.bundle, device, protocol.chosen(self.panel.covered))
        problem = options.problem()
        if problem is not None:
            raise InputError(problem)
        if self.panel.takes_mr and p.mr is p.volume:
            raise InputError("the MR is the CT itself: choose the MR, or none")
        if self.panel.takes_mr and p.mr is not None:
            check_same_patient(p.volume, p.mr)
        bundle = self._bundle
        if bundle is not None:
            self.models.install(bundle, device, self._gpu)
        self.panel.show(p, self._gpu)  # a different engine may run now
        self._show_state()
        branches = bundle.branches if bundle is not None else BRANCHES
        self.run.start(p.volume, options, branches, p.mr if self.panel.takes_mr else None)
        self._show_running(True)

    @property
    def _device(self) -> str:
        """The chosen one. "auto" without PyTorch, and without the extension that installs it, means the processor."""
        chosen = str(self._desk.parameters.device)
        return chosen if dependencies.wants_gpu(chosen, self._gpu) else "cpu"

    def _progressed(self) -> None:
        self.panel.progress.show(self.run.stages)

    def _over(self) -> None:
        self._show_running(False)

    def _failed(self, failure: Failure) -> None:
        self.notice.say("error", sentence(failure.message), details=failure.log_tail, report=failure.report)

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
        if self.models.downloading:
            return _("A download is running: wait for it, or cancel it.")
        if self._desk.running_session is not None:
            return _("A session is running: finish it first.")
        return None
