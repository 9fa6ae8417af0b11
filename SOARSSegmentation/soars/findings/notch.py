"""Corners cut out of an organ along two planes, as by windows that meet: hollows that anatomy does not have."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from itertools import combinations, product

import numpy as np
import scipy

from soars.findings.finding import CHECK, Finding, Locator
from soars.findings.shape import related, uncovered_faces
from soars.structures import Mask, StructureSet

STRAIGHT = 0.6
"""So much of the surface that faces the corner, from either side, lies in one plane."""
CROSS_SECTION = 0.15
"""And each of the two planes makes up so much of the organ's largest cross-section across it."""
FACES = 12
"""And no fewer faces of voxels."""
DEPTH = 2
"""And the organ goes on by so many voxels beyond either plane: coarse voxels make shallow corners everywhere."""
BORDER_VOXELS, BESIDE_VOXELS = 2, 1
"""A face with another organ so near beyond it, or so far beside that, is a border between organs."""

Faces = tuple[np.ndarray, np.ndarray]


@dataclass(frozen=True)
class Notch:
    """The faces of both planes, bool [z, y, x] in the mask's box, and the lesser of their shares of the organ's largest
    cross-sections."""

    voxels: np.ndarray
    share: float


def notch_findings(structures: StructureSet, name: str, locator: Locator) -> Iterator[Finding]:
    """At most one, the largest notch."""
    notch = largest_notch(structures, name)
    if notch is not None:
        yield Finding(
            name,
            "flat_face",
            CHECK,
            f"a corner is cut out of it along two planes, over {100 * notch.share:.0f} % of its cross-section or more",
            "Look into the corner: a part of the organ is probably missing there.",
            locator.in_mask(notch.voxels, structures.crop(name).start),
        )


def largest_notch(structures: StructureSet, name: str) -> Notch | None:
    """The corner with the largest share, over all pairs of axes of the scan.

    A corner is a quarter of the mask's box without a voxel of the organ, bounded by two planes; what of the organ looks
    into it from either side ends in that plane (`STRAIGHT`). Seen from a round or a curved organ, any such quarter is
    met by many planes, each with a little of the surface.
    """
    mask = structures.crop(name)
    faces = _all_faces(structures, name, mask)
    found: list[Notch] = []
    for first, second in combinations(range(3), 2):
        for step, other_step in product((1, -1), (1, -1)):
            turned = tuple(a for a, s in ((first, step), (second, other_step)) if s < 0)
            one, two = (
                (np.flip(free, turned), np.flip(every, turned))
                for free, every in (faces[first, step], faces[second, other_step])
            )
            notch = _corner(np.flip(mask.array, turned), (first, second), one, two)
            if notch is not None:
                found.append(Notch(np.flip(notch.voxels, turned), notch.share))
    return max(found, key=lambda notch: notch.share, default=None)


def _corner(array: np.ndarray, axes: tuple[int, int], one: Faces, two: Faces) -> Notch | None:
    """The largest notch whose quarter lies towards the ends of both axes; `one` and `two`: the faces towards the first
    and the second end."""
    across = 3 - sum(axes)
    # [first axis, second axis]: voxels at and beyond both; faces in a plane and beyond the other axis' place.
    beyond = _from_end(_from_end(array.sum(axis=across), 0), 1)
    a, all_a = (_from_end(part.sum(axis=across), 1) for part in one)
    b, all_b = (_from_end(part.sum(axis=across), 0) for part in two)
    empty = beyond[1:, 1:] == 0
    in_a, in_b = a[:-1, 1:], b[1:, :-1]
    of_a, of_b = all_a.sum(axis=0)[1:][None, :], all_b.sum(axis=1)[1:][:, None]
    largest = [int(array.sum(axis=tuple(x for x in range(3) if x != axis)).max()) for axis in axes]
    share = np.minimum(in_a / largest[0], in_b / largest[1])
    good = empty & (np.minimum(in_a, in_b) >= FACES) & (share >= CROSS_SECTION)
    good &= (in_a >= STRAIGHT * of_a) & (in_b >= STRAIGHT * of_b)
    good[max(len(good) - DEPTH + 1, 0) :] = False
    good[:, max(good.shape[1] - DEPTH + 1, 0) :] = False
    if not good.any():
        return None
    i, j = np.unravel_index(int(np.where(good, share, 0).argmax()), share.shape)
    voxels = np.zeros_like(array)
    for faces, here, there in ((one[0], (i, i + 1), (j + 1, None)), (two[0], (i + 1, None), (j, j + 1))):
        at = [slice(None)] * 3
        at[axes[0]], at[axes[1]] = slice(*here), slice(*there)
        voxels[tuple(at)] |= faces[tuple(at)]
    return Notch(voxels, float(share[i, j]))


def _from_end(counts: np.ndarray, axis: int) -> np.ndarray:
    """Sums from each place to the end of an axis."""
    sums: np.ndarray = np.flip(np.cumsum(np.flip(counts, axis), axis), axis)
    return sums


def _all_faces(structures: StructureSet, name: str, mask: Mask) -> dict[tuple[int, int], Faces]:
    """By axis and direction, voxels of the mask with none of it beyond: those with no other organ beyond, and all."""
    margin = BORDER_VOXELS + BESIDE_VOXELS
    start, shape = [s - margin for s in mask.start], [n + 2 * margin for n in mask.shape]
    others = np.zeros(shape, bool)
    for other in structures.names:
        if other != name and not related(name, other):
            others |= structures.crop(other).box(start, shape)
    found = {}
    for axis, step in product(range(3), (1, -1)):
        every = uncovered_faces(mask, axis, step, structures.geometry.shape[axis])
        found[axis, step] = (every & ~_before(others, mask.shape, axis, step), every)
    return found


def _before(others: np.ndarray, shape: tuple[int, int, int], axis: int, step: int) -> np.ndarray:
    """Where others lie within `BORDER_VOXELS` beyond, in a box of `shape` in the middle of theirs."""
    covered = np.zeros(shape, bool)
    if others.any():
        wide = [1 if a == axis else 2 * BESIDE_VOXELS + 1 for a in range(3)]
        others = scipy.ndimage.maximum_filter(others, wide)
        margin = BORDER_VOXELS + BESIDE_VOXELS
        for reach in range(1, BORDER_VOXELS + 1):
            first = [margin + (step * reach if a == axis else 0) for a in range(3)]
            covered |= others[tuple(slice(f, f + n) for f, n in zip(first, shape, strict=True))]
    return covered
