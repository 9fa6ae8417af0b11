"""The logic of the second section: a session is begun, resumed, paused and finished, and its clock shown."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import slicer

from soars.effort.records import REVISE, SCRATCH
from soars.effort.review import ACCEPTED, IN_PROGRESS, NOT_REVIEWED
from soars.errors import InputError, SoarsError
from soars.report.record import ABSENT
from SOARSSegmentationLib.desktop import documents, open_folder, waiting
from SOARSSegmentationLib.memory import recall, remember
from SOARSSegmentationLib.panels.dialogs import ask_folder
from SOARSSegmentationLib.panels.parts import sentence
from SOARSSegmentationLib.panels.session_panel import SessionPanel
from SOARSSegmentationLib.scene.building import empty_segmentation, remove_segmentation
from SOARSSegmentationLib.scene.ct import check_volume
from SOARSSegmentationLib.sections.desk import Change, Desk, saying
from SOARSSegmentationLib.sections.section import Section
from SOARSSegmentationLib.session import sessions
from SOARSSegmentationLib.session.editing import Changed, EditingSession
from SOARSSegmentationLib.session.session_control import SessionControl
from SOARSSegmentationLib.translation import _

_FORM = Change.SCENE | Change.CONTOURS | Change.NAMES | Change.ARM
_STARTED_BY = Change.SCENE | Change.CT | Change.CONTOURS | Change.ARM | Change.SESSION
_RESUMED_BY = Change.SCENE | Change.ENTERED | Change.CT | Change.CONTOURS | Change.NAMES | Change.SESSION


class TimingSection(Section):
    """``on_began()`` is called when a session has begun, ``on_tick(session)`` several times a second while it runs."""

    def __init__(
        self,
        desk: Desk,
        editor_node: Callable[[], object],
        on_began: Callable[[], None],
        on_tick: Callable[[EditingSession], None],
    ) -> None:
        """``editor_node()`` is the segment editor node that a session drives."""
        self._desk = desk
        self._editor_node = editor_node
        self._on_began = on_began
        self._on_tick = on_tick
        self.control = SessionControl(self._changed, self._ticked, self._over, lambda: saying(self.notice))
        self.panel = SessionPanel(desk.put, self.start, self.toggle_pause, self.finish, self.choose_root)
        self.widget, self.notice = self.panel.widget, self.panel.notice

    # --- showing -------------------------------------------------------------------------------------------------
    def show(self, change: Change) -> None:
        if change & _FORM:
            self.panel.show(self._desk.parameters)
        if change & _STARTED_BY:
            self.panel.allow_start(self._why_not())
        if change & (Change.SCENE | Change.SESSION):
            self._show_session()
        if change & (Change.SCENE | Change.NAMES):
            self.panel.show_folder(self.session_root())
        if change & _RESUMED_BY:
            self._offer_to_resume()
        if change & (Change.ORGANS | Change.SESSION):
            self._show_accepted()

    def close(self) -> None:
        self.control.close()

    def _show_session(self) -> None:
        session = self._desk.running_session
        if session is None:
            self.panel.show_form()
            return
        arm = _("from scratch") if session.header.from_scratch else _("revising")
        dot = " \N{MIDDLE DOT} "
        who = dot.join((session.header.case, session.header.reader, arm))
        self.panel.show_running(who, paused=session.paused)
        if session.paused:
            self.notice.say(
                "warning",
                _("Paused: the clock stands still."),
                action=(_("Continue"), self.toggle_pause),
            )
        elif session.problem is None:
            self.notice.clear()

    def _show_accepted(self) -> None:
        session = self._desk.running_session
        if session is None:
            return
        states = [state for state in session.states().values() if state != ABSENT]
        self.panel.show_accepted(states.count(ACCEPTED), len(states))
        self._show_clock(session)

    def _show_clock(self, session: EditingSession) -> None:
        active = {name: session.active_s(name) for name in session.header.organs}
        organ = session.organ
        self.panel.show_clock(active.get(organ) if organ is not None else None, sum(active.values()))

    def _why_not(self) -> str | None:
        p = self._desk.parameters
        if self._desk.volume is None:
            return _("Choose a CT first.")
        if p.arm == REVISE and p.segmentation is None:
            return _("There is no proposal to revise yet: press Apply.")
        return None

    def _offer_to_resume(self) -> None:
        p = self._desk.parameters
        if self._desk.running_session is not None or self._desk.volume is None or self.notice.text:
            return
        if not (p.study and p.case and p.reader):
            return
        found = sessions.find_interrupted(self.session_root(), study=p.study, case=p.case, reader=p.reader)
        if found is not None:
            when = found.header.started_utc.replace("T", " ").rstrip("Z")
            self.notice.say(
                "note",
                _("A session of this reader on this case was interrupted (begun {when} UTC).").format(
                    when=when
                ),
                action=(_("Resume it"), lambda: self.resume(found)),
            )

    # --- beginning -----------------------------------------------------------------------------------------------
    def start(self) -> None:
        """Begin a session with what is chosen."""
        self.notice.clear()
        with saying(self.notice), waiting():
            self._start()

    def resume(self, interrupted: sessions.Interrupted) -> None:
        """Resume an interrupted session on its own segmentation and the chosen CT, if that is the session's."""
        self.notice.clear()
        with saying(self.notice), waiting():
            volume = self._desk.chosen_volume
            check_volume(volume)
            try:
                sessions.check_same_ct(interrupted, volume)
            except InputError as error:
                again = (_("Resume it"), lambda: self.resume(interrupted))
                self.notice.say("error", sentence(str(error)), action=again)
                return
            node = sessions.reload(interrupted, slicer.mrmlScene, volume)
            idle_s = self._desk.parameters.idle_s
            with self._on(node):
                session = self.control.resume(interrupted, node, volume, self._editor_node(), idle_s)
            self.began(session)

    def _start(self) -> None:
        p = self._desk.parameters
        volume = self._desk.chosen_volume if p.arm == SCRATCH else self._desk.volume
        check_volume(volume)
        if p.arm == REVISE and p.segmentation is None:
            raise InputError(
                "there is no proposal to revise: press Apply first, or choose to draw from scratch"
            )
        organs = sessions.organs_of(self._desk.protocols.find(p.protocol), p.segmentation)
        names = {"study": p.study, "case": p.case, "reader": p.reader, "arm": p.arm}
        header = sessions.header_of(p.segmentation, organs, **names)
        if p.arm == REVISE and not self._may_begin_edited(p.segmentation, volume, organs):
            return
        begin = self.control.begin
        rest = (volume, header, self.session_root(), self._editor_node(), p.idle_s)
        if p.arm == SCRATCH:
            name = f"{volume.GetName()} {p.case} from scratch"
            node = empty_segmentation(slicer.mrmlScene, volume, organs, name)
            with self._on(node):
                session = begin(node, *rest)
        else:
            session = begin(p.segmentation, *rest)
        self.began(session)

    @contextmanager
    def _on(self, node: object) -> Iterator[None]:
        """The session that begins in the block is on these new contours; where it cannot, they go again."""
        before = self._desk.parameters.segmentation
        self._desk.put("segmentation", node)
        try:
            yield
        except BaseException:
            self._desk.put("segmentation", before)
            remove_segmentation(node)
            raise

    def _may_begin_edited(
        self, segmentation_node: object, volume_node: object, organs: tuple[str, ...]
    ) -> bool:
        """Changes are counted from the proposal on: ask before those of somebody else become this session's."""
        changed = sessions.changed_before(segmentation_node, volume_node, organs)
        if not changed:
            return True
        question = _(
            "{number} organs ({organs}) were changed before this session, and would count as changed in it. Go on? "
            "To begin from the proposal, restore it first."
        ).format(number=len(changed), organs=", ".join(changed[:5]) + (", ..." if len(changed) > 5 else ""))
        return bool(slicer.util.confirmYesNoDisplay(question, _("SOARS Segmentation")))

    def began(self, session: EditingSession) -> None:
        """A session has started, whether from here or from a worklist."""
        self._desk.session = session
        self._desk.parameters.session_folder = str(session.folder)
        self.notice.clear()
        self._desk.tell(Change.SESSION | Change.ORGANS)
        self._on_began()
        if session.unsaved:
            text = _(
                "{organs}: accepted, but lost in part when the session was interrupted. Look at it again."
            )
            self.notice.say("warning", text.format(organs=", ".join(session.unsaved)))

    # --- while it runs, and its end ------------------------------------------------------------------------------
    def _changed(self, what: Changed) -> None:
        self._desk.tell(Change.SESSION if what is Changed.LIFE else Change.ORGANS)

    def _ticked(self, session: EditingSession) -> None:
        if session.problem is not None:
            self.notice.say("warning", sentence(session.problem))
        self._show_clock(session)
        self._on_tick(session)

    def toggle_pause(self) -> None:
        with saying(self.notice):
            self.control.toggle_pause()

    def finish(self) -> None:
        """End the session, after asking when organs are open."""
        session = self._desk.running_session
        if session is None:
            return
        open_organs = sum(state in (NOT_REVIEWED, IN_PROGRESS) for state in session.states().values())
        if open_organs:
            question = _("{number} organs are not accepted yet. Finish anyway?").format(number=open_organs)
            if not slicer.util.confirmYesNoDisplay(question, _("SOARS Segmentation")):
                return
        with saying(self.notice), waiting():
            self.control.finish()

    def _over(self, session: EditingSession) -> None:
        try:
            counts = sessions.summary(session)
        except SoarsError as error:
            self.notice.say("error", sentence(str(error)))
            return
        text = _("The session is over: {accepted} of {organs} organs accepted, {changed} changed.").format(
            **counts
        )
        kinds = [
            f"{counts[kind]} {title}"
            for kind, title in (("minor", _("minor")), ("moderate", _("moderate")), ("major", _("major")))
            if counts.get(kind)
        ]
        if kinds:
            text += " " + _("Revisions: {kinds}.").format(kinds=", ".join(kinds))
        self.notice.say(
            "warning" if session.problem else "done",
            text if session.problem is None else f"{text} {sentence(session.problem)}",
            action=(_("Open the folder"), lambda: open_folder(session.folder)),
        )

    # --- where sessions are kept ---------------------------------------------------------------------------------
    def session_root(self) -> Path:
        """A setting; by default in the user's documents."""
        return Path(recall("SessionRoot") or Path(documents(), "SOARS sessions"))

    def choose_root(self) -> None:
        folder = ask_folder(_("Where sessions are kept"), str(self.session_root()))
        if folder:
            remember("SessionRoot", folder)
            self._desk.tell(Change.NAMES)
