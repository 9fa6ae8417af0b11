"""Scenes that are closed, opened and imported while the module is there: of the editor, the parameters and the layout a
scene has one node each, which Slicer keeps, resets, and fills with the values of a file."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import numpy as np
import pytest

pytest.importorskip("slicer", reason="slicer-core is not installed")
import slicer
from slicer_layout import LayoutManager

pytestmark = pytest.mark.skipif(os.name == "nt", reason="the playing child is a shell script")

CHANGE = 3
PLANES = {"Red": "Axial", "Green": "Coronal", "Yellow": "Sagittal"}


# --- overwriting -------------------------------------------------------------------------------------------------
def test_in_a_scene_after_another_painting_still_takes_nothing_from_a_neighbour(visit: Any) -> None:
    node = visit.window.editor.node
    assert node.GetOverwriteMode() == node.OverwriteNone
    slicer.mrmlScene.Clear(0)
    assert slicer.mrmlScene.GetSingletonNode("SOARSSegmentation", node.GetClassName()) is node
    assert node.GetOverwriteMode() == node.OverwriteNone, "before anybody asks the section for it"
    visit.ct = visit.application.core.add_ct(visit.structures.geometry, name="Next CT")
    visit.propose()
    visit.start()
    visit.click("Brainstem")
    visit.paint(np.s_[6:8, 6:8, 10:14])  # 8 of its own voxels, 8 of the parotid
    visit.click("Eye_L")
    assert visit.cell("Brainstem", CHANGE) == "+0.02"
    assert visit.cell("Parotid_L", CHANGE) == ""


def test_a_choice_of_the_reader_holds_until_the_scene_is_closed(visit: Any) -> None:
    node = visit.window.editor.node
    node.SetOverwriteMode(node.OverwriteVisibleSegments)
    visit.propose()
    visit.widget.exit()
    visit.widget.enter()
    assert visit.window.editor.node.GetOverwriteMode() == node.OverwriteVisibleSegments
    slicer.mrmlScene.Clear(0)
    assert node.GetOverwriteMode() == node.OverwriteNone


def test_the_users_own_default_of_overwriting_holds_in_the_next_scene_too(visit: Any) -> None:
    node = visit.window.editor.node
    usual = slicer.mrmlScene.CreateNodeByClass(node.GetClassName())
    usual.UnRegister(None)
    usual.SetOverwriteMode(usual.OverwriteVisibleSegments)
    slicer.mrmlScene.AddDefaultNode(usual)
    slicer.mrmlScene.Clear(0)
    assert visit.window.editor.node.GetOverwriteMode() == usual.OverwriteVisibleSegments


# --- the layout --------------------------------------------------------------------------------------------------
@pytest.fixture
def managers(application: Any, core: Any, monkeypatch: pytest.MonkeyPatch) -> Any:
    """Makes layout managers, each of a scene of its own, as Slicer's has after it was started."""
    made: list[Any] = []

    def make() -> LayoutManager:
        scene = core.scene if not made else slicer.vtkMRMLScene()
        made.append((LayoutManager(scene), scene))
        monkeypatch.setattr(slicer.app, "layoutManager", lambda: made[-1][0])
        return made[-1][0]

    yield make
    for manager, _scene in made:
        manager.close()


def saved(scene: Any) -> str:
    scene.SetSaveToXMLString(1)
    scene.Commit()
    return str(scene.GetSceneXMLString())


def read_into(scene: Any, text: str) -> None:
    scene.SetLoadFromXMLString(1)
    scene.SetSceneXMLString(text)
    scene.Import()


def test_a_scene_saved_with_the_layout_has_its_views_when_the_module_is_entered(managers: Any) -> None:
    from SOARSSegmentationLib.views.layout import LAYOUT, ReviewLayout

    first = managers()
    ReviewLayout().show()
    text = saved(first.node.GetScene())
    second = managers()
    read_into(second.node.GetScene(), text)
    assert second.layout == LAYOUT and second.planes() == {}, "Slicer keeps the number only"
    layout = ReviewLayout()
    layout.show()
    assert second.planes() == PLANES
    layout.restore()
    assert second.layout == second.node.SlicerLayoutFourUpView


