"""Volumes and structures go into Slicer's scene and come out of it voxel by voxel."""

from __future__ import annotations

import shutil
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import SimpleITK as sitk

pytest.importorskip("slicer", reason="slicer-core is not installed")
import slicer
import vtk
from mrml_core import CoreDesk, matrix_of
from reading_desk import blocks

from soars.catalogue import CATALOGUE, SOARS42
from soars.catalogue.slicer_terms import terminology_entry
from soars.errors import InputError
from soars.formats.segnrrd import read_seg_nrrd, write_seg_nrrd
from soars.structures import Box, Geometry, StructureSet
from SOARSSegmentationLib.scene.building import add_segmentation, empty_segmentation
from SOARSSegmentationLib.scene.ct import check_same_patient, ct_file, dicom_files
from SOARSSegmentationLib.scene.reading import organ_mask, structures_of, volume_of
from SOARSSegmentationLib.scene.seg_file import write_by_slicer
from SOARSSegmentationLib.scene.segments import organ_of, segment_ids, tag_of

ORGANS = {
    "Brainstem": np.s_[5:12, 5:12, 5:12],
    "Parotid_L": np.s_[5:12, 5:12, 12:20],
    "Eye_L": np.s_[2:9, 15:25, 10:20],
    "Lens_L": np.s_[4:6, 17:19, 12:14],  # in the eye: another layer
    "Pituitary": np.s_[0:0, 0:0, 0:0],
}
# Turned, not along the axes, left-handed in RAS: nothing that could hide a mistake in the geometry.
OBLIQUE = Geometry(
    (14, 12, 10),
    (0.9, 1.1, 2.5),
    (13.0, -40.5, 700.25),
    (0.8, -0.6, 0.0, 0.6, 0.8, 0.0, 0.0, 0.0, 1.0),
)


def random_structures(geometry: Geometry, seed: int = 0) -> StructureSet:
    random = np.random.default_rng(seed)
    structures = StructureSet(geometry)
    for name in ("Brainstem", "Eye_L", "Lens_L", "Cochlea_R"):  # at random, so all of them overlap
        structures.add(name, random.random(geometry.shape) < 0.2)
    return structures


def same(one: StructureSet, other: StructureSet) -> bool:
    return one.names == other.names and all(one.crop(name).equals(other.crop(name)) for name in one)


# --- the CT ------------------------------------------------------------------------------------------------------
def test_a_ct_is_written_as_it_is_in_the_scene(core: Any, tmp_path: Path) -> None:
    hu = np.random.default_rng(1).integers(-1000, 2000, OBLIQUE.shape).astype(np.int16)
    file = ct_file(core.add_ct(OBLIQUE, hu), tmp_path)
    image = sitk.ReadImage(str(file))
    assert np.array_equal(sitk.GetArrayFromImage(image), hu)
    assert Geometry.of(image).same_as(OBLIQUE, 1e-6)


def test_what_is_no_ct_is_refused(core: Any, tmp_path: Path) -> None:
    ct = core.add_ct(OBLIQUE)
    empty = core.scene.AddNewNodeByClass("vtkMRMLScalarVolumeNode", "nothing")
    labels = core.scene.AddNewNodeByClass("vtkMRMLLabelMapVolumeNode", "labels")
    labels.SetAndObserveImageData(ct.GetImageData())
    colour = core.scene.AddNewNodeByClass("vtkMRMLVectorVolumeNode", "photo")
    rgb = vtk.vtkImageData()
    rgb.SetDimensions(3, 3, 3)
    rgb.AllocateScalars(vtk.VTK_UNSIGNED_CHAR, 3)
    colour.SetAndObserveImageData(rgb)
    for node, words in (
        (None, "no CT is chosen"),
        (empty, "holds no image"),
        (labels, "is a label map"),
        (colour, "is not a CT"),
    ):
        with pytest.raises(InputError, match=words):
            ct_file(node, tmp_path)
    moved = core.scene.AddNewNodeByClass("vtkMRMLLinearTransformNode", "moved")
    ct.SetAndObserveTransformNodeID(moved.GetID())
    with pytest.raises(InputError, match="harden"):
        ct_file(ct, tmp_path)
    assert not list(tmp_path.iterdir())


