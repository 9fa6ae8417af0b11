"""The untouched proposal, kept with the segmentation that readers change.

Each segment carries its organ's proposed voxels in the tag "SOARS.proposal". Slicer writes tags into .seg.nrrd files,
and so into saved scenes; attributes of a node it writes into scenes only. The tag is eight fields joined by ";"::

    1;512,512,200;1.0,1.0,3.0;-249.5,-249.5,-300.0;1.0,0.0,...;88,190,230;12,40,38;eNqT...

the version, the CT grid's size, spacing, origin and direction (x, y, z, LPS mm), the bounding box's first voxel and
shape (z, y, x), and its voxels: eight to a byte (numpy.packbits), compressed by zlib, in base64. 42 organs take a few
hundred kilobytes.
"""

from __future__ import annotations

import base64
import binascii
import zlib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import slicer

from soars.errors import InputError
from SOARSSegmentationLib.scene.label_maps import label_map_of, no_voxels
from SOARSSegmentationLib.scene.reading import geometry_of, structures_of
from SOARSSegmentationLib.scene.segments import add_empty_segments, segment_ids, tag_of

if TYPE_CHECKING:
    from soars.structures import Geometry, Mask

PROPOSAL_TAG = "SOARS.proposal"
_VERSION = "1"
_LARGEST = 1 << 31
"""A bounding box with more voxels is an error or an attempt to exhaust the memory."""


@dataclass(frozen=True)
class Proposal:
    """What was proposed: each organ's voxels on ``geometry``, the CT's grid (LPS)."""

    geometry: Geometry
    masks: Mapping[str, Mask]

    def __contains__(self, organ: object) -> bool:
        return organ in self.masks


def keep_proposal(segmentation_node: Any, volume_node: Any = None) -> Proposal:
    """Keep a segmentation's organs, as they are now, as the proposal; replaces an earlier one of theirs.

    `InputError` when they cannot be read (see `structures_of`).
    """
    ids = segment_ids(segmentation_node)
    structures = structures_of(segmentation_node, ids, volume_node)
    segmentation = segmentation_node.GetSegmentation()
    for organ in ids:
        text = _packed(structures.geometry, structures.crop(organ))
        segmentation.GetSegment(ids[organ]).SetTag(PROPOSAL_TAG, text)
    return Proposal(structures.geometry, {organ: structures.crop(organ) for organ in ids})


def proposal_of(segmentation_node: Any, volume_node: Any = None) -> Proposal | None:
    """The proposal that a segmentation carries, on the grid of its CT; None when it carries none.

    `InputError` when it is damaged, or its CT is not known.
    """
    from soars.structures import StructureSet

    segmentation = segmentation_node.GetSegmentation()
    kept: dict[str, tuple[Geometry, Mask]] = {}
    for organ, segment_id in segment_ids(segmentation_node).items():
        text = tag_of(segmentation.GetSegment(segment_id), PROPOSAL_TAG)
        if text:
            kept[organ] = _unpacked(text, organ)
    if not kept:
        return None
    geometry = geometry_of(segmentation_node, volume_node)
    masks: dict[str, Mask] = {}
    for organ, (grid, mask) in kept.items():
        if not grid.same_as(geometry):
            one = StructureSet(grid)
            one.add_mask(organ, mask)
            mask = one.resample(geometry, nearest=True).crop(organ)
        masks[organ] = mask
    return Proposal(geometry, masks)


def restore(segmentation_node: Any, organ: str, proposal: Proposal | None = None) -> None:
    """Restore an organ's proposal. Other organs stay as they are, even where they overlap it.

    With ``proposal`` given, an organ whose segment was removed comes back as well. `InputError` when there is no
    proposal of this organ.
    """
    known = proposal or proposal_of(segmentation_node)
    if known is None or organ not in known:
        raise InputError(
            f"{segmentation_node.GetName()} keeps no proposal of {organ}: there is nothing to restore"
        )
    segmentation = segmentation_node.GetSegmentation()
    segment_id = segment_ids(segmentation_node).get(organ)
    if segment_id is None:
        add_empty_segments(segmentation_node, [organ])
        segment_id = segment_ids(segmentation_node)[organ]
        text = _packed(known.geometry, known.masks[organ])
        segmentation.GetSegment(segment_id).SetTag(PROPOSAL_TAG, text)
    logic, mask = slicer.vtkSlicerSegmentationsModuleLogic, known.masks[organ]
    if mask.is_empty:
        done = logic.ClearSegment(segmentation_node, segment_id)
    else:
        image = label_map_of(known.geometry, mask)
        done = logic.SetBinaryLabelmapToSegment(image, segmentation_node, segment_id, logic.MODE_REPLACE)
    if not done:
        raise InputError(f"Slicer could not put the proposal of {organ} back")


def _packed(geometry: Geometry, mask: Mask) -> str:
    grid = (geometry.size, geometry.spacing, geometry.origin, geometry.direction, mask.start, mask.shape)
    fields = (",".join(repr(v) for v in _numbers(field)) for field in grid)
    voxels = base64.b64encode(zlib.compress(np.packbits(mask.array).tobytes(), 9)).decode("ascii")
    return ";".join((_VERSION, *fields, voxels))


def _numbers(field: Iterable[Any]) -> list[int | float]:
    return [int(v) if isinstance(v, (int, np.integer)) else float(v) for v in field]


def _unpacked(text: str, organ: str) -> tuple[Geometry, Mask]:
    from soars.structures import Geometry, tight_mask

    try:
        version, *fields, voxels = text.split(";")
        if version != _VERSION:
            raise InputError(f"the proposal of {organ} was kept by a newer version: update this extension")
        size, start, shape = (_triple(fields[i], int) for i in (0, 4, 5))
        spacing, origin = _triple(fields[1], float), _triple(fields[2], float)
        direction = tuple(float(v) for v in fields[3].split(","))
        count = int(np.prod(shape, dtype=np.int64))
        if len(direction) != 9 or len(fields) != 6 or min(shape) < 0 or not 0 <= count < _LARGEST:
            raise ValueError("its geometry is none")
        expected = (count + 7) // 8
        stream = zlib.decompressobj()
        unpacked = stream.decompress(base64.b64decode(voxels, validate=True), expected + 1)
        if len(unpacked) != expected or not stream.eof:
            raise ValueError("it has not as many voxels as it says")
        bits = np.unpackbits(np.frombuffer(unpacked, np.uint8), count=count).astype(bool)
        mask = no_voxels() if count == 0 else tight_mask(bits.reshape(shape), start)
        if not all(a >= 0 and b <= n for a, b, n in zip(mask.start, mask.stop, size[::-1], strict=True)):
            raise ValueError("it lies outside of its grid")
        return Geometry(size, spacing, origin, direction), mask
    except (ValueError, IndexError, TypeError, zlib.error, binascii.Error) as error:
        raise InputError(f"the proposal kept of {organ} is damaged: {error}") from error


def _triple(text: str, kind: Any) -> tuple[Any, Any, Any]:
    x, y, z = (kind(v) for v in text.split(","))
    return (x, y, z)
