"""The window beside other modules and over a day: two editors, ten openings, the DICOM database, its width."""

from __future__ import annotations

import gc
import importlib.metadata
import logging
import os
import unittest
from collections import Counter
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("slicer", reason="slicer-core is not installed")
import slicer
from module_visit import FREE, ORGANS
from PySide6 import QtCore
from reading_desk import blocks
from slicer_hand import paint
from slicer_standins.widgets import qMRMLSegmentEditorWidget, qMRMLWidget

from soars.catalogue import SOARS42

pytestmark = pytest.mark.skipif(os.name == "nt", reason="the playing child is a shell script")

NARROW_PX = 400
"""Slicer's module panel on a small screen; 642 were needed once."""


# --- two editors -------------------------------------------------------------------------------------------------
@pytest.fixture
def other_editor(visit: Any) -> Any:
    """The widget of the stand-alone Segment Editor module, on that module's own node."""
    visit.propose()
    node = slicer.mrmlScene.CreateNodeByClass("vtkMRMLSegmentEditorNode")
    node.UnRegister(None)
    node.SetSingletonTag("SegmentEditor")
    node = slicer.mrmlScene.AddNode(node)
    editor = qMRMLSegmentEditorWidget()
    editor.setMRMLSegmentEditorNode(node)
    editor.setMRMLScene(slicer.mrmlScene)
    editor.setSegmentationNode(visit.segmentation)
    editor.setSourceVolumeNode(visit.ct)
    yield editor
    editor.setSegmentationNode(None)
    editor.setMRMLSegmentEditorNode(None)
    editor.deleteLater()


def test_the_editors_of_two_modules_have_nodes_of_their_own(visit: Any, other_editor: Any) -> None:
    ours, theirs = visit.window.editor.node, other_editor.mrmlSegmentEditorNode()
    assert ours is not theirs and ours.GetSingletonTag() == "SOARSSegmentation"
    visit.click("Eye_L")
    ours.SetActiveEffectName("Paint")
    assert theirs.GetActiveEffectName() in ("", None)
    assert theirs.GetSelectedSegmentID() == "Brainstem", "what that widget chose by itself"


def test_work_in_the_other_editor_counts_and_ours_is_left_alone(visit: Any, other_editor: Any) -> None:
    visit.start()
    visit.click("Eye_L")
    theirs = other_editor.mrmlSegmentEditorNode()
    theirs.SetSelectedSegmentID(visit.row("Parotid_L").segment_id)
    assert visit.session.organ == "Parotid_L"
    paint(other_editor.hand, theirs, FREE)
    visit.application.settle()
    assert "edit Parotid_L" in visit.kinds()
    assert visit.window.editor.node.GetSelectedSegmentID() == visit.row("Eye_L").segment_id
    visit.click("Brainstem")
    assert visit.session.changes()["Parotid_L"].voxels_added == 32


def test_an_undo_in_a_session_leaves_every_organ_its_segment(visit: Any) -> None:
    """The organs that contours do not have get empty segments when a session begins: what was painted before must not
    be undone with them."""
    from SOARSSegmentationLib.scene.building import add_segmentation

    visit.choose_ct()
    few = blocks({"Brainstem": ORGANS["Brainstem"]})
    visit.window.desk.put("segmentation", add_segmentation(slicer.mrmlScene, visit.ct, few, "few"))
    visit.click("Brainstem")
    visit.paint()
    visit.start()
    visit.window.editor.editor.undo()
    assert visit.segmentation.GetSegmentation().GetNumberOfSegments() == len(SOARS42)
    visit.click("Larynx")
    visit.paint()
    visit.window.editor.editor.undo()
    visit.window.review.accept()
    assert visit.segmentation.GetSegmentation().GetNumberOfSegments() == len(SOARS42)
    assert visit.row("Larynx").volume_cc == 0.0 and visit.row("Larynx").state == "accepted"


def test_a_new_proposal_arms_no_brush(visit: Any) -> None:
    visit.propose()
    assert (visit.window.editor.node.GetSelectedSegmentID() or "") == ""
    assert visit.window.review.panel.table.organ is None


def test_the_users_own_default_of_overwriting_holds(visit: Any) -> None:
    from SOARSSegmentationLib.sections.editor import EDITOR_CLASS, EDITOR_TAG

    node = visit.window.editor.node
    assert node.GetOverwriteMode() == node.OverwriteNone
    usual = slicer.mrmlScene.CreateNodeByClass(EDITOR_CLASS)
    usual.UnRegister(None)
    usual.SetOverwriteMode(usual.OverwriteVisibleSegments)
    slicer.mrmlScene.AddDefaultNode(usual)
    slicer.mrmlScene.RemoveNode(slicer.mrmlScene.GetSingletonNode(EDITOR_TAG, EDITOR_CLASS))
    assert visit.window.editor.node.GetOverwriteMode() == usual.OverwriteVisibleSegments


# --- opening and closing -----------------------------------------------------------------------------------------
def our_objects() -> Counter[str]:
    gc.collect()
    kinds = (type(one) for one in gc.get_objects())
    return Counter(kind.__name__ for kind in kinds if str(kind.__module__).startswith("SOARSSegmentationLib"))


