"""Between a mask and its contours on slices: marching squares one way, even-odd filling at voxel centres the other.

Points are voxel indices (x, y) of a slice, so a contour knows nothing of millimetres or of DICOM.

Own marching squares (a few numpy look-ups over all slices of an organ, then a walk along the loops) because
no dependency of the core has one: contourpy comes with matplotlib only, skimage and VTK are large.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

FloatArray = npt.NDArray[np.float64]
IntArray = npt.NDArray[np.int64]
#: A voxel's centre lies on a line when it is this near, in voxels: far below what files say, far above rounding.
ON_LINE = 1e-6
PIXELS_AT_ONCE = 4_000_000
# Of a cell's corners a b / c d (1, 2, 4, 8), which edges (0 top, 1 bottom, 2 left, 3 right) the contour
# enters and leaves by, with the organ on its left when x points right and y up. In the two saddles (6 and 9)
# diagonal voxels stay apart: organs are 4-connected, what is around them 8-connected.
_SEGMENTS = {
    1: ((0, 2),), 2: ((3, 0),), 3: ((3, 2),), 4: ((2, 1),), 5: ((0, 1),), 6: ((3, 0), (2, 1)), 7: ((3, 1),),
    8: ((1, 3),), 9: ((0, 2), (1, 3)), 10: ((1, 0),), 11: ((1, 2),), 12: ((2, 3),), 13: ((0, 3),),
    14: ((2, 0),),
}  # fmt: skip


@dataclass(frozen=True)
class Contour:
    """A closed polygon on slice ``z``: ``points`` are (x, y) voxel indices, shape (n, 2), n >= 3, the first
    not repeated at the end."""

    z: int
    points: FloatArray


def trace(mask: npt.NDArray[np.bool_], level: float = 0.6) -> Iterator[Contour]:
    """Contours of a mask [z, y, x] slice by slice, where the mask read as 0 and 1 and interpolated crosses
    ``level``.

    At 0.6 they run 0.4 voxel outside the border voxels' centres: readers that test voxel centres and readers
    that round the vertices to voxels then both get the mask back. It takes 0.1 voxel off the border at each
    side; 0.5 does not, but only the first kind of reader gets it right.

    A hole is joined to its outline by a keyhole: a channel without width that runs within the organ along a
    row of voxel centres. Every reader understands it, whereas a separate inner contour is filled in by some
    (plastimatch). Points in the middle of a straight line are left out, but where the organ is one voxel wide.
    """
    if not 0 < level < 1:
        raise ValueError(f"the contour level lies between 0 and 1, not at {level}")
    depth, height, width = mask.shape
    step = max(1, PIXELS_AT_ONCE // max(1, height * width))
    for z in range(0, depth, step):
        for contour in _trace_slices(mask[z : z + step], level):
            yield Contour(z + contour.z, contour.points)


def _trace_slices(mask: npt.NDArray[np.bool_], level: float) -> Iterator[Contour]:
    padded = np.pad(mask, ((0, 0), (1, 1), (1, 1)))
    inside = padded.view(np.uint8)
    # a vertex on every grid line between a voxel inside and one outside, first the horizontal lines, then the
    # vertical
    horizontal = inside[:, :, :-1] != inside[:, :, 1:]
    vertical = inside[:, :-1, :] != inside[:, 1:, :]
    hz, hy, hx = np.nonzero(horizontal)
    vz, vy, vx = np.nonzero(vertical)
    count = len(hz)
    total = count + len(vz)
    if total == 0:
        return
    number_h = np.zeros(horizontal.shape, dtype=np.int32)
    number_h[hz, hy, hx] = np.arange(count)
    number_v = np.zeros(vertical.shape, dtype=np.int32)
    number_v[vz, vy, vx] = np.arange(count, total)
    out = 1.0 - level
    x = np.concatenate([hx + np.where(padded[hz, hy, hx], out, 1 - out), vx]) - 1
    y = np.concatenate([hy, vy + np.where(padded[vz, vy, vx], out, 1 - out)]) - 1
    slice_of = np.concatenate([hz, vz])
    # where the organ is one voxel wide both its borders round to the same voxels: a reader that fills the polygon of
    # rounded vertices without drawing its edges (platipy) finds these voxels by their vertices alone
    column, row = hx + ~padded[hz, hy, hx], vy + ~padded[vz, vy, vx]
    narrow = np.concatenate(
        [
            ~(padded[hz, hy, column - 1] | padded[hz, hy, column + 1]),
            ~(padded[vz, row - 1, vx] | padded[vz, row + 1, vx]),
        ]
    )

    code = inside[:, :-1, :-1] + 2 * inside[:, :-1, 1:] + 4 * inside[:, 1:, :-1] + 8 * inside[:, 1:, 1:]
    cz, cy, cx = np.nonzero((code > 0) & (code < 15))
    codes = code[cz, cy, cx]
    following = np.empty(total, dtype=np.int32)
    for case, segments in _SEGMENTS.items():
        at = np.flatnonzero(codes == case)
        z, j, i = cz[at], cy[at], cx[at]
        edges = {
            0: (number_h, z, j, i),
            1: (number_h, z, j + 1, i),
            2: (number_v, z, j, i),
            3: (number_v, z, j, i + 1),
        }
        for enter, leave in segments:
            first, *where_first = edges[enter]
            second, *where_second = edges[leave]
            following[first[tuple(where_first)]] = second[tuple(where_second)]

    loops = _loops(following.tolist())
    for loop in _with_keyholes(loops, x, y, slice_of, padded, number_h):
        points = _without_straight(np.stack([x[loop], y[loop]], axis=1), narrow[loop])
        yield Contour(int(slice_of[loop[0]]), points)


def _loops(following: list[int]) -> list[list[int]]:
    """The cycles of a permutation."""
    seen = bytearray(len(following))
    loops = []
    for start in range(len(following)):
        if not seen[start]:
            loop = []
            vertex = start
            while not seen[vertex]:
                seen[vertex] = 1
                loop.append(vertex)
                vertex = following[vertex]
            loops.append(loop)
    return loops


def _with_keyholes(
    loops: list[list[int]],
    x: FloatArray,
    y: FloatArray,
    slice_of: npt.NDArray[np.intp],
    padded: npt.NDArray[np.bool_],
    number_h: npt.NDArray[np.int32],
) -> list[list[int]]:
    """Join each hole (a loop that runs clockwise) to the loop left of it."""
    flat = np.concatenate([np.asarray(loop) for loop in loops])
    after = np.concatenate([np.asarray(loop[1:] + loop[:1]) for loop in loops])
    starts = np.cumsum([0] + [len(loop) for loop in loops[:-1]])
    area = np.add.reduceat(x[flat] * y[after] - x[after] * y[flat], starts)
    if (area > 0).all():
        return loops
    holes = [k for k in range(len(loops)) if area[k] < 0]
    loop_of = np.empty(len(x), dtype=np.int32)
    loop_of[flat] = np.repeat(np.arange(len(loops)), [len(loop) for loop in loops])
    root = {k: k for k in range(len(loops)) if area[k] > 0}
    leftmost = {k: min(loops[k], key=lambda v: x[v]) for k in holes}
    for k in sorted(holes, key=lambda k: (slice_of[loops[k][0]], x[leftmost[k]])):
        own = leftmost[k]
        z, row, column = int(slice_of[own]), int(y[own]) + 1, int(np.floor(x[own])) + 1
        # from the voxel left of the hole on to the left, as far as the organ goes
        last_outside = int(np.flatnonzero(~padded[z, row, : column + 1])[-1])
        target = int(number_h[z, row, last_outside])
        root[k] = root[int(loop_of[target])]
        outline, at = loops[root[k]], loops[k].index(own)
        position = outline.index(target)
        outline[position:position] = [target, own, *loops[k][at + 1 :], *loops[k][:at], own]
    return [loops[k] for k in range(len(loops)) if area[k] > 0]


def _without_straight(points: FloatArray, keep: npt.NDArray[np.bool_]) -> FloatArray:
    """Leave out points in the middle of a straight line, but those to keep."""
    before, after = points - np.roll(points, 1, axis=0), np.roll(points, -1, axis=0) - points
    cross = before[:, 0] * after[:, 1] - before[:, 1] * after[:, 0]
    ahead = (before * after).sum(axis=1) > 0
    return points[keep | ~((np.abs(cross) < 1e-9) & ahead)]


def fill(
    contours: Sequence[Contour], shape: tuple[int, int] | None = None
) -> tuple[tuple[int, int, int], npt.NDArray[np.bool_]]:
    """The voxels whose centres lie inside an odd number of contours of their slice: (first voxel (z, y, x),
    box).

    Contours of one slice count together, so an inner contour is a hole. Centres exactly on a line: see `crossings`.
    With ``shape``, the rows and columns of the grid, nothing outside it is filled, nor computed: a contour may run as
    far out as it likes.
    """
    z = np.concatenate([np.full(len(c.points), c.z) for c in contours])
    start = np.concatenate([c.points for c in contours])
    end = np.concatenate([np.roll(c.points, -1, axis=0) for c in contours])
    least, most = np.floor(start.min(axis=0)), np.ceil(start.max(axis=0)) + 1
    if shape is not None:
        least, most = (np.clip(v, 0, shape[::-1]) for v in (least, most))
    low, high = least.astype(int), most.astype(int)
    z_low, z_high = int(z.min()), int(z.max()) + 1
    box = (z_high - z_low, int(high[1] - low[1]), int(high[0] - low[0]) + 1)
    edge, row, column = crossings(start, end, low, high)
    flat = np.ravel_multi_index((z[edge] - z_low, row - low[1], column - low[0]), box)
    changes = np.zeros(box, dtype=np.uint8)
    np.bitwise_xor.at(changes.reshape(-1), flat, 1)
    filled = np.bitwise_xor.accumulate(changes, axis=2)[:, :, :-1].astype(bool)
    return (z_low, int(low[1]), int(low[0])), filled


def crossings(
    start: FloatArray, end: FloatArray, low: npt.ArrayLike, high: npt.ArrayLike
) -> tuple[IntArray, IntArray, IntArray]:
    """Where edges cross the rows of voxel centres: (edge, row, column), each of shape (n,). All centres of the row from
    the column on change sides.

    Args:
        start, end: of the edges, (x, y) voxel indices, shape (m, 2).
        low, high: the (x, y) box that is filled, without ``high``: beyond it an edge counts as if it ran along it.

    A centre exactly on a line, up to `ON_LINE`, belongs to the area on the side of smaller x or of larger y, as in
    plastimatch 1.9.4. Of two areas that share an edge, exactly one holds each centre on it.
    """
    low, high = np.asarray(low), np.asarray(high)
    start_y, end_y = (_on_rows(points[:, 1]) for points in (start, end))
    # half open, so that a vertex on a row counts once
    from_row, to_row = (np.clip(np.ceil(y), low[1], high[1]).astype(np.int64) for y in (start_y, end_y))
    rows = np.abs(to_row - from_row)
    edge = np.repeat(np.arange(len(rows)), rows)
    row = np.minimum(from_row, to_row)[edge] + np.arange(len(edge)) - np.repeat(np.cumsum(rows) - rows, rows)
    slope = (end[edge, 0] - start[edge, 0]) / (end_y[edge] - start_y[edge])
    x = start[edge, 0] + (row - start_y[edge]) * slope
    return edge, row, np.clip(np.floor(x + ON_LINE) + 1, low[0], high[0]).astype(np.int64)


def _on_rows(y: FloatArray) -> FloatArray:
    rounded = np.round(y)
    return np.where(np.abs(y - rounded) < ON_LINE, rounded, y)
