"""Edits and undos are told apart from everything else that happens to a segmentation."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

pytest.importorskip("slicer", reason="slicer-core is not installed")
import slicer
from reading_desk import ReadingDesk, blocks

from SOARSSegmentationLib.session.segment_events import SegmentEvents

ORGANS = {
    "Brainstem": np.s_[5:12, 5:12, 5:12],
    "Parotid_L": np.s_[5:12, 5:12, 12:20],
    "Eye_L": np.s_[2:9, 15:25, 10:20],
    "Lens_L": np.s_[4:6, 17:19, 12:14],
}
HERE, THERE = np.s_[15:17, 5:9, 5:9], np.s_[15:17, 15:19, 5:9]


class Ear:
    """Hears a segmentation's edits (by organ) and undos."""

    def __init__(self, desk: ReadingDesk) -> None:
        self.heard: list[str] = []
        self.events = SegmentEvents(
            desk.segmentation.GetSegmentation(),
            lambda segment_id: self.heard.append(f"edit {(segment_id or 'unknown').split()[-1]}"),
            lambda: self.heard.append("restore"),
        )

    def all(self) -> list[str]:
        """What was heard since the last time."""
        self.events.flush()
        heard, self.heard = self.heard, []
        return heard


@pytest.fixture
def desk() -> ReadingDesk:
    return ReadingDesk(blocks(ORGANS))


@pytest.fixture
def ear(desk: ReadingDesk) -> Ear:
    return Ear(desk)


def test_every_stroke_is_one_edit(desk: ReadingDesk, ear: Ear) -> None:
    for mode in (desk.editor.OverwriteAllSegments, desk.editor.OverwriteNone):
        desk.editor.SetOverwriteMode(mode)
        for organ in ORGANS:
            desk.turn_to(organ)
            desk.paint(HERE)
            desk.paint(HERE, erase=True)
            assert ear.all() == [f"edit {organ}"] * 2


def test_every_undo_and_redo_is_heard_once(desk: ReadingDesk, ear: Ear) -> None:
    for organ, box in (("Brainstem", HERE), ("Eye_L", THERE), ("Brainstem", THERE)):
        desk.turn_to(organ)
        desk.paint(box)
    ear.all()
    for act in (desk.undo, desk.undo, desk.redo, desk.redo, desk.undo, desk.undo, desk.undo):
        act()
        assert ear.all() == ["restore"]
    for _ in range(3):  # without anything in between
        desk.redo()
    assert ear.all() == ["restore"] * 3
    desk.redo()  # nothing more to redo
    assert ear.all() == []


def test_undo_is_heard_with_one_segment_only() -> None:
    desk = ReadingDesk(blocks({"Brainstem": ORGANS["Brainstem"]}))
    ear = Ear(desk)
    desk.turn_to("Brainstem")
    desk.paint(HERE)
    desk.paint(THERE)
    desk.undo()
    desk.undo()
    desk.redo()
    assert ear.all() == ["edit Brainstem", "edit Brainstem", "restore", "restore", "restore"]


def test_what_changes_no_voxel_is_not_heard(desk: ReadingDesk, ear: Ear) -> None:
    segmentation = desk.segmentation.GetSegmentation()
    for round_ in range(2):
        for index in range(segmentation.GetNumberOfSegments()):
            segment = segmentation.GetNthSegment(index)
            segment.SetColor(0.1 * round_, 0.5, 0.5)
            segment.SetTag("reviewed", str(round_))
            segment.SetName(f"{segment.GetName()}{round_}")
    desk.segmentation.CreateClosedSurfaceRepresentation()
    desk.segmentation.GetDisplayNode().SetSegmentVisibility(segmentation.GetNthSegmentID(0), False)
    desk.segmentation.RemoveClosedSurfaceRepresentation()
    assert ear.all() == []


def test_writing_a_file_is_not_an_undo(desk: ReadingDesk, ear: Ear, tmp_path: Path) -> None:
    desk.editor.SetOverwriteMode(desk.editor.OverwriteNone)
    desk.turn_to("Brainstem")
    desk.paint(np.s_[6:8, 6:8, 10:14])  # now in a label map of its own, which writing puts an end to
    before = ear.all()
    storage = slicer.vtkMRMLSegmentationStorageNode()
    storage.SetFileName(str(tmp_path / "organs.seg.nrrd"))
    desk.scene.AddNode(storage)
    assert storage.WriteData(desk.segmentation) == 1
    assert (before, ear.all()) == (["edit Brainstem"], [])
    desk.undo()
    assert ear.all() == ["restore"]


def test_undo_is_heard_with_empty_segments() -> None:
    desk = ReadingDesk(blocks({organ: np.s_[0:0, 0:0, 0:0] for organ in ORGANS}))
    ear = Ear(desk)
    for organ in ORGANS:
        desk.turn_to(organ)
        desk.paint(HERE)
    assert ear.all() == [f"edit {organ}" for organ in ORGANS]
    for _ in range(3):
        desk.undo()
        assert ear.all() == ["restore"]
    desk.redo()
    assert ear.all() == ["restore"]


def test_strokes_are_heard_while_there_is_a_closed_surface(desk: ReadingDesk, ear: Ear) -> None:
    desk.segmentation.CreateClosedSurfaceRepresentation()
    desk.turn_to("Eye_L")
    desk.paint(HERE)
    assert ear.all() == ["edit Eye_L"]
    desk.undo()
    assert ear.all() == ["restore"]


def test_undo_is_heard_after_a_segment_came_or_went(desk: ReadingDesk, ear: Ear) -> None:
    desk.turn_to("Eye_L")
    desk.paint(HERE)
    desk.segmentation.GetSegmentation().AddEmptySegment("other")
    desk.segmentation.GetSegmentation().RemoveSegment(desk.segment_id("Lens_L"))
    ear.all()
    desk.undo()
    assert ear.all() == ["restore"]
    desk.turn_to("Brainstem")
    desk.paint(THERE)
    desk.undo()
    assert ear.all() == ["edit Brainstem", "restore"]


def test_an_edit_of_a_segment_that_is_not_told_is_heard_with_the_next_tick(
    desk: ReadingDesk, ear: Ear
) -> None:
    segmentation = desk.segmentation.GetSegmentation()
    image = segmentation.GetNthSegment(0).GetRepresentation("Binary labelmap")
    image.Modified()
    segmentation.InvokeEvent(segmentation.SourceRepresentationModified)
    assert ear.heard == []
    assert ear.all() == ["edit unknown"]
    assert ear.all() == []


def test_nothing_is_heard_after_stop(desk: ReadingDesk, ear: Ear) -> None:
    ear.events.stop()
    desk.turn_to("Eye_L")
    desk.paint(HERE)
    desk.undo()
    assert ear.all() == []
