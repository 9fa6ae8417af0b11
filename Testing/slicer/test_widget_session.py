"""A review with a clock, as a reader does it in the window: real Qt, the real MRML core, the real effort log."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import numpy as np
import pytest

pytest.importorskip("slicer", reason="slicer-core is not installed")
import slicer
from module_visit import FREE, ORGANS

from soars.catalogue import SOARS42
from soars.effort.log import read_log, session_logs
from soars.effort.review import review
from soars.formats.segnrrd import read_seg_nrrd

pytestmark = pytest.mark.skipif(os.name == "nt", reason="the playing child is a shell script")

STATE, VOLUME, CHANGE, TIME, WARNING = range(1, 6)


@pytest.fixture
def reading(visit: Any) -> Any:
    """A running session on the proposal."""
    visit.propose()
    visit.start()
    return visit


def slice_centres() -> list[tuple[float, ...]]:
    nodes = slicer.util.getNodesByClass("vtkMRMLSliceNode")
    return [tuple(node.GetSliceToRAS().GetElement(row, 3) for row in range(3)) for node in nodes]


# --- beginning ---------------------------------------------------------------------------------------------------
def test_a_session_needs_names_that_name_nobody(visit: Any) -> None:
    visit.propose()
    panel = visit.window.timing.panel
    panel.start.click()
    assert not visit.window.timing.control.running and panel.notice.text.startswith("Study is empty")
    visit.write_names(case="Mustermann, Erika")
    panel.start.click()
    assert not visit.window.timing.control.running
    assert "Mustermann" in panel.notice.text and "letters" in panel.notice.text
    visit.write_names()
    panel.start.click()
    assert visit.window.timing.control.running and panel.notice.text == ""


def test_a_session_turns_to_the_first_organ_and_has_a_segment_for_every_one(reading: Any) -> None:
    assert reading.window.review.panel.table.organ == "Brainstem"
    assert reading.session.organ == "Brainstem"
    assert all(row.segment_id for row in reading.window.review.panel.table.rows)
    assert reading.window.timing.panel.who.text == "case-01 \N{MIDDLE DOT} R1 \N{MIDDLE DOT} revising"
    assert not reading.window.propose.panel.apply.enabled, (
        "the proposal is not to be replaced under the reader"
    )
    header = reading.log().header
    assert (header.study, header.case, header.reader, header.arm) == ("pilot", "case-01", "R1", "revise")
    assert header.organs == SOARS42 and header.bundle == "phantom 1.0.0" and header.bundle_sha256 == "ab" * 32
    assert reading.session.folder.is_relative_to(reading.folder / "sessions")
    reading.picture("7_session")


# --- reviewing ---------------------------------------------------------------------------------------------------
def test_a_click_selects_the_segment_centres_the_views_and_starts_the_clock(reading: Any) -> None:
    slice_node = reading.application.core.scene.AddNewNodeByClass("vtkMRMLSliceNode", "Red")
    reading.click("Eye_L")
    assert reading.window.editor.node.GetSelectedSegmentID() == reading.row("Eye_L").segment_id
    assert reading.session.organ == "Eye_L" and reading.row("Eye_L").state == "in_progress"
    box = ORGANS["Eye_L"]
    z, y, x = ((s.start + s.stop - 1) / 2 for s in box)
    lps = reading.structures.geometry.to_physical((z, y, x))
    assert slice_centres() == [pytest.approx((-lps[0], -lps[1], lps[2]))]
    assert slice_node is not None
    assert reading.window.review.panel.in_hand.text == "<b>Left eye</b>"


def test_an_organ_selected_in_slicers_own_editor_is_shown_in_the_table(reading: Any) -> None:
    reading.window.editor.node.SetSelectedSegmentID(reading.row("Parotid_L").segment_id)
    assert reading.window.review.panel.table.organ == "Parotid_L"
    assert reading.session.organ == "Parotid_L"
    assert reading.row("Parotid_L").state == "in_progress"


def test_paint_undo_accept_and_reopen_are_seen_and_logged(reading: Any) -> None:
    reading.click("Parotid_L")
    reading.paint()
    reading.click("Eye_L")
    assert reading.cell("Parotid_L", CHANGE) == "+0.10"
    reading.click("Parotid_L")
    reading.window.editor.editor.undo()
    reading.click("Eye_L")
    assert reading.cell("Parotid_L", CHANGE) == ""
    reading.click("Brainstem")
    reading.paint(erase=True, box=np.s_[5:7, 5:12, 5:12])
    reading.window.review.panel.accept.click()
    assert reading.tip("Brainstem", STATE) == "accepted"
    assert reading.cell("Brainstem", CHANGE) == "\N{MINUS SIGN}0.29"
    assert reading.window.review.panel.table.organ == "Eye_L", "on to the next organ that is open"
    reading.picture("8_editing")
    reading.click("Brainstem")
    assert reading.window.review.panel.accept.text == "Reopen"
    reading.window.review.panel.accept.click()
    assert reading.row("Brainstem").state == "in_progress"
    assert reading.kinds() == [
        "select Brainstem", "select Parotid_L", "edit Parotid_L", "select Eye_L", "select Parotid_L", "undo",
        "select Eye_L", "select Brainstem", "edit Brainstem", "accept Brainstem", "select Eye_L", "select Brainstem",
        "reopen Brainstem",
    ]  # fmt: skip


def test_painting_one_organ_takes_nothing_from_its_neighbour(reading: Any) -> None:
    reading.click("Brainstem")
    reading.paint(np.s_[6:8, 6:8, 10:14])  # 8 of its own voxels, 8 of the parotid
    reading.click("Eye_L")
    assert reading.cell("Brainstem", CHANGE) == "+0.02"
    assert reading.cell("Parotid_L", CHANGE) == ""


def test_a_neighbour_that_was_overwritten_is_no_longer_accepted(reading: Any) -> None:
    node = reading.window.editor.node
    node.SetOverwriteMode(node.OverwriteAllSegments)  # as a reader may choose
    reading.click("Parotid_L")
    reading.window.review.panel.accept.click()
    reading.click("Brainstem")
    reading.paint(np.s_[6:8, 6:8, 10:14])  # 8 of its own voxels, 8 of the parotid
    reading.click("Eye_L")
    assert reading.row("Parotid_L").state == "in_progress"
    assert reading.cell("Parotid_L", CHANGE) == "\N{MINUS SIGN}0.02"


def test_keys_do_what_the_buttons_do(reading: Any) -> None:
    from PySide6.QtCore import Qt
    from PySide6.QtTest import QTest

    window = reading.application.main_window.windowHandle()

    def press(key: Any) -> None:
        QTest.keyClick(window, key, Qt.KeyboardModifier.ControlModifier)
        reading.application.settle()

    table = reading.window.review.panel.table
    reading.until(lambda: reading.application.main_window.isActiveWindow, 5)
    press(Qt.Key.Key_Down)
    assert table.organ == "Cerebellum"
    press(Qt.Key.Key_Up)
    assert table.organ == "Brainstem"
    press(Qt.Key.Key_Return)
    assert reading.row("Brainstem").state == "accepted" and table.organ == "Eye_L"
    press(Qt.Key.Key_P)
    assert reading.session.paused
    reading.widget.exit()
    press(Qt.Key.Key_P)
    assert reading.session.paused, "the keys are those of the module that is shown"
    reading.widget.enter()


def test_mouse_wheel_and_keys_anywhere_in_the_window_are_input(reading: Any) -> None:
    from PySide6.QtCore import QPoint, Qt
    from PySide6.QtTest import QTest

    window = reading.application.main_window.windowHandle()
    QTest.mouseMove(window, QPoint(100, 100))
    QTest.mouseClick(window, Qt.MouseButton.LeftButton, Qt.KeyboardModifier.NoModifier, QPoint(240, 8))
    QTest.wheelEvent(window, QPoint(240, 500), QPoint(0, 120))
    QTest.keyClick(window, Qt.Key.Key_A)
    reading.application.settle(0.3)
    kinds = [event.input for event in reading.log().events if event.kind == "interaction"]
    assert {"press", "release", "wheel", "key"} <= set(kinds)
    assert kinds.count("press") == 1, "once, however many widgets it passes through"


def test_the_proposal_is_shown_as_an_outline_and_restored(reading: Any) -> None:
    from SOARSSegmentationLib.scene.outlines import outlined

    reading.click("Parotid_L")
    reading.paint()
    review_panel = reading.window.review.panel
    review_panel.outline.checked = True
    assert outlined(reading.segmentation) == ("Parotid_L",)
    reading.click("Eye_L")
    assert outlined(reading.segmentation) == ("Eye_L",), "it goes with the organ in hand"
    reading.click("Parotid_L")
    review_panel.outline.checked = False
    assert outlined(reading.segmentation) == ()
    review_panel.restore.click()
    reading.click("Eye_L")
    assert reading.cell("Parotid_L", CHANGE) == ""
    reading.window.editor.editor.undo()
    reading.click("Brainstem")
    assert reading.cell("Parotid_L", CHANGE) == "+0.10", "restoring can be undone"
    reading.click("Parotid_L")
    review_panel.restore.click()
    assert "as it was proposed" in review_panel.notice.text
    review_panel.notice.action_button.click()
    reading.click("Eye_L")
    assert reading.cell("Parotid_L", CHANGE) == "+0.10", "and that is offered"


# --- the clock ---------------------------------------------------------------------------------------------------
def test_pause_stops_the_clock_and_says_so(reading: Any) -> None:
    panel = reading.window.timing.panel
    panel.pause.click()
    assert panel.pause.text == "Continue" and panel.notice.text == "Paused: the clock stands still."
    before = reading.session.active_s("Brainstem")
    reading.application.settle(0.4)
    assert reading.session.active_s("Brainstem") == before
    reading.picture("9_paused")
    panel.notice.action_button.click()
    assert not reading.session.paused and panel.notice.text == ""
    assert reading.kinds()[-2:] == ["pause", "resume"]


def test_the_organs_time_runs_in_the_table(reading: Any) -> None:
    reading.until(lambda: reading.cell("Brainstem", TIME) == "0:01", 3)
    assert "organ 0:01" in reading.window.timing.panel.clock.text


def test_the_session_goes_on_while_another_module_is_shown(reading: Any) -> None:
    reading.widget.exit()
    reading.window.editor.node.SetSelectedSegmentID(reading.row("Eye_L").segment_id)
    assert reading.session.organ == "Eye_L" and reading.window.timing.control.timer.active
    reading.widget.enter()
    assert reading.window.review.panel.table.organ == "Eye_L"


# --- the end -----------------------------------------------------------------------------------------------------
def test_finishing_asks_when_organs_are_open_and_sums_up(reading: Any) -> None:
    reading.click("Parotid_L")
    reading.paint()
    reading.window.review.panel.accept.click()
    panel = reading.window.timing.panel
    reading.answer = False
    panel.finish.click()
    assert reading.window.timing.control.running and "3 organs" in reading.asked[0]
    reading.answer = True
    panel.finish.click()
    assert not reading.window.timing.control.running
    assert "1 of 42 organs accepted, 1 changed. Revisions: 1 minor." in panel.notice.text
    assert reading.log().complete
    assert (
        read_seg_nrrd(reading.session.folder / "result.seg.nrrd").crop("Parotid_L").voxels == 7 * 7 * 8 + 32
    )
    times = reading.cell("Parotid_L", TIME), reading.session.active_s("Parotid_L")
    reading.application.settle(0.3)
    assert (reading.cell("Parotid_L", TIME), reading.session.active_s("Parotid_L")) == times
    assert reading.window.propose.panel.apply.enabled
    reading.picture("10_finished")


def test_closing_the_scene_ends_the_session_whole(reading: Any) -> None:
    session = reading.session
    reading.click("Parotid_L")
    reading.paint()
    slicer.mrmlScene.Clear(False)
    reading.application.settle()
    log = read_log(session_logs(session.folder)[-1])
    assert log.complete and log.events[-1].cause == "scene_closed"
    assert review(log)["Parotid_L"].change.voxels_added == 32
    assert reading.window.review.panel.table.rows == ()
    assert not reading.window.timing.control.timer.active


def test_removing_the_segmentation_ends_the_session_and_empties_the_window(reading: Any) -> None:
    session = reading.session
    slicer.mrmlScene.RemoveNode(reading.segmentation)
    reading.application.settle()
    assert read_log(session_logs(session.folder)[-1]).events[-1].cause == "node_removed"
    assert reading.window.review.panel.table.rows == () and reading.segmentation is None


def test_quitting_the_application_ends_the_session(reading: Any) -> None:
    folder = reading.session.folder
    reading.application.qt.QApplication.instance().aboutToQuit.emit()
    assert read_log(session_logs(folder)[-1]).events[-1].cause == "quit"


def test_edits_of_an_earlier_session_become_the_next_ones_only_when_asked(visit: Any) -> None:
    """Two readers at one computer: the second begins on the first one's contours."""
    visit.propose()
    visit.start()
    visit.click("Parotid_L")
    visit.paint()
    visit.window.timing.panel.finish.click()
    first = visit.session
    visit.asked.clear()
    visit.answer = False
    visit.window.timing.panel.start.click()
    assert "1 organs (Parotid_L) were changed before" in visit.asked[0]
    assert visit.session is first and not visit.window.timing.control.running
    visit.window.review.select("Parotid_L")
    visit.window.review.restore()
    visit.asked.clear()
    visit.window.timing.panel.start.click()
    assert visit.asked == [] and visit.window.timing.control.running
    assert not any(change.changed for change in visit.session.changes().values())


