"""Editing sessions on Slicer's real MRML core: what a reader does there is what the log says afterwards."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

pytest.importorskip("slicer", reason="slicer-core is not installed")
import SimpleITK as sitk
import slicer
from effort_logs import MS, HandClock
from reading_desk import Box, ReadingDesk, blocks

from soars.effort.change import OrganChange
from soars.effort.log import RESULT_FILE, EffortLog, read_log, read_session, session_logs
from soars.effort.records import Header
from soars.errors import InputError, SoarsError
from soars.formats.segnrrd import read_seg_nrrd
from soars.phantom import make_phantom
from soars.structures import StructureSet
from SOARSSegmentationLib.run.runner import Failure, Runner, RunOptions
from SOARSSegmentationLib.session.editing import EditingSession

ORGANS: dict[str, Box] = {
    "Brainstem": np.s_[5:12, 5:12, 5:12],
    "Parotid_L": np.s_[5:12, 5:12, 12:20],
    "Eye_L": np.s_[2:9, 15:25, 10:20],
    "Lens_L": np.s_[4:6, 17:19, 12:14],
}
FREE = np.s_[15:17, 5:9, 5:9]  # 32 voxels of no organ
ALSO_FREE = np.s_[15:17, 15:19, 5:9]
BORDER = np.s_[6:8, 6:8, 10:14]  # 8 voxels of the brainstem, 8 of the parotid
HEADER = Header("pilot", "case-01", "R1", "revise", tuple(ORGANS), "starter", "ab" * 32, {"soars": "0.1.0"})


class Reading:
    """A reader at a desk, with a session and a clock set by hand."""

    def __init__(
        self,
        folder: Path,
        structures: StructureSet | None = None,
        *,
        header: Header = HEADER,
        desk: ReadingDesk | None = None,
        real_time: bool = False,
    ) -> None:
        self.structures = blocks(ORGANS) if structures is None else structures
        self.desk = desk or ReadingDesk(self.structures)
        self.clock = HandClock()
        self.heard = 0
        self.folder = folder
        self._header = header
        self._real_time = real_time
        self._session: EditingSession | None = None

    def start(self) -> EditingSession:
        self._session = EditingSession.begin(
            self.desk.segmentation,
            self.desk.volume,
            {organ: self.structures.crop(organ) for organ in self.structures},
            self.folder,
            self._header,
            editor_node=self.desk.editor,
            on_changed=lambda what: setattr(self, "heard", self.heard + 1),
            clock=time.monotonic_ns if self._real_time else self.clock,
        )
        return self._session

    @property
    def session(self) -> EditingSession:
        assert self._session is not None, "it was not started"
        return self._session

    def click(self, organ: str | None) -> None:
        """In the review table."""
        self.session.select(self.desk.segment_id(organ) if organ else None)

    def log(self) -> EffortLog:
        return read_log(session_logs(self.folder)[-1])

    def kinds(self) -> list[str]:
        """What the log holds, in words, without what every session has."""
        words = []
        for event in self.log().events:
            what = event.organ or event.name or event.cause or event.input or event.file
            words.append(f"{event.kind} {what}" if what else event.kind)
        return [
            w for w in words if w.split()[0] not in ("start", "busy_begin", "busy_end", "saved", "snapshot")
        ]

    def close(self) -> None:
        if self._session is not None and self._session.running:
            self._session.finish()
        self.desk.close()


Open = Callable[..., Reading]


@pytest.fixture
def open_reading() -> Iterator[Open]:
    """Makes a `Reading` as its class does; all are closed after the test."""
    opened: list[Reading] = []

    def make(*arguments: Any, **named: Any) -> Reading:
        opened.append(Reading(*arguments, **named))
        return opened[-1]

    yield make
    for reading in opened:
        reading.close()


@pytest.fixture
def reading(tmp_path: Path, open_reading: Open) -> Reading:
    reading = open_reading(tmp_path / "session")
    reading.start()
    return reading


# --- the scripted session of the promise -----------------------------------------------------------


@pytest.fixture(scope="module")
def patient(tmp_path_factory: pytest.TempPathFactory) -> StructureSet:
    """The 42 organs that a child process, with the shipped bundle, finds on the phantom's CT."""
    folder = tmp_path_factory.mktemp("run")
    sitk.WriteImage(make_phantom(7, spacing_mm=(2.0, 2.0, 3.0)).ct, str(folder / "ct.nrrd"))
    found: list[StructureSet] = []
    failures: list[Failure] = []
    runner = Runner(
        sys.executable,
        folder / "temporary",
        on_finished=lambda output: found.append(read_seg_nrrd(output / "segmentation.seg.nrrd")),
        on_failed=failures.append,
    )
    runner.start(lambda _: folder / "ct.nrrd", RunOptions("phantom", "cpu"))
    while runner.running:
        runner.poll()
        time.sleep(0.05)
    assert not failures, failures[0].report
    return found[0]


