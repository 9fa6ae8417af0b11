"""From a CT to a proposal, as a user does it in the window: real Qt, the real MRML core, a real child process."""

from __future__ import annotations

import os
import shutil
import signal
from dataclasses import replace
from pathlib import Path
from typing import Any

import psutil
import pytest

pytest.importorskip("slicer", reason="slicer-core is not installed")
import slicer

from soars.bundle.card import CARD_SECTIONS
from soars.bundle.manifest import CT_MR
from soars.bundle.store import write_manifest
from soars.catalogue import SOARS42
from soars.networks.architecture import Architecture

pytestmark = pytest.mark.skipif(os.name == "nt", reason="the playing child is a shell script")

WAITS = "say('read'); say('anchor', 3, 8); time.sleep(60)\n"
FAILS = "say('read'); print('soars: error: the CT has gaps', file=sys.stderr); sys.exit(2)\n"


def children() -> list[psutil.Process]:
    """What runs below this process, but for multiprocessing's own helper, which earlier tests may have started."""
    return [
        process
        for process in psutil.Process().children(recursive=True)
        if process.status() != psutil.STATUS_ZOMBIE
        and not any("resource_tracker" in word for word in process.cmdline())
    ]


def files_of_runs(visit: Any) -> list[Path]:
    return list(Path(slicer.app.temporaryPath).glob("soars-run-*"))


def test_apply_waits_for_a_ct(visit: Any) -> None:
    apply = visit.window.propose.panel.apply
    visit.window.propose.panel.volume.setCurrentNode(None)
    assert not apply.enabled and "CT" in apply.toolTip
    visit.picture("1_empty")
    visit.choose_ct()
    assert apply.enabled
    assert visit.window.review.widget.collapsed
    visit.picture("2_ready")


def test_the_only_ct_is_chosen_when_the_module_opens(visit: Any) -> None:
    assert visit.window.desk.parameters.volume is visit.ct
    assert visit.window.propose.panel.volume.currentNode() is visit.ct
    assert visit.window.propose.panel.apply.enabled


def test_choices_made_by_others_are_shown(visit: Any) -> None:
    """A script, or another module, sets the module's parameters in the scene."""
    other = visit.application.core.add_ct(visit.structures.geometry, name="Other CT")
    node = visit.window.desk._logic.parameterNode()
    node.SetNodeReferenceID("volume", other.GetID())
    node.SetParameter("reader", "R9")
    node.SetParameter("device", "cpu")
    assert visit.window.propose.panel.volume.currentNode() is other
    assert visit.window.propose.panel.device.currentData == "cpu"
    assert visit.window.timing.panel.reader.text == "R9"


