"""Adds structures to the scene as a segmentation beside its CT.

A segmentation made here has one segment per organ: its ID and name are the organ's name in the catalogue, the tag
"SOARS.organ" repeats the name in case somebody gives the segment one that is no organ's, and organs that do not overlap
share a label map, as in Slicer's own segmentations. Label maps are cropped to the organs in them.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import slicer

from SOARSSegmentationLib.scene.ct import check_volume
from SOARSSegmentationLib.scene.grids import grid_of
from SOARSSegmentationLib.scene.label_maps import LABEL_MAP, empty_label_map, voxels_of
from SOARSSegmentationLib.scene.segments import describe_segment

if TYPE_CHECKING:
    from soars.structures import StructureSet


def add_segmentation(
    scene: Any,
    volume_node: Any,
    structures: StructureSet | Path | str,
    name: str,
    *,
    tags: Mapping[str, str] | None = None,
) -> Any:
    """Add structures (or those of a .seg.nrrd file) to the scene; returns the ``vtkMRMLSegmentationNode``.

    They are put on the CT's grid, beside it in the subject hierarchy, and refer to it. ``tags`` is put on every
    segment, and so is what ``structures.info`` holds as tags. Organs get the catalogue's colour and terminology, other
    structures their own. `InputError` when a file cannot be read; the scene is then as it was.
    """
    check_volume(volume_node)
    found = _read(Path(structures)) if isinstance(structures, (str, Path)) else structures
    segmentation = _segmentation_of(on_grid_of(found, volume_node), tags or {})
    return _into_scene(scene, volume_node, segmentation, name)


def empty_segmentation(
    scene: Any,
    volume_node: Any,
    organs: Iterable[str],
    name: str,
    *,
    tags: Mapping[str, str] | None = None,
) -> Any:
    """A segmentation of the organs, all empty, for contouring from scratch."""
    check_volume(volume_node)
    segmentation = slicer.vtkSegmentation()
    segmentation.SetSourceRepresentationName(LABEL_MAP)
    for organ in organs:
        segmentation.AddEmptySegment(organ, organ)
        describe_segment(segmentation.GetSegment(organ), organ, None, tags or {})
    return _into_scene(scene, volume_node, segmentation, name)


def remove_segmentation(segmentation_node: Any) -> None:
    """Take a segmentation out of its scene, with what only it uses."""
    mrml_scene = segmentation_node.GetScene()
    hierarchy = slicer.vtkMRMLSubjectHierarchyNode.GetSubjectHierarchyNode(mrml_scene)
    item = hierarchy.GetItemByDataNode(segmentation_node) if hierarchy is not None else 0
    if item:
        hierarchy.RemoveItem(item, False, False)  # the item only
    for node in (segmentation_node.GetDisplayNode(), segmentation_node.GetStorageNode(), segmentation_node):
        if node is not None:
            mrml_scene.RemoveNode(node)


def on_grid_of(structures: StructureSet, volume_node: Any) -> StructureSet:
    """The structures on a CT node's grid; resampled when theirs is another."""
    grid = grid_of(volume_node)
    # Files keep a grid to a few digits: what lies on the CT's voxels takes their exact place.
    return structures.on(grid) if structures.geometry.same_as(grid) else structures.resample(grid)


def _read(path: Path) -> StructureSet:
    from soars.formats.segnrrd import read_seg_nrrd

    return read_seg_nrrd(path)


def _segmentation_of(structures: StructureSet, tags: Mapping[str, str]) -> Any:
    from soars.formats.segnrrd import pack_layers

    segmentation = slicer.vtkSegmentation()
    segmentation.SetSourceRepresentationName(LABEL_MAP)
    layer_of: dict[str, tuple[Any, int]] = {}
    for layer in pack_layers(structures):
        union = structures.union(layer)
        image = empty_label_map(structures.geometry, union.start, union.shape)
        voxels = voxels_of(image) if not union.is_empty else None
        for label, name in enumerate(layer, start=1):
            layer_of[name] = (image, label)
            mask = structures.crop(name)
            if voxels is not None and not mask.is_empty:
                voxels[mask.bounds.slices_in(union.bounds)][mask.array] = label
    for name in structures:
        segment = slicer.vtkSegment()
        image, label = layer_of[name]
        segment.SetLabelValue(label)
        segment.AddRepresentation(LABEL_MAP, image)
        describe_segment(segment, name, structures.info[name], tags)
        segmentation.AddSegment(segment, name)
    return segmentation


def _into_scene(scene: Any, volume_node: Any, segmentation: Any, name: str) -> Any:
    node = slicer.vtkMRMLSegmentationNode()
    node.SetName(scene.GenerateUniqueName(name))
    node.SetAndObserveSegmentation(segmentation)
    scene.AddNode(node)
    try:
        node.SetReferenceImageGeometryParameterFromVolumeNode(volume_node)
        node.CreateDefaultDisplayNodes()
        display = node.GetDisplayNode()
        if display is not None:
            display.SetOpacity2DFill(0.2)  # the CT must remain visible through 42 organs
        _beside(scene, volume_node, node)
    except BaseException:
        remove_segmentation(node)
        raise
    return node


def _beside(scene: Any, volume_node: Any, node: Any) -> None:
    """Put a node into its CT's place in the subject hierarchy: its study, where it has one."""
    hierarchy = slicer.vtkMRMLSubjectHierarchyNode.GetSubjectHierarchyNode(scene)
    if hierarchy is None:
        return
    volume_item = hierarchy.GetItemByDataNode(volume_node)
    if not volume_item:
        return
    parent = hierarchy.GetItemParent(volume_item)
    item = hierarchy.GetItemByDataNode(node)
    if item:
        hierarchy.SetItemParent(item, parent)
    else:
        hierarchy.CreateItem(parent, node)