@pytest.mark.slow
def test_a_scripted_session_has_the_times_and_categories_of_the_script(
    tmp_path: Path, patient: StructureSet, open_reading: Open
) -> None:
    reading = open_reading(tmp_path / "session", patient, header=replace(HEADER, organs=patient.names))
    desk, clock = reading.desk, reading.clock
    assert len(patient.names) == 42
    begin = clock.ns
    session = reading.start()
    voxels = {organ: desk.voxels(organ) for organ in patient.names}

    def at(seconds: float) -> None:
        clock.ns = begin + round(seconds * 1000) * MS
        if session.running:
            session.tick()

    def wait_until(seconds: float) -> None:
        """As the window's timer would: a tick every quarter second."""
        while clock.ns + 250 * MS < begin + round(seconds * 1000) * MS:
            clock.step(0.25)
            session.tick()
        at(seconds)

    def grown(organ: str) -> Box:
        """Two voxels thick, across the organ's first slices: some voxels are its own, others are not."""
        z, y, x = patient.crop(organ).start
        return np.s_[z : z + 2, max(y - 2, 0) : y + 2, max(x - 2, 0) : x + 2]

    def work(organ: str, seconds: float, until: float) -> None:
        """A stroke, and the mouse moves every second."""
        desk.paint(grown(organ))
        end = clock.ns + round(seconds * 1000) * MS
        while clock.ns < end:
            wait_until((clock.ns - begin) / 1e9 + 1.0)
            session.recorder.interaction("move")
        assert clock.ns == begin + round(until * 1000) * MS

    wait_until(3.0)  # 3 s before anything: nobody's
    reading.click("Brainstem")
    work("Brainstem", 40.0, until=43.0)
    session.accept("Brainstem")  # minor, 40 s
    wait_until(45.0)  # 2 s between organs: nobody's
    reading.click("Parotid_L")
    work("Parotid_L", 100.0, until=145.0)
    session.pause()
    wait_until(205.0)  # 60 s pause
    session.resume()
    wait_until(215.0)
    session.accept("Parotid_L")  # moderate, 110 s
    reading.click("Parotid_R")
    work("Parotid_R", 190.0, until=405.0)
    session.accept("Parotid_R")  # major, 190 s
    reading.click("Eye_L")
    wait_until(415.0)
    session.accept("Eye_L")  # looked at for 10 s: none
    reading.click("Eye_R")
    desk.paint(grown("Eye_R"))
    wait_until(420.0)
    desk.undo()  # nothing is left of it
    wait_until(425.0)
    session.accept("Eye_R")  # none, although it was edited
    reading.click("SpinalCord")
    desk.paint(grown("SpinalCord"))
    wait_until(500.0)  # 75 s without a touch: 30 active, 45 idle
    session.recorder.interaction("wheel")
    wait_until(510.0)
    with session.recorder.busy("smoothing"):
        clock.step(8.0)  # 510 to 518
    wait_until(520.0)
    # Over the border to a neighbour, which gets no event of its own.
    neighbour, box = border_of(patient, "Bone_Mandible_L")
    reading.click("Bone_Mandible_L")
    desk.paint(box)
    wait_until(530.0)
    session.finish()

    log = reading.log()
    timing = session.review()
    seconds = {
        organ: (one.timing.active_s, one.timing.idle_s, one.timing.busy_s, one.timing.paused_s)
        for organ, one in timing.items()
    }
    expected = {
        "Brainstem": (40.0, 0.0, 0.0, 0.0),
        "Parotid_L": (110.0, 0.0, 0.0, 60.0),
        "Parotid_R": (190.0, 0.0, 0.0, 0.0),
        "Eye_L": (10.0, 0.0, 0.0, 0.0),
        "Eye_R": (10.0, 0.0, 0.0, 0.0),
        "SpinalCord": (30.0 + 10.0 + 2.0, 45.0, 8.0, 0.0),
        "Bone_Mandible_L": (10.0, 0.0, 0.0, 0.0),
    }
    for organ in patient.names:
        assert seconds[organ] == pytest.approx(expected.get(organ, (0.0, 0.0, 0.0, 0.0)), abs=0.010), organ
    assert log.complete and log.wall_ns == 530_000 * MS
    assert sum(one.timing.wall_ns for one in timing.values()) == (530_000 - 3_000 - 2_000) * MS
    assert {organ: one.category for organ, one in timing.items() if one.state != "not_reviewed"} == {
        "Brainstem": "minor", "Parotid_L": "moderate", "Parotid_R": "major", "Eye_L": "none", "Eye_R": "none",
        "SpinalCord": "minor", "Bone_Mandible_L": "minor",
    }  # fmt: skip
    assert timing[neighbour].change is not None and timing[neighbour].change.voxels_removed > 0
    assert (timing["Eye_R"].edits, timing["Eye_R"].undos) == (1, 1)
    # The changes are those of the voxels, and the saved result is what is in the scene.
    result, proposal = (read_seg_nrrd(reading.folder / f"{name}.seg.nrrd") for name in ("result", "proposal"))
    for organ in patient.names:
        now = desk.voxels(organ)
        change = timing[organ].change
        assert change is not None
        assert change.voxels_added == np.count_nonzero(now & ~voxels[organ])
        assert change.voxels_removed == np.count_nonzero(voxels[organ] & ~now)
        assert np.array_equal(result.full(organ), now) and proposal.crop(organ).equals(patient.crop(organ))


