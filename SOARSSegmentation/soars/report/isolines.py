"""Where a picture crosses a value: marching squares on one plane, for smooth outlines in the report.

`soars.dicom.contours` draws what a planning system reads: on the CT's own voxels, exact, with keyholes. This module
draws what a person sees: between the voxels, interpolated, with a hole as an outline of its own.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

FloatArray = npt.NDArray[np.floating]

# Corners a b / c d of a cell are bits 1 2 4 8 when above the level; edges are 0 top, 1 bottom, 2 left, 3 right.
# For each case the edges a line enters and leaves by, with the higher values always on the same side.
_CROSSINGS = {
    1: ((0, 2),), 2: ((3, 0),), 3: ((3, 2),), 4: ((2, 1),), 5: ((0, 1),), 6: ((3, 0), (2, 1)), 7: ((3, 1),),
    8: ((1, 3),), 9: ((0, 2), (1, 3)), 10: ((1, 0),), 11: ((1, 2),), 12: ((2, 3),), 13: ((0, 3),),
    14: ((2, 0),),
}  # fmt: skip


def isolines(values: FloatArray, level: float) -> list[npt.NDArray[np.float64]]:
    """Closed lines along which `values` [row, column], taken as lowest outside its border, crosses `level`.

    Each is an array [n, 2] of (column, row) with sub-pixel places, the first point not repeated. Empty when
    nothing is above the level.
    """
    field = np.pad(
        np.asarray(values, dtype=np.float64), 1, constant_values=min(level - 1.0, float(np.min(values)))
    )
    above = field > level
    across = above[:, :-1] != above[:, 1:]
    down = above[:-1] != above[1:]
    (row_a, column_a), (row_d, column_d) = np.nonzero(across), np.nonzero(down)
    count = len(row_a)
    number_a, number_d = np.zeros(across.shape, np.intp), np.zeros(down.shape, np.intp)
    number_a[row_a, column_a] = np.arange(count)
    number_d[row_d, column_d] = np.arange(len(row_d)) + count

    def part(first: FloatArray, second: FloatArray) -> FloatArray:
        return (level - first) / (second - first)

    points = np.concatenate(
        [
            np.stack([column_a + part(field[row_a, column_a], field[row_a, column_a + 1]), row_a], axis=1),
            np.stack([column_d, row_d + part(field[row_d, column_d], field[row_d + 1, column_d])], axis=1),
        ]
    )
    following = np.zeros(len(points), np.intp)
    case = above[:-1, :-1] + 2 * above[:-1, 1:] + 4 * above[1:, :-1] + 8 * above[1:, 1:]
    rows, columns = np.nonzero((case > 0) & (case < 15))
    cases = case[rows, columns]
    for kind, crossings in _CROSSINGS.items():
        row, column = rows[cases == kind], columns[cases == kind]
        edge = {
            0: lambda r, c: number_a[r, c],
            1: lambda r, c: number_a[r + 1, c],
            2: lambda r, c: number_d[r, c],
            3: lambda r, c: number_d[r, c + 1],
        }
        for enter, leave in crossings:
            following[edge[enter](row, column)] = edge[leave](row, column)
    return [points[loop] - 1 for loop in _cycles(following.tolist())]


def _cycles(following: list[int]) -> list[list[int]]:
    """The cycles of a permutation."""
    seen = [False] * len(following)
    cycles = []
    for start in range(len(following)):
        cycle = []
        at = start
        while not seen[at]:
            seen[at] = True
            cycle.append(at)
            at = following[at]
        if cycle:
            cycles.append(cycle)
    return cycles
