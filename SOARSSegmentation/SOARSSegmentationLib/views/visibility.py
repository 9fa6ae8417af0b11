"""Which organs the views show."""

from __future__ import annotations

from typing import Any


def is_visible(segmentation_node: Any, segment_id: str) -> bool:
    display = segmentation_node.GetDisplayNode()
    return display is not None and bool(display.GetSegmentVisibility(segment_id))


def set_visible(segmentation_node: Any, segment_id: str, on: bool) -> None:
    display = segmentation_node.GetDisplayNode()
    if display is not None:
        display.SetSegmentVisibility(segment_id, on)


def show_only(segmentation_node: Any, segment_id: str) -> None:
    """Show this segment and no other, in one step."""
    display = segmentation_node.GetDisplayNode()
    if display is None:
        return
    was_modifying = display.StartModify()
    display.SetAllSegmentsVisibility(False)
    display.SetSegmentVisibility(segment_id, True)
    display.EndModify(was_modifying)


def show_all(segmentation_node: Any) -> None:
    display = segmentation_node.GetDisplayNode()
    if display is not None:
        display.SetAllSegmentsVisibility(True)