def border_of(patient: StructureSet, organ: str) -> tuple[str, Box]:
    """An organ beside the given one and a box that holds voxels of it and not of any other organ in another layer."""
    mask = patient.crop(organ)
    for other in patient.names:
        if other != organ and not patient.crop(other).is_empty:
            z, y, x = np.argwhere(patient.crop(other).array)[0] + patient.crop(other).start
            if patient.crop(other).voxels > 200 and not mask.is_empty:
                return other, np.s_[z : z + 1, y : y + 1, x : x + 1]
    raise AssertionError


# --- one thing at a time -----------------------------------------------------------


def test_an_overwritten_neighbour_is_found_and_no_longer_accepted(reading: Reading) -> None:
    reading.click("Parotid_L")
    reading.session.accept("Parotid_L")
    reading.click("Brainstem")
    reading.desk.paint(BORDER)
    assert reading.session.states()["Parotid_L"] == "accepted"  # nobody has told yet
    reading.session.accept("Brainstem")
    assert reading.session.states() == {
        "Brainstem": "accepted", "Parotid_L": "in_progress", "Eye_L": "not_reviewed", "Lens_L": "not_reviewed",
    }  # fmt: skip
    assert reading.session.changes()["Parotid_L"] == OrganChange(
        0, 8, pytest.approx(2 * 384 / (392 + 384)), pytest.approx(384 * 0.003)
    )
    assert "reopen overwritten" not in reading.kinds() and "reopen Parotid_L" in reading.kinds()
    assert [e.cause for e in reading.log().events if e.kind == "reopen"] == ["overwritten"]
    assert [e.organ for e in reading.log().events if e.kind == "snapshot"] == ["Parotid_L"]


