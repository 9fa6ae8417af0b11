"""Pictures in which the fit of an MR to a CT is judged by eye: squares of the one and of the other."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import SimpleITK as sitk

from soars.cascade.preprocess import AIR_HU, Grid, resample
from soars.mr.laid import LaidMr

PIXEL_MM = 1.0
SQUARE_MM = 22.0
CT_HU = (-200.0, 300.0)
MR_PERCENT = (1.0, 99.0)
GAP_PIXELS = 8
VIEWS = ("axial", "coronal", "sagittal")


@dataclass(frozen=True)
class Board:
    """One plane through the middle of what both scans see: grey values 0 to 1, [row, column], and its name."""

    view: str
    grey: np.ndarray


def checkerboards(ct: sitk.Image, laid: LaidMr) -> list[Board]:
    """An axial, a coronal and a sagittal plane, in which squares of the CT and of the MR take turns.

    Where the MR fits, borders run on from one square into the next.
    """
    low, high = _shared(laid)
    grid = Grid.covering(low, high, (PIXEL_MM,) * 3)
    values, seen = laid.on(grid)
    hu = resample(ct, grid, outside=AIR_HU)
    bone = np.clip((hu - CT_HU[0]) / (CT_HU[1] - CT_HU[0]), 0, 1)
    dark, bright = np.percentile(values[seen], MR_PERCENT) if seen.any() else (0.0, 1.0)
    soft = np.clip((values - dark) / max(float(bright - dark), 1e-6), 0, 1)
    boards = []
    for axis, view in enumerate(VIEWS):
        middle = grid.shape[axis] // 2
        of_ct, of_mr, there = (np.take(one, middle, axis) for one in (bone, soft, seen))
        if axis:  # rows run from head to foot
            of_ct, of_mr, there = of_ct[::-1], of_mr[::-1], there[::-1]
        row, column = np.indices(of_ct.shape)
        squares = (row // round(SQUARE_MM / PIXEL_MM) + column // round(SQUARE_MM / PIXEL_MM)) % 2 == 1
        boards.append(Board(view, np.where(squares & there, of_mr, of_ct).astype(np.float32)))
    return boards


def side_by_side(boards: Sequence[Board]) -> np.ndarray:
    """The planes in one row, grey values 0 to 1 [row, column], with black between them."""
    rows = max(len(board.grey) for board in boards)
    parts = [np.pad(board.grey, ((0, rows - len(board.grey)), (0, GAP_PIXELS))) for board in boards]
    return np.hstack(parts)[:, :-GAP_PIXELS]


def _shared(laid: LaidMr) -> tuple[np.ndarray, np.ndarray]:
    """The box of the MR's field in the CT's space, LPS mm."""
    image, back = laid.scan.image, laid.found.transform.GetInverse()
    corners = [
        back.TransformPoint(
            image.TransformIndexToPhysicalPoint(
                [int(c * (n - 1)) for c, n in zip(k, image.GetSize(), strict=True)]
            )
        )
        for k in np.ndindex(2, 2, 2)
    ]
    return np.min(corners, axis=0), np.max(corners, axis=0)
