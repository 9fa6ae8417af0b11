"""A reader works through a study's worklist in the window: real Qt, the real MRML core, the real log on the real
share."""

from __future__ import annotations

import json
import os
import shutil
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("slicer", reason="slicer-core is not installed")
import numpy as np
import slicer
from reading_study import ORGANS, finish, make_lead

from soars.effort.log import read_log, session_logs
from soars.formats import read_seg_nrrd, write_seg_nrrd
from soars.study.ledger import CHECKSUMS, check_checksums
from soars.study.load import collect_study, open_study
from soars.study.plan.prepare import read_key

pytestmark = pytest.mark.skipif(os.name == "nt", reason="the playing child is a shell script")


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_lead(tmp_path_factory.mktemp("lead") / "lead")


@pytest.fixture
def lead(made: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(made, tmp_path / "lead"))


@pytest.fixture
def section(visit: Any, lead: Path) -> Any:
    """The study's section, its worklist open."""
    section = visit.window.reading
    section.open_worklist(lead / "share" / "worklists" / "R1.json")
    assert section.panel.notice.text == ""
    return section


def scene_names(kind: str) -> list[str]:
    return [node.GetName() for node in slicer.util.getNodesByClass(kind)]


def arm_of(lead: Path, visit: Any) -> str:
    return read_key(lead)[visit.session.header.arm]


def test_the_next_case_is_loaded_alone_and_nothing_is_typed(visit: Any, section: Any, lead: Path) -> None:
    assert scene_names("vtkMRMLScalarVolumeNode") == ["Planning CT"]
    section.panel.next.click()
    assert visit.window.timing.control.running, section.panel.notice.text
    assert any("closed before the next case" in question for question in visit.asked)
    header = visit.log().header
    assert (header.study, header.reader, header.case) == ("pilot", "R1", "practice")
    assert (header.phase, header.sequence, header.repeat) == ("training", 1, 1)
    assert header.schema == 2 and header.voxel_size_mm == (3.0, 3.0, 3.0)
    assert header.bundle is None and header.proposal_source in ("study", "none")
    assert scene_names("vtkMRMLScalarVolumeNode") == ["practice"]
    assert scene_names("vtkMRMLSegmentationNode") == ["practice, session 1"]
    assert not section.panel.next.enabled
    assert visit.session.folder.is_relative_to(lead / "share" / "sessions" / "pilot")
    for word in ("model", "hand", header.arm):
        shown = " ".join((section.panel.progress.text, visit.window.timing.panel.who.text))
        assert word not in shown.split()
    visit.picture("20_study")


def test_a_refusal_of_the_reader_keeps_the_scene(visit: Any, section: Any) -> None:
    visit.answer = False
    section.panel.next.click()
    assert visit.window.desk.running_session is None
    assert scene_names("vtkMRMLScalarVolumeNode") == ["Planning CT"]


def test_between_cases_only_what_is_not_the_studys_is_asked_about(visit: Any, section: Any) -> None:
    from SOARSSegmentationLib.scene.outlines import show_outline
    from SOARSSegmentationLib.scene.proposal import Proposal
    from SOARSSegmentationLib.scene.reading import structures_of

    section.panel.next.click()  # training
    node = visit.segmentation
    drawn = structures_of(node, ["Eye_L"], visit.window.desk.volume)
    show_outline(node, "Eye_L", True, Proposal(drawn.geometry, {"Eye_L": drawn.crop("Eye_L")}))
    finish(visit)
    visit.asked.clear()
    section.panel.next.click()
    assert visit.asked == [] and visit.window.timing.control.running, section.panel.notice.text
    read = visit.segmentation.GetID(), visit.window.desk.volume.GetID()
    slicer.mrmlScene.Clear(0)
    own = visit.application.core.add_ct(visit.structures.geometry, name="The reader's own")
    assert own.GetID() in read, "Slicer gives the IDs anew"
    visit.asked.clear()
    section.panel.next.click()
    assert [question for question in visit.asked if "closed before the next case" in question]


def test_a_study_is_read_to_its_end_and_collected(visit: Any, section: Any, lead: Path) -> None:
    section.panel.next.click()  # training
    finish(visit)
    arms = []
    for _ in range(2):
        section.panel.next.click()
        if not visit.window.timing.control.running:
            break
        arms.append(arm_of(lead, visit))
        revising = arms[-1] == "model"
        masks = [visit.row(organ).volume_cc for organ in ORGANS]
        assert all(volume > 0 for volume in masks) == revising, "from scratch no contour may be seen"
        visit.click("Eye_L")
        visit.paint(np.s_[20:22, 15:18, 15:18])
        section.panel.scores[4].click()
        section.panel.comment.text = "anterior border"
        section.panel.comment.editingFinished.emit()
        visit.click("Lens_L")
        section.panel.cannot.click()
        assert "why" in section.panel.notice.text
        section.panel.comment.text = "artefact"
        section.panel.cannot.click()
        folder = visit.session.folder
        finish(visit)
        assert check_checksums(folder) == [] and (folder / CHECKSUMS).exists()
        assert "result.seg.nrrd" in (folder / CHECKSUMS).read_text()
    # The second reading of the case waits for its wash-out.
    assert len(arms) == 1 and "may be read from" in section.panel.notice.text
    collection = collect_study(open_study(lead))
    assert not collection.left_out and [s.problems for s in collection.sessions] == [(), ()]
    rows = {row.organ: row for row in collection.sessions[1].rows}
    assert rows["Eye_L"].arm == arms[0] and rows["Eye_L"].edits == 1
    assert (rows["Eye_L"].score, rows["Eye_L"].comment) == (4, "anterior border")
    assert (rows["Lens_L"].score, rows["Lens_L"].reason) == (0, "artefact")
    assert rows["Eye_L"].result_cc == pytest.approx(rows["Eye_L"].proposal_cc + 18 * 0.027)


