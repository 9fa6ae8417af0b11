"""The module's window: its sections, and how a CT becomes a proposal, a proposal a review, and a review a file.

Each section redraws what it is told has changed (`sections.desk.Change`) and does not know the others: their
interactions go through here.
"""

from __future__ import annotations

import logging
from typing import Any

import slicer

from SOARSSegmentationLib import shortcuts
from SOARSSegmentationLib.panels.parts import sentence, small_label
from SOARSSegmentationLib.run.results import Result
from SOARSSegmentationLib.sections.desk import Change, Desk
from SOARSSegmentationLib.sections.editor import EditorSection
from SOARSSegmentationLib.sections.export import ExportSection
from SOARSSegmentationLib.sections.propose import ProposeSection
from SOARSSegmentationLib.sections.reading import ReadingSection
from SOARSSegmentationLib.sections.review import ReviewSection
from SOARSSegmentationLib.sections.section import Section
from SOARSSegmentationLib.sections.timing import TimingSection
from SOARSSegmentationLib.translation import _


class Window:
    """Create it in the module widget's ``setup``; call `enter`, `leave` and `close` with the module's."""

    def __init__(self, layout: Any, logic: Any) -> None:
        """``layout`` is the module widget's; ``logic`` makes parameter nodes."""
        self.desk = Desk(logic)
        self.propose = ProposeSection(self.desk, self._proposed)
        self.timing = TimingSection(self.desk, lambda: self.editor.node, self._began, self._ticked)
        self.reading = ReadingSection(
            self.desk, self.timing.control, lambda: self.editor.node, self.timing.began
        )
        self.editor = EditorSection(self._segment_selected, self.timing.control.expect_redo)
        self.review = ReviewSection(self.desk, self.editor)
        self.export = ExportSection(self.desk)
        # In the order of the window.
        self.sections: tuple[Section, ...] = (
            self.reading,
            self.propose,
            self.timing,
            self.review,
            self.editor,
            self.export,
        )
        self.shortcuts = shortcuts.Shortcuts(
            {
                shortcuts.NEXT: lambda: self.review.step(1),
                shortcuts.PREVIOUS: lambda: self.review.step(-1),
                shortcuts.ACCEPT: self.review.accept,
                shortcuts.FINDING: self.review.next_finding,
                shortcuts.PAUSE: self.timing.toggle_pause,
            }
        )
        layout.addWidget(small_label(_("For research use only, not a medical device. Check every contour.")))
        for section in self.sections:
            layout.addWidget(section.widget, section.stretch)
            self.desk.add(section)
        layout.addStretch(1)
        self.use_scene()

    # --- life ----------------------------------------------------------------------------------------------------
    def enter(self) -> None:
        """The module is shown."""
        if self.desk.parameters is None:
            self.desk.use_scene()
        self.desk.choose_only_volume()
        for section in self.sections:
            section.enter()
        main_window = slicer.util.mainWindow()
        if main_window is not None:
            self.shortcuts.install(main_window)
        self.desk.tell(Change.ENTERED)

    def leave(self) -> None:
        """Another module is shown; the session, and a run, go on."""
        self.shortcuts.remove()
        for section in self.sections:
            section.leave()

    def close(self) -> None:
        """The module is unloaded, or the application ends: a failure in one section must not stop the others from
        closing."""
        for close in (self.shortcuts.remove, *(section.close for section in self.sections)):
            try:
                close()
            except Exception:
                logging.exception("SOARS Segmentation: closing")
        self.desk.leave_scene()

    def use_scene(self) -> None:
        """A scene was opened or closed: show what it remembers."""
        self.desk.use_scene()
        self.desk.tell(Change.SCENE)

    def scene_closes(self) -> None:
        """Called before the nodes go; the session is notified separately."""
        for section in self.sections:
            section.scene_closes()
        self.desk.leave_scene()

    def scene_settles(self) -> None:
        """A batch of changes to the scene, as when one is read, is over, and Slicer's widgets have followed."""
        self.editor.scene_settles()

    def node_leaves(self, node: Any) -> None:
        """A node is about to be removed from the scene."""
        if self.desk.parameters is not None:
            for section in self.sections:
                section.node_leaves(node)

    # --- what one section does to another ------------------------------------------------------------------------
    def _proposed(self, result: Result) -> None:
        """A run has put its contours into the scene."""
        found = sum(not mask.is_empty for mask in result.proposal.masks.values())
        seconds = sum(stage.seconds for stage in self.propose.run.stages.all)  # as the stages showed them
        text = _("{found} organs were contoured in {seconds:.0f} s: check and correct each.").format(
            found=found, seconds=seconds
        )
        warnings = "\n".join(sentence(warning) for warning in result.record.warnings)
        self.desk.put("segmentation", result.segmentation_node)
        self.propose.widget.collapsed = True
        self.review.panel.notice.say("warning" if warnings else "done", text, details=warnings)

    def _began(self) -> None:
        """A session has begun."""
        self.editor.forget_undo_steps()  # organs may have got their segments just now
        self.propose.widget.collapsed = True
        self.review.begin()

    def _ticked(self, session: Any) -> None:
        self.review.show_time(session)

    def _segment_selected(self, segment_id: str) -> None:
        if self.desk.parameters is not None:
            self.review.segment_selected(segment_id)
