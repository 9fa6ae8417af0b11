"""A reader's editing session on a segmentation: what happens in Slicer's editor becomes the effort log.

`listening` observes the segmentation, every segment editor and the scene; `saving` writes the proposal and the result.
Whether an organ changed is decided by comparing voxels with the proposal, when the reader turns to another organ,
accepts one, or finishes.
"""

from __future__ import annotations

import enum
import time
from collections.abc import Callable, Mapping
from contextlib import ExitStack
from dataclasses import replace
from datetime import datetime, timezone
from pathlib import Path
from typing import TYPE_CHECKING, Any

from soars.effort.change import OrganChange, organ_change
from soars.effort.log import PROPOSAL_FILE, RESULT_FILE, new_log_path, read_session, session_logs
from soars.effort.recorder import Recorder
from soars.effort.records import Event, Header
from soars.effort.review import ACCEPTED, IN_PROGRESS, NOT_REVIEWED, OrganReview, review
from soars.effort.timing import IDLE_S, Clock
from soars.effort.writer import LogWriter
from soars.errors import InputError, SoarsError
from soars.report.record import ABSENT
from SOARSSegmentationLib.scene.contents import Contents
from SOARSSegmentationLib.scene.grids import grid_of
from SOARSSegmentationLib.scene.label_maps import no_voxels
from SOARSSegmentationLib.scene.segments import COMPLETED, STATUS_TAG
from SOARSSegmentationLib.scene.segments import IN_PROGRESS as STATUS_IN_PROGRESS
from SOARSSegmentationLib.session.beginning import earlier_reviews, segments_of
from SOARSSegmentationLib.session.listening import SceneWatch
from SOARSSegmentationLib.session.saving import Saving

if TYPE_CHECKING:
    from soars.structures import Mask

TICK_MS = 250
"""Interval at which the window should call `EditingSession.tick`."""


class Changed(enum.Enum):
    """What a session reports as changed: that it was paused, resumed or ended; or an organ's state, its voxels, or
    which one is current."""

    LIFE = enum.auto()
    ORGANS = enum.auto()