def test_painting_on_an_accepted_organ_opens_it_again_and_starts_its_clock(reading: Reading) -> None:
    reading.click("Eye_L")
    reading.clock.step(5.0)
    reading.session.accept("Eye_L")
    reading.clock.step(20.0)
    assert reading.session.active_s("Eye_L") == 5.0
    reading.desk.paint(FREE)
    reading.clock.step(4.0)
    assert reading.session.active_s("Eye_L") == 9.0
    assert reading.session.states()["Eye_L"] == "in_progress"
    assert reading.kinds() == ["select Eye_L", "accept Eye_L", "edit Eye_L", "reopen Eye_L"]


def test_a_click_on_the_accepted_organ_in_hand_starts_its_clock_again(reading: Reading) -> None:
    reading.click("Eye_L")
    reading.session.accept("Eye_L")
    reading.clock.step(20.0)
    reading.click("Eye_L")
    reading.clock.step(3.0)
    assert reading.session.active_s("Eye_L") == 3.0
    assert reading.session.states()["Eye_L"] == "accepted"
    reading.session.reopen("Eye_L")
    assert reading.session.states()["Eye_L"] == "in_progress"


def test_undo_and_redo_are_counted(reading: Reading) -> None:
    reading.click("Eye_L")
    reading.desk.paint(FREE)
    reading.desk.paint(ALSO_FREE)
    reading.desk.undo()
    reading.desk.undo()
    reading.session.expect_redo()
    reading.desk.redo()
    reading.session.accept("Eye_L")
    assert reading.kinds() == [
        "select Eye_L", "edit Eye_L", "edit Eye_L", "undo", "undo", "redo", "accept Eye_L",
    ]  # fmt: skip
    assert reading.session.changes()["Eye_L"].voxels_added == 32


def test_the_stand_alone_editor_counts_and_another_segmentation_does_not(reading: Reading) -> None:
    other = reading.desk.add_segmentation(blocks({"Tumour": FREE}))
    editor = reading.desk.add_editor("AnotherModule")
    editor.SetAndObserveSegmentationNode(reading.desk.segmentation)
    editor.SetSelectedSegmentID(reading.desk.segment_id("Lens_L"))
    editor.SetActiveEffectName("Paint")
    assert reading.session.organ == "Lens_L"
    editor.SetAndObserveSegmentationNode(other)
    assert reading.session.organ is None
    assert reading.kinds() == ["select Lens_L", "effect Paint", "select", "effect"]


def test_a_segment_that_is_no_organ_of_the_session_is_not_named(reading: Reading) -> None:
    reading.desk.segmentation.GetSegmentation().AddEmptySegment("gtv", "GTV Jane Doe")
    reading.desk.editor.SetSelectedSegmentID("gtv")
    reading.desk.paint(FREE)
    reading.session.finish()
    text = session_logs(reading.folder)[0].read_text()
    assert "Jane" not in text and "gtv" not in text
    assert reading.kinds()[:2] == ["edit", "end finished"]


def test_a_segment_that_replaces_a_removed_one_is_the_organs(reading: Reading) -> None:
    reading.click("Lens_L")
    segmentation = reading.desk.segmentation.GetSegmentation()
    segmentation.RemoveSegment(reading.desk.segment_id("Lens_L"))
    segmentation.AddEmptySegment("Segment_1", "Lens_L")
    reading.click("Lens_L")
    reading.desk.paint(FREE)
    reading.clock.step(3.0)
    assert reading.session.organ == "Lens_L" and reading.session.active_s("Lens_L") == 3.0
    reading.session.accept("Lens_L")
    change = reading.session.changes()["Lens_L"]
    assert (change.voxels_added, change.voxels_removed) == (32, 8)
    reading.session.finish()
    assert read_seg_nrrd(reading.folder / RESULT_FILE).voxels("Lens_L") == 32