def test_a_fault_of_ours_is_said_with_its_traceback_and_logged(
    visit: Any, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def broken(*arguments: Any) -> None:
        raise ZeroDivisionError("division by zero")

    monkeypatch.setattr("SOARSSegmentationLib.sections.propose.check_volume", broken)
    visit.press_apply()
    notice = visit.window.propose.panel.notice
    assert "fault" in notice.text and "division by zero" in notice.text
    assert notice.details_button.visible and "ZeroDivisionError" in notice._details.plainText
    assert "in broken" in caplog.text
    assert visit.window.propose.panel.apply.enabled


def test_slices_that_are_not_even_are_segmented_on_a_copy(visit: Any) -> None:
    grid = slicer.mrmlScene.AddNewNodeByClass("vtkMRMLGridTransformNode", "Planning CT acquisition transform")
    visit.application.core.bend(grid, visit.ct)
    visit.ct.SetAndObserveTransformNodeID(grid.GetID())
    visit.press_apply()
    notice = visit.window.propose.panel.notice
    assert "not evenly spaced" in notice.text and not visit.window.desk.running
    notice.action_button.click()
    copy = visit.window.desk.parameters.volume
    assert copy is not visit.ct and copy.GetName() == "Planning CT evenly spaced"
    assert copy.GetParentTransformNode() is None and copy.GetAttribute("DICOM.instanceUIDs") is None
    visit.press_apply()
    visit.until(lambda: not visit.window.desk.running)
    assert visit.segmentation is not None, notice.text


def test_the_model_and_where_it_will_run_are_said_before_the_run(visit: Any) -> None:
    visit.choose_ct()
    inputs = visit.window.propose.panel
    assert "tester 1.0.0" in inputs.card.widget.text and "2 of 42 organs" in inputs.card.widget.text
    assert "Will run on" in inputs.device_label.text
    from SOARSSegmentationLib.panels.bundle_card import card_dialog

    dialog = card_dialog(inputs.entry)
    assert "Only for tests." in dialog.findChild(visit.qt.QPlainTextEdit).plainText


def test_a_strangers_text_is_never_rich_text(visit: Any, root: Path) -> None:
    """Rich text loads what it refers to, without a question: files of this computer, shares of others."""
    from SOARSSegmentationLib.panels.bundle_card import BundleCard, card_dialog, summary_of
    from SOARSSegmentationLib.panels.parts import plain_tip

    lure = '<img src="//elsewhere.example.org/share/x.png"><a href="file:///etc/passwd">more</a>'
    notice = visit.window.propose.panel.notice
    notice.say("error", f"{lure} cannot be read", details=lure)
    assert notice.label.textFormat == visit.qt.Qt.PlainText and notice.label.text == f"{lure} cannot be read"
    entry = visit.window.propose.panel.entry
    bundle = replace(entry.bundle, description=lure, licence=lure, card=lure)
    entry = replace(entry, bundle=bundle)
    card = BundleCard(lambda _link: None)
    card.show(entry)
    assert "<img" not in summary_of(entry) and "<img" not in card.widget.text
    assert card_dialog(entry).findChild(visit.qt.QPlainTextEdit).plainText == lure
    guess = getattr(visit.qt.Qt, "mightBeRichText", None)
    assert guess is None or (guess(lure) and not guess(plain_tip(lure)))
    calls = {
        path.name: path.read_text(encoding="utf-8").count("qt.QLabel(")
        for path in (root / "SOARSSegmentation").rglob("*.py")
    }
    assert {name for name, count in calls.items() if count} == {"parts.py", "SOARSSegmentation.py"}
    assert calls["parts.py"] == calls["SOARSSegmentation.py"] == 1


def test_progress_is_shown_stage_by_stage_and_cancel_leaves_nothing(visit: Any) -> None:
    visit.choose_ct()
    before = visit.nodes()
    visit.plays(WAITS)
    visit.press_apply()
    window = visit.window
    visit.until(
        lambda: (
            window.propose.run.stages.current is not None
            and window.propose.run.stages.current.name == "anchor"
        )
    )
    assert window.propose.panel.apply.text == "Cancel"
    assert not window.propose.panel.volume.enabled
    assert [(s.name, s.state) for s in window.propose.run.stages.all] == [
        ("read", "done"), ("anchor", "running"), ("write", "to_come"),
    ]  # fmt: skip
    assert window.propose.run.stages.current.share == 3 / 8
    visit.picture("3_running")
    assert children() and files_of_runs(visit)
    visit.press_apply()
    assert not children() and not files_of_runs(visit)
    assert window.propose.panel.apply.text == "Apply" and window.propose.panel.apply.enabled
    assert window.propose.panel.notice.text == "Cancelled. Nothing was changed."
    assert visit.nodes() == before
    visit.picture("4_cancelled")


def test_a_failure_is_one_sentence_with_a_report_to_copy(visit: Any) -> None:
    visit.choose_ct()
    before = visit.nodes()
    visit.plays(FAILS)
    visit.press_apply()
    visit.until(lambda: not visit.window.desk.running)
    notice = visit.window.propose.panel.notice
    assert notice.text == "The CT has gaps."
    visit.picture("5_failed")
    notice.copy_button.click()
    report = slicer.app.clipboard().text()
    assert "the CT has gaps" in report and "Planning CT" not in report
    assert notice.copy_button.text == "Copied"
    assert visit.nodes() == before and not files_of_runs(visit)
    visit.plays("say('read')\n" + visit.results())
    visit.propose()
    assert notice.text == "", "an old failure is not to be seen beside a new result"


def test_a_result_becomes_a_segmentation_to_review(visit: Any) -> None:
    visit.propose()
    window = visit.window
    assert [row.organ for row in window.review.panel.table.rows] == list(SOARS42)
    assert "4 organs were contoured" in window.review.panel.notice.text
    assert window.propose.widget.collapsed and not window.review.widget.collapsed
    assert window.timing.panel.segmentation.currentNode() is visit.segmentation
    assert window.editor.editor.segmentationNode() is visit.segmentation
    assert visit.row("Brainstem").volume_cc == pytest.approx(7**3 * 3 / 1000)
    assert (visit.row("Brainstem").state, visit.row("Cochlea_L").state) == ("not_reviewed", "absent")
    assert "not found" in visit.row("Cochlea_L").warning
    assert not window.review.panel.accept.enabled, "there is no session yet"
    visit.picture("6_proposal")
    assert not files_of_runs(visit)


def test_organs_that_the_model_does_not_cover_are_rows_without_a_segment(visit: Any) -> None:
    visit.plays(visit.results("few", covered=("Brainstem", "Eye_L")))
    visit.propose()
    assert len(visit.window.review.panel.table.rows) == 42
    row = visit.row("Cochlea_L")
    assert (row.segment_id, row.state) == (None, "absent")
    from SOARSSegmentationLib.panels.review_table import STATE

    assert visit.tip("Cochlea_L", STATE) == "not in the model: to be drawn from scratch"
    assert visit.tip("Eye_L", STATE) == "not reviewed"


def test_only_the_organs_of_the_protocol_are_asked_for_and_shown(visit: Any) -> None:
    visit.choose_ct()
    organs = visit.window.propose.panel.organs
    organs.currentIndex = organs.findData("anchor")
    visit.plays(
        "assert sys.argv[sys.argv.index('--organs') + 1] == 'Brainstem,Eye_L', sys.argv\n" + visit.results()
    )
    visit.propose()
    assert {row.stratum for row in visit.window.review.panel.table.rows} == {"anchor"}


def test_a_choice_of_organs_can_be_saved_and_forgotten(visit: Any) -> None:
    from SOARSSegmentationLib.panels.organs_dialog import OrgansDialog

    window = visit.window
    dialog = OrgansDialog(
        window.desk.protocols, window.desk.protocols.find("all"), window.propose.panel.covered
    )
    dialog.tick([])
    dialog.name.text = "Hearing"
    dialog.save()
    assert dialog.protocol is None and dialog.notice.text == "A protocol needs at least one organ."
    dialog.tick(["Cochlea_L", "Cochlea_R"])
    dialog.widget.show()
    visit.pictures.mkdir(parents=True, exist_ok=True)
    dialog.widget.grab().save(str(visit.pictures / "organs.png"))
    dialog.save()
    assert dialog.protocol is not None
    window.propose.panel.show(window.desk.parameters, None)
    organs = window.propose.panel.organs
    organs.currentIndex = organs.findData("Hearing")
    assert window.desk.parameters.protocol == "Hearing" and not window.propose.panel.remove_organs.isHidden()
    window.propose.panel.remove_organs.click()
    assert window.desk.parameters.protocol == "all" and organs.findData("Hearing") == -1


# --- what may go wrong meanwhile ---------------------------------------------------------------------------------
def test_a_child_killed_from_outside_is_said_in_one_message(visit: Any) -> None:
    visit.choose_ct()
    before = visit.nodes()
    visit.plays(WAITS)
    visit.press_apply()
    visit.until(lambda: visit.window.propose.run.stages.current is not None)
    os.kill(children()[0].pid, signal.SIGKILL)
    visit.until(lambda: not visit.window.desk.running)
    assert "ended from outside (SIGKILL)" in visit.window.propose.panel.notice.text
    assert visit.nodes() == before and not files_of_runs(visit)


def test_a_full_disk_is_said_before_anything_is_started(visit: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    usage = shutil.disk_usage(slicer.app.temporaryPath)._replace(free=0)
    monkeypatch.setattr(shutil, "disk_usage", lambda path: usage)
    visit.choose_ct()
    before = visit.nodes()
    visit.press_apply()
    assert "full" in visit.window.propose.panel.notice.text and not visit.window.desk.running
    assert visit.nodes() == before and not files_of_runs(visit)


def test_a_ct_that_is_deleted_during_the_run_ends_it(visit: Any) -> None:
    visit.choose_ct()
    visit.plays(WAITS)
    visit.press_apply()
    visit.until(lambda: visit.window.propose.run.stages.current is not None)
    slicer.mrmlScene.RemoveNode(visit.ct)
    assert not visit.window.desk.running and not children() and not files_of_runs(visit)
    assert (
        visit.window.propose.panel.notice.text == "The CT was removed from the scene: the run was cancelled."
    )
    visit.application.settle()
    assert not visit.window.propose.panel.apply.enabled
    assert not slicer.util.getNodesByClass("vtkMRMLSegmentationNode")


def test_a_scene_that_is_closed_during_the_run_ends_it(visit: Any) -> None:
    visit.choose_ct()
    visit.plays(WAITS)
    visit.press_apply()
    visit.until(lambda: visit.window.propose.run.stages.current is not None)
    slicer.mrmlScene.Clear(False)
    assert not visit.window.desk.running and not children() and not files_of_runs(visit)
    visit.application.settle()
    assert visit.window.desk.parameters is not None and visit.window.desk.parameters.volume is None
    assert not visit.window.propose.panel.apply.enabled


def test_contours_of_a_ct_that_was_moved_during_the_run_are_not_put_on_it(visit: Any) -> None:
    """As by a transform that is applied meanwhile: they would lie beside the anatomy."""
    visit.choose_ct()
    visit.plays("say('read'); time.sleep(0.5)\n" + visit.results())
    visit.press_apply()
    visit.until(lambda: visit.window.propose.run.stages.current is not None)
    x, y, z = visit.ct.GetOrigin()
    visit.ct.SetOrigin(x + 4.0, y, z)
    visit.until(lambda: not visit.window.desk.running)
    assert visit.window.propose.panel.notice.text == (
        "The CT was moved or cropped while it was segmented: nothing was added; segment it again."
    )
    assert not slicer.util.getNodesByClass("vtkMRMLSegmentationNode")


def test_a_bundle_that_vanishes_is_said_in_one_message(visit: Any) -> None:
    from python_slicer import real_child

    visit.choose_ct()
    before = visit.nodes()
    shutil.rmtree(visit.folder.parent / "bundles" / "tester")
    folder = real_child(visit.folder / "real")
    visit.monkeypatch.setenv("PATH", f"{folder}{os.pathsep}{os.environ['PATH']}")
    visit.press_apply()
    visit.until(lambda: not visit.window.desk.running, 60)
    text = visit.window.propose.panel.notice.text
    assert "tester" in text and "\n" not in text
    assert visit.nodes() == before and not files_of_runs(visit)


def test_a_scenes_model_that_is_not_installed_is_said(visit: Any) -> None:
    visit.choose_ct()
    visit.window.desk.put("bundle", "elsewhere")
    visit.window.leave()
    visit.window.enter()
    panel, parameters = visit.window.propose.panel, visit.window.desk.parameters
    assert parameters.bundle == panel.entry.name == panel.bundle.currentData != "elsewhere"
    assert "elsewhere is not installed" in panel.notice.text and panel.entry.name in panel.notice.text


def test_packages_that_are_missing_are_asked_for_and_declining_is_no_fault(
    visit: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    from SOARSSegmentationLib.run import dependencies

    real = dependencies.version_of
    monkeypatch.setattr(
        dependencies, "version_of", lambda name: None if name == "onnxruntime" else real(name)
    )
    questions = []
    monkeypatch.setattr(
        slicer.util, "confirmOkCancelDisplay", lambda text, *a, **k: questions.append(text) or False
    )
    visit.choose_ct()
    visit.press_apply()
    assert len(questions) == 1 and "30 MB" in questions[0]
    assert "not installed" in visit.window.propose.panel.notice.text and not visit.window.desk.running


# --- what is remembered ------------------------------------------------------------------------------------------
def test_choices_are_remembered_in_the_scene_and_beyond_it(visit: Any) -> None:
    window = visit.window
    visit.choose_ct()
    window.propose.panel.device.currentIndex = window.propose.panel.device.findData("cpu")
    visit.write_names(reader="R7", study="trial-2", case="case-09")
    window.leave()
    window.enter()
    assert window.desk.parameters.device == "cpu" and window.desk.parameters.volume is visit.ct
    slicer.mrmlScene.Clear(False)
    visit.application.settle()
    parameters = window.desk.parameters
    assert (parameters.device, parameters.bundle) == ("cpu", "tester")
    assert (parameters.reader, parameters.study) == ("R7", "trial-2")
    assert parameters.case == "" and parameters.volume is None, "a new scene is another case"
    assert window.timing.panel.reader.text == "R7"


def test_apply_cannot_be_pressed_again_while_packages_are_installed(
    visit: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    from SOARSSegmentationLib.run import dependencies

    seen: list[tuple[bool, bool]] = []

    def install(requirements: Any) -> None:
        """Slicer's pip lets the application go on: the user can press what is enabled."""
        panel = visit.window.propose.panel
        seen.append((panel.apply.enabled, panel.volume.enabled))
        visit.window.propose.apply()
        visit.application.settle()

    monkeypatch.setattr(dependencies, "ask_and_install", install)
    visit.press_apply()
    visit.until(lambda: not visit.window.desk.running)
    assert seen == [(False, False)] and visit.segmentation is not None
    assert visit.window.propose.panel.apply.enabled and visit.window.propose.panel.volume.enabled


def test_the_dialog_of_organs_is_deleted_after_use(visit: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    from PySide6.QtCore import QCoreApplication, QEvent

    qt = visit.qt
    monkeypatch.setattr(slicer.util, "mainWindow", lambda: visit.application.main_window, raising=False)
    monkeypatch.setattr(qt.QDialog, "exec_", lambda dialog: 0, raising=False)
    for _number in range(3):
        visit.window.propose.panel.edit_organs.click()
    QCoreApplication.sendPostedEvents(None, QEvent.Type.DeferredDelete)
    assert visit.application.main_window.findChildren(qt.QDialog) == []


def test_an_mr_is_asked_for_where_the_model_sees_one(visit: Any) -> None:
    """It goes to the child as a file of its own; other models get none, whatever is chosen."""
    ct_and_mr_bundle(Path(os.environ["SOARS_BUNDLES"]) / "both")
    panel, mr = (
        visit.window.propose.panel,
        visit.application.core.add_ct(visit.structures.geometry, name="T1"),
    )
    visit.window.leave()
    visit.window.enter()
    visit.choose_ct()
    assert panel.mr.isHidden() and panel.mr_label.isHidden()
    panel.bundle.currentIndex = panel.bundle.findData("both")
    assert not panel.mr.isHidden() and panel.mr.currentNode() is None

    panel.mr.setCurrentNode(visit.ct)
    visit.press_apply()
    assert panel.notice.text == "The MR is the CT itself: choose the MR, or none."
    panel.mr.setCurrentNode(mr)
    assert visit.window.desk.parameters.mr is mr
    hierarchy = visit.application.core.subject_hierarchy
    for node, patient in ((visit.ct, "P17"), (mr, "P18")):
        item = hierarchy.GetItemParent(hierarchy.GetItemParent(hierarchy.GetItemByDataNode(node)))
        hierarchy.SetItemAttribute(item, "DICOM.PatientID", patient)
    visit.press_apply()
    assert panel.notice.text == "T1 is of another patient than Planning CT: their Patient IDs differ."
    hierarchy.SetItemAttribute(item, "DICOM.PatientID", "P17")
    assert _mr_of_run(visit) == "mr.nrrd"
    panel.mr.setCurrentNode(None)
    assert _mr_of_run(visit) is None
    panel.mr.setCurrentNode(mr)
    panel.bundle.currentIndex = panel.bundle.findData("phantom")
    assert panel.mr.isHidden() and _mr_of_run(visit) is None


def _mr_of_run(visit: Any) -> str | None:
    """Start a run, look at its command and cancel it: the name of the MR's file, None without one."""
    visit.plays(WAITS)
    visit.press_apply()
    visit.until(lambda: visit.window.propose.run.stages.current is not None)
    (child,) = (c for c in children() if "--output" in c.cmdline())
    words = child.cmdline()
    file = Path(words[words.index("--mr") + 1]) if "--mr" in words else None
    assert file is None or (file.is_file() and file.parent == Path(words[words.index("--output") + 1]).parent)
    visit.press_apply()
    return file.name if file is not None else None


def ct_and_mr_bundle(folder: Path) -> None:
    """A bundle of the system ct_mr whose weights are none: enough to be chosen."""
    folder.mkdir(parents=True)
    (folder / "ct_mr.safetensors").write_bytes(b"none")
    (folder / "card.md").write_text(
        "".join(
            f"## {title}\n\nNot a medical device: review it. `soars evaluate`\n\n" for title in CARD_SECTIONS
        )
    )
    settings = {
        "window_hu": [-500, 1000],
        "spacing_mm": [3, 3, 3],
        "weights": "ct_mr.safetensors",
        "patch": [32, 32, 32],
        "network": Architecture.plain(3, 2, (8, 16)).to_dict(),
    }
    about = {"name": folder.name, "version": "1", "description": "CT and MR", "licence": "CC0-1.0"}
    write_manifest(folder, {**about, "system": CT_MR, "organs": ["Brainstem"], "settings": settings})
