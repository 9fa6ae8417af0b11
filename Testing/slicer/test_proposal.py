"""The proposal stays with its segmentation, through edits and files, and any organ can be had back."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

pytest.importorskip("slicer", reason="slicer-core is not installed")
import slicer
from hypothesis import given, settings
from hypothesis import strategies as st
from reading_desk import ReadingDesk, blocks

from soars.errors import InputError
from soars.structures import Geometry, StructureSet, tight_mask
from SOARSSegmentationLib.scene import proposal
from SOARSSegmentationLib.scene.building import add_segmentation
from SOARSSegmentationLib.scene.outlines import OUTLINE_ATTRIBUTE, outlined, remove_outlines, show_outline
from SOARSSegmentationLib.scene.reading import organ_mask, structures_of, volume_of
from SOARSSegmentationLib.scene.seg_file import write_by_slicer
from SOARSSegmentationLib.scene.segments import segment_ids, tag_of
from SOARSSegmentationLib.session.segment_events import SegmentEvents

ORGANS = {
    "Brainstem": np.s_[5:12, 5:12, 5:12],
    "Parotid_L": np.s_[5:12, 5:12, 12:20],
    "Eye_L": np.s_[2:9, 15:25, 10:20],
    "Lens_L": np.s_[4:6, 17:19, 12:14],
    "Pituitary": np.s_[0:0, 0:0, 0:0],
}
FREE = np.s_[15:17, 5:9, 5:9]
BORDER = np.s_[6:8, 6:8, 10:14]  # of brainstem and parotid


@pytest.fixture
def structures() -> StructureSet:
    return blocks(ORGANS)


def kept(core: Any, structures: StructureSet) -> Any:
    """A segmentation with its proposal, in a scene."""
    node = add_segmentation(core.scene, core.add_ct(structures.geometry), structures, "organs")
    proposal.keep_proposal(node)
    return node


def holds(node: Any, structures: StructureSet) -> bool:
    known = proposal.proposal_of(node)
    return known is not None and all(known.masks[name].equals(structures.crop(name)) for name in structures)


def test_a_segmentation_without_a_proposal_says_so(core: Any, structures: StructureSet) -> None:
    node = add_segmentation(core.scene, core.add_ct(structures.geometry), structures, "organs")
    assert proposal.proposal_of(node) is None
    with pytest.raises(InputError, match="nothing to restore"):
        proposal.restore(node, "Brainstem")
    with pytest.raises(InputError, match="nothing to show"):
        show_outline(node, "Brainstem", True)


def test_the_proposal_is_what_the_organs_were(core: Any, structures: StructureSet) -> None:
    desk = ReadingDesk(structures)
    proposal.keep_proposal(desk.segmentation)
    desk.turn_to("Brainstem")
    desk.paint(BORDER)
    desk.paint(FREE)
    assert holds(desk.segmentation, structures)
    desk.close()


def test_it_survives_the_segmentations_own_file(core: Any, structures: StructureSet, tmp_path: Path) -> None:
    node = kept(core, structures)
    write_by_slicer(node, tmp_path / "organs.seg.nrrd")
    core.scene.Clear(False)
    storage = slicer.vtkMRMLSegmentationStorageNode()
    storage.SetFileName(str(tmp_path / "organs.seg.nrrd"))
    core.scene.AddNode(storage)
    again = core.scene.AddNewNodeByClass("vtkMRMLSegmentationNode")
    assert storage.ReadData(again)
    assert holds(again, structures)  # without its CT: the file remembers the grid


def test_it_survives_saving_the_scene(core: Any, structures: StructureSet, tmp_path: Path) -> None:
    node = kept(core, structures)
    show_outline(node, "Brainstem", True)
    (tmp_path / "root").mkdir()
    core.scene.SetRootDirectory(str(tmp_path / "root"))
    node.AddDefaultStorageNode()
    assert core.scene.WriteToMRB(str(tmp_path / "scene.mrb"))
    core.open_mrb(tmp_path / "scene.mrb", tmp_path)
    again = core.scene.GetFirstNodeByName("organs")
    assert again is not node and holds(again, structures)
    assert volume_of(again).GetName() == "CT"
    assert outlined(again) == ()  # a way of looking, not saved


def test_restoring_an_organ_leaves_the_others_alone(structures: StructureSet) -> None:
    desk = ReadingDesk(structures)
    proposal.keep_proposal(desk.segmentation)
    heard: list[str | None] = []
    desk.turn_to("Brainstem")
    desk.paint(BORDER)  # takes voxels from the parotid
    desk.paint(FREE)
    events = SegmentEvents(desk.segmentation.GetSegmentation(), heard.append, lambda: None)
    proposal.restore(desk.segmentation, "Parotid_L")
    events.flush()
    assert heard == [segment_ids(desk.segmentation)["Parotid_L"]]  # one edit, and of the right organ
    now = structures_of(desk.segmentation)
    assert now.crop("Parotid_L").equals(structures.crop("Parotid_L"))
    assert now.voxels("Brainstem") == structures.voxels("Brainstem") + 32 + 8
    for organ in ("Eye_L", "Lens_L", "Pituitary"):
        assert now.crop(organ).equals(structures.crop(organ))
    proposal.restore(desk.segmentation, "Brainstem")
    assert structures_of(desk.segmentation).crop("Brainstem").equals(structures.crop("Brainstem"))
    events.stop()
    desk.close()


def test_an_organ_that_was_not_found_is_restored_to_nothing(structures: StructureSet) -> None:
    desk = ReadingDesk(structures)
    proposal.keep_proposal(desk.segmentation)
    desk.turn_to("Pituitary")
    desk.paint(FREE)
    assert structures_of(desk.segmentation).voxels("Pituitary") == 32
    proposal.restore(desk.segmentation, "Pituitary")
    now = structures_of(desk.segmentation)
    assert all(now.crop(organ).equals(structures.crop(organ)) for organ in structures)
    desk.close()


def test_a_removed_segment_comes_back_from_the_proposal_in_hand(core: Any, structures: StructureSet) -> None:
    node = kept(core, structures)
    known = proposal.proposal_of(node)
    node.GetSegmentation().RemoveSegment("Lens_L")
    with pytest.raises(InputError, match="nothing to restore"):
        proposal.restore(node, "Lens_L")
    proposal.restore(node, "Lens_L", known)
    assert structures_of(node, ["Lens_L"]).crop("Lens_L").equals(structures.crop("Lens_L"))
    assert holds(node, structures)


def test_a_proposal_can_be_seen_as_a_line(core: Any, structures: StructureSet) -> None:
    node = kept(core, structures)
    nodes = core.scene.GetNumberOfNodes()
    show_outline(node, "Brainstem", True)
    show_outline(node, "Lens_L", True)
    assert outlined(node) == ("Brainstem", "Lens_L")
    (outlines,) = (
        n
        for n in (core.scene.GetNthNode(i) for i in range(core.scene.GetNumberOfNodes()))
        if n.GetAttribute(OUTLINE_ATTRIBUTE)
    )
    display = outlines.GetDisplayNode()
    assert (display.GetVisibility2DFill(), display.GetVisibility2DOutline()) == (False, True)
    assert outlines.GetHideFromEditors() and not outlines.GetSaveWithScene()
    assert organ_mask(outlines, "Lens_L", volume_of(node)).equals(structures.crop("Lens_L"))
    show_outline(node, "Brainstem", False)
    show_outline(node, "Eye_L", False)  # was not shown
    assert outlined(node) == ("Lens_L",)
    remove_outlines(node)
    assert core.scene.GetNumberOfNodes() == nodes and outlined(node) == ()


def test_it_is_small(core: Any) -> None:
    grid = Geometry((512, 512, 200), (1.0, 1.0, 1.0), (0.0, 0.0, 0.0))
    z, y, x = np.ogrid[:60, :100, :100]
    ball = ((z - 30) / 30.0) ** 2 + ((y - 50) / 50.0) ** 2 + ((x - 50) / 50.0) ** 2 <= 1
    structures = StructureSet(grid)
    structures.add_crop("Brainstem", (10, 20, 30), ball)
    text = proposal._packed(grid, structures.crop("Brainstem"))
    assert len(text) < 10_000  # of 314,000 voxels


@given(
    shape=st.tuples(*[st.integers(1, 7)] * 3),
    start=st.tuples(*[st.integers(0, 5)] * 3),
    seed=st.integers(0, 99),
)
@settings(max_examples=50, deadline=None)
def test_any_mask_and_grid_comes_back_from_its_text(
    shape: tuple[int, int, int], start: tuple[int, int, int], seed: int
) -> None:
    random = np.random.default_rng(seed)
    grid = Geometry(
        (15, 14, 13), tuple(random.random(3) + 0.1), tuple(random.normal(0, 100, 3)), tuple(random.random(9))
    )
    mask = tight_mask(random.random(shape) < 0.3, start)
    text = proposal._packed(grid, mask)
    assert not set(text) & set("|:\n ")  # what separates tags in a .seg.nrrd
    again, back = proposal._unpacked(text, "Brainstem")
    assert back.equals(mask) and again == grid


@pytest.mark.parametrize(
    "damage",
    [
        lambda text: "x",
        lambda text: text[: len(text) // 2],
        lambda text: text[:-8],
        lambda text: text.replace("40,30,20", "40,30"),
        lambda text: text.replace("40,30,20", "4,3,2"),
        lambda text: text.replace("7,7,7", "70000,70000,70000"),
        lambda text: text.replace("7,7,7", "7,7,8"),
        lambda text: text.replace("7,7,7", "-7,7,-7"),
    ],
)
def test_a_damaged_proposal_is_said_to_be_damaged(core: Any, structures: StructureSet, damage: Any) -> None:
    node = kept(core, structures)
    segment = node.GetSegmentation().GetSegment("Brainstem")
    text = tag_of(segment, proposal.PROPOSAL_TAG)
    assert damage(text) != text
    segment.SetTag(proposal.PROPOSAL_TAG, damage(text))
    with pytest.raises(InputError, match="Brainstem"):
        proposal.proposal_of(node)


def test_a_newer_version_is_named_as_such(core: Any, structures: StructureSet) -> None:
    node = kept(core, structures)
    segment = node.GetSegmentation().GetSegment("Brainstem")
    segment.SetTag(proposal.PROPOSAL_TAG, "2" + tag_of(segment, proposal.PROPOSAL_TAG)[1:])
    with pytest.raises(InputError, match="newer"):
        proposal.proposal_of(node)
