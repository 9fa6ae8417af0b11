"""What a session starts from: the segments of its organs, and the logs that it continues."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from soars.effort.log import never_changes, read_session
from soars.effort.records import Header
from soars.effort.review import OrganReview, review
from soars.errors import InputError
from SOARSSegmentationLib.scene.label_maps import LABEL_MAP
from SOARSSegmentationLib.scene.segments import OrganSegments, segment_ids


def earlier_reviews(logs: list[Path], header: Header, folder: Path, idle_s: float) -> dict[str, OrganReview]:
    """The last state of each organ in the folder's logs, which must be of the same session."""
    if not logs:
        return {}
    earlier = read_session(logs)
    for field in never_changes(earlier.header, header):
        if getattr(earlier.header, field) != getattr(header, field):
            raise InputError(
                f"the folder {folder} holds a session with another {field.replace('_', ' ')}: "
                "it cannot be resumed with this one; choose another folder"
            )
    return review(earlier, idle_s)


def segments_of(segmentation_node: Any, organs: tuple[str, ...]) -> OrganSegments:
    """The segment of each of the organs that has one."""
    segmentation = segmentation_node.GetSegmentation()
    if segmentation.GetNumberOfSegments() and segmentation.GetSourceRepresentationName() != LABEL_MAP:
        raise InputError(
            f"the segmentation {segmentation_node.GetName()} is made of "
            f"{segmentation.GetSourceRepresentationName().lower()}s, which have no voxels to compare: make "
            "Binary labelmap its source representation in the Segmentations module"
        )
    found = {organ: its for organ, its in segment_ids(segmentation_node).items() if organ in organs}
    if not found:
        raise InputError(
            f"the segmentation {segmentation_node.GetName()} has none of the session's organs: choose the "
            "segmentation that was made from the proposal, or make empty organs to draw from nothing"
        )
    return OrganSegments(segmentation_node, found)