def test_organs_whose_segments_exchange_their_names_are_exchanged(reading: Reading) -> None:
    """As a reader does who finds the sides exchanged; here with the eye and a gland."""
    segmentation = reading.desk.segmentation.GetSegmentation()
    gland, eye = (segmentation.GetSegment(reading.desk.segment_id(name)) for name in ("Parotid_L", "Eye_L"))
    gland.SetName("Eye_L")
    eye.SetName("Parotid_L")
    reading.click("Eye_L")
    assert reading.session.organ == "Eye_L"
    reading.session.accept("Eye_L")
    change = reading.session.changes()["Eye_L"]
    assert (change.voxels_added, change.voxels_removed) == (7 * 7 * 8, 7 * 10 * 10)
    reading.session.finish()
    result = read_seg_nrrd(reading.folder / RESULT_FILE)
    assert (result.voxels("Eye_L"), result.voxels("Parotid_L")) == (7 * 7 * 8, 7 * 10 * 10)


def test_an_edit_ends_a_pause(reading: Reading) -> None:
    reading.click("Eye_L")
    reading.session.pause()
    reading.clock.step(60.0)
    assert reading.session.paused
    reading.desk.paint(FREE)
    assert not reading.session.paused
    reading.clock.step(5.0)
    assert reading.session.active_s("Eye_L") == 5.0


def test_saving_the_scene_is_busy_time(reading: Reading) -> None:
    reading.click("Eye_L")
    scene = reading.desk.scene
    scene.StartState(slicer.vtkMRMLScene.SaveState)
    reading.clock.step(12.0)
    scene.EndState(slicer.vtkMRMLScene.SaveState)
    reading.session.finish()
    assert reading.session.review()["Eye_L"].timing.busy_s == 12.0


def close(reading: Reading) -> None:
    reading.desk.scene.Clear(False)


def remove_segmentation(reading: Reading) -> None:
    reading.desk.scene.RemoveNode(reading.desk.segmentation)


def remove_ct(reading: Reading) -> None:
    reading.desk.scene.RemoveNode(reading.desk.volume)


@pytest.mark.parametrize(
    ("happens", "cause"),
    [(close, "scene_closed"), (remove_segmentation, "node_removed"), (remove_ct, "node_removed")],
)
def test_the_session_ends_whole_when_its_scene_goes(
    reading: Reading, happens: Callable[[Reading], None], cause: str
) -> None:
    reading.click("Eye_L")
    reading.desk.paint(FREE)
    happens(reading)
    assert not reading.session.running
    log = reading.log()
    assert log.complete and log.events[-1].cause == cause
    change = reading.session.review()["Eye_L"].change
    assert change is not None and change.voxels_added == 32
    assert read_seg_nrrd(reading.folder / "result.seg.nrrd").voxels("Eye_L") == 700 - 8 + 8 + 32


def test_after_the_end_nothing_is_heard(reading: Reading) -> None:
    reading.session.finish("quit")
    reading.session.finish()
    size, heard = session_logs(reading.folder)[0].stat().st_size, reading.heard
    reading.desk.turn_to("Eye_L")
    reading.desk.paint(FREE)
    reading.session.tick()
    assert (session_logs(reading.folder)[0].stat().st_size, reading.heard) == (size, heard)
    with pytest.raises(InputError, match="no session"):
        reading.session.accept("Eye_L")


def test_drawing_from_nothing(tmp_path: Path, open_reading: Open) -> None:
    empty = blocks({organ: np.s_[0:0, 0:0, 0:0] for organ in ORGANS})
    reading = open_reading(
        tmp_path / "s", empty, header=replace(HEADER, arm="scratch", bundle=None, bundle_sha256=None)
    )
    reading.start()
    assert set(reading.session.states().values()) == {"not_reviewed"}
    reading.click("Eye_L")
    reading.desk.paint(FREE)
    reading.session.accept("Eye_L")
    reading.session.finish()
    assert reading.session.changes()["Eye_L"] == OrganChange(32, 0, 0.0, pytest.approx(0.096))
    assert not (reading.folder / "proposal.seg.nrrd").exists()
    assert read_seg_nrrd(reading.folder / "result.seg.nrrd").voxels("Eye_L") == 32


