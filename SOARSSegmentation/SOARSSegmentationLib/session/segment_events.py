"""Edits and undos, recognised from the events of a segmentation.

What Slicer sends (observed on its core, 5.11): an edit sends SourceRepresentationModified with the segment's ID. When
the segment must first be separated from a shared label map, one without an ID precedes it, and where the code names no
segment that is the only one. RepresentationModified also comes for closed surfaces, and for a neighbour in another
label map that lost voxels. Renaming, setting a tag or a status sends SegmentModified with the ID; so does writing a
file, which may move segments to other label maps. An undo or redo sends nothing but SegmentModified, twice for every
segment in turn, and at the first of the two the segment has no label map: which is how it is recognised.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import vtk

from SOARSSegmentationLib.scene.label_maps import LABEL_MAP


class SegmentEvents:
    """Observes a ``vtkSegmentation`` until `stop`; calls ``on_edit`` with the segment's ID (None: not told which) and
    ``on_restore`` for an undo or redo."""

    def __init__(
        self, segmentation: Any, on_edit: Callable[[str | None], None], on_restore: Callable[[], None]
    ) -> None:
        self._segmentation = segmentation
        self._on_edit = on_edit
        self._on_restore = on_restore
        self._seen: dict[str, int] = {}
        self._restoring: list[str] = []
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
        """Report an edit whose segment was not given; call it from time to time, and before an answer is needed."""
        if self._unnamed:
            self._unnamed = False
            if self._named_since is not None or self._look():
                self._on_edit(self._named_since)

    def _source_modified(self, segment_id: str | None) -> None:
        self._restoring.clear()
        if segment_id is None:
            self._unnamed, self._named_since = True, None
        elif self._look(segment_id):
            self._unnamed = False
            self._on_edit(segment_id)

    def _representation_modified(self, segment_id: str | None) -> None:
        self._restoring.clear()
        if segment_id is not None and self._look(segment_id) and self._unnamed:
            self._named_since = segment_id

    def _segments_changed(self, segment_id: str | None) -> None:
        self._look()

    def _segment_modified(self, segment_id: str | None) -> None:
        segment = self._segmentation.GetSegment(segment_id) if segment_id is not None else None
        if segment is None or segment_id is None:
            return
        if segment_id in self._restoring[:-1]:
            self._restoring.clear()  # an undo goes through all segments once: that one is over
        image = segment.GetRepresentation(LABEL_MAP)
        if image is not None:
            self._seen[segment_id] = image.GetMTime()
        # The first of a round, or the only segment there is.
        elif self._seen.pop(segment_id, None) is not None and self._restoring in ([], [segment_id]):
            self._restoring = [segment_id]
            self._on_restore()
        if self._restoring and segment_id != self._restoring[-1]:
            self._restoring.append(segment_id)

    def _look(self, segment_id: str | None = None) -> bool:
        """Remember every segment's label map; returns whether that of the segment, or of any segment, differs from the
        one seen before."""
        now = {}
        for index in range(self._segmentation.GetNumberOfSegments()):
            image = self._segmentation.GetNthSegment(index).GetRepresentation(LABEL_MAP)
            if image is not None:
                # VTK assigns every modification time only once, so it also distinguishes two label maps.
                now[self._segmentation.GetNthSegmentID(index)] = image.GetMTime()
        before, self._seen = self._seen, now
        if segment_id is not None:
            return now.get(segment_id) != before.get(segment_id)
        return now != before


def _with_segment_id(callback: Callable[[str | None], None]) -> Callable[..., None]:
    def observer(_caller: Any, _event: str, segment_id: str | None = None) -> None:
        callback(segment_id)

    observer.CallDataType = vtk.VTK_STRING  # type: ignore[attr-defined]
    return observer