def _accepted_painting(visit: Any) -> Path:
    """A session in which an organ was painted and accepted; returns its folder."""
    visit.propose()
    visit.start()
    visit.click("Parotid_L")
    visit.paint()
    visit.window.review.panel.accept.click()
    folder: Path = visit.session.folder
    return folder


def _load_again(visit: Any) -> Any:
    """The same CT and names in an empty scene; returns the notice of the timing section."""
    visit.ct = visit.application.core.add_ct(visit.structures.geometry, name="Planning CT")
    visit.choose_ct()
    visit.write_names()
    return visit.window.timing.panel.notice


def test_a_session_left_by_closing_the_scene_is_offered_and_goes_on(visit: Any) -> None:
    folder = _accepted_painting(visit)
    slicer.mrmlScene.Clear(False)
    visit.application.settle()
    visit.window.timing.notice.clear()
    notice = _load_again(visit)
    assert notice.action_button.text == "Resume it"
    notice.action_button.click()
    assert visit.session.folder == folder and visit.window.timing.control.running, notice.text
    assert visit.row("Parotid_L").state == "accepted" and visit.cell("Parotid_L", CHANGE) == "+0.10"
    visit.window.timing.panel.finish.click()
    assert visit.session.review()["Parotid_L"].edits == 1


def test_a_session_that_crashed_is_offered_and_goes_on(visit: Any) -> None:
    folder = _accepted_painting(visit)
    visit.crash()
    visit.application.settle()
    notice = _load_again(visit)
    assert "was interrupted" in notice.text and notice.action_button.text == "Resume it"
    visit.picture("11_resume")
    notice.action_button.click()
    assert visit.window.timing.control.running, notice.text
    assert visit.session.folder == folder and len(session_logs(folder)) == 2
    assert visit.row("Parotid_L").state == "accepted"
    assert visit.cell("Parotid_L", CHANGE) == "+0.10"
    assert visit.row("Brainstem").state == "in_progress"
    visit.window.timing.panel.finish.click()
    assert visit.log().complete


