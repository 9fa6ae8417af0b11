"""On which CT a session is begun and resumed where several are in the scene."""

from __future__ import annotations

import os
from typing import Any

import pytest

pytest.importorskip("slicer", reason="slicer-core is not installed")
import slicer
import vtk

pytestmark = pytest.mark.skipif(os.name == "nt", reason="the playing child is a shell script")


@pytest.fixture
def interrupted(visit: Any) -> Any:
    """The program was killed in a session, and started again with an empty scene; the names are chosen again."""
    visit.propose()
    visit.start()
    visit.click("Parotid_L")
    visit.paint()
    visit.window.review.panel.accept.click()
    visit.crash()
    visit.write_names()
    return visit


def add_ct(visit: Any, name: str, hu: int = 0) -> Any:
    return visit.application.core.add_ct(visit.structures.geometry, hu, name=name)


def colours() -> vtk.vtkImageData:
    image = vtk.vtkImageData()
    image.SetDimensions(4, 3, 1)
    image.AllocateScalars(vtk.VTK_UNSIGNED_CHAR, 3)
    return image


def choose(visit: Any, ct: Any) -> None:
    visit.window.propose.panel.volume.setCurrentNode(ct)
    assert visit.window.desk.parameters.volume is ct


def test_a_session_is_not_resumed_on_another_ct(interrupted: Any) -> None:
    visit, notice = interrupted, interrupted.window.timing.panel.notice
    choose(visit, add_ct(visit, "Somebody else", 40))
    assert "was interrupted" in notice.text
    before = visit.nodes()
    notice.action_button.click()
    assert not visit.window.timing.control.running and visit.nodes() == before
    assert notice.text == (
        "The session was begun on another CT than Somebody else: load the CT of case-01 and choose it."
    )
    slicer.mrmlScene.AddNewNodeByClass("vtkMRMLScalarVolumeNode", "Without voxels")
    slicer.mrmlScene.AddNewNodeByClass("vtkMRMLVectorVolumeNode", "Photograph").SetAndObserveImageData(
        colours()
    )
    own = add_ct(visit, "Planning CT")
    notice.action_button.click()
    assert not visit.window.timing.control.running and notice.text.endswith(": choose Planning CT.")
    choose(visit, own)
    notice.action_button.click()
    assert visit.window.timing.control.running, notice.text
    assert visit.window.desk.volume is own and visit.row("Parotid_L").state == "accepted"


def test_a_session_is_resumed_on_the_chosen_ct_whatever_contours_are_selected(interrupted: Any) -> None:
    from SOARSSegmentationLib.scene.building import empty_segmentation

    visit, notice = interrupted, interrupted.window.timing.panel.notice
    own, other = add_ct(visit, "Planning CT"), add_ct(visit, "Somebody else", 40)
    contours = empty_segmentation(slicer.mrmlScene, other, ["Brainstem"], "Somebody's contours")
    visit.window.desk.put("segmentation", contours)
    choose(visit, own)
    notice.action_button.click()
    assert visit.window.timing.control.running, notice.text
    assert visit.window.desk.volume is own


def test_drawing_from_scratch_is_on_the_chosen_ct_whatever_contours_are_selected(visit: Any) -> None:
    from SOARSSegmentationLib.scene.reading import volume_of

    visit.propose()
    other = add_ct(visit, "Next CT", 40)
    choose(visit, other)
    panel = visit.window.timing.panel
    panel.arm.currentIndex = panel.arm.findData("scratch")
    visit.start()
    assert volume_of(visit.segmentation) is other and visit.window.desk.volume is other
    assert visit.segmentation.GetName() == "Next CT case-01 from scratch"
    assert visit.window.editor.node.GetSourceVolumeNode() is other


def test_drawing_from_scratch_goes_on_without_the_proposal_in_sight(visit: Any) -> None:
    visit.choose_ct()
    panel = visit.window.timing.panel
    panel.arm.currentIndex = panel.arm.findData("scratch")
    visit.start()
    visit.crash()
    visit.ct = add_ct(visit, "Planning CT")
    visit.propose()
    proposal = visit.segmentation
    assert proposal.GetDisplayNode().GetVisibility()
    panel.notice.clear()
    visit.write_names()
    panel.notice.action_button.click()
    assert visit.window.timing.control.running, panel.notice.text
    assert visit.session.header.from_scratch and visit.segmentation is not proposal
    assert not proposal.GetDisplayNode().GetVisibility()
    assert visit.segmentation.GetDisplayNode().GetVisibility()


def test_a_session_that_cannot_begin_leaves_the_scene_as_it_was(visit: Any) -> None:
    from SOARSSegmentationLib.memory import remember

    visit.propose()
    proposal, before = visit.segmentation, visit.nodes()
    panel = visit.window.timing.panel
    panel.arm.currentIndex = panel.arm.findData("scratch")
    visit.write_names()
    (visit.folder / "a file").write_text("")
    remember("SessionRoot", str(visit.folder / "a file"))
    for _attempt in range(2):
        panel.start.click()
        assert not visit.window.timing.control.running and "cannot be made" in panel.notice.text
        assert visit.nodes() == before and visit.segmentation is proposal
        assert proposal.GetDisplayNode().GetVisibility()
    remember("SessionRoot", str(visit.folder / "sessions"))
    panel.start.click()
    assert visit.window.timing.control.running and not proposal.GetDisplayNode().GetVisibility()
