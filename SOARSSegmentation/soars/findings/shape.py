"""What a contour's own shape shows: cavities, missing slices, and a surface that is cut straight."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import scipy
from numpy.lib.stride_tricks import sliding_window_view

from soars.findings.counting import counts, dilated
from soars.findings.crowd import Crowd
from soars.findings.finding import CHECK, SERIOUS, Finding, Locator
from soars.structures import Mask, StructureSet

LONG_ORGANS = frozenset({"SpinalCord", "Esophagus", "BrachialPlex_L", "BrachialPlex_R", "Trachea"})
"""Organs that extend beyond any head-and-neck scan, or are contoured up to some slice: a cut end is expected."""
ON_SLICES = frozenset({"Musc_Constrict_S", "Musc_Constrict_M", "Musc_Constrict_I", "Cricopharyngeus"})
"""Organs that begin and end on a slice by the way they are contoured."""
HOLE_SHARE, HOLE_SERIOUS = 0.02, 0.1
"""A cavity is worth a finding from this share of the filled organ on, and makes it probably wrong from the second."""
HOLLOW = frozenset({"Larynx", "Trachea", "Cavity_Oral", *ON_SLICES})
"""Organs around an airway, which some readers leave out: only the second share is worth a finding."""
HOLE_VOXELS = 3
THIN = 0.3
"""A slice whose area is below this share of the smaller of its neighbours' lacks a part of the organ."""
FLAT_SHARE, FLAT_ENDS = 0.25, 0.45
"""A plane of a surface is straight when it makes up this share of the organ's largest cross-section across the body;
along it, where organs end on a slice, the second."""
FLAT_ORGANS = frozenset({"Bone_Mandible_L", "Bone_Mandible_R"})
"""Organs with flat sides, of which the second share is asked across all axes."""
FLAT_NEIGHBOURS, BESIDE_MM = 6.0, 4.5
"""And when so many times more of the surface lies in it than in any other plane so near: on a fine scan, a network of
coarse voxels draws in steps of its own voxels."""
FLAT_VOXELS = 25
FLAT_EXTENT = 4.5
"""And only when the share, times the organ's extent across the plane in voxels, reaches this: a round organ of few
voxels ends in a plane too (a ball's share is 4 over its extent)."""
NEAR_VOXELS = 2
"""A face with another organ so near is a border between organs, which may be straight (brainstem and cord)."""


@dataclass(frozen=True)
class Face:
    """A part of an organ's surface in one plane: bool [z, y, x] in the mask's box, and how much of the organ it is."""

    voxels: np.ndarray
    axis: int
    share: float


def shape_findings(
    structures: StructureSet, name: str, locator: Locator, crowd: Crowd | None = None
) -> Iterator[Finding]:
    """Cavities, missing slices and straight cuts of one organ; `crowd` is that of the structures, counted here when it
    is not at hand."""
    mask = structures.crop(name)
    body_axis = locator.body_axis
    hole = _hole(mask.array, body_axis)
    hollow = np.count_nonzero(hole)
    share = hollow / (hollow + mask.voxels)
    if share >= (HOLE_SERIOUS if name in HOLLOW else HOLE_SHARE) and hollow >= HOLE_VOXELS:
        yield Finding(
            name,
            "hole",
            SERIOUS if share >= HOLE_SERIOUS else CHECK,
            f"{100 * share:.0f} % of it is a cavity inside",
            "Fill it, unless it is air or a vessel that the protocol leaves out.",
            locator.in_mask(_largest(hole), mask.start),
        )
    for first, last in _gaps(mask.array, body_axis):
        index = [s + n / 2 for s, n in zip(mask.start, mask.shape, strict=True)]
        index[body_axis] = mask.start[body_axis] + (first + last) / 2
        many = f"{last - first + 1} slices inside it lack" if last > first else "a slice inside it lacks"
        yield Finding(
            name,
            "gap",
            SERIOUS,
            f"{many} the organ, or most of it",
            "Draw it there; interpolation between the slices beside it is a good start.",
            locator.at_index(np.array(index)),
        )
    face = flat_face(structures, name, body_axis, crowd or Crowd(structures))
    if face is not None:
        yield Finding(
            name,
            "flat_face",
            SERIOUS if face.share > 0.6 and face.axis != body_axis else CHECK,
            f"its surface is cut straight over {100 * face.share:.0f} % of its cross-section",
            "Look beyond the straight face: a part of the organ is probably missing.",
            locator.in_mask(face.voxels, mask.start),
        )