def test_a_folder_that_takes_no_file_is_said(core: Any, tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(InputError, match="could not be written"):
        ct_file(core.add_ct(OBLIQUE), tmp_path / "file")


def test_a_full_disk_is_said_before_writing(
    core: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(shutil, "disk_usage", lambda folder: SimpleNamespace(free=1000))
    with pytest.raises(InputError, match="full"):
        ct_file(core.add_ct(OBLIQUE), tmp_path)


def test_an_mr_of_another_patient_is_refused(core: Any) -> None:
    """By the Patient IDs of the patients in the Data module, where both have one."""
    ct, mr = (core.add_ct(OBLIQUE, name=name) for name in ("CT", "T1"))
    loose = core.add_ct(OBLIQUE, name="loose", study=False)
    hierarchy = core.subject_hierarchy

    def call(node: Any, patient: str) -> None:
        item = hierarchy.GetItemParent(hierarchy.GetItemParent(hierarchy.GetItemByDataNode(node)))
        hierarchy.SetItemAttribute(item, "DICOM.PatientID", patient)

    check_same_patient(ct, mr)  # nothing is known of either
    call(ct, "P17")
    check_same_patient(ct, mr)
    call(mr, "P17 ")
    check_same_patient(ct, mr)
    check_same_patient(ct, loose)
    call(mr, "P18")
    with pytest.raises(InputError, match="^T1 is of another patient than CT: their Patient IDs differ$"):
        check_same_patient(ct, mr)


def test_dicom_files_are_those_of_the_database_or_none(core: Any, tmp_path: Path) -> None:
    ct = core.add_ct(OBLIQUE)
    assert dicom_files(ct) == []
    files = {uid: str(tmp_path / uid) for uid in ("1.2.3", "1.2.4")}
    for file in files.values():
        Path(file).touch()
    ct.SetAttribute("DICOM.instanceUIDs", "1.2.3 1.2.4")
    assert dicom_files(ct, lambda uid: files.get(uid, "")) == list(files.values())
    ct.SetAttribute("DICOM.instanceUIDs", "1.2.3 1.2.5")
    assert dicom_files(ct, lambda uid: files.get(uid, "")) == []  # half a CT is none
    Path(files["1.2.3"]).unlink()
    ct.SetAttribute("DICOM.instanceUIDs", "1.2.3")
    assert dicom_files(ct, lambda uid: files.get(uid, "")) == []


# --- there and back ----------------------------------------------------------------------------------------------
@pytest.mark.parametrize(
    "structures", [blocks(ORGANS), random_structures(OBLIQUE)], ids=["blocks", "oblique"]
)
def test_structures_come_back_voxel_by_voxel(core: Any, structures: StructureSet) -> None:
    ct = core.add_ct(structures.geometry)
    node = add_segmentation(core.scene, ct, structures, "organs")
    back = structures_of(node)
    assert same(back, structures)
    assert back.geometry.same_as(structures.geometry, 1e-6)
    for name, segment_id in segment_ids(node).items():
        assert organ_mask(node, segment_id).equals(structures.crop(name))


def test_slicer_places_the_voxels_where_the_core_does(core: Any) -> None:
    structures = random_structures(OBLIQUE)
    node = add_segmentation(core.scene, core.add_ct(OBLIQUE), structures, "organs")
    image = slicer.vtkOrientedImageData()
    node.GetBinaryLabelmapRepresentation("Brainstem", image)  # Slicer's own way out
    to_world = vtk.vtkMatrix4x4()
    image.GetImageToWorldMatrix(to_world)
    ras = set()
    x0, x1, y0, y1, z0, z1 = image.GetExtent()
    for x in range(x0, x1 + 1):
        for y in range(y0, y1 + 1):
            for z in range(z0, z1 + 1):
                if image.GetScalarComponentAsDouble(x, y, z, 0):
                    ras.add(tuple(np.round(to_world.MultiplyPoint((x, y, z, 1))[:3], 3).tolist()))
    lps = OBLIQUE.to_physical(np.argwhere(structures.full("Brainstem")))
    assert ras == set(map(tuple, np.round(lps * (-1, -1, 1), 3).tolist()))


def test_some_organs_may_be_asked_for(core: Any) -> None:
    structures = blocks(ORGANS)
    node = add_segmentation(core.scene, core.add_ct(structures.geometry), structures, "organs")
    some = structures_of(node, ["Lens_L", "Cerebellum"])
    assert some.names == ("Lens_L", "Cerebellum")
    assert some.crop("Lens_L").equals(structures.crop("Lens_L")) and some.is_empty("Cerebellum")


def test_a_file_comes_in_like_structures(core: Any, tmp_path: Path) -> None:
    structures = random_structures(OBLIQUE)
    write_seg_nrrd(structures, tmp_path / "organs.seg.nrrd")
    node = add_segmentation(core.scene, core.add_ct(OBLIQUE), tmp_path / "organs.seg.nrrd", "organs")
    assert same(structures_of(node), structures)


def test_a_file_that_cannot_be_read_leaves_the_scene_as_it_was(core: Any, tmp_path: Path) -> None:
    ct = core.add_ct(OBLIQUE)
    before = core.scene.GetNumberOfNodes()
    (tmp_path / "organs.seg.nrrd").write_bytes(b"NRRD0004\ntype: short\n")
    with pytest.raises(InputError, match="organs.seg.nrrd"):
        add_segmentation(core.scene, ct, tmp_path / "organs.seg.nrrd", "organs")
    assert core.scene.GetNumberOfNodes() == before


def test_structures_of_another_grid_come_onto_the_cts(core: Any) -> None:
    grid = Geometry((40, 40, 40), (1.0, 1.0, 1.0), (0.0, 0.0, 0.0))
    coarse = Geometry((20, 20, 20), (2.0, 2.0, 2.0), (0.5, 0.5, 0.5))
    structures = StructureSet(coarse)
    structures.add("Brainstem", np.pad(np.ones((6, 6, 6), bool), 7))
    node = add_segmentation(core.scene, core.add_ct(grid), structures, "organs")
    back = structures_of(node)
    assert back.geometry.same_as(grid, 1e-6)
    assert back.crop("Brainstem").bounds == Box((14, 14, 14), (26, 26, 26))


def test_a_segment_on_other_voxels_is_resampled_as_slicer_does(core: Any) -> None:
    structures = blocks(ORGANS)
    ct = core.add_ct(structures.geometry)
    node = add_segmentation(core.scene, ct, structures, "organs")
    finer = Geometry((80, 60, 40), (0.5, 0.75, 1.0), (-10.25, -20.375, 4.5))
    fine = StructureSet(finer)
    fine.add("Cerebellum", np.pad(np.ones((8, 10, 12), bool), ((2, 30), (20, 30), (40, 28))))
    other = add_segmentation(core.scene, core.add_ct(finer, name="finer"), fine, "fine")
    node.GetSegmentation().CopySegmentFromSegmentation(other.GetSegmentation(), "Cerebellum")
    back = structures_of(node)
    assert back.geometry.same_as(structures.geometry)
    assert back.crop("Cerebellum").bounds == Box((1, 10, 20), (5, 15, 26))
    assert same(back.subset(structures.names), structures)


def test_of_a_segment_on_other_voxels_what_lies_beyond_the_ct_is_left_out(core: Any) -> None:
    """Contours of a whole CT, shown on a part of it with larger voxels."""
    whole = Geometry((60, 60, 40), (1.0, 1.0, 2.0), (0.0, 0.0, 0.0))
    structures = StructureSet(whole)
    for name, box in (("SpinalCord", np.s_[:, 20:40, 20:40]), ("Eye_L", np.s_[0:3, 0:3, 0:3])):
        full = np.zeros(whole.shape, bool)
        full[box] = True
        structures.add(name, full)
    node = add_segmentation(core.scene, core.add_ct(whole, name="whole"), structures, "organs")
    part = core.add_ct(Geometry((10, 10, 5), (2.0, 2.0, 4.0), (20.5, 20.5, 21.0)), name="part")
    back = structures_of(node, None, part)
    assert back.crop("SpinalCord").bounds == Box((0, 0, 0), (5, 10, 10))  # its voxels' centres reach 39 mm
    assert back.is_empty("Eye_L")
    elsewhere = core.add_ct(Geometry((10, 10, 5), (2.0, 2.0, 4.0), (500.0, 500.0, 500.0)), name="elsewhere")
    assert structures_of(node, None, elsewhere).is_empty("SpinalCord")


# --- what a segmentation says ------------------------------------------------------------------------------------
def test_all_42_have_names_colours_and_terminology(core: Any) -> None:
    structures = StructureSet(Geometry((42, 5, 5), (1.0, 1.0, 1.0), (0.0, 0.0, 0.0)))
    for index, name in enumerate(SOARS42):
        full = np.zeros((5, 5, 42), bool)
        full[:, :, index] = True
        structures.add(name, full)
    ct = core.add_ct(structures.geometry)
    node = add_segmentation(core.scene, ct, structures, "organs", tags={"SOARS.bundle": "tiny 1"})
    segmentation = node.GetSegmentation()
    assert segmentation.GetNumberOfSegments() == 42 and segmentation.GetNumberOfLayers() == 1
    for index, name in enumerate(SOARS42):
        segment, oar = segmentation.GetNthSegment(index), CATALOGUE[name]
        assert (segment.GetName(), segmentation.GetNthSegmentID(index)) == (name, name)
        assert [round(255 * c) for c in segment.GetColor()] == list(oar.colour)
        assert tag_of(segment, segment.GetTerminologyEntryTagName()) == terminology_entry(oar)
        assert tag_of(segment, "SOARS.bundle") == "tiny 1"
        assert tag_of(segment, "SOARS.Label") == oar.label
        assert organ_of(segment) == name


def test_it_refers_to_its_ct_and_lies_in_its_study(core: Any) -> None:
    structures = blocks(ORGANS)
    ct = core.add_ct(structures.geometry)
    node = add_segmentation(core.scene, ct, structures, "organs")
    assert volume_of(node) is ct
    hierarchy = core.subject_hierarchy
    item, ct_item = hierarchy.GetItemByDataNode(node), hierarchy.GetItemByDataNode(ct)
    assert hierarchy.GetItemName(hierarchy.GetItemParent(item)) == "Study"
    assert hierarchy.GetItemParent(item) == hierarchy.GetItemParent(ct_item)
    assert add_segmentation(core.scene, ct, structures, "organs").GetName() != node.GetName()


def test_an_organ_is_known_after_it_was_renamed_and_by_other_spellings(core: Any) -> None:
    structures = blocks(ORGANS)
    node = add_segmentation(core.scene, core.add_ct(structures.geometry), structures, "organs")
    segmentation = node.GetSegmentation()
    segmentation.GetSegment("Eye_L").SetName("the one on the left")
    assert organ_of(segmentation.GetSegment("Eye_L")) == "Eye_L"
    segmentation.GetSegment("Eye_L").SetName("Right eye")
    assert organ_of(segmentation.GetSegment("Eye_L")) == "Eye_R"
    for name, organ in (("LeftParotid", "Parotid_L"), ("GTV", None), ("Brain Stem", "Brainstem"), ("", None)):
        segment = slicer.vtkSegment()
        segment.SetName(name)
        assert organ_of(segment) == organ


def test_two_segments_of_one_organ_keep_apart(core: Any) -> None:
    structures = blocks(ORGANS)
    node = add_segmentation(core.scene, core.add_ct(structures.geometry), structures, "organs")
    node.GetSegmentation().AddEmptySegment("another", "Left eye")
    node.GetSegmentation().AddEmptySegment("tumour", "GTV")
    assert segment_ids(node)["Eye_L"] == "Eye_L"
    assert structures_of(node).names == (*ORGANS, "Left eye", "GTV")


# --- drawing and saving ------------------------------------------------------------------------------------------
def test_organs_to_draw_from_nothing_can_be_drawn(core: Any) -> None:
    geometry = blocks(ORGANS).geometry
    ct = core.add_ct(geometry)
    node = empty_segmentation(core.scene, ct, ORGANS, "from scratch", tags={"SOARS.arm": "scratch"})
    assert structures_of(node).names == tuple(ORGANS)
    assert all(structures_of(node).is_empty(name) for name in ORGANS)
    desk = CoreDesk(core, ct, node)
    for organ in ("Eye_L", "Brainstem"):
        desk.turn_to(organ)
        desk.paint(ORGANS[organ])
    back = structures_of(node)
    assert back.crop("Eye_L").bounds == Box((2, 15, 10), (9, 25, 20))
    assert back.crop("Brainstem").bounds == Box((5, 5, 5), (12, 12, 12))
    assert back.is_empty("Lens_L")
    desk.close()


def test_organs_can_be_drawn_beyond_the_label_map_they_came_in(core: Any) -> None:
    structures = blocks(ORGANS)
    ct = core.add_ct(structures.geometry)
    node = add_segmentation(core.scene, ct, structures, "organs")
    desk = CoreDesk(core, ct, node)
    for organ in ("Pituitary", "Brainstem"):  # one that had no voxels, one that had
        desk.turn_to(organ)
        desk.paint(np.s_[15:20, 25:30, 30:40])
        back = structures_of(node)
        assert back.crop(organ).stop == (20, 30, 40)
        assert back.crop("Lens_L").equals(structures.crop("Lens_L"))
    desk.close()


def test_slicers_writer_keeps_everything_and_changes_nothing(core: Any, tmp_path: Path) -> None:
    structures = blocks(ORGANS)
    node = add_segmentation(core.scene, core.add_ct(structures.geometry), structures, "organs")
    node.GetSegmentation().GetSegment("Eye_L").SetTag("reviewed", "yes")
    before = [node.GetSegmentation().GetNthSegment(i).GetRepresentation("Binary labelmap") for i in range(5)]
    write_by_slicer(node, tmp_path / "new" / "organs.seg.nrrd")
    after = [node.GetSegmentation().GetNthSegment(i).GetRepresentation("Binary labelmap") for i in range(5)]
    assert before == after
    back = read_seg_nrrd(tmp_path / "new" / "organs.seg.nrrd")
    assert same(back.resample(structures.geometry, nearest=True), structures)
    assert back.info["Eye_L"].tags["reviewed"] == "yes"
    assert [path.name for path in (tmp_path / "new").iterdir()] == ["organs.seg.nrrd"]


def test_a_file_that_cannot_be_written_is_said(core: Any, tmp_path: Path) -> None:
    structures = blocks(ORGANS)
    node = add_segmentation(core.scene, core.add_ct(structures.geometry), structures, "organs")
    (tmp_path / "file").touch()
    with pytest.raises(InputError, match="cannot be written"):
        write_by_slicer(node, tmp_path / "file" / "organs.seg.nrrd")


def test_what_cannot_be_read_is_refused_with_what_to_do(core: Any) -> None:
    structures = blocks(ORGANS)
    ct = core.add_ct(structures.geometry)
    node = add_segmentation(core.scene, ct, structures, "organs")
    moved = core.scene.AddNewNodeByClass("vtkMRMLLinearTransformNode", "moved")
    moved.SetMatrixTransformToParent(matrix_of(np.eye(4)))
    node.SetAndObserveTransformNodeID(moved.GetID())
    with pytest.raises(InputError, match="harden"):
        structures_of(node)
    node.SetAndObserveTransformNodeID(None)
    core.scene.RemoveNode(ct)  # what it remembers of the grid is enough
    assert same(structures_of(node), structures)
    with pytest.raises(InputError, match="no segment"):
        organ_mask(node, "gone")
    node.GetSegmentation().CreateRepresentation("Closed surface")
    node.GetSegmentation().SetSourceRepresentationName("Closed surface")
    with pytest.raises(InputError, match="Segmentations module"):
        structures_of(node)
    with pytest.raises(InputError, match="no segmentation"):
        structures_of(None)


def test_a_node_of_no_known_grid_is_refused(core: Any) -> None:
    node = core.scene.AddNewNodeByClass("vtkMRMLSegmentationNode", "stray")
    with pytest.raises(InputError, match="refers to no CT"):
        structures_of(node)
