"""The review: findings in the order of their need, what the table shows and hides, what the views show."""

from __future__ import annotations

import os
from typing import Any

import pytest

pytest.importorskip("slicer", reason="slicer-core is not installed")
import slicer
import vtk
from module_visit import ORGANS
from slicer_layout import LayoutManager

from soars.catalogue import SOARS42
from soars.errors import InputError
from soars.findings.finding import CHECK, NOTE, SERIOUS, ExpectedDsc, Finding, Where

pytestmark = pytest.mark.skipif(os.name == "nt", reason="the playing child is a shell script")

HOLE = Finding("Parotid_L", "hole", CHECK, "it has a cavity", "Fill it.", Where(9, "left", (4.0, -8.0, 21.0)))
SIDE = Finding(
    "Lens_L", "wrong_side", SERIOUS, "it lies on the right", "Move it.", Where(5, "left", (3.0, 6.0, 13.0))
)
SMALL = Finding("Parotid_L", "volume", NOTE, "it is small", "Compare it with the right one.")
EXPECTED = {"Brainstem": ExpectedDsc(0.61, 0.5, 0.7), "Eye_L": ExpectedDsc(0.9, 0.85, 0.93)}
FINDING = 5


@pytest.fixture
def reading(visit: Any) -> Any:
    """A session on a proposal with findings."""
    results = visit.results("found", findings=(HOLE, SIDE, SMALL), expected=EXPECTED)
    visit.plays("say('read'); say('anchor', 8, 8)\n" + results)
    visit.propose()
    visit.start()
    return visit


def slice_node() -> Any:
    return slicer.mrmlScene.AddNewNodeByClass("vtkMRMLSliceNode", "Red")


def centre(node: Any) -> tuple[float, ...]:
    return tuple(node.GetSliceToRAS().GetElement(row, 3) for row in range(3))


def status(visit: Any, organ: str) -> str:
    from SOARSSegmentationLib.scene.segments import STATUS_TAG, tag_of

    segment_id = visit.row(organ).segment_id
    return str(tag_of(visit.segmentation.GetSegmentation().GetSegment(segment_id), STATUS_TAG))


# --- findings ----------------------------------------------------------------------------------------------------
def test_the_table_shows_what_was_found_and_the_worst_of_it(reading: Any) -> None:
    assert reading.cell("Lens_L", FINDING) == "\N{DOUBLE EXCLAMATION MARK}"
    assert reading.cell("Parotid_L", FINDING) == "\N{WARNING SIGN} 2"
    assert reading.cell("Brainstem", FINDING) == ""
    tip = reading.window.review.panel.table._items["Parotid_L"].toolTip(FINDING)
    assert tip.splitlines() == [
        "to be checked: It has a cavity (slice 9, left). Fill it.",
        "worth knowing: It is small. Compare it with the right one.",
    ]


def test_sorted_by_need_the_serious_comes_first_then_the_lowest_expected_dice(reading: Any) -> None:
    table = reading.window.review.panel.table
    assert list(table.shown) == [organ for organ in SOARS42 if organ in table.shown]
    table._header_clicked(FINDING)
    assert table.shown[:4] == ("Lens_L", "Parotid_L", "Brainstem", "Eye_L")
    assert reading.window.review.panel.table.organ == "Brainstem", "the organ in hand stays"
    table._header_clicked(0)
    assert table.shown[0] == "Brainstem"


def test_next_finding_walks_through_all_and_goes_to_the_place(reading: Any) -> None:
    red = slice_node()
    panel = reading.window.review.panel
    panel.finding.click()
    assert reading.session.organ == "Lens_L" and centre(red) == pytest.approx((-3.0, -6.0, 13.0))
    assert "It lies on the right (slice 5, left)." in panel.in_hand.text and "Move it." in panel.in_hand.text
    panel.finding.click()
    assert reading.session.organ == "Parotid_L" and centre(red) == pytest.approx((-4.0, 8.0, 21.0))
    panel.finding.click()
    assert "It is small." in panel.in_hand.text and reading.session.organ == "Parotid_L"
    panel.finding.click()
    assert reading.session.organ == "Lens_L", "round the end"


def test_expected_dice_is_said_of_the_organ_in_hand(reading: Any) -> None:
    reading.click("Brainstem")
    assert "expected Dice 0.61 (0.50 to 0.70)" in reading.window.review.panel.in_hand.text


def test_without_findings_there_is_no_next_one(visit: Any) -> None:
    visit.propose()
    assert not visit.window.review.panel.finding.enabled


def test_findings_are_kept_in_the_segmentation(reading: Any) -> None:
    from SOARSSegmentationLib.scene.findings import FINDINGS_TAG, found_of

    segment = reading.segmentation.GetSegmentation().GetSegment(reading.row("Parotid_L").segment_id)
    assert found_of(segment) == ((HOLE, SMALL), None)
    segment.SetTag(FINDINGS_TAG, "not base64")
    with pytest.raises(InputError, match="findings kept of Parotid_L are damaged"):
        found_of(segment)


