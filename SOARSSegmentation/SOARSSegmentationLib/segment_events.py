"""Edits and undos, recognised from the events of a segmentation.

What Slicer sends (seen on its core, 5.11): an edit sends SourceRepresentationModified with the segment's ID. When the
segment must first be parted from a label map that it shares, one without an ID goes before, and where nobody names the
segment that is all. RepresentationModified also comes for closed surfaces, and for a neighbour in another label map
that lost voxels. Renaming, a tag or a status sends SegmentModified with the ID. An undo or redo sends nothing but
SegmentModified, twice for every segment in turn, and leaves other label maps behind.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from typing import Any

import vtk

from SOARSSegmentationLib.contents import LABEL_MAP


class SegmentEvents:
    """Observes a ``vtkSegmentation`` until `stop`; calls ``on_edit`` with the segment's ID (None: not told which) and
    ``on_restore`` for an undo or redo."""

    def __init__(
        self, segmentation: Any, on_edit: Callable[[str | None], None], on_restore: Callable[[], None]
    ) -> None:
        self._segmentation = segmentation
        self._on_edit = on_edit
        self._on_restore = on_restore
        self._seen: dict[str, tuple[str, int]] = {}
        self._round: Counter[str] = Counter()
        self._unnamed = False
        self._named_since: str | None = None
        self._look()
        self._tags = [
            segmentation.AddObserver(event, _with_segment_id(callback))
            for event, callback in (
                (segmentation.SourceRepresentationModified, self._source_modified),
                (segmentation.RepresentationModified, self._representation_modified),
                (segmentation.SegmentModified, self._segment_modified),
                (segmentation.SegmentAdded, self._segments_changed),
                (segmentation.SegmentRemoved, self._segments_changed),
            )
        ]

    def stop(self) -> None:
        for tag in self._tags:
            self._segmentation.RemoveObserver(tag)
        self._tags = []

    def flush(self) -> None:
        """Make up one's mind about what is left: to be called now and then, and when an answer is needed."""
        if self._unnamed:
            self._unnamed = False
            if self._named_since is not None or self._look():
                self._on_edit(self._named_since)
        if self._round:
            whole = len(self._round) == self._segmentation.GetNumberOfSegments()
            self._round.clear()
            if self._look() and whole:
                self._on_restore()

    def _source_modified(self, segment_id: str | None) -> None:
        self._round.clear()
        if segment_id is None:
            self._unnamed, self._named_since = True, None
        elif self._look(segment_id):
            self._unnamed = False
            self._on_edit(segment_id)

    def _representation_modified(self, segment_id: str | None) -> None:
        self._round.clear()
        if segment_id is not None and self._look(segment_id) and self._unnamed:
            self._named_since = segment_id

    def _segments_changed(self, segment_id: str | None) -> None:
        self._round.clear()
        self._look()

    def _segment_modified(self, segment_id: str | None) -> None:
        if segment_id is None:
            return
        self._round[segment_id] += 1
        # The first time a segment has no label map for a moment, so the second counts.
        if self._round[segment_id] < 2 or len(self._round) < self._segmentation.GetNumberOfSegments():
            return
        if min(self._round.values()) >= 2:
            self._round.clear()
            if self._look():
                self._on_restore()

    def _look(self, segment_id: str | None = None) -> bool:
        """Remember every segment's label map; whether that of the segment, or of any, is not the one seen before."""
        now = {}
        for index in range(self._segmentation.GetNumberOfSegments()):
            image = self._segmentation.GetNthSegment(index).GetRepresentation(LABEL_MAP)
            if image is not None:
                now[self._segmentation.GetNthSegmentID(index)] = (
                    image.GetAddressAsString("vtkObject"),
                    image.GetMTime(),
                )
        before, self._seen = self._seen, now
        if segment_id is not None:
            return now.get(segment_id) != before.get(segment_id)
        return now != before


def _with_segment_id(callback: Callable[[str | None], None]) -> Callable[..., None]:
    def observer(caller: Any, event: str, segment_id: str | None = None) -> None:
        callback(segment_id)

    observer.CallDataType = vtk.VTK_STRING  # type: ignore[attr-defined]
    return observer
