"""The third section at work, with the segment editor below it: organ by organ, looked at, corrected, accepted."""

from __future__ import annotations

from typing import Any

from SOARSSegmentationLib.desktop import waiting
from SOARSSegmentationLib.panels.review_panel import ReviewPanel
from SOARSSegmentationLib.review.control import ReviewControl
from SOARSSegmentationLib.scene.outlines import remove_outlines
from SOARSSegmentationLib.sections.desk import Change, Desk, saying
from SOARSSegmentationLib.sections.editor import EditorSection
from SOARSSegmentationLib.sections.section import Section
from SOARSSegmentationLib.session.editing import EditingSession
from SOARSSegmentationLib.session.sessions import organs_of
from SOARSSegmentationLib.translation import _
from SOARSSegmentationLib.views.layout import ReviewLayout

_TAKEN_BY = Change.SCENE | Change.CONTOURS
_ROWS_OF = Change.ENTERED | Change.MODEL | Change.SESSION | Change.ORGANS


class ReviewSection(Section):
    stretch = 10

    def __init__(self, desk: Desk, editor: EditorSection) -> None:
        self._desk = desk
        self._editor = editor
        self._node: Any = None
        self._volume: Any = None
        self._restored: tuple[str, str] | None = None
        """The organ whose restoring can be taken back by the notice, and what that says."""
        self._layout = ReviewLayout()
        self.control = ReviewControl(editor, lambda: desk.session, lambda: desk.tell(Change.ORGANS))
        self.panel = ReviewPanel(self)
        self.widget, self.notice = self.panel.widget, self.panel.notice
        for section in (self, editor):
            section.widget.collapsed = True  # there is nothing to review yet

    # --- showing -------------------------------------------------------------------------------------------------
    def show(self, change: Change) -> None:
        # Contours of another CT than the chosen one stay as they are when another is chosen, with the organ in hand.
        if change & _TAKEN_BY or (change & Change.CT and self._desk.volume is not self._volume):
            self.take()
        elif change & _ROWS_OF:
            if change & Change.MODEL:
                self.control.list_organs(self._organs(self._node))
            self._show_rows()

    def take(self) -> None:
        """Show the segmentation of the scene in the table and the editor."""
        node, volume = self._desk.parameters.segmentation, self._desk.volume
        self.notice.clear()
        with saying(self.notice), waiting():
            self.control.take(node, volume, self._organs(node))
        self._editor.edit(node, volume)
        if node is not self._node:
            for section in (self, self._editor):
                section.widget.collapsed = node is None
        self._node, self._volume = node, volume
        self.panel.outline.checked = self.panel.solo.checked = False
        self._show_rows()

    def show_time(self, session: EditingSession) -> None:
        """Only the clock of the organ in hand."""
        if session.organ is not None:
            self.panel.table.show_time(session.organ, session.active_s(session.organ))

    def begin(self) -> None:
        """A session has begun: the first organ that is open comes to hand."""
        self.take()
        first = self.panel.table.first_open()
        if first is not None:
            self.select(first)

    def _organs(self, node: Any) -> tuple[str, ...]:
        return organs_of(self._desk.protocols.find(self._desk.parameters.protocol), node)

    def _show_rows(self) -> None:
        if self._restored is not None and self._restored[0] != self.control.organ:
            if self.notice.text == self._restored[1]:
                self.notice.clear()  # an undo would take back what is done to another organ
            self._restored = None
        self.panel.show(
            self.control.rows(),
            self.control.organ,
            self.control.finding,
            reviewing=self.control.reviewing,
            has_proposal=self.control.has_proposal,
        )

    # --- life ----------------------------------------------------------------------------------------------------
    def enter(self) -> None:
        self._layout.show()

    def leave(self) -> None:
        self._layout.restore()

    def node_leaves(self, node: Any) -> None:
        if node is self._desk.parameters.segmentation:
            remove_outlines(node)
            self._desk.put("segmentation", None)

    # --- what the reader does ------------------------------------------------------------------------------------
    def select(self, organ: str) -> None:
        with saying(self.notice), self._desk.together():
            self.control.select(organ)

    def segment_selected(self, segment_id: str) -> None:
        """In the segment editor, by whomever."""
        with saying(self.notice):
            self.control.selected_in_editor(segment_id)

    def step(self, offset: int) -> None:
        self.panel.step(offset)

    def accept(self) -> None:
        """Accept the organ in hand and go on to the next one that is open; or take its acceptance back."""
        with saying(self.notice), waiting(), self._desk.together():
            accepted = self.control.accept()
            following = self.panel.table.next_open() if accepted else None
            if following is not None:
                self.control.select(following)

    def next_finding(self) -> None:
        with saying(self.notice), self._desk.together():
            self.control.next_finding()

    def set_visible(self, organ: str, on: bool) -> None:
        with saying(self.notice):
            self.control.set_visible(organ, on)

    def show_solo(self, on: bool) -> None:
        with saying(self.notice), self._desk.together():
            self.control.show_solo(on)

    def use_presets(self, on: bool) -> None:
        """Whether the window follows the organ in hand."""
        with saying(self.notice):
            self.control.presets.on = on
            self.control.presets.forget()
            if self.control.organ is not None:
                self.control.presets.use(self.control.organ, self._desk.volume)

    def show_outline(self, on: bool) -> None:
        with saying(self.notice):
            self.control.show_outline(on)

    def restore(self) -> None:
        """Make the organ in hand what was proposed, and offer to take that back."""
        organ = self.control.organ
        with saying(self.notice), waiting():
            if self.control.restore():
                text = _("{organ} is as it was proposed.").format(organ=organ)
                self.notice.say("note", text, action=(_("Undo"), self._undo))
                self._restored = (str(organ), text)

    def _undo(self) -> None:
        with saying(self.notice):
            self._editor.editor.undo()
            self.notice.clear()