# --- from scratch ------------------------------------------------------------------------------------------------
def test_drawing_from_scratch_is_the_same_window(visit: Any) -> None:
    visit.choose_ct()
    panel = visit.window.timing.panel
    assert not panel.start.enabled
    panel.arm.currentIndex = panel.arm.findData("scratch")
    assert panel.start.enabled
    visit.start()
    assert len(visit.window.review.panel.table.rows) == 42
    assert visit.row("Brainstem").state == "in_progress", "empty is where it begins"
    assert not visit.window.review.panel.outline.enabled
    visit.paint(FREE)
    visit.window.review.panel.accept.click()
    assert visit.cell("Brainstem", VOLUME) == "0.10" and visit.tip("Brainstem", STATE) == "accepted"
    assert visit.log().header.arm == "scratch" and visit.log().header.bundle is None
    visit.picture("12_scratch")


def test_another_segmentation_can_be_chosen_for_review(visit: Any) -> None:
    from SOARSSegmentationLib.scene.building import empty_segmentation

    visit.propose()
    other = empty_segmentation(slicer.mrmlScene, visit.ct, ["Brainstem", "Hippocampus_L"], "Other")
    visit.window.timing.panel.segmentation.setCurrentNode(other)
    assert visit.segmentation is other
    assert "Hippocampus_L" in [row.organ for row in visit.window.review.panel.table.rows]


