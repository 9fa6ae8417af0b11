"""Which contours of a slice are the same, and which overlap in part: these are drawn as one area, where a contour
within another is a hole.

Thousands of contours on a slice (a thresholded volume, calcifications, a noisy mask) take time in proportion to the
area they cover, not to the number of their pairs: all are cut into spans along the rows at once, and only voxels that
several contours cover say which pairs have anything in common.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from soars.dicom.contours import Contour, crossings, fill

BoolArray = npt.NDArray[np.bool_]
IntArray = npt.NDArray[np.int64]
#: A contour is within another when this part of its voxels is: holes are drawn to the outline, and a bit over it.
WITHIN = 0.9
#: Two contours are nearly equal when the voxels of one alone make a line that is thinner than this, in voxels, around
#: them: the thinnest wall that a ring's two contours can mean is a voxel wide.
NEARLY_EQUAL = 0.5
#: Voxels that are looked at together.
VOXELS_AT_ONCE = 2_000_000


@dataclass(frozen=True)
class _Spans:
    """Voxel centres inside of contours as runs along rows: contour ``owner``, row ``row``, columns from ``first`` up to
    but without ``stop``; all of shape (n,), in the order of rows."""

    owner: IntArray
    row: IntArray
    first: IntArray
    stop: IntArray

    def of(self, chosen: BoolArray) -> _Spans:
        return _Spans(self.owner[chosen], self.row[chosen], self.first[chosen], self.stop[chosen])

    def count(self, low: tuple[int, int], shape: tuple[int, int]) -> npt.NDArray[np.int32]:
        """How many spans cover each voxel of a box that begins at ``low`` (y, x)."""
        steps = np.zeros((shape[0], shape[1] + 1), dtype=np.int32)
        np.add.at(steps, (self.row - low[0], self.first - low[1]), 1)
        np.add.at(steps, (self.row - low[0], self.stop - low[1]), -1)
        return np.cumsum(steps, axis=1, dtype=np.int32)[:, :-1]


def same_area(contours: Sequence[tuple[Contour, bool]], shape: tuple[int, int]) -> list[tuple[Contour, bool]]:
    """Of contours that enclose the same voxel centres of a slice of ``shape`` (y, x) the first; of those that enclose
    none, every one.

    A copy need not have the same vertices: the first may be repeated at its end, some left out or moved a little.
    """
    spans = _spans([contour.points for contour, _ in contours], shape)
    row = spans.owner * shape[0] + spans.row
    ends = np.concatenate([row * (shape[1] + 1) + spans.first, row * (shape[1] + 1) + spans.stop])
    ends, count = np.unique(ends, return_counts=True)
    ends = ends[count == 1]  # where one run goes on from another, neither begins nor stops
    size = shape[0] * (shape[1] + 1)
    bounds = np.searchsorted(ends, np.arange(len(contours) + 1) * size)
    kept: dict[bytes | int, tuple[Contour, bool]] = {}
    for k, contour in enumerate(contours):
        kept.setdefault((ends[bounds[k] : bounds[k + 1]] - k * size).tobytes() or k, contour)
    return list(kept.values())


def area_of_overlapping(
    contours: Sequence[tuple[Contour, bool]],
    shape: tuple[int, int],
    cancelling: list[tuple[int, int]] | None = None,
) -> tuple[tuple[int, int], BoolArray] | None:
    """(first voxel (y, x), area) of one slice of ``shape`` (y, x) on which CLOSED_PLANAR contours overlap in part:
    their union counts as one contour, and all that are left as even-odd. None when none overlap in part.

    ``contours`` come with whether they are CLOSEDPLANAR_XOR, for which overlapping means what it says. Pairs of others
    that are nearly equal, so that even-odd leaves next to nothing of them, are added to ``cancelling``.
    """
    spans = _spans([contour.points for contour, _ in contours], shape)
    plain = ~np.array([xor for _, xor in contours])
    common = _common(spans, plain, len(contours), shape)
    if common is None:
        return None
    group = _groups(common)
    if cancelling is not None:
        cancelling += _nearly_equal([contour.points for contour, _ in contours], common, group)
    if group is None:
        return None
    sizes = np.bincount(group)
    alone = [contour for (contour, _), g in zip(contours, group, strict=True) if sizes[g] == 1]
    area = np.zeros(shape, dtype=bool)
    if alone:
        start, box = fill(alone, shape)
        area[start[1] : start[1] + box.shape[1], start[2] : start[2] + box.shape[2]] = box[0]
    several = sizes[group[spans.owner]] > 1
    for member in _by_group(spans.of(several), group):
        low = int(member.row.min()), int(member.first.min())
        size = int(member.row.max()) + 1 - low[0], int(member.stop.max()) - low[1]
        area[low[0] : low[0] + size[0], low[1] : low[1] + size[1]] ^= member.count(low, size) > 0
    return (0, 0), area


def _spans(outlines: Sequence[npt.NDArray[np.float64]], shape: tuple[int, int]) -> _Spans:
    """Every contour alone, even-odd."""
    lengths = np.array([len(points) for points in outlines])
    owner = np.repeat(np.arange(len(outlines)), lengths)
    start = np.concatenate(list(outlines))
    end = np.concatenate([np.roll(points, -1, axis=0) for points in outlines])
    edge, row, column = crossings(start, end, (0, 0), shape[::-1])
    order = np.lexsort((column, owner[edge], row))  # a closed line crosses every row an even number of times
    owners, row, column = owner[edge][order], row[order], column[order]
    spans = _Spans(owners[::2], row[::2], column[::2], column[1::2])
    return spans.of(spans.stop > spans.first)


@dataclass(frozen=True)
class _Common:
    """Voxels in each of ``areas`` (n,), and of pairs of contours ``a`` < ``b`` the voxels in both, all (m,), > 0."""

    areas: IntArray
    a: IntArray
    b: IntArray
    voxels: IntArray

    def partly(self) -> BoolArray:
        """Which pairs overlap in part."""
        return self.voxels < WITHIN * np.minimum(self.areas[self.a], self.areas[self.b])


def _common(spans: _Spans, plain: BoolArray, count: int, shape: tuple[int, int]) -> _Common | None:
    """What the ``plain`` ones of so many contours have in common; None when no two have anything."""
    from scipy.sparse import coo_array, csr_array

    counted = spans.of(plain[spans.owner])
    cover = counted.count((0, 0), shape)
    if cover.max(initial=0) < 2:
        return None
    common = csr_array((count, count), dtype=np.int64)
    for owner, voxel in _shared_voxels(counted, cover > 1):
        _, voxel = np.unique(voxel, return_inverse=True)
        ones = np.ones(len(owner), dtype=np.int64)
        covers = coo_array((ones, (voxel, owner)), shape=(int(voxel.max()) + 1, count)).tocsr()
        common = common + covers.T @ covers
    areas = np.bincount(counted.owner, counted.stop - counted.first, minlength=count).astype(np.int64)
    pairs = common.tocoo()
    a, b = pairs.coords
    once = (a < b) & (pairs.data > 0)
    return _Common(areas, a[once].astype(np.int64), b[once].astype(np.int64), pairs.data[once])


def _groups(common: _Common) -> IntArray | None:
    """The group of every contour, shape (n,); None when every contour is a group of its own."""
    from scipy.sparse import coo_array
    from scipy.sparse.csgraph import connected_components

    partly = common.partly()
    if not partly.any():
        return None
    count = len(common.areas)
    ones = np.ones(np.count_nonzero(partly))
    links = coo_array((ones, (common.a[partly], common.b[partly])), shape=(count, count))
    return np.asarray(connected_components(links, directed=False)[1], dtype=np.int64)


def _nearly_equal(
    outlines: Sequence[npt.NDArray[np.float64]], common: _Common, group: IntArray | None
) -> list[tuple[int, int]]:
    """Pairs of contours of different groups, of which next to no voxel is in one only."""
    lengths = np.array(
        [np.linalg.norm(np.roll(points, -1, axis=0) - points, axis=1).sum() for points in outlines]
    )
    a, b = common.a, common.b
    apart = common.areas[a] + common.areas[b] - 2 * common.voxels
    nearly = (apart < NEARLY_EQUAL * np.minimum(lengths[a], lengths[b])) & ~common.partly()
    if group is not None:
        nearly &= group[a] != group[b]
    return list(zip(a[nearly].tolist(), b[nearly].tolist(), strict=True))


def _shared_voxels(spans: _Spans, shared: BoolArray) -> Iterator[tuple[IntArray, IntArray]]:
    """(contours, voxels) of spans that lie in voxels covered by several, some rows at a time."""
    rows: BoolArray = np.asarray(shared.any(axis=1))
    spans = spans.of(rows[spans.row])
    lengths = spans.stop - spans.first
    part = np.cumsum(lengths) // VOXELS_AT_ONCE
    part = part[np.searchsorted(spans.row, spans.row)]  # a row stays together
    for k in np.unique(part):
        some, length = spans.of(part == k), lengths[part == k]
        within = np.arange(int(length.sum())) - np.repeat(np.cumsum(length) - length, length)
        voxel = np.repeat(some.row * shared.shape[1] + some.first, length) + within
        kept = shared.reshape(-1)[voxel]
        yield np.repeat(some.owner, length)[kept], voxel[kept]


def _by_group(spans: _Spans, group: IntArray) -> Iterator[_Spans]:
    order = np.argsort(group[spans.owner], kind="stable")
    ordered = _Spans(spans.owner[order], spans.row[order], spans.first[order], spans.stop[order])
    bounds = np.flatnonzero(np.diff(group[ordered.owner], prepend=-1, append=-1))
    for low, high in itertools.pairwise(bounds):
        yield _Spans(*(part[low:high] for part in (ordered.owner, ordered.row, ordered.first, ordered.stop)))