def test_an_organ_without_a_proposal_is_absent_until_it_is_drawn_or_its_absence_accepted(
    tmp_path: Path, open_reading: Open
) -> None:
    structures = blocks({**ORGANS, "Lens_L": np.s_[0:0, 0:0, 0:0]})
    reading = open_reading(tmp_path / "s", structures, header=replace(HEADER, organs=(*ORGANS, "Cochlea_L")))
    reading.start()
    states = reading.session.states()
    assert (states["Lens_L"], states["Cochlea_L"], states["Eye_L"]) == ("absent", "absent", "not_reviewed")
    reading.session.accept("Cochlea_L")
    reading.click("Lens_L")
    assert reading.session.states()["Lens_L"] == "absent"
    reading.desk.paint(FREE)
    reading.click("Eye_L")
    states = reading.session.states()
    assert (states["Lens_L"], states["Cochlea_L"]) == ("in_progress", "accepted")


def test_a_session_that_was_interrupted_goes_on_in_a_new_file(reading: Reading, open_reading: Open) -> None:
    reading.click("Eye_L")
    reading.desk.paint(FREE)
    reading.clock.step(10.0)
    reading.session.accept("Eye_L")
    reading.click("Brainstem")
    reading.session.tick()
    reading.session.recorder.writer.close()  # as after a crash: no end, and the system lets go of the folder
    again = open_reading(reading.folder, reading.structures, desk=reading.desk)
    again.start()
    assert again.session.states() == {
        "Brainstem": "in_progress", "Parotid_L": "not_reviewed", "Eye_L": "accepted", "Lens_L": "not_reviewed",
    }  # fmt: skip
    again.click("Eye_L")
    again.clock.step(2.0)
    assert again.session.active_s("Eye_L") == 12.0
    again.session.finish()
    logs = session_logs(reading.folder)
    assert [path.name for path in logs] == ["1.effort.jsonl", "2.effort.jsonl"]
    assert read_log(logs[1]).header.continues == "1.effort.jsonl"
    joined = again.session.review()["Eye_L"]
    assert (joined.timing.active_s, joined.edits, joined.state) == (12.0, 1, "accepted")
    assert joined.change is not None and joined.change.voxels_added == 32
    assert read_session(logs).complete


def test_an_acceptance_whose_voxels_were_lost_is_no_longer_one(reading: Reading, open_reading: Open) -> None:
    """Killed between the acceptance and the next saving: the organ comes back as it was saved before."""
    reading.click("Eye_L")
    reading.desk.paint(FREE)
    reading.session.accept("Eye_L")
    reading.click("Brainstem")
    reading.session.accept("Brainstem")
    reading.session.recorder.writer.close()
    again = open_reading(reading.folder, reading.structures)  # in a scene with the proposal
    again.start()
    assert again.session.unsaved == ("Eye_L",)
    states = again.session.states()
    assert (states["Eye_L"], states["Brainstem"]) == ("in_progress", "accepted")
    again.session.finish()
    found = again.session.review()["Eye_L"]
    assert found.state == "in_progress" and found.change is not None and not found.change.changed


def test_another_readers_folder_is_refused(reading: Reading, open_reading: Open) -> None:
    reading.session.finish()
    before = sorted(reading.folder.iterdir())
    other = open_reading(reading.folder, header=replace(HEADER, reader="R2"))
    with pytest.raises(InputError, match="another reader"):
        other.start()
    assert sorted(reading.folder.iterdir()) == before


def test_a_segmentation_without_the_organs_is_refused_and_nothing_is_begun(
    tmp_path: Path, open_reading: Open
) -> None:
    reading = open_reading(tmp_path / "s", blocks({"Tumour": FREE}))
    with pytest.raises(InputError, match="none of the session's organs"):
        reading.start()
    assert not (tmp_path / "s").exists()