def test_contours_that_are_not_the_arms_proposal_are_refused(visit: Any, section: Any, lead: Path) -> None:
    changed = 0
    for path in (lead / "share" / "cases").rglob("*.seg.nrrd"):
        structures = read_seg_nrrd(path)
        array = structures.full("Eye_L").copy()
        array[tuple(np.argwhere(array)[0])] = False
        structures.add("Eye_L", array)
        write_seg_nrrd(structures, path)
        changed += 1
    assert changed == 2
    section.panel.next.click()
    if visit.window.timing.control.running:  # training was from scratch
        finish(visit)
        section.panel.next.click()
    assert not visit.window.timing.control.running
    assert "not those that the study proposes" in section.panel.notice.text
    started = [p for p in (lead / "share" / "sessions" / "pilot").iterdir() if session_logs(p)]
    assert len(started) <= 1


def test_another_ct_is_refused(visit: Any, section: Any, lead: Path) -> None:
    cts = lead / "share" / "cases"
    shutil.copy(cts / "case-01" / "ct.nrrd", cts / "practice" / "ct.nrrd")
    section.panel.next.click()
    assert "is not the study's" in section.panel.notice.text
    assert not visit.window.timing.control.running and scene_names("vtkMRMLScalarVolumeNode") == []
    shutil.rmtree(cts / "practice")
    section.panel.next.click()
    assert "missing from the study's folder" in section.panel.notice.text


def test_a_session_that_was_interrupted_is_the_next_case_again(visit: Any, section: Any, lead: Path) -> None:
    section.panel.next.click()
    visit.click("Eye_L")
    visit.paint(np.s_[20:22, 15:18, 15:18])
    section.panel.scores[3].click()
    visit.window.review.accept()
    folder = visit.session.folder
    slicer.mrmlScene.Clear(0)  # the reader closes the scene: the session is left, not finished
    assert visit.window.desk.running_session is None
    assert read_log(session_logs(folder)[-1]).events[-1].cause == "scene_closed"
    assert not (folder / CHECKSUMS).exists()
    section.panel.next.click()
    assert visit.window.timing.control.running, section.panel.notice.text
    assert visit.session.folder == folder and len(session_logs(folder)) == 2
    assert visit.session.states()["Eye_L"] == "accepted"
    visit.click("Eye_L")
    assert section.panel.scores[3].checked
    finish(visit)
    assert check_checksums(folder) == [] and (folder / CHECKSUMS).exists()


def test_what_is_written_when_a_shortcut_turns_to_another_organ_is_kept(visit: Any, section: Any) -> None:
    from PySide6.QtTest import QTest

    section.panel.next.click()
    visit.click("Eye_L")
    QTest.keyClicks(section.panel.comment, "too large")
    visit.window.review.select("Lens_L")
    assert section.panel.comment.text == ""
    section.panel.scores[2].click()
    QTest.keyClicks(section.panel.comment, "too small")
    visit.window.review.select("Eye_L")
    assert section.panel.comment.text == "too large"
    section.panel.scores[4].click()
    finish(visit)
    said = [(e.organ, e.score, e.comment) for e in visit.log().events if e.kind == "judge"]
    assert said == [
        ("Eye_L", None, "too large"), ("Lens_L", 2, None), ("Lens_L", 2, "too small"), ("Eye_L", 4, "too large"),
    ]  # fmt: skip


def test_a_worklist_that_cannot_be_used_is_said(visit: Any, tmp_path: Path) -> None:
    section = visit.window.reading
    path = tmp_path / "w.json"
    path.write_text(json.dumps({"schema": 99}))
    section.open_worklist(path)
    assert "newer version" in section.panel.notice.text and section.reading is None
    assert not section.panel.next.enabled


def test_an_ordinary_session_names_its_ct_and_proposal_too(visit: Any) -> None:
    visit.propose()
    visit.start()
    header = visit.log().header
    assert header.proposal_source == "bundle" and header.voxel_size_mm is not None
    assert header.proposal_sha256 is not None and header.ct_sha256 is not None
    assert header.phase is None and header.sequence is None


def test_who_draws_from_scratch_sees_no_other_contours(visit: Any) -> None:
    visit.propose()
    proposed = visit.segmentation
    panel = visit.window.timing.panel
    panel.arm.currentIndex = panel.arm.findData("scratch")
    visit.start()
    assert visit.segmentation is not proposed
    assert (
        not proposed.GetDisplayNode().GetVisibility() and visit.segmentation.GetDisplayNode().GetVisibility()
    )
    assert visit.log().header.proposal_source == "none"
