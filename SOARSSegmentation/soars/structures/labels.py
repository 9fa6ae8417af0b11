"""Structures as one image with a value for each organ, and back."""

from __future__ import annotations

from collections.abc import Container, Mapping, Sequence

import numpy as np
import numpy.typing as npt
import SimpleITK as sitk

from soars.structures.box import Box
from soars.structures.geometry import Geometry
from soars.structures.mask import Mask, tight_mask, union
from soars.structures.model import StructureSet

_MOST_COUNTED = 1 << 20
"""Up to this span of values a table of all of them is made; beyond, the values that occur are sorted."""


def to_label_map(
    structures: StructureSet, names: Sequence[str] | None = None
) -> tuple[sitk.Image, dict[int, tuple[str, ...]]]:
    """One image with a value per organ, and what each value means.

    Value ``i + 1`` is ``names[i]`` (all structures when ``names`` is None), whether or not it has voxels.
    Where organs overlap the voxel takes a further value that stands for all of them, so nothing is lost:
    43 may mean ("Eye_L", "Lens_L"). The image is uint8, or uint16 above 255 values.
    """
    chosen = tuple(structures.names if names is None else names)
    values: dict[int, tuple[str, ...]] = {i + 1: (name,) for i, name in enumerate(chosen)}
    value_of: dict[tuple[int, ...], int] = {(i,): i + 1 for i in range(len(chosen))}
    labels = np.zeros(structures.geometry.shape, dtype=np.uint16 if len(chosen) > 255 else np.uint8)
    members: dict[int, tuple[int, ...]] = {0: (), **{i + 1: (i,) for i in range(len(chosen))}}
    for i, name in enumerate(chosen):
        mask = structures.crop(name)
        box = labels[mask.slices]
        inside = box[mask.array]
        present = np.unique(inside)
        lookup = np.zeros(int(present.max(initial=0)) + 1, dtype=np.uint16)
        for before in present.tolist():
            key = (*members[before], i)
            if key not in value_of:
                value = len(values) + 1
                value_of[key], members[value] = value, key
                values[value] = tuple(chosen[k] for k in key)
            lookup[before] = value_of[key]
        if len(values) > 255 and labels.dtype == np.uint8:
            labels = labels.astype(np.uint16)
            box = labels[mask.slices]
        box[mask.array] = lookup[inside]
    return structures.geometry.place(sitk.GetImageFromArray(labels)), values


def from_label_map(image: sitk.Image, values: Mapping[int, tuple[str, ...]]) -> StructureSet:
    """The reverse of `to_label_map`: the structures that the values of an image of whole numbers stand for.

    0 is background, whatever it is called. A value that is not listed is left out with a warning. A listed structure
    without a voxel is kept, empty.
    """
    out = StructureSet(Geometry.of(image))
    members = {value: names for value, names in values.items() if value != 0}
    found, unknown = label_masks(sitk.GetArrayViewFromImage(image), members)
    for name in dict.fromkeys(name for names in members.values() for name in names):
        out.add_mask(name, union(found[v] for v, names in members.items() if name in names and v in found))
    if unknown:
        listed = ", ".join(map(str, unknown[:10])) + (" ..." if len(unknown) > 10 else "")
        out.warnings.append(f"label values without a name were left out: {listed}")
    return out


def label_masks(
    labels: npt.NDArray[np.integer], listed: Container[int], start: Sequence[int] = (0, 0, 0)
) -> tuple[dict[int, Mask], list[int]]:
    """The masks of the listed values in an array [z, y, x] whose first voxel is ``start``, by value; and the other
    values that occur. 0 is in neither.

    Values may be negative or of any size: memory and time depend on how many are listed, not on how large they are.
    """
    from scipy.ndimage import find_objects

    around = tight_mask(labels)
    if around.is_empty:
        return {}, []
    part = np.ascontiguousarray(labels[around.slices])
    present, compact = _compact(part)
    origin = Box.at(start, around.shape).relative_to([-s for s in around.start]).start
    masks: dict[int, Mask] = {}
    others = []
    for index, found in enumerate(find_objects(compact), start=1):
        if found is None:  # pragma: no cover - every index occurs
            continue
        value = int(present[index - 1])
        if value not in listed:
            others.append(value)
            continue
        first = [o + s.start for o, s in zip(origin, found, strict=True)]
        masks[value] = tight_mask(compact[found] == index, first)
    return masks, others


def _compact(labels: npt.NDArray[np.integer]) -> tuple[npt.NDArray[np.integer], npt.NDArray[np.int32]]:
    """The values that occur, without 0 and in order, and the array with each replaced by its place, from 1."""
    low, high = int(labels.min()), int(labels.max())
    if high - low < _MOST_COUNTED:
        # slice by slice: a table of 64-bit integers of the whole image would be eight times its size
        occurs = np.zeros(high - low + 1, dtype=bool)
        for plane in labels:
            occurs[_above(plane, low)] = True
        present = np.flatnonzero(occurs) + low
        present = present[present != 0]
        table = np.zeros(high - low + 1, dtype=np.int32)
        table[present - low] = np.arange(1, len(present) + 1)
        compact = np.empty(labels.shape, dtype=np.int32)
        for plane, out in zip(labels, compact, strict=True):
            out[:] = table[_above(plane, low)]
        return present, compact
    occurring = np.unique(labels)
    present = occurring[occurring != 0]
    compact = (np.searchsorted(present, labels) + 1).astype(np.int32)
    compact[labels == 0] = 0
    return present, compact


def _above(labels: npt.NDArray[np.integer], low: int) -> npt.NDArray[np.integer]:
    """How far each value is above the lowest, without overflow."""
    if labels.dtype.itemsize < 8:
        return labels.astype(np.int64) - low
    return labels - labels.dtype.type(low)
