"""A reader's editing session on a segmentation: what Slicer's editor does becomes the effort log.

The session listens to the segmentation, to every segment editor (so the stand-alone Segment Editor module counts as
well) and to the scene. Whether an organ changed is decided by comparing voxels with the proposal, when the reader turns
to another organ, accepts one, or finishes.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from contextlib import ExitStack
from dataclasses import replace
from datetime import datetime, timezone
from pathlib import Path
from typing import TYPE_CHECKING, Any

import slicer
import vtk

from soars.effort.change import OrganChange, organ_change
from soars.effort.log import never_changes, new_log_path, read_session, session_logs
from soars.effort.recorder import Recorder
from soars.effort.records import Event, Header
from soars.effort.review import ACCEPTED, IN_PROGRESS, NOT_REVIEWED, OrganReview, review
from soars.effort.timing import IDLE_S, Clock
from soars.effort.writer import LogWriter
from soars.errors import InputError, SoarsError
from SOARSSegmentationLib.scene import scene
from SOARSSegmentationLib.scene.contents import LABEL_MAP, Contents, grid_of, no_voxels
from SOARSSegmentationLib.session.segment_events import SegmentEvents

if TYPE_CHECKING:
    from soars.structures import Mask

ABSENT = "absent"
PROPOSAL_FILE = "proposal.seg.nrrd"
RESULT_FILE = "result.seg.nrrd"
SAVING_SHARE = 20
"""At an accept the result is saved if that takes, as before, no more than this fraction of the time since."""
TICK_MS = 250
"""How often the window should call `EditingSession.tick`."""


class EditingSession:
    """One reader's work on one segmentation; make it, `start` it, and `finish` it.

    ``problem`` is a sentence for the reader when the log or a result cannot be written (work goes on meanwhile), else
    None. ``on_changed`` is called with the session after a state, a change or the organ in hand may be another.
    """

    def __init__(
        self,
        segmentation_node: Any,
        volume_node: Any,
        proposal: Mapping[str, Mask] | None,
        folder: Path,
        header: Header,
        *,
        editor_node: Any = None,
        on_changed: Callable[[EditingSession], None] | None = None,
        idle_s: float = IDLE_S,
        clock: Callable[[], int] = time.monotonic_ns,
    ) -> None:
        """``proposal`` is each organ's mask on the CT's grid, None or without an organ where drawing starts from
        nothing. ``folder`` takes the log and the results; when it holds logs already, the session goes on from the
        last. ``header`` says who, what and which organs; its start and its link to an earlier log are filled in here.
        ``editor_node`` is the editor that `select` drives; without, the module's usual one.
        """
        self.segmentation_node = segmentation_node
        self.volume_node = volume_node
        self.folder = folder
        self.header = header
        self.problem: str | None = None
        self.recorder: Recorder | None = None
        self._proposal = dict(proposal or {})
        self._editor_node = editor_node
        self._on_changed = on_changed
        self._idle_s = idle_s
        self._clock_ns = clock
        self._clock = Clock(idle_s)
        self._earlier: dict[str, OrganReview] = {}
        self._states = dict.fromkeys(header.organs, NOT_REVIEWED)
        self._changes: dict[str, OrganChange] = {}
        self._in_log: dict[str, OrganChange] = {}
        self._organ: str | None = None
        self._undone = 0
        self._redo_expected = False
        self._saving_took_ns = 0
        self._saved_at_ns: int | None = None
        self._observed: list[tuple[Any, int]] = []
        self._editors: dict[Any, tuple[str | None, str | None]] = {}
        self._scene_save = ExitStack()

    # --- beginning and end ---------------------------------------------------------------------------------------
    def start(self) -> None:
        """Begin: open the log, save the proposal beside it, and listen.

        `InputError` when the folder's logs are of another session, the log cannot be written, the segmentation has
        none of the organs, or does not lie on the CT's voxels; then nothing was begun.
        """
        logs = session_logs(self.folder)
        header = replace(
            self.header,
            started_utc=datetime.now(timezone.utc).strftime("%Y-%m-%dT%H:%M:%SZ"),
            continues=logs[-1].name if logs else None,
        )
        if logs:
            self._take_up(logs, header)
        self._segment_ids = self._find_segments()
        self._geometry = grid_of(self.volume_node)
        for organ in header.organs:
            self._proposal.setdefault(organ, no_voxels())
        known = {organ: self._proposal[organ] for organ in header.organs}
        self._contents = Contents(self.segmentation_node, self.volume_node, self._segment_ids, known)
        self._contents.refresh()
        for organ in header.organs:
            self._changes[organ] = self._change(organ)
        self.header = header
        writer = LogWriter.create(new_log_path(self.folder), header, self._clock_ns)
        self.recorder = Recorder(writer, self._heard)
        self._heard(Event(0, "start"))
        with self.recorder.busy("save"):
            if not (self.folder / PROPOSAL_FILE).exists() and self._any_proposal():
                self._save(self._proposal, PROPOSAL_FILE)
        self._listen()
        self._notify()

    def finish(self, cause: str = "finished") -> None:
        """End: compare and save a last time, and close the log. Does nothing when already over.

        ``cause`` is one of `soars.effort.records.END_CAUSES`. `SoarsError` when a result or the last records could not
        be written; the session is over all the same.
        """
        recorder = self.recorder
        if recorder is None or recorder.ended:
            return
        problem = None
        with recorder.busy("save"):
            try:
                self._events.flush()
                self._stop_listening()
                self._compare()
                for organ in self.header.organs:
                    recorder.snapshot(organ, self._changes[organ])
                self._save(self._contents.masks(), RESULT_FILE)
                problem = self.problem
            except Exception as error:  # the log is closed whatever happens to the result
                problem = str(error)
        try:
            recorder.end(cause)
        finally:
            self._notify()
        if problem is not None:
            raise SoarsError(problem)

    @property
    def running(self) -> bool:
        return self.recorder is not None and not self.recorder.ended

    # --- what the reader does ------------------------------------------------------------------------------------
    @property
    def organ(self) -> str | None:
        """The organ in hand."""
        return self._organ

    @property
    def segment_ids(self) -> dict[str, str]:
        """The segment of each organ that has one."""
        return dict(self._segment_ids)

    def select(self, segment_id: str | None) -> None:
        """Turn to a segment: select it in the editor, and start its organ's clock."""
        editor = self._editor_node or slicer_editor(self.segmentation_node.GetScene())
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
        self._states[organ] = ACCEPTED
        self._in_log[organ] = self._changes[organ]
        with recorder.busy("save"):
            for other, change in self._changes.items():
                if change != self._in_log.get(other, self._nothing_changed(other)):
                    recorder.snapshot(other, change)
                    self._in_log[other] = change
            now = recorder.now()
            if self._saved_at_ns is None or now - self._saved_at_ns >= SAVING_SHARE * self._saving_took_ns:
                self._save(self._contents.masks(), RESULT_FILE)
                self._saved_at_ns = recorder.now()
                self._saving_took_ns = self._saved_at_ns - now
        self._notify()

    def reopen(self, organ: str) -> None:
        """The reader takes the acceptance back."""
        recorder = self._running_recorder(organ)
        if self._states[organ] == ACCEPTED:
            recorder.reopen(organ)
            self._states[organ] = IN_PROGRESS
            self._notify()

    def pause(self) -> None:
        self._running_recorder().pause()
        self._notify()

    def resume(self) -> None:
        """Go on after a pause; an edit does so by itself."""
        self._running_recorder().resume()
        self._notify()

    @property
    def paused(self) -> bool:
        return self.recorder is not None and self.recorder.paused

    def view_only(self, on: bool) -> None:
        """From now on the reader only looks (or revises again): time that belongs to no organ."""
        self._running_recorder().view_only(on)

    def expect_redo(self) -> None:
        """The next step in the editor's history is a redo: to be called before it, by whoever offers the button.

        Slicer's events do not tell the two apart once several steps were undone; without this it counts as an undo.
        """
        self._redo_expected = True

    def tick(self) -> None:
        """To be called every `TICK_MS` as long as the session runs, also while another module is shown.

        When ticks stay away the application counts as blocked, and the time as busy.
        """
        if self.running and self.recorder is not None:
            self._events.flush()
            self.recorder.tick()
            if self.recorder.writer.problem is not None:
                self.problem = self.recorder.writer.problem

    # --- asking --------------------------------------------------------------------------------------------------
    def states(self) -> dict[str, str]:
        """`NOT_REVIEWED`, `IN_PROGRESS`, `ACCEPTED`, or `ABSENT`: no voxels where there was a proposal to be had."""
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
        return before + self._clock.active_s(organ, self.recorder.now() if self.recorder is not None else 0)

    def review(self) -> dict[str, OrganReview]:
        """Times, counts, changes and categories of each organ, from the logs on disk."""
        return review(read_session(session_logs(self.folder)), self._idle_s)

    # --- what Slicer tells ---------------------------------------------------------------------------------------
    def _listen(self) -> None:
        self._events = SegmentEvents(self.segmentation_node.GetSegmentation(), self._edited, self._restored)
        mrml_scene = self.segmentation_node.GetScene()
        for event, callback in (
            (slicer.vtkMRMLScene.NodeAddedEvent, _with_node(self._node_added)),
            (slicer.vtkMRMLScene.NodeAboutToBeRemovedEvent, _with_node(self._node_leaves)),
            (slicer.vtkMRMLScene.StartCloseEvent, lambda caller, event: self._finish_quietly("scene_closed")),
            (slicer.vtkMRMLScene.StartSaveEvent, lambda caller, event: self._scene_saving(True)),
            (slicer.vtkMRMLScene.EndSaveEvent, lambda caller, event: self._scene_saving(False)),
        ):
            self._observe(mrml_scene, event, callback)
        nodes = mrml_scene.GetNodesByClass("vtkMRMLSegmentEditorNode")
        nodes.UnRegister(None)
        for index in range(nodes.GetNumberOfItems()):
            self._node_added(nodes.GetItemAsObject(index))

    def _observe(self, observed: Any, event: Any, callback: Callable[..., None]) -> None:
        self._observed.append((observed, observed.AddObserver(event, callback)))

    def _stop_listening(self) -> None:
        for observed, tag in self._observed:
            observed.RemoveObserver(tag)
        self._observed = []
        self._editors = {}
        self._events.stop()
        self._scene_save.close()

    def _node_added(self, node: Any) -> None:
        if node is not None and node.IsA("vtkMRMLSegmentEditorNode") and node not in self._editors:
            self._editors[node] = (None, None)
            self._observe(
                node, vtk.vtkCommand.ModifiedEvent, lambda caller, event: self._editor_modified(caller)
            )
            self._editor_modified(node)

    def _node_leaves(self, node: Any) -> None:
        if node is self.segmentation_node or node is self.volume_node:
            self._finish_quietly("node_removed")
        elif node in self._editors:
            del self._editors[node]

    def _editor_modified(self, node: Any) -> None:
        if not self.running or self.recorder is None or node not in self._editors:
            return
        ours = node.GetSegmentationNode() is self.segmentation_node
        segment_id = (node.GetSelectedSegmentID() or None) if ours else None
        effect = (node.GetActiveEffectName() or None) if ours else None
        before, self._editors[node] = self._editors[node], (segment_id, effect)
        if segment_id != before[0]:
            self._turn_to(self._organ_of(segment_id))
        if effect != before[1]:
            self.recorder.effect(effect)

    def _edited(self, segment_id: str | None) -> None:
        if not self.running or self.recorder is None:
            return
        self.recorder.resume()
        organ = self._organ_of(segment_id)
        self.recorder.edit(organ)
        self._undone = 0
        if organ is None:
            return
        if self._states[organ] == ACCEPTED:
            self.recorder.reopen(organ, "edit")
        if self._states[organ] != IN_PROGRESS:
            self._states[organ] = IN_PROGRESS
            self._notify()

    def _restored(self) -> None:
        if not self.running or self.recorder is None:
            return
        self.recorder.resume()
        redo = self._redo_expected and self._undone > 0
        self._redo_expected = False
        if redo:
            self._undone -= 1
            self.recorder.redo()
        else:
            self._undone += 1
            self.recorder.undo()

    def _scene_saving(self, on: bool) -> None:
        self._scene_save.close()
        if on and self.recorder is not None:
            self._scene_save.enter_context(self.recorder.busy("save scene"))

    def _finish_quietly(self, cause: str) -> None:
        """From an event, where an exception would reach nobody."""
        try:
            self.finish(cause)
        except SoarsError as error:
            self.problem = str(error)
            self._notify()

    def _heard(self, event: Event) -> None:
        self._clock.feed(event)

    # --- organs --------------------------------------------------------------------------------------------------
    def _turn_to(self, organ: str | None, *, again: bool = False) -> None:
        if self.recorder is None or (organ == self._organ and not again):
            return
        with self.recorder.busy("compare"):
            try:
                self._compare()
            except (
                InputError
            ) as error:  # said in the window; the clock must not stay with the organ that was left
                self.problem = str(error)
        self._organ = organ
        self.recorder.select(organ)
        if organ is not None and self._states[organ] == NOT_REVIEWED:
            self._states[organ] = IN_PROGRESS
        self._notify()

    def _compare(self, *, thorough: bool = True) -> None:
        """Find every organ that changed, whatever events there were; one that was accepted no longer is."""
        self._events.flush()
        for organ in self._contents.refresh(thorough=thorough):
            self._changes[organ] = self._change(organ)
            if self._states[organ] == ACCEPTED and self.recorder is not None:
                self.recorder.reopen(organ, "overwritten")
                self._states[organ] = IN_PROGRESS

    def _change(self, organ: str) -> OrganChange:
        voxel_cc = self._geometry.voxel_cc
        return organ_change(self._proposal[organ], self._contents.mask(organ), voxel_cc)

    def _nothing_changed(self, organ: str) -> OrganChange:
        mask = self._proposal[organ]
        return organ_change(mask, mask, self._geometry.voxel_cc)

    def _is_absent(self, organ: str) -> bool:
        if organ not in self._segment_ids:
            return True
        return not self.header.from_scratch and self._contents.mask(organ).is_empty

    def _any_proposal(self) -> bool:
        return any(not mask.is_empty for mask in self._proposal.values())

    def _find_segments(self) -> dict[str, str]:
        segmentation = self.segmentation_node.GetSegmentation()
        if segmentation.GetNumberOfSegments() and segmentation.GetSourceRepresentationName() != LABEL_MAP:
            raise InputError(
                f"the segmentation {self.segmentation_node.GetName()} is made of "
                f"{segmentation.GetSourceRepresentationName().lower()}s, which have no voxels to compare: make "
                "Binary labelmap its source representation in the Segmentations module"
            )
        found: dict[str, str] = {}
        for index in range(segmentation.GetNumberOfSegments()):
            organ = scene.organ_of(segmentation.GetNthSegment(index))
            if organ in self._states:
                found.setdefault(organ, segmentation.GetNthSegmentID(index))
        if not found:
            raise InputError(
                f"the segmentation {self.segmentation_node.GetName()} has none of the session's organs: choose the "
                "segmentation that was made from the proposal, or make empty organs to draw from nothing"
            )
        return found

    def _organ_of(self, segment_id: str | None) -> str | None:
        return next((organ for organ, its in self._segment_ids.items() if its == segment_id), None)

    def _running_recorder(self, organ: str | None = None) -> Recorder:
        if self.recorder is None or self.recorder.ended:
            raise InputError("no session is running")
        if organ is not None and organ not in self._states:
            raise InputError(f"{organ} is none of the session's organs")
        return self.recorder

    def _take_up(self, logs: list[Path], header: Header) -> None:
        """Go on from the folder's logs, which must be of the same session."""
        earlier = read_session(logs)
        for field in never_changes(earlier.header, header):
            if getattr(earlier.header, field) != getattr(header, field):
                raise InputError(
                    f"the folder {self.folder} holds a session with another {field.replace('_', ' ')}: "
                    "it cannot be resumed with this one; choose another folder"
                )
        self._earlier = review(earlier, self._idle_s)
        for organ, one in self._earlier.items():
            self._states[organ] = one.state
            if one.change is not None:
                self._in_log[organ] = one.change

    def _save(self, masks: Mapping[str, Mask], name: str) -> None:
        """Write organs beside the log; a failure becomes the session's ``problem``."""
        from soars.formats.segnrrd import write_seg_nrrd
        from soars.structures import StructureSet

        structures = StructureSet(self._geometry)
        try:
            for organ in self.header.organs:
                if organ in masks:
                    structures.add_mask(organ, masks[organ])
            write_seg_nrrd(structures, self.folder / name)
        except ModuleNotFoundError:  # our writer's packages are not installed: Slicer's own, slower writer
            if name == PROPOSAL_FILE and any(change.changed for change in self._changes.values()):
                self.problem = "the proposal could not be saved beside the log: it is kept in the scene only"
                return
            scene.write_seg_nrrd(self.segmentation_node, self.folder / name)
        except (SoarsError, ValueError) as error:
            self.problem = str(error)
            return
        self.problem = None
        if self.recorder is not None:
            self.recorder.saved(name)

    def _notify(self) -> None:
        if self._on_changed is not None:
            self._on_changed(self)


def slicer_editor(mrml_scene: Any) -> Any:
    """The scene's usual segment editor node, or None."""
    if mrml_scene is None:
        return None
    return mrml_scene.GetSingletonNode("SegmentEditor", "vtkMRMLSegmentEditorNode")


def _with_node(callback: Callable[[Any], None]) -> Callable[..., None]:
    def observer(caller: Any, event: str, node: Any = None) -> None:
        callback(node)

    observer.CallDataType = vtk.VTK_OBJECT  # type: ignore[attr-defined]
    return observer
