"""Faults planted into good contours, each with the place where it was planted."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import scipy

from soars.cascade.sides import Midline
from soars.findings.checks import check_contours
from soars.findings.finding import Finding, Locator
from soars.findings.norms import Norms
from soars.structures import StructureSet

ORGANS = ("Parotid_L", "Brainstem", "Glnd_Submand_R", "Eye_L")
"""A large and a small gland, an organ in the middle, and a ball."""
KINDS = {
    "hole": {"hole"},
    "notch": {"flat_face"},
    "missing slice": {"gap"},
    "doubled": {"volume", "asymmetry"},
    "swapped": {"wrong_side"},
    "cut by edge": {"cut_off"},
}
"""Which findings are right for a kind of fault."""


@dataclass(frozen=True)
class Fault:
    """``structures`` with the fault, the organs that may bear the finding, and where it is: points [n, 3], LPS mm."""

    kind: str
    structures: StructureSet
    organs: tuple[str, ...]
    points_mm: np.ndarray


def hole(good: StructureSet, organ: str) -> Fault:
    """A ball of at least 5 % of the volume, where the organ is thickest."""
    mask, geometry = good.crop(organ), good.geometry
    depth = scipy.ndimage.distance_transform_edt(np.pad(mask.array, 1), sampling=geometry.spacing[::-1])
    middle = np.array(np.unravel_index(depth.argmax(), depth.shape)) - 1
    away = np.linalg.norm((np.stack(np.indices(mask.shape), -1) - middle) * geometry.spacing[::-1], axis=-1)
    radius = (0.06 * mask.voxels * geometry.voxel_cc * 1000 * 3 / 4 / np.pi) ** (1 / 3)
    return _fault("hole", good, organ, mask.array & (away >= radius))


def notch(good: StructureSet, organ: str) -> Fault:
    """The lower outer quarter, cut off along two planes as windows that meet would."""
    mask = good.crop(organ)
    z, _, x = _middle(good, organ)
    array = mask.array.copy()
    array[:z, :, x:] = False
    return _fault("notch", good, organ, array)


def missing_slice(good: StructureSet, organ: str) -> Fault:
    mask = good.crop(organ)
    array = mask.array.copy()
    array[_middle(good, organ)[0]] = False
    return _fault("missing slice", good, organ, array)


def doubled(good: StructureSet, organ: str) -> Fault:
    """Grown evenly to twice its volume."""
    mask, geometry = good.crop(organ), good.geometry
    pad = [
        12 if s >= 12 and stop + 12 <= n else 0
        for s, stop, n in zip(mask.start, mask.stop, geometry.shape, strict=True)
    ]
    away = scipy.ndimage.distance_transform_edt(
        ~np.pad(mask.array, [(p, p) for p in pad]), sampling=geometry.spacing[::-1]
    )
    grown = away <= np.sort(away.ravel())[2 * mask.voxels]
    start = [s - p for s, p in zip(mask.start, pad, strict=True)]
    return Fault(
        "doubled", _with(good, organ, start, grown), (organ,), np.array([good.centre_of_mass(organ)])
    )


def swapped(good: StructureSet, organ: str) -> Fault:
    left, right = organ[:-2] + "_L", organ[:-2] + "_R"
    faulty = good.subset(good.names)
    faulty.add_mask(left, good.crop(right))
    faulty.add_mask(right, good.crop(left))
    centres = np.array([good.centre_of_mass(name) for name in (left, right)])
    return Fault("swapped", faulty, (left, right), centres)


def cut_by_edge(good: StructureSet, organ: str) -> Fault:
    """The scan ends in the middle of the organ."""
    mask = good.crop(organ)
    end = mask.start[0] + _middle(good, organ)[0]
    faulty = StructureSet(good.geometry.cropped((0, 0, 0), (end, *good.geometry.shape[1:])))
    for name in good.names:
        other = good.crop(name)
        if other.start[0] < end:
            faulty.add_crop(name, other.start, other.array[: end - other.start[0]])
    last = np.argwhere(mask.array[end - 1 - mask.start[0]][None]) + (end - 1, *mask.start[1:])
    return Fault("cut by edge", faulty, (organ,), good.geometry.to_physical(last))


FAULTS: tuple[Callable[[StructureSet, str], Fault], ...] = (
    hole,
    notch,
    missing_slice,
    doubled,
    swapped,
    cut_by_edge,
)


def findings_of(structures: StructureSet, midline: Midline, norms: Norms | None = None) -> list[Finding]:
    return check_contours(structures, Locator(structures.geometry, midline.left_mm), norms)


def distance_mm(fault: Fault, finding: Finding) -> float:
    """From the nearest place where the fault was planted to where the finding says it is."""
    assert finding.where is not None
    return float(np.linalg.norm(fault.points_mm - finding.where.point_mm, axis=1).min())


def _middle(structures: StructureSet, organ: str) -> tuple[int, int, int]:
    """The centre's voxel, (z, y, x) in the mask's box."""
    index = structures.geometry.to_index(np.array(structures.centre_of_mass(organ)))
    z, y, x = (int(i) - s for i, s in zip(index, structures.crop(organ).start, strict=True))
    return z, y, x


def _fault(kind: str, good: StructureSet, organ: str, array: np.ndarray) -> Fault:
    """A fault whose place is what is missing."""
    mask = good.crop(organ)
    lost = np.argwhere(mask.array & ~array) + mask.start
    return Fault(kind, _with(good, organ, mask.start, array), (organ,), good.geometry.to_physical(lost))


def _with(good: StructureSet, organ: str, start: Sequence[int], array: np.ndarray) -> StructureSet:
    faulty = good.subset(good.names)
    faulty.add_crop(organ, start, array)
    return faulty