# --- the table ---------------------------------------------------------------------------------------------------
def test_filters_and_search_hide_rows_and_steps_keep_to_what_is_shown(reading: Any) -> None:
    panel = reading.window.review.panel
    panel.filter.currentIndex = panel.filter.findData("findings")
    assert set(panel.table.shown) == {"Parotid_L", "Lens_L"}
    reading.click("Parotid_L")
    panel.next.click()
    assert reading.session.organ == "Lens_L"
    panel.filter.currentIndex = panel.filter.findData("open")
    reading.click("Brainstem")
    panel.accept.click()
    assert "Brainstem" not in panel.table.shown
    panel.filter.currentIndex = panel.filter.findData("all")
    panel.search.text = "PAROTID gl"
    assert set(panel.table.shown) == {"Parotid_L", "Parotid_R"}, "by its label as well"
    panel.search.text = ""
    assert len(panel.table.shown) == 42


def test_every_column_has_a_heading_and_is_as_wide_as_its_text(reading: Any) -> None:
    table = reading.window.review.panel.table.widget
    metrics = reading.qt.QFontMetrics(table.font)
    for column in range(table.columnCount):
        assert table.headerItem().text(column)
    for organ in ORGANS:
        for column in range(1, table.columnCount):
            needed = metrics.boundingRect(reading.cell(organ, column)).width()
            assert table.columnWidth(column) >= needed, (organ, column)


def test_names_are_readable_after_the_style_was_changed(reading: Any) -> None:
    qt, item = reading.qt, reading.window.review.panel.table._items["Eye_L"]
    assert item.data(0, qt.Qt.ForegroundRole) is None, "the style's own colour, whichever it is"
    absent = reading.window.review.panel.table._items["Cochlea_L"]
    assert absent.data(0, qt.Qt.ForegroundRole) is not None and reading.row("Cochlea_L").state == "absent"


def test_status_follows_the_review_as_slicer_shows_it(reading: Any) -> None:
    assert status(reading, "Lens_L") == "flagged", "it has a serious finding"
    assert status(reading, "Eye_L") == "notstarted"
    reading.click("Eye_L")
    assert status(reading, "Eye_L") == "inprogress"
    reading.window.review.panel.accept.click()
    assert status(reading, "Eye_L") == "completed"
    reading.click("Eye_L")
    reading.window.review.panel.accept.click()
    assert status(reading, "Eye_L") == "inprogress", "reopened"


# --- the views ---------------------------------------------------------------------------------------------------
def visible(reading: Any) -> set[str]:
    display = reading.segmentation.GetDisplayNode()
    return {organ for organ in ORGANS if display.GetSegmentVisibility(reading.row(organ).segment_id)}


def test_an_eye_for_every_organ_only_this_one_and_all(reading: Any) -> None:
    qt, panel = reading.qt, reading.window.review.panel
    item = panel.table._items["Eye_L"]
    item.setCheckState(0, qt.Qt.Unchecked)
    assert visible(reading) == set(ORGANS) - {"Eye_L"} and not reading.row("Eye_L").visible
    reading.click("Parotid_L")
    panel.solo.checked = True
    assert visible(reading) == {"Parotid_L"}
    reading.click("Lens_L")
    assert visible(reading) == {"Lens_L"}, "it goes with the organ in hand"
    assert panel.table._items["Parotid_L"].checkState(0) == qt.Qt.Unchecked
    panel.show_all.click()
    assert visible(reading) == set(ORGANS) and not panel.solo.checked


def test_the_window_is_that_of_the_organ_and_the_readers_own_until_another_is_wanted(reading: Any) -> None:
    reading.ct.CreateDefaultDisplayNodes()
    display = reading.ct.GetDisplayNode()
    reading.window.review.control.presets.forget()

    def window(organ: str) -> tuple[float, float]:
        reading.click(organ)
        return display.GetWindow(), display.GetLevel()

    assert window("Bone_Mandible_L") == (2000.0, 500.0)
    assert window("Parotid_L") == (400.0, 40.0)
    assert window("OpticChiasm") == (100.0, 35.0)
    display.SetWindowLevel(80.0, 40.0)
    assert window("Brainstem") == (80.0, 40.0)
    reading.window.review.panel.presets.checked = False
    assert window("Bone_Mandible_L") == (80.0, 40.0)


def test_the_layout_has_a_large_axial_slice_and_the_other_planes(core: Any) -> None:
    from SOARSSegmentationLib.views.layout import DESCRIPTION, LAYOUT

    logic = slicer.vtkMRMLLayoutLogic()
    logic.SetMRMLScene(core.scene)
    node = logic.GetLayoutNode()
    assert node.AddLayoutDescription(LAYOUT, DESCRIPTION)
    node.SetViewArrangement(LAYOUT)
    nodes = logic.GetViewNodes()
    views = [nodes.GetItemAsObject(index) for index in range(nodes.GetNumberOfItems())]
    planes = {one.GetLayoutName(): one.GetOrientation() for one in views if one.IsA("vtkMRMLSliceNode")}
    assert planes == {"Red": "Axial", "Green": "Coronal", "Yellow": "Sagittal"}
    assert [one.GetLayoutName() for one in views if one.IsA("vtkMRMLViewNode")] == ["1"]
    logic.SetMRMLScene(None)


