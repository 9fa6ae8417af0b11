"""Corners cut out of an organ along two planes, as by windows that meet: hollows that anatomy does not have."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from itertools import combinations, product

import numpy as np

from soars.findings.counting import counts, dilated
from soars.findings.crowd import Crowd
from soars.findings.finding import CHECK, Finding, Locator
from soars.findings.shape import uncovered_faces
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


def notch_findings(
    structures: StructureSet, name: str, locator: Locator, crowd: Crowd | None = None
) -> Iterator[Finding]:
    """At most one, the largest notch; `crowd` is that of the structures, counted here when it is not at hand."""
    notch = largest_notch(structures, name, crowd)
    if notch is not None:
        yield Finding(
            name,
            "flat_face",
            CHECK,
            f"a corner is cut out of it along two planes, over {100 * notch.share:.0f} % of its cross-section or more",
            "Look into the corner: a part of the organ is probably missing there.",
            locator.in_mask(notch.voxels, structures.crop(name).start),
        )


def largest_notch(structures: StructureSet, name: str, crowd: Crowd | None = None) -> Notch | None:
    """The corner with the largest share, over all pairs of axes of the scan.

    A corner is a quarter of the mask's box without a voxel of the organ, bounded by two planes; what of the organ looks
    into it from either side ends in that plane (`STRAIGHT`). Seen from a round or a curved organ, any such quarter is
    met by many planes, each with a little of the surface.
    """
    mask = structures.crop(name)
    every = {
        (axis, step): uncovered_faces(mask, axis, step, structures.geometry.shape[axis])
        for axis, step in product(range(3), (1, -1))
    }
    # Faces with another organ beyond can only take from a notch; most organs have none even with them.
    if _largest(mask, {key: (faces, faces) for key, faces in every.items()}) is None:
        return None
    free = _free_faces(crowd or Crowd(structures), name, mask, every)
    return _largest(mask, {key: (free[key], faces) for key, faces in every.items()})


def _largest(mask: Mask, faces: Mapping[tuple[int, int], Faces]) -> Notch | None:
    """By axis and direction: the faces with no other organ beyond, and all."""
    found: list[Notch] = []
    for axes in combinations(range(3), 2):
        across = 3 - sum(axes)
        organ = counts(mask.array, across)
        of_faces = {key: _counts(faces[key], across) for key in product(axes, (1, -1))}
        for steps in product((1, -1), (1, -1)):
            one, two = zip(axes, steps, strict=True)
            turned = tuple(n for n, step in enumerate(steps) if step < 0)
            corner = _corner(*(np.flip(part, turned) for part in (organ, *of_faces[one], *of_faces[two])))
            if corner is not None:
                place, share = corner
                voxels = _looking_in(faces[one][0], faces[two][0], axes, steps, place)
                found.append(Notch(voxels, share))
    return max(found, key=lambda notch: notch.share, default=None)


def _counts(faces: Faces, across: int) -> Faces:
    free, every = faces
    all_of_them = counts(every, across)
    return all_of_them if free is every else counts(free, across), all_of_them


def _corner(
    organ: np.ndarray, a: np.ndarray, all_a: np.ndarray, b: np.ndarray, all_b: np.ndarray
) -> tuple[tuple[int, int], float] | None:
    """The two planes of the largest notch whose quarter lies towards the ends of both axes, and its share.

    All are counts [first axis, second axis]: of the organ's voxels, and of its faces towards the end of the first axis
    (free ones and all) and of the second.
    """
    # Voxels at and beyond both; faces in a plane and beyond the other axis' place.
    beyond = _from_end(_from_end(organ, 0), 1)
    a, all_a, b, all_b = _from_end(a, 1), _from_end(all_a, 1), _from_end(b, 0), _from_end(all_b, 0)
    empty = beyond[1:, 1:] == 0
    in_a, in_b = a[:-1, 1:], b[1:, :-1]
    of_a, of_b = all_a.sum(axis=0)[1:][None, :], all_b.sum(axis=1)[1:][:, None]
    share = np.minimum(in_a / organ.sum(axis=1).max(), in_b / organ.sum(axis=0).max())
    good = empty & (np.minimum(in_a, in_b) >= FACES) & (share >= CROSS_SECTION)
    good &= (in_a >= STRAIGHT * of_a) & (in_b >= STRAIGHT * of_b)
    good[max(len(good) - DEPTH + 1, 0) :] = False
    good[:, max(good.shape[1] - DEPTH + 1, 0) :] = False
    if not good.any():
        return None
    i, j = np.unravel_index(int(np.where(good, share, 0).argmax()), share.shape)
    return (int(i), int(j)), float(share[i, j])


def _looking_in(
    one: np.ndarray, two: np.ndarray, axes: tuple[int, int], steps: tuple[int, int], place: tuple[int, int]
) -> np.ndarray:
    """The faces in either plane that look into the corner; the planes are numbered along the steps."""
    turned = tuple(axis for axis, step in zip(axes, steps, strict=True) if step < 0)
    voxels = np.zeros_like(one)
    i, j = place
    for faces, here, there in ((one, (i, i + 1), (j + 1, None)), (two, (i + 1, None), (j, j + 1))):
        at = [slice(None)] * 3
        at[axes[0]], at[axes[1]] = slice(*here), slice(*there)
        np.flip(voxels, turned)[tuple(at)] |= np.flip(faces, turned)[tuple(at)]
    return voxels


def _from_end(counts: np.ndarray, axis: int) -> np.ndarray:
    """Sums from each place to the end of an axis."""
    sums: np.ndarray = np.flip(np.cumsum(np.flip(counts, axis), axis), axis)
    return sums


def _free_faces(
    crowd: Crowd, name: str, mask: Mask, every: Mapping[tuple[int, int], np.ndarray]
) -> dict[tuple[int, int], np.ndarray]:
    """Those of the faces that have no other organ beyond (`BORDER_VOXELS`, `BESIDE_VOXELS`)."""
    margin = BORDER_VOXELS + BESIDE_VOXELS
    others = crowd.others(name, mask.bounds.grown(margin))
    if not others.any():
        return dict(every)
    free = {}
    for axis in range(3):
        near = dilated(others, [0 if a == axis else BESIDE_VOXELS for a in range(3)])
        for step in (1, -1):
            covered = np.zeros(mask.shape, bool)
            for reach in range(1, BORDER_VOXELS + 1):
                first = [margin + (step * reach if a == axis else 0) for a in range(3)]
                covered |= near[tuple(slice(f, f + n) for f, n in zip(first, mask.shape, strict=True))]
            free[axis, step] = every[axis, step] & ~covered
    return free
