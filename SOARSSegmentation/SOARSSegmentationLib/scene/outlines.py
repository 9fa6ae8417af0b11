"""The proposal as pale lines in the slice views, in a segmentation of its own that is neither listed nor saved."""

from __future__ import annotations

from typing import Any

import slicer

from soars.errors import InputError
from SOARSSegmentationLib.scene.label_maps import LABEL_MAP, label_map_of
from SOARSSegmentationLib.scene.proposal import Proposal, proposal_of
from SOARSSegmentationLib.scene.segments import ORGAN_TAG, segment_ids

OUTLINE_ATTRIBUTE = "SOARS.outlineOf"


def show_outline(segmentation_node: Any, organ: str, visible: bool, proposal: Proposal | None = None) -> None:
    """Show or hide an organ's proposal as a pale line in the slice views.

    ``proposal`` is that of the segmentation, where it has been read already.
    `InputError` when it is to be shown and there is none.
    """
    outlines = _outlines(segmentation_node)
    if visible:
        if outlines is None:
            outlines = _outlines_node(segmentation_node)
        _draw(segmentation_node, outlines, organ, proposal or proposal_of(segmentation_node))
    elif organ in outlined(segmentation_node):
        outlines.GetSegmentation().RemoveSegment(organ)


def outlined(segmentation_node: Any) -> tuple[str, ...]:
    """Organs whose proposal is shown."""
    outlines = _outlines(segmentation_node)
    if outlines is None:
        return ()
    segmentation = outlines.GetSegmentation()
    return tuple(segmentation.GetNthSegmentID(index) for index in range(segmentation.GetNumberOfSegments()))


def remove_outlines(segmentation_node: Any) -> None:
    """Take all outlines, and the node they are in, out of the scene."""
    outlines = _outlines(segmentation_node)
    if outlines is not None:
        mrml_scene = segmentation_node.GetScene()
        display = outlines.GetDisplayNode()
        if display is not None:
            mrml_scene.RemoveNode(display)
        mrml_scene.RemoveNode(outlines)


def _outlines_node(segmentation_node: Any) -> Any:
    """A second segmentation: not in lists of nodes, not saved, drawn as lines only."""
    mrml_scene = segmentation_node.GetScene()
    node = slicer.vtkMRMLSegmentationNode()
    node.SetName(f"{segmentation_node.GetName()} proposal")
    node.SetHideFromEditors(True)
    node.SetSaveWithScene(False)
    node.SetAttribute(OUTLINE_ATTRIBUTE, segmentation_node.GetID())
    node.GetSegmentation().SetSourceRepresentationName(LABEL_MAP)
    mrml_scene.AddNode(node)
    node.CreateDefaultDisplayNodes()
    display = node.GetDisplayNode()
    if display is not None:
        display.SetSaveWithScene(False)
        display.SetVisibility2DFill(False)
        display.SetVisibility2DOutline(True)
        display.SetVisibility3D(False)
        display.SetSliceIntersectionThickness(2)
    node.SetAndObserveTransformNodeID(segmentation_node.GetTransformNodeID())
    return node


def _outlines(segmentation_node: Any) -> Any:
    """The node of the outlines, or None. A node reference would be saved without its node, and might mean another one
    when the scene is opened again."""
    nodes = segmentation_node.GetScene().GetNodesByClass("vtkMRMLSegmentationNode")
    nodes.UnRegister(None)
    for index in range(nodes.GetNumberOfItems()):
        node = nodes.GetItemAsObject(index)
        if node.GetAttribute(OUTLINE_ATTRIBUTE) == segmentation_node.GetID():
            return node
    return None


def _draw(segmentation_node: Any, outlines: Any, organ: str, known: Proposal | None) -> None:
    if known is None or organ not in known:
        raise InputError(
            f"{segmentation_node.GetName()} keeps no proposal of {organ}: there is nothing to show"
        )
    mask = known.masks[organ]
    segment = slicer.vtkSegment()
    segment.SetName(organ)
    own = segmentation_node.GetSegmentation().GetSegment(segment_ids(segmentation_node)[organ])
    segment.SetColor([(1 + c) / 2 for c in own.GetColor()])
    segment.SetTag(ORGAN_TAG, organ)
    segment.AddRepresentation(LABEL_MAP, label_map_of(known.geometry, mask))
    if organ in outlined(segmentation_node):
        outlines.GetSegmentation().RemoveSegment(organ)
    outlines.GetSegmentation().AddSegment(segment, organ)