def test_a_segmentation_of_surfaces_is_refused_with_the_way_out(tmp_path: Path, open_reading: Open) -> None:
    reading = open_reading(tmp_path / "s")
    reading.desk.segmentation.CreateClosedSurfaceRepresentation()
    reading.desk.segmentation.GetSegmentation().SetSourceRepresentationName("Closed surface")
    with pytest.raises(InputError, match="closed surfaces, which have no voxels"):
        reading.start()
    assert not (tmp_path / "s").exists()


def test_a_result_that_cannot_be_written_is_said_and_the_log_is_closed(
    reading: Reading, monkeypatch: pytest.MonkeyPatch
) -> None:
    def no_room(*arguments: object) -> None:
        raise InputError("cannot write result.seg.nrrd: No space left on device")

    reading.click("Eye_L")
    monkeypatch.setattr("soars.formats.segnrrd.write_seg_nrrd", no_room)
    reading.session.accept("Eye_L")
    assert reading.session.problem is not None and "No space" in reading.session.problem
    with pytest.raises(SoarsError, match="No space"):
        reading.session.finish()
    assert reading.log().complete


def test_without_the_packages_of_our_writer_slicers_own_is_used(
    reading: Reading, monkeypatch: pytest.MonkeyPatch
) -> None:
    def not_installed(*arguments: object) -> None:
        raise ModuleNotFoundError("No module named 'slicerio'")

    written: list[tuple[Any, Path]] = []
    monkeypatch.setattr("soars.formats.segnrrd.write_seg_nrrd", not_installed)
    monkeypatch.setattr(
        "SOARSSegmentationLib.scene.seg_file.write_by_slicer", lambda node, path: written.append((node, path))
    )
    reading.session.finish()
    assert written == [(reading.desk.segmentation, reading.folder / "result.seg.nrrd")]


def test_the_result_is_not_saved_at_every_accept_when_that_takes_long(
    reading: Reading, monkeypatch: pytest.MonkeyPatch
) -> None:
    saves: list[int] = []

    def slow(structures: StructureSet, path: Path) -> None:
        reading.clock.step(3.0)
        saves.append(reading.clock.ns)

    monkeypatch.setattr("soars.formats.segnrrd.write_seg_nrrd", slow)
    for organ in ORGANS:  # an organ every 25 s
        reading.click(organ)
        reading.clock.step(25.0)
        reading.session.accept(organ)
    assert len(saves) == 2  # the first, and the one more than a minute later
    reading.session.finish()
    assert len(saves) == 3


# --- kill -9 -----------------------------------------------------------

CHILD = """
import sys
from pathlib import Path
sys.path.insert(0, str(Path(sys.argv[2])))
from test_editing import ORGANS, Reading, FREE, ALSO_FREE
reading = Reading(Path(sys.argv[1]), real_time=True)
reading.start()
strokes = 0
while True:
    for organ in ORGANS:
        reading.desk.turn_to(organ)
        reading.desk.paint(FREE if strokes % 2 else ALSO_FREE)
        strokes += 1
        print(strokes, flush=True)
"""


def test_kill_9_in_the_middle_of_editing_loses_no_stroke(
    tmp_path: Path, root: Path, open_reading: Open
) -> None:
    folder = tmp_path / "session"
    paths = [
        root / "SOARSSegmentation",
        root / "Testing" / "helpers",
        *os.environ.get("PYTHONPATH", "").split(os.pathsep),
    ]
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(map(str, paths))}
    command = [sys.executable, "-c", CHILD, str(folder), str(Path(__file__).parent)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env=environment) as child:
        assert child.stdout is not None
        for _ in range(57):
            child.stdout.readline()
        child.kill()
        said = [*child.stdout.read().split(), "57"]
    strokes = max(map(int, said))
    log = read_log(session_logs(folder)[0])
    assert sum(event.kind == "edit" for event in log.events) >= strokes >= 57
    assert not log.complete
    # And it goes on.
    again = open_reading(folder)
    again.start()
    again.session.finish()
    assert read_session(session_logs(folder)).complete
