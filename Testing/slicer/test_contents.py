"""Changed organs are found by their voxels, whatever Slicer says or keeps quiet about."""

from __future__ import annotations

import random

import numpy as np
import pytest

pytest.importorskip("slicer", reason="slicer-core is not installed")
import vtk
from reading_desk import ReadingDesk, blocks

from soars.errors import InputError
from soars.structures import Geometry, StructureSet
from SOARSSegmentationLib.scene.contents import Contents
from SOARSSegmentationLib.scene.grids import grid_of
from SOARSSegmentationLib.scene.label_maps import no_voxels

ORGANS = {
    "Brainstem": np.s_[5:12, 5:12, 5:12],
    "Parotid_L": np.s_[5:12, 5:12, 12:20],
    "Eye_L": np.s_[2:9, 15:25, 10:20],
    "Lens_L": np.s_[4:6, 17:19, 12:14],  # in the eye: another layer
}


def contents_of(desk: ReadingDesk, known: StructureSet) -> Contents:
    ids = {organ: desk.segment_id(organ) for organ in ORGANS}
    return Contents(desk.segmentation, desk.volume, ids, {organ: known.crop(organ) for organ in ORGANS})


def test_the_ct_grid_is_the_same_in_slicer_and_in_the_core() -> None:
    geometry = Geometry(
        (7, 6, 5), (0.7, 1.1, 2.5), (3.0, -4.0, 5.0), (0.0, -1.0, 0.0, 1.0, 0.0, 0.0, 0.0, 0.0, 1.0)
    )
    desk = ReadingDesk(StructureSet(geometry))
    assert grid_of(desk.volume).same_as(geometry)


def test_untouched_organs_are_those_that_are_known() -> None:
    structures = blocks(ORGANS)
    assert contents_of(ReadingDesk(structures), structures).refresh() == set()


def test_organs_that_were_not_known_are_read() -> None:
    structures = blocks(ORGANS)
    desk = ReadingDesk(structures)
    contents = Contents(
        desk.segmentation,
        desk.volume,
        {o: desk.segment_id(o) for o in ORGANS},
        dict.fromkeys(ORGANS, no_voxels()),
    )
    assert contents.refresh() == set(ORGANS)
    for organ in ORGANS:
        assert contents.mask(organ).equals(structures.crop(organ))


def test_a_neighbour_that_lost_voxels_is_found() -> None:
    structures = blocks(ORGANS)
    desk = ReadingDesk(structures)
    contents = contents_of(desk, structures)
    desk.turn_to("Brainstem")
    desk.paint(np.s_[6:8, 6:8, 10:14])
    assert contents.refresh() == {"Brainstem", "Parotid_L"}
    assert contents.mask("Parotid_L").voxels == 7 * 7 * 8 - 2 * 2 * 2
    assert contents.refresh() == set()


@pytest.mark.parametrize("seed", range(6))
def test_a_long_random_session_is_followed_voxel_by_voxel(seed: int) -> None:
    chance = random.Random(seed)
    structures = blocks(ORGANS)
    desk = ReadingDesk(structures)
    contents = contents_of(desk, structures)
    before = {organ: structures.full(organ) for organ in ORGANS}
    for _ in range(40):
        for _ in range(chance.randrange(1, 4)):
            desk.turn_to(chance.choice(list(ORGANS)))
            desk.editor.SetOverwriteMode(chance.randrange(3))  # all, visible, none
            act = chance.random()
            low = [chance.randrange(n - 6) for n in (20, 30, 40)]
            box = tuple(slice(a, a + chance.randrange(1, 7)) for a in low)
            if act < 0.6:
                desk.paint(box)
            elif act < 0.8:
                desk.paint(box, erase=True)
            elif act < 0.95:
                desk.undo()
            else:
                desk.redo()
        now = {organ: desk.voxels(organ) for organ in ORGANS}
        changed = contents.refresh(thorough=chance.random() < 0.5)
        assert changed == {organ for organ in ORGANS if (now[organ] != before[organ]).any()}
        for organ in ORGANS:
            mask = contents.mask(organ)
            assert np.array_equal(mask.box((0, 0, 0), (20, 30, 40)), now[organ])
        before = now


def test_a_removed_segment_is_an_empty_organ() -> None:
    structures = blocks(ORGANS)
    desk = ReadingDesk(structures)
    contents = contents_of(desk, structures)
    desk.segmentation.GetSegmentation().RemoveSegment(desk.segment_id("Eye_L"))
    assert contents.refresh() == {"Eye_L"}
    assert contents.mask("Eye_L").is_empty


def test_what_lies_beyond_the_ct_is_no_change() -> None:
    """Contours of a whole CT, reviewed on a part of it that was cropped along its voxels."""
    desk = ReadingDesk(blocks(ORGANS))
    part = Geometry((31, 22, 13), (1.0, 1.5, 2.0), (-1.0, -11.0, 19.0))  # begins at the voxel (7, 6, 9)
    desk.volume = desk.add_volume(part)
    known = StructureSet(part)
    for organ, box in (("Brainstem", np.s_[0:5, 0:6, 0:3]), ("Parotid_L", np.s_[0:5, 0:6, 3:11])):
        full = np.zeros(part.shape, dtype=bool)
        full[box] = True
        known.add(organ, full)
    ids = {organ: desk.segment_id(organ) for organ in known}
    contents = Contents(desk.segmentation, desk.volume, ids, {organ: known.crop(organ) for organ in known})
    assert contents.refresh() == set()
    desk.turn_to("Brainstem")
    desk.paint(np.s_[7:9, 6:8, 9:10], erase=True)  # of the whole grid: 4 voxels within the part
    assert contents.refresh() == {"Brainstem"}
    assert contents.mask("Brainstem").voxels == 5 * 6 * 3 - 4


def test_label_maps_off_the_ct_grid_are_refused_with_the_way_out() -> None:
    structures = blocks(ORGANS)
    desk = ReadingDesk(structures)
    contents = contents_of(desk, structures)
    shifted = vtk.vtkMatrix4x4()
    desk.volume.GetIJKToRASMatrix(shifted)
    shifted.SetElement(0, 3, shifted.GetElement(0, 3) + 0.4)
    desk.volume.SetIJKToRASMatrix(shifted)
    with pytest.raises(InputError, match="resample it to the CT's geometry"):
        contents.refresh()