def test_the_layout_before_comes_back_unless_the_user_chose_another(
    application: Any, core: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    from SOARSSegmentationLib.views.layout import LAYOUT, ReviewLayout

    manager = LayoutManager(core.scene)
    monkeypatch.setattr(slicer.app, "layoutManager", lambda: manager)
    layout = ReviewLayout()
    for chosen, afterwards in ((None, 3), (7, 7)):
        manager.layout = 3
        layout.show()
        assert manager.layout == LAYOUT
        manager.layout = chosen or manager.layout
        layout.restore()
        assert manager.layout == afterwards
    manager.close()


def test_every_organ_has_a_window() -> None:
    from SOARSSegmentationLib.views.presets import BONE, BRAIN, SOFT_TISSUE, preset_of

    kinds = {
        preset: {organ for organ in SOARS42 if preset_of(organ) == preset}
        for preset in (BONE, SOFT_TISSUE, BRAIN)
    }
    assert {"Bone_Mandible_R", "Cochlea_L", "Ear_Internal_R", "Joint_TM_L"} <= kinds[BONE]
    assert {"OpticChiasm", "Brainstem", "Basal_Ganglia_L", "Lobe_Temporal_R"} <= kinds[BRAIN]
    assert {"Parotid_L", "Esophagus", "OpticNrv_L", "BrachialPlex_R"} <= kinds[SOFT_TISSUE]


def test_points_of_the_core_are_turned_for_slicer() -> None:
    from SOARSSegmentationLib.views.slices import point_of

    assert point_of((1.0, 2.0, 3.0)) == (-1.0, -2.0, 3.0)


def test_the_views_go_to_where_a_transform_has_put_the_ct(visit: Any) -> None:
    """Contours and CT of a scene in which they were registered to another image."""
    visit.propose()
    node, transform = slice_node(), slicer.mrmlScene.AddNewNodeByClass("vtkMRMLLinearTransformNode")
    visit.click("Eye_L")
    before = centre(node)
    shift = vtk.vtkMatrix4x4()
    shift.SetElement(0, 3, 10.0)
    shift.SetElement(2, 3, -4.0)
    transform.SetMatrixTransformToParent(shift)
    for moved in (visit.ct, visit.segmentation):
        moved.SetAndObserveTransformNodeID(transform.GetID())
    visit.click("Brainstem")
    visit.click("Eye_L")
    assert centre(node) == pytest.approx((before[0] + 10.0, before[1], before[2] - 4.0))


# --- what is chosen meanwhile ------------------------------------------------------------------------------------
def test_the_outline_of_other_contours_goes_when_new_ones_are_reviewed(visit: Any) -> None:
    from SOARSSegmentationLib.scene.outlines import outlined

    visit.propose()
    first = visit.segmentation
    visit.click("Brainstem")
    visit.window.review.panel.outline.click()
    assert outlined(first) == ("Brainstem",)
    visit.propose()
    assert visit.segmentation is not first and not visit.window.review.panel.outline.checked
    assert outlined(first) == ()
    assert len(slicer.util.getNodesByClass("vtkMRMLSegmentationNode")) == 2


def test_the_table_lists_the_organs_that_are_chosen(visit: Any) -> None:
    visit.propose()
    assert len(visit.window.review.panel.table.rows) == len(SOARS42)
    organs = visit.window.propose.panel.organs
    organs.currentIndex = organs.findData("small_hard")
    assert {row.stratum for row in visit.window.review.panel.table.rows} == {"small_hard"}
    organs.currentIndex = organs.findData("all")
    assert len(visit.window.review.panel.table.rows) == len(SOARS42)


def test_the_organ_in_hand_stays_when_another_ct_is_chosen(reading: Any) -> None:
    reading.click("Eye_L")
    other = reading.application.core.add_ct(reading.structures.geometry, name="Next CT")
    reading.window.propose.panel.volume.setCurrentNode(other)
    assert reading.window.desk.parameters.volume is other
    assert reading.session.organ == reading.window.review.panel.table.organ == "Eye_L"
    assert reading.window.review.panel.accept.enabled


def test_a_restored_organ_can_be_undone_only_while_it_is_in_hand(reading: Any) -> None:
    reading.click("Brainstem")
    reading.paint()
    reading.window.review.panel.restore.click()
    notice = reading.window.review.panel.notice
    assert notice.text == "Brainstem is as it was proposed." and notice.action_button.text == "Undo"
    reading.click("Eye_L")
    assert notice.text == ""  # its Undo would take back what is done to the eye