def open_and_close(application: Any, module: Any) -> None:
    panel = qMRMLWidget()
    application.qt.QVBoxLayout(panel)
    widget = getattr(module, f"{module.__name__}Widget")(panel)
    widget.setup()
    widget.enter()
    application.settle()
    window = widget.window
    timers = (window.timing.control.timer, window.propose.run.timer)
    widget.exit()
    widget.cleanup()
    # PythonQt's connections keep what they call: a timer without a parent would keep the window for ever.
    assert [timer.receivers(QtCore.SIGNAL("timeout()")) for timer in timers] == [0, 0]
    for box in panel.findChildren(slicer.qMRMLNodeComboBox):
        box.setMRMLScene(None)
    panel.deleteLater()
    application.settle()
    QtCore.QCoreApplication.sendPostedEvents(None, QtCore.QEvent.Type.DeferredDelete)


def test_opening_and_closing_ten_times_leaves_nothing(visit: Any) -> None:
    application = visit.application
    open_and_close(application, visit.module)
    before = our_objects(), len(application.main_window.findChildren(QtCore.QObject))
    nodes = slicer.mrmlScene.GetNumberOfNodes()
    for _number in range(10):
        open_and_close(application, visit.module)
    after = our_objects(), len(application.main_window.findChildren(QtCore.QObject))
    assert after == before
    assert slicer.mrmlScene.GetNumberOfNodes() == nodes


def test_closing_goes_on_when_the_main_window_is_gone(visit: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    visit.choose_ct()
    visit.plays("say('read'); time.sleep(60)\n")
    visit.press_apply()
    assert visit.window.desk.running

    class Gone:
        """As PythonQt's wrapper of a deleted object."""

        def __setattr__(self, name: str, value: Any) -> None:
            raise AttributeError(name)

        def setParent(self, parent: Any) -> None:
            raise ValueError("deleted")

    visit.window.shortcuts._shortcuts = [Gone()]
    visit.window.close()
    assert not visit.window.propose.run.running, "the child was ended"
    visit.widget.window = None


# --- start of the application ------------------------------------------------------------------------------------
def test_one_step_of_starting_up_does_not_keep_the_other(
    visit: Any, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    module, loaded = visit.application.module, []
    monkeypatch.setattr(module, "registerSampleData", lambda: 1 / 0)
    monkeypatch.setattr(module, "loadTerminology", lambda: loaded.append(True))
    with caplog.at_level(logging.ERROR):
        module.onStartupCompleted()
    assert loaded == [True] and "ZeroDivisionError" in caplog.text


def test_an_application_that_is_too_old_is_told_apart(visit: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    assert visit.module.why_not_here() == ""
    monkeypatch.setattr(importlib.metadata, "version", lambda name: "2.4.4")
    assert "needs Slicer 5.12" in visit.module.why_not_here()
    assert "pydicom 2.4.4" in visit.module.why_not_here()


def test_the_self_test_is_skipped_with_a_reason_where_packages_are_missing(
    visit: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    from SOARSSegmentationLib.run import dependencies

    monkeypatch.setattr(dependencies, "missing", lambda device: dependencies.on_cpu())
    suite = unittest.defaultTestLoader.loadTestsFromTestCase(visit.module.SOARSSegmentationTest)
    result = unittest.TestResult()
    suite.run(result)
    assert result.wasSuccessful() and len(result.skipped) == result.testsRun == 2
    assert "onnxruntime" in result.skipped[0][1]


# --- the DICOM database ------------------------------------------------------------------------------------------
class Database:
    """Slicer's, as far as it is asked; knows ``files`` by their SOP instance UIDs, and counts."""

    isOpen = True

    def __init__(self, files: dict[str, str]) -> None:
        self.files = files
        self.asked = 0

    def fileForInstance(self, uid: str) -> str:
        self.asked += 1
        return self.files.get(uid, "")


def test_the_database_is_asked_for_each_slice_once_however_much_is_clicked(
    visit: Any, tmp_path: Path
) -> None:
    files = {f"1.2.{number}": str(tmp_path / f"{number}.dcm") for number in range(200)}
    for file in files.values():
        Path(file).touch()
    slicer.dicomDatabase = database = Database(files)
    visit.ct.SetAttribute("DICOM.instanceUIDs", " ".join(files))
    visit.propose()
    asked = database.asked
    assert asked <= len(files)
    visit.start()
    for organ in ("Parotid_L", "Eye_L", "Brainstem"):
        visit.click(organ)
        visit.window.review.panel.accept.click()
    visit.window.timing.panel.pause.click()
    assert database.asked == asked
    files.clear()
    visit.widget.exit()
    visit.widget.enter()
    assert not visit.window.export.panel.button("rtstruct").enabled, "entering the module looks again"


# --- the width ---------------------------------------------------------------------------------------------------
@pytest.mark.parametrize("points", [9, 11])
def test_the_panel_can_be_narrow(visit: Any, points: int) -> None:
    font = visit.qt.QApplication.font()
    large = visit.qt.QFont(font)
    large.setPointSizeF(points)
    visit.qt.QApplication.setFont(large)
    try:
        visit.propose()
        visit.application.settle(0.05)
        for section in visit.window.sections:
            section.widget.collapsed = False
        visit.application.settle(0.05)
        widths = {type(one).__name__: one.widget.minimumSizeHint().width() for one in visit.window.sections}
        hints = {type(one).__name__: one.widget.sizeHint().width() for one in visit.window.sections}
        del widths["EditorSection"], hints["EditorSection"]  # Slicer's own widget
        assert max(hints.values()) <= NARROW_PX, hints
        assert max(widths.values()) <= NARROW_PX, widths
        visit.start()
        visit.application.settle(0.05)
        assert visit.window.timing.widget.sizeHint().width() <= NARROW_PX
    finally:
        visit.qt.QApplication.setFont(font)