class EditingSession:
    """One reader's work on one segmentation: it runs from `begin` to `finish`.

    ``problem`` is a sentence for the reader when the log or a result cannot be written (work goes on meanwhile), else
    None. ``unsaved`` are organs that were accepted before an interruption, but not saved as they were then: they are
    open again. ``on_changed``, unless None, is called after something has changed.
    """

    @classmethod
    def begin(
        cls,
        segmentation_node: Any,
        volume_node: Any,
        proposal: Mapping[str, Mask] | None,
        folder: Path,
        header: Header,
        *,
        editor_node: Any = None,
        on_changed: Callable[[Changed], None] | None = None,
        idle_s: float = IDLE_S,
        clock: Callable[[], int] = time.monotonic_ns,
    ) -> EditingSession:
        """Open the log, save the proposal beside it, and start listening; returns the running session.

        ``proposal`` is each organ's mask on the CT's grid, None, or missing an organ, where drawing starts from
        scratch. ``folder`` takes the log and the results; when it holds logs already, the session goes on from the
        last. ``header`` says who, what and which organs; its start and its link to an earlier log are filled in here.
        ``editor_node`` is the editor that `select` drives.

        `InputError` when the folder's logs are of another session, the log cannot be written, the segmentation has
        none of the organs, or does not lie on the CT's voxels; then nothing was begun.
        """
        logs = session_logs(folder)
        header = replace(
            header,
            started_utc=datetime.now(timezone.utc).strftime("%Y-%m-%dT%H:%M:%SZ"),
            continues=logs[-1].name if logs else None,
        )
        earlier = earlier_reviews(logs, header, folder, idle_s)
        ids = segments_of(segmentation_node, header.organs)
        proposed = {
            organ: proposal[organ] if proposal is not None and organ in proposal else no_voxels()
            for organ in header.organs
        }
        contents = Contents(segmentation_node, volume_node, ids, proposed)
        contents.refresh()
        writer = LogWriter.create(new_log_path(folder), header, clock)
        session = cls(
            *(segmentation_node, volume_node, folder, header, ids, proposed, contents, earlier, writer),
            editor_node=editor_node,
            on_changed=on_changed,
            idle_s=idle_s,
        )
        try:
            session._save_proposal()
            session._reopen_unsaved()
            session._watch.start()
        except BaseException:
            session.stop_listening()
            writer.close()
            raise
        session._notify(Changed.LIFE)
        return session

    def __init__(
        self,
        segmentation_node: Any,
        volume_node: Any,
        folder: Path,
        header: Header,
        segment_ids: Mapping[str, str],
        proposed: Mapping[str, Mask],
        contents: Contents,
        earlier: Mapping[str, OrganReview],
        writer: LogWriter,
        *,
        editor_node: Any,
        on_changed: Callable[[Changed], None] | None,
        idle_s: float,
    ) -> None:
        """Takes the parts that `begin` makes."""
        self.segmentation_node = segmentation_node
        self.folder = folder
        self.header = header
        self.problem: str | None = None
        self.unsaved: tuple[str, ...] = ()
        self._segment_ids = segment_ids
        self._proposed = dict(proposed)
        self._contents = contents
        self._earlier = dict(earlier)
        self._editor_node = editor_node
        self.on_changed = on_changed
        self._idle_s = idle_s
        self._voxel_cc = grid_of(volume_node).voxel_cc
        self._states = {
            organ: earlier[organ].state if organ in earlier else NOT_REVIEWED for organ in header.organs
        }
        self._changes = {organ: self._change(organ) for organ in header.organs}
        self._in_log = {organ: one.change for organ, one in earlier.items() if one.change is not None}
        self._organ: str | None = None
        self._undone = 0
        self._redo_expected = False
        self._scene_save = ExitStack()
        self._clock = Clock(idle_s)
        self.recorder = Recorder(writer, self._clock.feed)
        self._clock.feed(Event(0, "start"))
        self._saving = Saving(folder, header.organs, grid_of(volume_node), segmentation_node)
        self._watch = SceneWatch(segmentation_node, volume_node, self)

    def finish(self, cause: str = "finished") -> None:
        """End: compare and save a last time, and close the log. Does nothing if the session is already over.

        ``cause`` is one of `soars.effort.records.END_CAUSES`. `SoarsError` when a result or the last records could not
        be written; the session is over nevertheless.
        """
        if not self.running:
            return
        problem = None
        with self.recorder.busy("save"):
            try:
                self._watch.flush()
                self.stop_listening()
                self._compare()
                for organ in self.header.organs:
                    self.recorder.snapshot(organ, self._changes[organ])
                self._save_result()
                problem = self.problem
            except Exception as error:  # the log is closed whatever happens to the result
                problem = str(error)
        try:
            self.recorder.end(cause)
        finally:
            self._notify(Changed.LIFE)
        if problem is not None:
            raise SoarsError(problem)

    @property
    def running(self) -> bool:
        return not self.recorder.ended

    # --- what the reader does ------------------------------------------------------------------------------------
    @property
    def organ(self) -> str | None:
        """The current organ."""
        return self._organ

    @property
    def segment_ids(self) -> dict[str, str]:
        """The segment of each organ that has one."""
        return dict(self._segment_ids)

    def select(self, segment_id: str | None) -> None:
        """Turn to a segment: select it in the editor, and start its organ's clock."""
        editor = self._editor_node
        if editor is not None and editor.GetSegmentationNode() is self.segmentation_node:
            editor.SetSelectedSegmentID(segment_id or "")
        organ = self._organ_of(segment_id)
        if organ != self._organ or organ != self._clock.organ:
            self._turn_to(organ, again=True)

    def accept(self, organ: str) -> None:
        """The reader is done with an organ."""
        recorder = self._running_recorder(organ)
        with recorder.busy("compare"):
            self._compare()
        recorder.accept(organ, self._changes[organ])
        self._put_state(organ, ACCEPTED)
        self._in_log[organ] = self._changes[organ]
        with recorder.busy("save"):
            for other, change in self._changes.items():
                if change != self._in_log.get(other, self._nothing_changed(other)):
                    recorder.snapshot(other, change)
                    self._in_log[other] = change
            began = recorder.now()
            if self._saving.due(began):
                self._save_result()
                self._saving.took(began, recorder.now())
        self._notify(Changed.ORGANS)

    def reopen(self, organ: str) -> None:
        """The reader takes the acceptance back."""
        recorder = self._running_recorder(organ)
        if self._states[organ] == ACCEPTED:
            recorder.reopen(organ)
            self._put_state(organ, IN_PROGRESS)
            self._notify(Changed.ORGANS)

    def pause(self) -> None:
        self._running_recorder().pause()
        self._notify(Changed.LIFE)

    def resume(self) -> None:
        """Go on after a pause; an edit does so by itself."""
        self._running_recorder().resume()
        self._notify(Changed.LIFE)

    @property
    def paused(self) -> bool:
        return self.recorder.paused

    def view_only(self, on: bool) -> None:
        """From now on the reader only looks (or revises again); looking is time that belongs to no organ."""
        self._running_recorder().view_only(on)

    def expect_redo(self) -> None:
        """Announce that the next step in the editor's history is a redo; whoever offers the button calls this first.

        Slicer's events do not distinguish the two once several steps were undone; without this call it counts as an
        undo.
        """
        self._redo_expected = True

    def tick(self) -> None:
        """Call this every `TICK_MS` while the session runs, even while another module is shown.

        When ticks stop coming, the application counts as blocked and the time as busy.
        """
        if self.running:
            self._watch.flush()
            self.recorder.tick()
            if self.recorder.writer.problem is not None:
                self.problem = self.recorder.writer.problem

    # --- asking --------------------------------------------------------------------------------------------------
    def states(self) -> dict[str, str]:
        """`NOT_REVIEWED`, `IN_PROGRESS`, `ACCEPTED`, or `ABSENT`: no voxels although there was to be a proposal."""
        return {
            organ: ABSENT if state != ACCEPTED and self._is_absent(organ) else state
            for organ, state in self._states.items()
        }

    def changes(self) -> dict[str, OrganChange]:
        """Each organ against its proposal, as of the last comparison."""
        return dict(self._changes)

    def active_s(self, organ: str) -> float:
        """Active time of an organ up to now, with that of the logs this session goes on from."""
        before = self._earlier[organ].timing.active_s if organ in self._earlier else 0.0
        return before + self._clock.active_s(organ, self.recorder.now())

    def review(self) -> dict[str, OrganReview]:
        """Times, counts, changes and categories of each organ, from the logs on disk."""
        return review(read_session(session_logs(self.folder)), self._idle_s)

    # --- what is heard (see `listening.Listener`) ----------------------------------------------------------------
    def edited(self, segment_id: str | None) -> None:
        if not self.running:
            return
        self._go_on()
        organ = self._organ_of(segment_id)
        self.recorder.edit(organ)
        self._undone = 0
        if organ is None:
            return
        if self._states[organ] == ACCEPTED:
            self.recorder.reopen(organ, "edit")
        if self._states[organ] != IN_PROGRESS:
            self._put_state(organ, IN_PROGRESS)
            self._notify(Changed.ORGANS)

    def restored(self) -> None:
        if not self.running:
            return
        self._go_on()
        redo = self._redo_expected and self._undone > 0
        self._redo_expected = False
        if redo:
            self._undone -= 1
            self.recorder.redo()
        else:
            self._undone += 1
            self.recorder.undo()

    def segment_selected(self, segment_id: str | None) -> None:
        if self.running:
            self._turn_to(self._organ_of(segment_id))

    def effect_chosen(self, name: str | None) -> None:
        if self.running:
            self.recorder.effect(name)

    def scene_saving(self, on: bool) -> None:
        self._scene_save.close()
        if on:
            self._scene_save.enter_context(self.recorder.busy("save scene"))

    def ended(self, cause: str) -> None:
        """Called from an event, where nobody would see an exception."""
        try:
            self.finish(cause)
        except SoarsError as error:
            self.problem = str(error)
            self._notify(Changed.LIFE)

    def stop_listening(self) -> None:
        self._watch.stop()
        self._scene_save.close()

    # --- organs --------------------------------------------------------------------------------------------------
    def _put_state(self, organ: str, state: str) -> None:
        """Remember the state, and let Slicer's own segment tables show it."""
        self._states[organ] = state
        segmentation = self.segmentation_node.GetSegmentation()
        segment_id = self._segment_ids.get(organ)
        segment = segmentation.GetSegment(segment_id) if segment_id else None
        if segment is not None:
            segment.SetTag(STATUS_TAG, COMPLETED if state == ACCEPTED else STATUS_IN_PROGRESS)

    def _go_on(self) -> None:
        if self.recorder.paused:
            self.recorder.resume()
            self._notify(Changed.LIFE)

    def _turn_to(self, organ: str | None, *, again: bool = False) -> None:
        if organ == self._organ and not again:
            return
        with self.recorder.busy("compare"):
            try:
                # Slicer notes when a label map was modified; accepting and finishing do not rely on it.
                self._compare(thorough=False)
            except InputError as error:
                # The window shows the problem; the clock must not stay with the organ that was left.
                self.problem = str(error)
        self._organ = organ
        self.recorder.select(organ)
        if organ is not None and self._states[organ] == NOT_REVIEWED:
            self._put_state(organ, IN_PROGRESS)
        self._notify(Changed.ORGANS)

    def _compare(self, *, thorough: bool = True) -> None:
        """Find every organ that changed, regardless of the events received; an accepted organ that changed is no longer
        accepted."""
        self._watch.flush()
        for organ in self._contents.refresh(thorough=thorough):
            self._changes[organ] = self._change(organ)
            if self._states[organ] == ACCEPTED:
                self.recorder.reopen(organ, "overwritten")
                self._put_state(organ, IN_PROGRESS)

    def _reopen_unsaved(self) -> None:
        """Results are not saved at every acceptance: what was accepted last may have been lost with the program."""
        for organ, change in self._in_log.items():
            now = self._changes[organ]
            same = (change.voxels_added, change.voxels_removed) == (now.voxels_added, now.voxels_removed)
            if self._states[organ] == ACCEPTED and not same:
                self.recorder.reopen(organ, "overwritten")
                self._put_state(organ, IN_PROGRESS)
                self.unsaved += (organ,)

    def _change(self, organ: str) -> OrganChange:
        return organ_change(self._proposed[organ], self._contents.mask(organ), self._voxel_cc)

    def _nothing_changed(self, organ: str) -> OrganChange:
        return organ_change(self._proposed[organ], self._proposed[organ], self._voxel_cc)

    def _is_absent(self, organ: str) -> bool:
        if not self._segment_ids.get(organ):
            return True
        return not self.header.from_scratch and self._contents.mask(organ).is_empty

    def _organ_of(self, segment_id: str | None) -> str | None:
        ids = self._segment_ids.items() if segment_id else ()
        return next((organ for organ, its in ids if its == segment_id), None)

    def _running_recorder(self, organ: str | None = None) -> Recorder:
        if not self.running:
            raise InputError("no session is running")
        if organ is not None and organ not in self._states:
            raise InputError(f"{organ} is none of the session's organs")
        return self.recorder

    # --- saving --------------------------------------------------------------------------------------------------
    def _save_proposal(self) -> None:
        with self.recorder.busy("save"):
            if self._saving.has_proposal() or all(mask.is_empty for mask in self._proposed.values()):
                return
            untouched = not any(change.changed for change in self._changes.values())
            if self._saving.save_proposal(self._proposed, untouched=untouched):
                self.recorder.saved(PROPOSAL_FILE)
            self.problem = self._saving.problem

    def _save_result(self) -> None:
        if self._saving.save_result(self._contents.masks()):
            self.recorder.saved(RESULT_FILE)
        self.problem = self._saving.problem

    def _notify(self, what: Changed) -> None:
        if self.on_changed is not None:
            self.on_changed(what)