def test_a_scene_saved_with_the_layout_has_its_views_before_the_module_is_opened(
    managers: Any, visit: Any
) -> None:
    from SOARSSegmentationLib.views.layout import LAYOUT, ReviewLayout

    first = managers()
    ReviewLayout().show()
    text = saved(first.node.GetScene())
    second = managers()
    visit.application.module.onStartupCompleted()
    assert second.layout == second.node.SlicerLayoutFourUpView, "it is only made known"
    read_into(second.node.GetScene(), text)
    assert second.layout == LAYOUT and second.planes() == PLANES


def test_without_a_main_window_there_is_no_layout_to_make_known(visit: Any) -> None:
    assert slicer.app.layoutManager() is None
    visit.application.module.registerLayout()


# --- what is in hand ---------------------------------------------------------------------------------------------
@pytest.mark.parametrize("way", ["opened", "added"])
def test_nothing_is_in_hand_of_a_scene_that_was_saved_with_the_brush_on_an_organ(
    visit: Any, tmp_path: Path, way: str
) -> None:
    visit.propose()
    visit.click("Parotid_L")
    node = visit.window.editor.node
    node.SetActiveEffectName("Paint")
    assert slicer.mrmlScene.WriteToMRB(str(tmp_path / "scene.mrb"))
    slicer.mrmlScene.Clear(0)
    visit.application.core.open_mrb(tmp_path / "scene.mrb", tmp_path, clear=way == "opened")
    assert visit.segmentation is not None and node.GetSegmentationNode() is visit.segmentation
    assert (node.GetSelectedSegmentID() or "", node.GetActiveEffectName() or "") == ("", "")
    assert visit.window.review.panel.table.organ is None
    visit.click("Eye_L")
    assert node.GetSelectedSegmentID() == visit.row("Eye_L").segment_id


# --- a session ---------------------------------------------------------------------------------------------------
@pytest.fixture
def other_scene(visit: Any, tmp_path: Path) -> Path:
    """A saved scene of the same patient, with contours of its own; there is nothing in the scene any more."""
    visit.propose()
    visit.click("Parotid_L")
    assert slicer.mrmlScene.WriteToMRB(str(tmp_path / "other.mrb"))
    slicer.mrmlScene.Clear(0)
    return tmp_path / "other.mrb"


def test_a_scene_added_to_a_session_leaves_it_at_its_own_contours(visit: Any, other_scene: Path) -> None:
    from SOARSSegmentationLib.scene.reading import organ_mask

    visit.ct = visit.application.core.add_ct(visit.structures.geometry, name="Planning CT")
    visit.propose()
    visit.start()
    own, folder = visit.segmentation, visit.session.folder
    visit.application.core.open_mrb(other_scene, other_scene.parent, clear=False)
    (added,) = (n for n in slicer.util.getNodesByClass("vtkMRMLSegmentationNode") if n is not own)
    parameters = visit.window.desk.parameters
    assert visit.window.timing.control.running and visit.segmentation is own
    assert parameters.volume is visit.ct and parameters.session_folder == str(folder)
    assert visit.window.editor.node.GetSegmentationNode() is own
    assert visit.window.review.panel.table.organ is None
    visit.click("Eye_L")
    visit.paint()
    visit.window.review.panel.accept.click()
    assert visit.row("Eye_L").state == "accepted" and visit.cell("Eye_L", CHANGE) == "+0.10"
    sizes = [organ_mask(node, "Eye_L").voxels for node in (own, added)]
    assert sizes == [7 * 10 * 10 + 32, 7 * 10 * 10]


def test_contours_chosen_during_a_session_on_others_are_not_accepted_in_it(visit: Any) -> None:
    from SOARSSegmentationLib.scene.building import empty_segmentation

    visit.propose()
    visit.start()
    own = visit.segmentation
    other = empty_segmentation(slicer.mrmlScene, visit.ct, ["Brainstem", "Eye_L"], "Other")
    visit.window.desk.put("segmentation", other)
    visit.click("Eye_L")
    assert visit.session.organ != "Eye_L" and not visit.window.review.panel.accept.enabled
    visit.window.review.accept()
    assert visit.session.states()["Eye_L"] != "accepted"
    visit.window.desk.put("segmentation", own)
    visit.click("Eye_L")
    assert visit.session.organ == "Eye_L"
    visit.window.review.panel.accept.click()
    assert visit.session.states()["Eye_L"] == "accepted"
