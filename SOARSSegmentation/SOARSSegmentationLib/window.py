"""The module's window: its sections, and how a CT becomes a proposal, a proposal a review, and a review a file.

The sections know nothing of each other; everything that one does to another goes through here.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import slicer

from soars.effort.review import ACCEPTED, IN_PROGRESS, NOT_REVIEWED
from soars.errors import InputError, SoarsError
from SOARSSegmentationLib import shortcuts
from SOARSSegmentationLib.export import export
from SOARSSegmentationLib.memory import recall, remember
from SOARSSegmentationLib.panels.dialogs import ask_export, ask_folder, documents, open_folder, waiting
from SOARSSegmentationLib.panels.editor_section import EditorSection
from SOARSSegmentationLib.panels.export_panel import ExportPanel
from SOARSSegmentationLib.panels.inputs_panel import InputsPanel
from SOARSSegmentationLib.panels.parts import Notice, sentence, small_label
from SOARSSegmentationLib.panels.review_panel import ReviewPanel
from SOARSSegmentationLib.panels.review_rows import ABSENT, rows_of
from SOARSSegmentationLib.panels.session_panel import SessionPanel
from SOARSSegmentationLib.protocols import Protocols
from SOARSSegmentationLib.run import dependencies, results
from SOARSSegmentationLib.run.run_control import RunControl
from SOARSSegmentationLib.run.runner import Failure, RunOptions
from SOARSSegmentationLib.scene import proposal, scene, views
from SOARSSegmentationLib.scene.contents import grid_of
from SOARSSegmentationLib.session import sessions
from SOARSSegmentationLib.session.session_control import SessionControl
from SOARSSegmentationLib.translation import _

if TYPE_CHECKING:
    from soars.structures import Mask

REMEMBERED = ("bundle", "device", "protocol", "study", "reader")
"""Parameters that a new scene begins with as they were in the last one."""
_RUN_BRANCHES = ("anchor", "mid_level", "detection", "small_hard")


class Window:
    """Make it in the module widget's ``setup``; `enter`, `leave` and `close` it with the module."""

    def __init__(self, layout: Any, logic: Any) -> None:
        """``layout`` is the module widget's; ``logic`` makes parameter nodes."""
        self.logic = logic
        self._gpu: dependencies.Gpu | None = None
        self._masks: Mapping[str, Mask] = {}
        self._proposed: proposal.Proposal | None = None
        self._selecting = False
        self.protocols = Protocols(lambda key: recall(key), remember)
        self.run = RunControl(self._run_progressed, self._run_over, self._run_finished, self._run_failed)
        self.inputs = InputsPanel(self.protocols, self._put, self.apply)
        self.session_panel = SessionPanel(
            self._put, self.start_session, self.toggle_pause, self.finish, self.choose_session_root
        )
        self.review = ReviewPanel(self.select, self.accept, self.show_outline, self.restore)
        self.control = SessionControl(self._session_changed, self._session_ticked, self._session_over)
        self.editor = EditorSection(self._segment_selected, self.control.expect_redo)
        self.exporting = ExportPanel(self.export)
        self.shortcuts = shortcuts.Shortcuts(
            {
                shortcuts.NEXT: lambda: self.review.step(1),
                shortcuts.PREVIOUS: lambda: self.review.step(-1),
                shortcuts.ACCEPT: self.accept,
                shortcuts.PAUSE: self.toggle_pause,
            }
        )
        layout.addWidget(small_label(_("For research use only, not a medical device. Check every contour.")))
        for section in (self.inputs, self.session_panel, self.review, self.editor, self.exporting):
            layout.addWidget(section.widget, 10 if section is self.review else 0)
        layout.addStretch(1)
        self.exporting.widget.collapsed = True
        self.parameters: Any = None
        self.use_scene()

    # --- life ----------------------------------------------------------------------------------------------------
    def enter(self) -> None:
        """The module is shown."""
        if self.parameters is None:
            self.use_scene()
        self._gpu = dependencies.find_gpu()
        self.inputs.show(self.parameters, self._gpu)
        self.editor.enter()
        main_window = slicer.util.mainWindow()
        if main_window is not None:
            self.shortcuts.install(main_window)
        self._refresh()

    def leave(self) -> None:
        """Another module is shown; the session, and a run, go on."""
        self.shortcuts.remove()
        self.editor.leave()

    def close(self) -> None:
        """The module is unloaded, or the application ends."""
        self.shortcuts.remove()
        self.run.cancel()
        self.control.close()
        self.editor.close()
        self.parameters = None

    def use_scene(self) -> None:
        """Take what the scene remembers, or begin anew in one that remembers nothing."""
        node = self.logic.parameterNode()
        new = not node.GetParameter("bundle")
        self.parameters = self.logic.getParameterNode()
        if new:
            for name in REMEMBERED:
                setattr(self.parameters, name, recall(name, getattr(self.parameters, name)))
        self.inputs.show(self.parameters, self._gpu)
        self.session_panel.show(self.parameters)
        self._take(self.parameters.segmentation)

    def scene_closes(self) -> None:
        """Before the nodes go; the session has heard of it by itself."""
        if self.run.cancel():
            self.inputs.notice.say("note", _("Cancelled, because the scene was closed."))
        self.editor.scene_closes()
        self.parameters = None

    def node_leaves(self, node: Any) -> None:
        """A node is about to be removed from the scene."""
        if self.parameters is None:
            return
        if self.running and node is self.run.volume:
            self.run.cancel()
            self.inputs.notice.say("error", _("The CT was removed from the scene: the run was cancelled."))
        if node is self.parameters.segmentation:
            self._put("segmentation", None)
            self.session_panel.show(self.parameters)

    # --- proposing -----------------------------------------------------------------------------------------------
    @property
    def running(self) -> bool:
        return self.run.running

    def apply(self) -> None:
        """Start a run, or cancel the one that is running."""
        if self.running:
            self.run.cancel()
            self.inputs.notice.say("note", _("Cancelled. Nothing was changed."))
            return
        self.inputs.notice.clear()
        try:
            self._start_run()
        except SoarsError as error:
            self.inputs.notice.say("error", sentence(str(error)))
        self._refresh()

    def _start_run(self) -> None:
        volume, device = self.parameters.volume, self.parameters.device
        scene.check_volume(volume)
        protocol = self.protocols.find(self.parameters.protocol)
        options = RunOptions(self.parameters.bundle, device, protocol.chosen(self.inputs.covered))
        problem = options.problem()
        if problem is not None:
            raise InputError(problem)
        dependencies.ask_and_install(dependencies.missing(device, self._gpu))
        self.inputs.show(self.parameters, self._gpu)  # what runs may be another engine now
        entry = self.inputs.entry
        branches = entry.bundle.branches if entry is not None and entry.bundle is not None else _RUN_BRANCHES
        self.run.start(volume, options, branches)
        self.inputs.set_running(True)

    def _run_progressed(self) -> None:
        self.inputs.progress.show(self.run.stages)

    def _run_over(self) -> None:
        self.inputs.set_running(False)
        self._refresh()

    def _run_finished(self, result: results.Result) -> None:
        found = sum(not mask.is_empty for mask in result.proposal.masks.values())
        text = _("{found} organs were contoured in {seconds:.0f} s: check and correct each.").format(
            found=found, seconds=sum(result.record.timings_s.values())
        )
        warnings = "\n".join(sentence(warning) for warning in result.record.warnings)
        self._put("segmentation", result.segmentation_node)
        self.session_panel.show(self.parameters)
        self.inputs.widget.collapsed = True
        self.review.notice.say("warning" if warnings else "done", text, details=warnings)

    def _run_failed(self, failure: Failure) -> None:
        self.inputs.notice.say(
            "error", sentence(failure.message), details=failure.log_tail, report=failure.report
        )

    # --- reviewing -----------------------------------------------------------------------------------------------
    def select(self, organ: str) -> None:
        """Turn to an organ: its segment in the editor, its clock, and the views."""
        row = self.review.table.row(organ)
        if row is None or self._selecting:
            return
        self._selecting = True
        try:
            outlined = self.review.outline.checked
            if outlined:
                self._hide_outline()
            with self._telling(self.review.notice):
                session = self.control.session
                if session is not None and self.control.running:
                    session.select(row.segment_id)
                self.editor.select(row.segment_id or "")
                self.review.select(organ)
                self._centre_on(organ)
            if outlined:
                self.show_outline(True)
        finally:
            self._selecting = False
        self._refresh_table()

    def accept(self) -> None:
        """Accept the organ in hand and go on to the next one that is open; or take its acceptance back."""
        organ, session = self.review.table.organ, self.control.session
        row = self.review.table.row(organ)
        if organ is None or row is None or session is None or not self.control.running:
            return
        if row.state == ACCEPTED:
            session.reopen(organ)
            self.select(organ)
            return
        with self._telling(self.review.notice), waiting():
            session.accept(organ)
        following = self.review.table.next_open()
        if following is not None:
            self.select(following)

    def show_outline(self, on: bool) -> None:
        """Show or hide the proposal of the organ in hand."""
        node, organ = self.parameters.segmentation, self.review.table.organ
        if node is None or organ is None:
            return
        with self._telling(self.review.notice):
            if on and self._proposed is not None and organ in self._proposed:
                proposal.show_outline(node, organ, True)
            else:
                self._hide_outline()

    def restore(self) -> None:
        """Make the organ in hand what was proposed."""
        node, organ = self.parameters.segmentation, self.review.table.organ
        if node is None or organ is None:
            return
        with self._telling(self.review.notice), waiting():
            self.editor.save_for_undo()
            proposal.restore(node, organ, self._proposed)
        self._refresh_table()

    def _hide_outline(self) -> None:
        node = self.parameters.segmentation
        for organ in proposal.outlined(node):
            proposal.show_outline(node, organ, False)

    def _segment_selected(self, segment_id: str) -> None:
        """In the editor node, by whomever."""
        if self._selecting or self.parameters is None or self.parameters.segmentation is None:
            return
        ids = scene.segment_ids(self.parameters.segmentation)
        organ = next((organ for organ, one in ids.items() if one == segment_id), None)
        if organ != self.review.table.organ:
            self.review.select(organ)
            self._refresh_table()

    def _centre_on(self, organ: str) -> None:
        mask = self._proposed.masks.get(organ) if self._proposed is not None else None
        node, volume = self.parameters.segmentation, self._volume()
        if mask is None or mask.is_empty:
            segment_id = scene.segment_ids(node).get(organ)
            mask = scene.organ_mask(node, segment_id, volume) if segment_id is not None else None
        point = views.centre_of(mask, volume) if mask is not None else None
        if point is not None:
            views.centre_views(slicer.mrmlScene, point)

    def _take(self, segmentation_node: Any) -> None:
        """Show another segmentation (None: none) in the table and the editor."""
        self.review.notice.clear()
        self._masks, self._proposed = {}, None
        volume = self._volume()
        if segmentation_node is not None and volume is not None:
            with self._telling(self.review.notice), waiting():
                self._proposed = proposal.proposal_of(segmentation_node, volume)
                found = scene.structures_of(segmentation_node, None, volume)
                self._masks = {name: found.crop(name) for name in found}
        self.editor.show(segmentation_node, volume)
        for section in (self.review, self.editor):
            section.widget.collapsed = segmentation_node is None
        self.review.outline.checked = False
        self._refresh()
        self.review.select(None)

    def _volume(self) -> Any:
        """The CT of the segmentation, or the chosen one."""
        node = self.parameters.segmentation
        return (scene.volume_of(node) if node is not None else None) or self.parameters.volume

    # --- the session ---------------------------------------------------------------------------------------------
    def start_session(self) -> None:
        """Begin a session with what is chosen."""
        self.session_panel.notice.clear()
        try:
            with waiting():
                self._start_session()
        except SoarsError as error:
            self.session_panel.notice.say("error", sentence(str(error)))
        self._refresh()

    def resume_session(self, interrupted: sessions.Interrupted) -> None:
        """Go on with a session that was interrupted, on its own segmentation."""
        self.session_panel.notice.clear()
        try:
            with waiting():
                scene.check_volume(self._volume())
                volume = self._volume()
                node = sessions.reload(interrupted, slicer.mrmlScene, volume)
                self._put("segmentation", node)
                self.control.resume(interrupted, node, volume, self.editor.node, self.parameters.idle_s)
                self._session_began(interrupted.folder)
        except SoarsError as error:
            self.session_panel.notice.say("error", sentence(str(error)))
        self.session_panel.show(self.parameters)
        self._refresh()

    def _start_session(self) -> None:
        p, volume, node = self.parameters, self._volume(), self.parameters.segmentation
        scene.check_volume(volume)
        if p.arm == "revise" and node is None:
            raise InputError(
                "there is no proposal to revise: press Apply first, or choose to draw from scratch"
            )
        organs = sessions.organs_of(self.protocols.find(p.protocol), node)
        names = {"study": p.study, "case": p.case, "reader": p.reader, "arm": p.arm}
        header = sessions.header_of(node, organs, **names)
        if p.arm == "scratch":
            name = f"{volume.GetName()} {p.case} from scratch"
            node = scene.empty_segmentation(slicer.mrmlScene, volume, organs, name)
            self._put("segmentation", node)
            self.session_panel.show(p)
        session = self.control.begin(node, volume, header, self.session_root(), self.editor.node, p.idle_s)
        self._session_began(session.folder)

    def _session_began(self, folder: Path) -> None:
        self.parameters.session_folder = str(folder)
        self.session_panel.notice.clear()
        self.inputs.widget.collapsed = True
        self._take(self.parameters.segmentation)
        first = next((row.organ for row in self.review.table.rows if row.state == NOT_REVIEWED), None)
        if first is None and self.review.table.rows:
            first = self.review.table.rows[0].organ
        if first is not None:
            self.select(first)

    def toggle_pause(self) -> None:
        self.control.toggle_pause()

    def finish(self) -> None:
        """End the session, after asking when organs are open."""
        session = self.control.session
        if session is None or not self.control.running:
            return
        open_organs = sum(state in (NOT_REVIEWED, IN_PROGRESS) for state in session.states().values())
        if open_organs:
            question = _("{number} organs are not accepted yet. Finish all the same?").format(
                number=open_organs
            )
            if not slicer.util.confirmYesNoDisplay(question, _("SOARS Segmentation")):
                return
        with self._telling(self.session_panel.notice), waiting():
            self.control.finish()

    def session_root(self) -> Path:
        """Where sessions are kept: a setting, by default in the user's documents."""
        return Path(recall("SessionRoot") or Path(documents(), "SOARS sessions"))

    def choose_session_root(self) -> None:
        folder = ask_folder(_("Where sessions are kept"), str(self.session_root()))
        if folder:
            remember("SessionRoot", folder)
            self._refresh()

    def _session_changed(self) -> None:
        self._refresh()

    def _session_ticked(self) -> None:
        session = self.control.session
        if session is None:
            return
        if session.problem is not None:
            self.session_panel.notice.say("warning", sentence(session.problem))
        organ = session.organ
        if organ is not None:
            self.review.table.show_time(organ, session.active_s(organ))
        self._show_clock()

    def _session_over(self) -> None:
        session = self.control.session
        if session is None:
            return
        folder = session.folder
        try:
            counts = sessions.summary(session)
        except SoarsError as error:
            self.session_panel.notice.say("error", sentence(str(error)))
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
        self.session_panel.notice.say(
            "warning" if session.problem else "done",
            text if session.problem is None else f"{text} {sentence(session.problem)}",
            action=(_("Open the folder"), lambda: open_folder(folder)),
        )

    # --- exporting -----------------------------------------------------------------------------------------------
    def export(self, key: str) -> None:
        """Ask where to, and write."""
        node, volume = self.parameters.segmentation, self._volume()
        path = ask_export(key, node.GetName() if node is not None else "session")
        if path is None:
            return
        self.exporting.notice.clear()
        with self._telling(self.exporting.notice), waiting(), self._busy("export"):
            if key == export.SEG_NRRD:
                written = export.export_seg_nrrd(node, path)
            elif key == export.RTSTRUCT:
                written = export.export_rtstruct(node, volume, path)
            elif key == export.SLICERRT:
                written = export.export_by_slicerrt(node, volume, path)
            else:
                written = export.export_log(Path(self.parameters.session_folder), path)
            self.exporting.notice.say("done", sentence(written.what))

    # --- what is chosen and shown --------------------------------------------------------------------------------
    def _put(self, name: str, value: Any) -> None:
        """A choice of the user."""
        if self.parameters is None:
            return
        setattr(self.parameters, name, value)
        if name in REMEMBERED:
            remember(name, value)
        if name == "segmentation":
            self._take(value)
        else:
            self._refresh()

    def _refresh(self) -> None:
        """Everything that depends on something else."""
        if self.parameters is None:
            return
        p = self.parameters
        self.inputs.allow(self._why_no_run())
        self.session_panel.allow_start(self._why_no_session())
        session = self.control.session
        if session is not None and self.control.running:
            arm = _("revising") if session.header.arm == "revise" else _("from scratch")
            dot = " \N{MIDDLE DOT} "
            who = dot.join((session.header.case, session.header.reader, arm))
            self.session_panel.show_running(who, paused=session.paused)
            if session.paused:
                self.session_panel.notice.say(
                    "warning", _("Paused: the clock stands still."), action=(_("Continue"), self.toggle_pause)
                )
            elif session.problem is None:
                self.session_panel.notice.clear()
        else:
            self.session_panel.show_form()
            self.session_panel.show_folder(self.session_root())
            self._offer_to_resume()
        self._refresh_table()
        folder = Path(p.session_folder) if p.session_folder else None
        routes = export.routes(self._volume(), folder)
        if p.segmentation is None:
            why_not = _("There are no contours yet.")
            routes = [
                export.Route(one.key, one.title, False, why_not) if one.key != export.LOG else one
                for one in routes
            ]
        self.exporting.show(routes)

    def _refresh_table(self) -> None:
        p, volume = self.parameters, self._volume()
        session = self.control.session if self.control.running else None
        node = p.segmentation
        if volume is None or volume.GetImageData() is None or (node is None and session is None):
            self.review.show([], reviewing=False, has_proposal=False)
            return
        organs = session.header.organs if session is not None else self._organs_shown(node)
        over = self.control.session
        if session is None and over is not None and over.segmentation_node is node:
            session, organs = over, over.header.organs  # finished: its figures stay
        rows = rows_of(node, organs, grid_of(volume).voxel_cc, session=session, masks=self._masks)
        organ = self.review.table.organ
        proposed = organ is not None and self._proposed is not None and organ in self._proposed
        self.review.show(rows, reviewing=self.control.running, has_proposal=proposed)
        there = [row for row in rows if row.state != ABSENT]
        self.session_panel.show_accepted(sum(row.state == ACCEPTED for row in there), len(there))
        self._show_clock()

    def _organs_shown(self, node: Any) -> tuple[str, ...]:
        return sessions.organs_of(self.protocols.find(self.parameters.protocol), node)

    def _show_clock(self) -> None:
        session = self.control.session
        if session is None or not self.control.running:
            return
        organ = session.organ
        active = {name: session.active_s(name) for name in session.header.organs}
        self.session_panel.show_clock(active.get(organ) if organ is not None else None, sum(active.values()))

    def _why_no_run(self) -> str | None:
        if self.running:
            return None  # the button is Cancel
        if self.parameters.volume is None:
            return _("Choose a CT first.")
        if self.inputs.entry is None:
            return _("No model is installed.")
        if self.inputs.entry.bundle is None:
            return sentence(self.inputs.entry.problem or "")
        if self.control.running:
            return _("A session is running: finish it first.")
        return None

    def _why_no_session(self) -> str | None:
        p = self.parameters
        if self._volume() is None:
            return _("Choose a CT first.")
        if p.arm == "revise" and p.segmentation is None:
            return _("There is no proposal to revise yet: press Apply.")
        return None

    def _offer_to_resume(self) -> None:
        p = self.parameters
        if not (p.study and p.case and p.reader) or self._volume() is None or self.session_panel.notice.text:
            return
        found = sessions.find_interrupted(self.session_root(), study=p.study, case=p.case, reader=p.reader)
        if found is not None:
            when = found.header.started_utc.replace("T", " ").rstrip("Z")
            self.session_panel.notice.say(
                "note",
                _("A session of this reader on this case was interrupted (begun {when} UTC).").format(
                    when=when
                ),
                action=(_("Resume it"), lambda: self.resume_session(found)),
            )

    @contextmanager
    def _telling(self, notice: Notice) -> Iterator[None]:
        """What goes wrong in the block is said there, in one sentence."""
        try:
            yield
        except SoarsError as error:
            notice.say("error", sentence(str(error)))

    @contextmanager
    def _busy(self, why: str) -> Iterator[None]:
        """The reader waits for the application: told to the log when a session runs."""
        session = self.control.session
        if session is None or session.recorder is None or not self.control.running:
            yield
            return
        with session.recorder.busy(why):
            yield
