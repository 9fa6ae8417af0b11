"""Reads a segmentation's organs from the scene, on their CT's grid.

Voxels are moved as whole arrays, never through ``slicer.util.arrayFromSegmentBinaryLabelmap``, which takes a third of a
second per organ and leaves a volume behind each time.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING, Any

import slicer

from soars.errors import InputError
from SOARSSegmentationLib.scene.grids import geometry_of_image, grid_of
from SOARSSegmentationLib.scene.label_maps import LABEL_MAP, masks_of, no_voxels
from SOARSSegmentationLib.scene.segments import segment_ids

if TYPE_CHECKING:
    from soars.structures import Geometry, Mask, StructureSet


def volume_of(segmentation_node: Any) -> Any:
    """The CT that a segmentation refers to, or None."""
    return segmentation_node.GetNodeReference(segmentation_node.GetReferenceImageGeometryReferenceRole())


def geometry_of(segmentation_node: Any, volume_node: Any = None) -> Geometry:
    """The grid (LPS) of a segmentation's organs: that of its CT, or the one it remembers.

    `InputError` when it neither refers to a CT nor remembers its grid.
    """
    volume = volume_node or volume_of(segmentation_node)
    if volume is not None and volume.GetImageData() is not None:
        return grid_of(volume)
    segmentation = segmentation_node.GetSegmentation()
    converter = slicer.vtkSegmentationConverter
    text = segmentation.GetConversionParameter(converter.GetReferenceImageGeometryParameterName())
    image = slicer.vtkOrientedImageData()
    if not text or not converter.DeserializeImageGeometry(text, image, False):
        raise InputError(
            f"the segmentation {segmentation_node.GetName()} refers to no CT: choose the CT it was made on"
        )
    return geometry_of_image(image)


def structures_of(
    segmentation_node: Any, organs: Iterable[str] | None = None, volume_node: Any = None
) -> StructureSet:
    """A segmentation's organs on its CT's grid, in the segmentation's order, with their colours.

    ``organs``: these only, without voxels where there is no such segment; None: all segments, those that are no organ
    under their own names. Label maps on the CT's grid are taken as they are, others resampled to the nearest voxel.
    `InputError` when a segment is not made of voxels, or the segmentation is under a transform.
    """
    from soars.structures import StructureInfo, StructureSet
    from soars.structures.model import as_colour

    check_readable(segmentation_node)
    geometry = geometry_of(segmentation_node, volume_node)
    segmentation = segmentation_node.GetSegmentation()
    ids = segment_ids(segmentation_node)
    chosen: dict[str, str | None]
    if organs is not None:
        chosen = {organ: ids.get(organ) for organ in organs}
    else:
        name_of = {segment_id: organ for organ, segment_id in ids.items()}
        chosen = {}
        for index in range(segmentation.GetNumberOfSegments()):
            segment_id = segmentation.GetNthSegmentID(index)
            chosen[_free(name_of.get(segment_id) or segmentation.GetNthSegment(index).GetName(), chosen)] = (
                segment_id
            )
    masks = masks_of(
        segmentation_node.GetSegmentation(),
        [segment_id for segment_id in chosen.values() if segment_id],
        geometry,
    )
    out = StructureSet(geometry)
    for name, segment_id in chosen.items():
        out.add_mask(name, masks.get(segment_id) or no_voxels() if segment_id else no_voxels())
        if segment_id:
            colour = segmentation.GetSegment(segment_id).GetColor()
            out.info[name] = StructureInfo(colour=as_colour([round(255 * c) for c in colour]))
    return out


def organ_mask(segmentation_node: Any, segment_id: str, volume_node: Any = None) -> Mask:
    """One segment's voxels on its CT's grid; errors as of `structures_of`."""
    check_readable(segmentation_node)
    if segmentation_node.GetSegmentation().GetSegment(segment_id) is None:
        raise InputError(
            f"the segmentation {segmentation_node.GetName()} has no segment {segment_id!r} any more"
        )
    return masks_of(
        segmentation_node.GetSegmentation(), [segment_id], geometry_of(segmentation_node, volume_node)
    )[segment_id]


def check_readable(segmentation_node: Any) -> None:
    if segmentation_node is None:
        raise InputError("no segmentation is chosen")
    name, segmentation = segmentation_node.GetName(), segmentation_node.GetSegmentation()
    if segmentation.GetNumberOfSegments() and segmentation.GetSourceRepresentationName() != LABEL_MAP:
        kind = segmentation.GetSourceRepresentationName().lower()
        raise InputError(
            f"the segmentation {name} is made of {kind}s: make Binary labelmap its source representation in the "
            "Segmentations module"
        )
    volume = volume_of(segmentation_node)
    transform = segmentation_node.GetParentTransformNode()
    if transform is not (volume.GetParentTransformNode() if volume is not None else None):
        raise InputError(
            f"the segmentation {name} is under a transform of its own: harden it first, in the Transforms module"
        )


def _free(name: str, taken: Iterable[str]) -> str:
    """A name that is not taken yet: a segmentation may have two segments with the same name."""
    taken, number, free = set(taken), 1, name
    while free in taken:
        number += 1
        free = f"{name}_{number}"
    return free
