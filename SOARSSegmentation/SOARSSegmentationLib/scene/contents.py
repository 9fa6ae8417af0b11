"""Which organs of a segmentation have changed, found by comparing voxels.

Slicer tells which segment was edited, but not which neighbours in the same shared label map lost voxels to it, nor what
an undo brought back. So the voxels of every label map are compared with the organs as last seen. Only masks cropped to
their bounding boxes are kept.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Any

import numpy as np
import vtk

from soars.errors import InputError
from SOARSSegmentationLib.scene.grids import grid_of
from SOARSSegmentationLib.scene.label_maps import LABEL_MAP, inside, no_voxels, voxels_of
from SOARSSegmentationLib.scene.layers import Layer, paste

if TYPE_CHECKING:
    from soars.structures import Mask


class Contents:
    """The voxels of a segmentation's organs on the grid of its CT, as they were at the last `refresh`."""

    def __init__(
        self,
        segmentation_node: Any,
        volume_node: Any,
        segment_ids: Mapping[str, str],
        known: Mapping[str, Mask],
    ) -> None:
        """``segment_ids`` is each organ's segment, of those that have one; ``known`` what every organ is taken to be
        until the first `refresh`."""
        self._segmentation = segmentation_node.GetSegmentation()
        self._volume_node = volume_node
        self._grid = grid_of(volume_node)
        self._segment_ids = segment_ids
        self._masks = dict(known)
        self._looked_at: dict[Any, tuple[int, dict[str, int]]] = {}

    def mask(self, organ: str) -> Mask:
        """An organ at the last look."""
        return self._masks[organ]

    def masks(self) -> dict[str, Mask]:
        return dict(self._masks)

    def refresh(self, *, thorough: bool = True) -> set[str]:
        """Compare the voxels; returns the organs that have changed since the last time.

        Takes about as long as comparing two arrays of the label maps' size; unless ``thorough``, label maps whose VTK
        modification time has not changed are skipped. `InputError` when a label map does not lie on the CT's grid.
        """
        changed: set[str] = set()
        layers, without = self._layers()
        for organ in without:
            if not self._masks[organ].is_empty:
                self._masks[organ] = no_voxels()
                changed.add(organ)
        looked_at = {}
        for image, labels in layers.items():
            looked_at[image] = (image.GetMTime(), labels)
            if not thorough and looked_at[image] == self._looked_at.get(image):
                continue
            for organ, found in self._differing(Layer(voxels_of(image), self._start_of(image), labels)):
                mask = inside(found, self._grid)  # as the proposal and the result are kept
                if not mask.equals(self._masks[organ]):
                    self._masks[organ] = mask
                    changed.add(organ)
        self._looked_at = looked_at
        return changed

    def _layers(self) -> tuple[dict[Any, dict[str, int]], list[str]]:
        """The label maps with the organs in each and their labels, and the organs that have none."""
        layers: dict[Any, dict[str, int]] = {}
        without = []
        for organ in self._masks:
            segment_id = self._segment_ids.get(organ)
            segment = self._segmentation.GetSegment(segment_id) if segment_id else None
            image = segment.GetRepresentation(LABEL_MAP) if segment is not None else None
            if segment is None or image is None or image.IsEmpty():
                without.append(organ)
                continue
            layers.setdefault(image, {})[organ] = int(segment.GetLabelValue())
        return layers, without

    def _start_of(self, image: Any) -> tuple[int, int, int]:
        """The voxel (z, y, x) of the CT's grid that is the label map's first."""
        to_world, from_world = vtk.vtkMatrix4x4(), vtk.vtkMatrix4x4()
        image.GetImageToWorldMatrix(to_world)
        self._volume_node.GetRASToIJKMatrix(from_world)
        vtk.vtkMatrix4x4.Multiply4x4(from_world, to_world, to_world)
        matrix = np.array([[to_world.GetElement(row, column) for column in range(4)] for row in range(3)])
        extent = image.GetExtent()
        size = np.array([extent[1] - extent[0], extent[3] - extent[2], extent[5] - extent[4]]) + 1
        first = matrix @ (extent[0], extent[2], extent[4], 1.0)
        # Off by a twentieth of a voxel at the far corner is still the same grid.
        slant = np.abs(matrix[:, :3] - np.eye(3)) @ size
        if slant.max() > 0.05 or np.abs(first - np.round(first)).max() > 0.05:
            raise InputError(
                "the segmentation does not lie on the CT's voxels, so it cannot be compared with its proposal; "
                "resample it to the CT's geometry (Segment Editor, geometry button beside the source volume)"
            )
        x, y, z = (round(float(v)) for v in first)
        return (z, y, x)

    def _differing(self, layer: Layer) -> Iterator[tuple[str, Mask]]:
        """The organs of a label map whose voxels may differ from what is known, as they are now."""
        from soars.structures import tight_mask

        of_label = {label: organ for organ, label in layer.labels.items()}
        # An organ that differs lies within its known box and that of the places where it is new.
        boxes = {organ: layer.box_of(self._masks[organ]) for organ in layer.labels}
        suspects = {organ for organ in layer.labels if not layer.reaches(self._masks[organ])}
        for z, slab, expected in layer.slabs():
            origin = (layer.start[0] + z, layer.start[1], layer.start[2])
            for organ, label in layer.labels.items():
                if not paste(expected, origin, self._masks[organ], label):
                    suspects.add(organ)  # two organs shared a voxel that can now belong to only one
            difference = tight_mask(slab != expected)
            if difference.is_empty:
                continue
            suspects |= {
                of_label[n] for n in np.unique(expected[difference.slices]).tolist() if n in of_label
            }
            inside = slab[difference.slices]
            for label in np.unique(inside).tolist():
                if label in of_label:
                    suspects.add(of_label[label])
                    new = tight_mask(inside == label, np.add(difference.start, (z, 0, 0)).tolist())
                    low, high = boxes[of_label[label]]
                    boxes[of_label[label]] = (np.minimum(low, new.start), np.maximum(high, new.stop))
        for organ in suspects:
            low, high = (np.clip(corner, 0, layer.voxels.shape) for corner in boxes[organ])
            part = layer.voxels[
                tuple(slice(a, max(a, b)) for a, b in zip(low.tolist(), high.tolist(), strict=True))
            ]
            yield organ, tight_mask(part == layer.labels[organ], np.add(low, layer.start).tolist())