# --- exporting ---------------------------------------------------------------------------------------------------
def test_routes_that_are_not_there_say_why(reading: Any) -> None:
    panel = reading.window.export.panel
    panel.widget.collapsed = False
    assert not panel.button("rtstruct").enabled and "not loaded from DICOM" in panel.why_not.text
    assert not panel.button("slicerrt").enabled and "SlicerRT is not installed" in panel.why_not.text
    assert panel.button("seg_nrrd").enabled and panel.button("log").enabled


def test_export_writes_where_the_user_says(
    reading: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    qt, path, folder = reading.qt, tmp_path / "out" / "organs.seg.nrrd", tmp_path / "log"
    path.parent.mkdir()
    monkeypatch.setattr(qt.QFileDialog, "getSaveFileName", lambda *a: (str(path), ""))
    monkeypatch.setattr(qt.QFileDialog, "getExistingDirectory", lambda *a: str(folder))
    reading.window.timing.panel.finish.click()
    panel = reading.window.export.panel
    panel.button("seg_nrrd").click()
    assert str(path) in panel.notice.text
    assert read_seg_nrrd(path).crop("Brainstem").voxels == 7**3
    panel.button("log").click()
    assert sorted(file.name for file in folder.iterdir()) == [
        "1.effort.jsonl", "proposal.seg.nrrd", "result.seg.nrrd",
    ]  # fmt: skip
    panel.widget.collapsed = False
    reading.window.review.widget.collapsed = reading.window.editor.widget.collapsed = True
    reading.picture("13_export")
    monkeypatch.setattr(qt.QFileDialog, "getExistingDirectory", lambda *a: "")
    before = panel.notice.text
    panel.button("log").click()
    assert panel.notice.text == before, "nothing chosen, nothing done"


def test_the_name_of_an_exported_file_ends_as_it_must(
    reading: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(reading.qt.QFileDialog, "getSaveFileName", lambda *a: str(tmp_path / "mine.nrrd"))
    reading.window.export.panel.button("seg_nrrd").click()
    assert [file.name for file in tmp_path.glob("mine*")] == ["mine.nrrd.seg.nrrd"]


def test_a_large_export_by_slicerrt_is_asked_about_with_its_size(
    reading: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[str] = []
    monkeypatch.setattr("SOARSSegmentationLib.sections.export._MUCH_BYTES", 4 * 40 * 30 * 20)
    monkeypatch.setattr(
        slicer.util, "confirmOkCancelDisplay", lambda text, *a: asked.append(text), raising=False
    )
    monkeypatch.setattr(
        reading.qt.QFileDialog, "getExistingDirectory", lambda *a: pytest.fail("not asked for")
    )
    reading.window.export.export("slicerrt")
    assert len(asked) == 1 and "0.0 GB" in asked[0] and "original CT needs neither" in asked[0]


def test_an_rtstruct_refers_to_the_ct_of_slicers_database(
    visit: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import pydicom
    import SimpleITK as sitk

    from soars.dicom.write import write_ct_series

    grid = visit.structures.geometry
    hu = np.full(grid.shape, -1000, np.int16)
    hu[2:-2, 4:-4, 4:-4] = 40
    image = sitk.GetImageFromArray(hu)
    image.SetSpacing(grid.spacing)
    image.SetOrigin(grid.origin)
    write_ct_series(image, tmp_path / "ct", patient_id="P", patient_name="P", seed=1)
    files = {str(pydicom.dcmread(f).SOPInstanceUID): str(f) for f in (tmp_path / "ct").glob("*.dcm")}
    visit.ct.SetAttribute("DICOM.instanceUIDs", " ".join(files))
    database = type("Database", (), {"fileForInstance": staticmethod(lambda uid: files.get(uid, ""))})
    slicer.dicomDatabase = database  # goes with the application
    visit.propose()
    path = tmp_path / "organs.dcm"
    monkeypatch.setattr(visit.qt.QFileDialog, "getSaveFileName", lambda *a: str(path))
    visit.window.export.panel.button("rtstruct").click()
    assert "4 organs on the original CT" in visit.window.export.panel.notice.text
    written = pydicom.dcmread(path)
    assert {str(roi.ROIName) for roi in written.StructureSetROISequence} == set(ORGANS)
