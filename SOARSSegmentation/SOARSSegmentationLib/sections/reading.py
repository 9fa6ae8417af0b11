"""The logic of the study section: worklist, next case, judgements, and the checksums when a session is finished."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import slicer

from soars.catalogue import CATALOGUE
from soars.effort.records import one_line
from soars.errors import InputError, SoarsError
from soars.study.desk import DONE
from soars.study.ledger import complete_checksums, write_checksums
from SOARSSegmentationLib.desktop import waiting
from SOARSSegmentationLib.memory import recall, remember
from SOARSSegmentationLib.panels.dialogs import ask_existing_file
from SOARSSegmentationLib.panels.parts import sentence
from SOARSSegmentationLib.panels.reading_panel import ReadingPanel
from SOARSSegmentationLib.reading.desk import ReadingDesk
from SOARSSegmentationLib.sections.desk import Change, Desk, saying
from SOARSSegmentationLib.sections.section import Section
from SOARSSegmentationLib.session.editing import EditingSession
from SOARSSegmentationLib.session.session_control import SessionControl
from SOARSSegmentationLib.translation import _

_WORKLIST = "ReadingWorklist"


class ReadingSection(Section):
    """``on_began(session)`` is called when a session of the study has begun."""

    def __init__(
        self,
        desk: Desk,
        control: SessionControl,
        editor_node: Callable[[], object],
        on_began: Callable[[EditingSession], None],
    ) -> None:
        self._desk = desk
        self._control = control
        self._editor_node = editor_node
        self._on_began = on_began
        self._session: EditingSession | None = None
        self._said: dict[str, tuple[int | None, str | None, str | None]] = {}
        self._own: set[str] = set()
        """IDs of the nodes of the case that is or was read."""
        self.reading: ReadingDesk | None = None
        self.panel = ReadingPanel(self.choose_worklist, self.next_case, self.judge)
        self.widget, self.notice = self.panel.widget, self.panel.notice
        self.widget.collapsed = True

    # --- showing -------------------------------------------------------------------------------------------------
    def show(self, change: Change) -> None:
        if change & Change.SESSION:
            self._notice_end()
        if change & (Change.SCENE | Change.SESSION):
            self._show_progress()
        if change & (Change.SESSION | Change.ORGANS | Change.SCENE):
            self._show_organ()

    def scene_closes(self) -> None:
        self._own = set()  # the next scene's nodes get the same IDs

    def _show_progress(self) -> None:
        if self.reading is None:
            return
        worklist, known = self.reading.worklist, self.reading.states()
        done = sum(state.state == DONE for state in known)
        text = _("{study}, reader {reader}: {done} of {number} sessions done").format(
            study=worklist.study, reader=worklist.reader, done=done, number=len(known)
        )
        busy = self._desk.running_session is not None
        self.panel.show_progress(text, can_go_on=not busy and done < len(known), waiting_for_finish=busy)

    def _show_organ(self) -> None:
        session = self._session
        scored = self.reading is not None and self.reading.worklist.scores
        organ = session.organ if session is not None and session.running and scored else None
        if organ is None:
            self.panel.show_organ(None)
            return
        label = CATALOGUE[organ].label if organ in CATALOGUE else organ
        self.panel.show_organ(organ, label, *self._said.get(organ, (None, None, None)))

    # --- the worklist --------------------------------------------------------------------------------------------
    def choose_worklist(self) -> None:
        """Ask for a worklist, and open it."""
        before = str(recall(_WORKLIST) or "")
        path = ask_existing_file(_("The worklist"), before, _("Worklists (*.json)"))
        if path:
            self.open_worklist(Path(path))

    def open_worklist(self, path: Path) -> None:
        """Open a worklist; what is wrong with it is said."""
        self.notice.clear()
        with saying(self.notice):
            self.reading = ReadingDesk.open(path)
            remember(_WORKLIST, str(path))
            self.widget.collapsed = False
            self._show_progress()
            for state in self.reading.states():  # the program may have been killed just before
                if state.state == DONE and state.folder is not None:
                    complete_checksums(state.folder)

    def next_case(self) -> None:
        """Load the next session and begin it; what is in the scene is closed first."""
        if self.reading is None or self._desk.running_session is not None:
            return
        self.notice.clear()
        with saying(self.notice), waiting():
            following = self.reading.next()
            if following.not_before is not None:
                when = following.not_before.strftime("%Y-%m-%d %H:%M")
                self.notice.say("note", _("The next case may be read from {when} UTC on.").format(when=when))
                return
            if following.item is None:
                self.notice.say("done", _("You have read everything: thank you."))
                return
            if not self._scene_may_close():
                return
            slicer.mrmlScene.Clear(0)
            self._begin(following)

    def _scene_may_close(self) -> bool:
        """Nothing may stay in the scene beside the case; ask before something is closed that is not the study's."""
        kinds = ("vtkMRMLVolumeNode", "vtkMRMLSegmentationNode")
        nodes = [node for kind in kinds for node in slicer.util.getNodesByClass(kind)]
        # Hidden ones are nobody's, as the outlines of a proposal.
        if all(node.GetHideFromEditors() or node.GetID() in self._own for node in nodes):
            return True
        question = _("The scene is closed before the next case is loaded. What is not saved is lost. Go on?")
        return bool(slicer.util.confirmYesNoDisplay(question, _("SOARS Segmentation")))

    def _begin(self, following: Any) -> None:
        assert self.reading is not None
        loaded = self.reading.load(following, slicer.mrmlScene)
        with self._desk.together():
            self._desk.put("volume", loaded.volume_node)
            self._desk.put("segmentation", loaded.segmentation_node)
        idle_s, editor = self.reading.worklist.idle_s, self._editor_node()
        parts = (loaded.segmentation_node, loaded.volume_node)
        self._own = {node.GetID() for node in parts}
        if loaded.interrupted is not None:
            session = self._control.resume(loaded.interrupted, *parts, editor, idle_s)
        else:
            session = self._control.begin(
                *parts, loaded.header, self.reading.worklist.sessions, editor, idle_s
            )
        self._session = session
        self._said = {organ: (one.score, one.reason, one.comment) for organ, one in session.review().items()}
        self._on_began(session)

    # --- while it runs, and its end ------------------------------------------------------------------------------
    def judge(self, organ: str, score: int | None, reason: str, comment: str) -> None:
        """Put into the log what the reader says of an organ."""
        session = self._session
        if session is None or not session.running:
            return
        self.notice.clear()
        with saying(self.notice):
            if score is None and not reason and not comment:
                raise InputError("write into the line why the organ cannot be judged, then press the button")
            said = (score, one_line(reason), one_line(comment))
            session.recorder.judge(organ, *said)
            self._said[organ] = said
        if organ == session.organ:
            self._show_organ()

    def _notice_end(self) -> None:
        """A session that was finished gets its checksums; one that was left is offered again as the next case."""
        session = self._session
        if session is None or session.running or self.reading is None:
            return
        self._session = None
        finished = any(
            state.folder == session.folder and state.state == DONE for state in self.reading.states()
        )
        if not finished:
            self.notice.say("warning", _("The session was left: the next case is the same again."))
            return
        try:
            write_checksums(session.folder)
        except SoarsError as error:
            self.notice.say("error", sentence(str(error)))
