"""The second section: who reads which case and how, and, while a session runs, its clock, pause and finish."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import qt

from soars.effort.records import REVISE, SCRATCH
from SOARSSegmentationLib.panels.parts import (
    Notice,
    escaped,
    line_edit,
    narrow_combo_box,
    node_selector,
    section,
    small_label,
    text_label,
)
from SOARSSegmentationLib.review.rows import clock_text
from SOARSSegmentationLib.translation import _


class SessionPanel:
    """Widgets only: ``on_put(name, value)`` is called for choices, the others for the buttons."""

    def __init__(
        self,
        on_put: Callable[[str, Any], None],
        on_start: Callable[[], None],
        on_pause: Callable[[], None],
        on_finish: Callable[[], None],
        on_folder: Callable[[], None],
    ) -> None:
        self._on_put = on_put
        self._showing = False
        self.widget, layout = section(_("Session"))

        self.form = qt.QWidget()
        form = qt.QFormLayout(self.form)
        form.setContentsMargins(0, 0, 0, 0)
        self.segmentation = node_selector(
            "vtkMRMLSegmentationNode",
            _("None yet: press Apply, or draw from scratch"),
            _("The contours to review"),
        )
        form.addRow(_("Contours:"), self.segmentation)
        self.study = line_edit(_("Name of the study or project for which times are recorded"))
        self.case = line_edit(
            _("A pseudonym of the patient: letters, digits and . _ - only; never a name or hospital number"),
            _("pseudonym"),
        )
        self.reader = line_edit(
            _("A pseudonym of the person who reviews: letters, digits and . _ - only"), _("pseudonym")
        )
        form.addRow(_("Case:"), self.case)
        row = qt.QHBoxLayout()
        row.addWidget(self.reader, 1)
        row.addWidget(text_label(_("Study:")))
        row.addWidget(self.study, 1)
        form.addRow(_("Reader:"), row)
        self.arm = narrow_combo_box()
        self.arm.addItem(_("Revise the proposal"), REVISE)
        self.arm.addItem(_("Draw from scratch, without the proposal"), SCRATCH)
        form.addRow(_("Task:"), self.arm)
        self.start = qt.QPushButton(_("Start session"))
        self.start.setMinimumHeight(28)
        form.addRow(self.start)
        self.why_not = small_label()
        form.addRow(self.why_not)
        self.folder = small_label(rich=True)
        self.folder.setTextInteractionFlags(qt.Qt.TextBrowserInteraction)
        self.folder.linkActivated.connect(lambda *_arguments: on_folder())
        form.addRow(self.folder)
        layout.addWidget(self.form)

        self.running = qt.QWidget()
        lines = qt.QVBoxLayout(self.running)
        lines.setContentsMargins(0, 0, 0, 0)
        top = qt.QHBoxLayout()
        self.who = text_label()
        self.clock = text_label()
        font = self.clock.font
        font.setBold(True)
        font.setPointSizeF(font.pointSizeF() * 1.1)
        self.clock.font = font
        self.clock.toolTip = _("Active time of the current organ, and of all organs")
        top.addWidget(self.who, 1)
        top.addWidget(self.clock)
        lines.addLayout(top)
        bottom = qt.QHBoxLayout()
        self.accepted = qt.QProgressBar()
        self.accepted.accessibleName = _("Organs accepted")
        self.accepted.setFixedHeight(20)
        self.pause = qt.QPushButton()
        self.finish = qt.QPushButton(_("Finish"))
        bottom.addWidget(self.accepted, 1)
        bottom.addWidget(self.pause)
        bottom.addWidget(self.finish)
        lines.addLayout(bottom)
        layout.addWidget(self.running)

        self.notice = Notice()
        layout.addWidget(self.notice.widget)

        self.segmentation.currentNodeChanged.connect(self._segmentation_changed)
        for name in ("study", "case", "reader"):
            line = getattr(self, name)
            line.editingFinished.connect(lambda name=name, line=line: self._put(name, line.text.strip()))
        self.arm.currentIndexChanged.connect(self._arm_changed)
        self.start.clicked.connect(lambda *_arguments: on_start())
        self.pause.clicked.connect(lambda *_arguments: on_pause())
        self.finish.clicked.connect(lambda *_arguments: on_finish())
        self.show_form()

    def show(self, parameters: Any) -> None:
        """Show what is chosen."""
        self._showing = True
        try:
            self.segmentation.setCurrentNode(parameters.segmentation)
            for name in ("study", "case", "reader"):
                getattr(self, name).text = getattr(parameters, name)
            self.arm.currentIndex = max(0, self.arm.findData(parameters.arm))
        finally:
            self._showing = False

    def show_folder(self, folder: Path) -> None:
        """Where sessions are kept."""
        text = _("Logs are kept in {folder}").format(folder=escaped(str(folder)))
        self.folder.text = f'{text} \N{MIDDLE DOT} <a href="folder">{_("Change")}</a>'

    def show_form(self) -> None:
        """No session is running."""
        self.form.visible = True
        self.running.visible = False

    def show_running(self, who: str, *, paused: bool) -> None:
        """A session is running; ``who`` says whose."""
        self.form.visible = False
        self.running.visible = True
        self.who.text = who
        self.pause.text = _("Continue") if paused else _("Pause")
        self.finish.enabled = True

    def show_clock(self, organ_s: float | None, all_s: float) -> None:
        """Active time of the current organ (None: there is none) and of all."""
        text = _("total {time}").format(time=clock_text(all_s))
        if organ_s is not None:
            text = _("organ {time}").format(time=clock_text(organ_s)) + "   " + text
        self.clock.text = text

    def show_accepted(self, accepted: int, number: int) -> None:
        self.accepted.maximum = max(number, 1)
        self.accepted.value = accepted
        self.accepted.format = _("{accepted} of {number} accepted").format(accepted=accepted, number=number)

    def allow_start(self, problem: str | None) -> None:
        """The session can be started unless there is a ``problem``, which is said below the button."""
        self.start.enabled = problem is None
        self.start.toolTip = _("Start the clock")
        self.why_not.text = problem or ""
        self.why_not.visible = problem is not None

    def _put(self, name: str, value: Any) -> None:
        if not self._showing:
            self._on_put(name, value)

    def _segmentation_changed(self, node: Any = None) -> None:
        self._put("segmentation", self.segmentation.currentNode())

    def _arm_changed(self, *_arguments: Any) -> None:
        self._put("arm", str(self.arm.currentData))