def flat_face(structures: StructureSet, name: str, body_axis: int, crowd: Crowd) -> Face | None:
    """The largest straight part of an organ's surface across an axis of the scan, or None.

    A rounded surface gives each plane about as many faces as the planes near it, a straight cut gives all to one.
    Where the scan ends or another organ begins a surface may be straight.
    """
    mask = structures.crop(name)
    others = _near_others(crowd, name, mask)
    found: list[Face] = []
    for axis in range(3):
        if axis == body_axis and name in LONG_ORGANS | ON_SLICES:
            continue
        across = tuple(a for a in range(3) if a != axis)
        largest = int(counts(mask.array, across).max())
        share = FLAT_ENDS if axis == body_axis or name in FLAT_ORGANS else FLAT_SHARE
        least = max(share, FLAT_EXTENT / mask.shape[axis])
        near = max(1, int(BESIDE_MM / structures.geometry.spacing[2 - axis]))
        for step in (1, -1):
            faces = uncovered_faces(mask, axis, step, structures.geometry.shape[axis]) & ~others
            in_plane = counts(faces, across)
            windows = sliding_window_view(np.pad(in_plane, near), 2 * near + 1).copy()
            windows[:, near] = 0
            beside = windows.max(axis=1)
            straight = (in_plane >= FLAT_VOXELS) & (in_plane >= FLAT_NEIGHBOURS * beside)
            straight &= in_plane >= least * largest
            for plane in np.flatnonzero(straight):
                here = np.zeros_like(faces)
                at = tuple(slice(plane, plane + 1) if a == axis else slice(None) for a in range(3))
                here[at] = faces[at]
                found.append(Face(here, axis, float(in_plane[plane]) / largest))
    return max(found, key=lambda face: face.share, default=None)


def uncovered_faces(mask: Mask, axis: int, step: int, extent: int) -> np.ndarray:
    """Voxels of the mask whose neighbour along `axis` is not in it, bool in its box; none at the scan's last voxel.

    `step` is 1 or -1, the direction of the neighbour; `extent` how many voxels the scan has along the axis.
    """
    here, there = (
        tuple(part if a == axis else slice(None) for a in range(3))
        for part in (slice(None, -1), slice(1, None))[::step]
    )
    faces: np.ndarray = mask.array.copy()
    faces[here] &= ~mask.array[there]
    if mask.stop[axis] == extent if step > 0 else mask.start[axis] == 0:
        last = slice(-1, None) if step > 0 else slice(0, 1)
        faces[tuple(last if a == axis else slice(None) for a in range(3))] = False
    return faces


def _near_others(crowd: Crowd, name: str, mask: Mask) -> np.ndarray:
    """Where another organ lies within `NEAR_VOXELS`, bool in the mask's box."""
    near = crowd.others(name, mask.bounds.grown(NEAR_VOXELS))
    if near.any():
        near = dilated(near, (NEAR_VOXELS,) * 3)
    inner = slice(NEAR_VOXELS, -NEAR_VOXELS)
    return near[inner, inner, inner]


def _hole(array: np.ndarray, body_axis: int) -> np.ndarray:
    """What the organ encloses in a slice across the body, or in all directions."""
    hole = _enclosed(array)
    for number in range(array.shape[body_axis]):
        at = tuple(number if a == body_axis else slice(None) for a in range(3))
        hole[at] |= _enclosed(array[at])
    return hole


def _enclosed(array: np.ndarray) -> np.ndarray:
    """What scipy's `binary_fill_holes` would fill, by labels instead of rounds of dilation."""
    labels, count = scipy.ndimage.label(np.pad(~array, 1, constant_values=True))
    inner = labels[(slice(1, -1),) * array.ndim]
    enclosed: np.ndarray = inner > 1 if count > 1 else np.zeros_like(array)
    return enclosed


def _largest(voxels: np.ndarray) -> np.ndarray:
    labels, count = scipy.ndimage.label(voxels, np.ones((3, 3, 3)))
    largest: np.ndarray = labels == (1 + int(np.bincount(labels.ravel())[1:].argmax()) if count else 1)
    return largest


def _gaps(array: np.ndarray, axis: int) -> list[tuple[int, int]]:
    """First and last slice, in the box, of each run of slices that hold little or nothing of the organ."""
    areas = counts(array, (a for a in range(3) if a != axis)).astype(float)
    gaps, number = [], 1
    while number < len(areas) - 1:
        end = number
        while end < len(areas) - 1 and areas[end] < THIN * areas[number - 1]:
            end += 1
        if (
            end > number
            and areas[end] > 0
            and max(areas[number:end]) < THIN * min(areas[number - 1], areas[end])
        ):
            gaps.append((number, end - 1))
            number = end
        number += 1
    return gaps
