"""Draws docs/metrics.svg, the picture of docs/metrics.md: python docs/draw_metrics.py (needs matplotlib).

The numbers in the picture are computed by the program, so that the picture cannot say anything else than it does.
"""

from __future__ import annotations

from pathlib import Path

import matplotlib
import numpy as np
from matplotlib.axes import Axes
from matplotlib.collections import LineCollection
from matplotlib.figure import Figure

from soars.metrics import Tolerance, score_masks
from soars.metrics.path_length import contour_pixels
from soars.structures import Geometry
from soars.structures.model import tight_mask

TOLERANCE_MM = 1.5
REFERENCE, PREDICTION, BOTH = "#2c7fb8", "#e6842a", "#9a9a9a"
SHAPE = (22, 30)


def main() -> None:
    y, x = np.mgrid[: SHAPE[0], : SHAPE[1]]
    reference = ((x - 12) / 8.5) ** 2 + ((y - 11) / 7.3) ** 2 <= 1
    prediction = ((x - 13.5) / 8.0) ** 2 + ((y - 11.5) / 6.5) ** 2 <= 1
    prediction |= ((x - 22) / 4.5) ** 2 + ((y - 6) / 2.6) ** 2 <= 1
    sides = [np.stack([mask] * 3) for mask in (prediction, reference)]
    geometry = Geometry((SHAPE[1], SHAPE[0], 3), (1.0, 1.0, 100.0), (0.0, 0.0, 0.0))
    score = score_masks(*sides, geometry, tolerance=Tolerance(TOLERANCE_MM, "drawing"))
    matplotlib.rcParams.update({"svg.fonttype": "none", "svg.hashsalt": "metrics"})
    figure = Figure(figsize=(11.5, 2.4), layout="constrained")
    axes = figure.subplots(1, 4)
    _overlap(axes[0], prediction, reference)
    axes[0].set_title(f"DSC: twice the common voxels (grey)\nover both volumes = {_two(score.dsc)}")
    _distances(axes[1], prediction, reference)
    axes[1].set_title(
        "distances from contour to contour:\n"
        f"HD = {score.hd_mm:.1f}, HD95 = {score.hd95_mm:.1f}, mean = {score.asd_mm:.2f} mm"
    )
    _tolerance(axes[2], prediction, reference)
    axes[2].set_title(
        f"surface DSC: share of both contours within\n{TOLERANCE_MM} mm of the other = {_two(score.surface_dsc)}"
    )
    added = _added_path(axes[3], prediction, reference)
    axes[3].set_title(
        f"added path length: the reference's contour\npixels not drawn (red) = {added} mm in this slice"
    )
    for axis in axes:
        axis.title.set_fontsize(8.5)
        axis.set(xlim=(1, 28), ylim=(20.5, 1.5), aspect="equal", xticks=[], yticks=[])
    figure.savefig(Path(__file__).parent / "metrics.svg", metadata={"Date": None})


def _two(value: float) -> str:
    return f"{value:.2f}"


def _outline(axis: Axes, mask: np.ndarray, colour: str, label: str | None = None) -> None:
    """The contour through the middles between voxels inside and outside."""
    axis.contour(mask.astype(float), levels=[0.5], colors=[colour], linewidths=1.8)
    if label:
        axis.plot([], [], color=colour, label=label)


def _overlap(axis: Axes, prediction: np.ndarray, reference: np.ndarray) -> None:
    for mask, colour in (
        (reference & ~prediction, REFERENCE),
        (prediction & ~reference, PREDICTION),
        (prediction & reference, BOTH),
    ):
        y, x = np.nonzero(mask)
        axis.scatter(x, y, s=16, marker="s", color=colour, linewidths=0, alpha=0.75)
    _outline(axis, reference, REFERENCE, "reference")
    _outline(axis, prediction, PREDICTION, "prediction")
    axis.legend(loc="lower right", fontsize=7)


def _points(mask: np.ndarray) -> np.ndarray:
    """Corners of voxels (x, y) that the contour passes by."""
    padded = np.pad(mask, 1).astype(int)
    around = padded[:-1, :-1] + padded[1:, :-1] + padded[:-1, 1:] + padded[1:, 1:]
    y, x = np.nonzero((around > 0) & (around < 4))
    return np.stack([x - 0.5, y - 0.5], axis=1)


def _nearest(points: np.ndarray, others: np.ndarray) -> np.ndarray:
    return others[np.linalg.norm(points[:, None] - others[None], axis=2).argmin(axis=1)]


def _distances(axis: Axes, prediction: np.ndarray, reference: np.ndarray) -> None:
    a, b = _points(prediction), _points(reference)
    for points, others, colour in ((a, b, PREDICTION), (b, a, REFERENCE)):
        ends = _nearest(points, others)
        axis.add_collection(LineCollection(np.stack([points, ends], axis=1), colors=colour, linewidths=0.8))
        axis.scatter(*points.T, s=5, color=colour, zorder=3)
    longest = np.linalg.norm(a - _nearest(a, b), axis=1).argmax()
    line = np.stack([a[longest], _nearest(a, b)[longest]])
    axis.plot(*line.T, color="black", linewidth=2)
    axis.annotate("HD", line.mean(axis=0), xytext=(3, -10), textcoords="offset points", fontsize=9)


def _tolerance(axis: Axes, prediction: np.ndarray, reference: np.ndarray) -> None:
    for own, other, colour in ((prediction, reference, PREDICTION), (reference, prediction, REFERENCE)):
        points = _points(own)
        away = np.linalg.norm(points - _nearest(points, _points(other)), axis=1)
        axis.scatter(*points[away <= TOLERANCE_MM].T, s=12, color=colour, zorder=3)
        axis.scatter(*points[away > TOLERANCE_MM].T, s=26, marker="x", color="crimson", zorder=4)
    axis.contour(reference.astype(float), levels=[0.5], colors=[REFERENCE], linewidths=19, alpha=0.13)
    axis.scatter([], [], marker="x", color="crimson", label="beyond the tolerance")
    axis.legend(loc="lower right", fontsize=7)


def _added_path(axis: Axes, prediction: np.ndarray, reference: np.ndarray) -> int:
    contours = []
    for mask in (prediction, reference):
        found = contour_pixels(tight_mask(mask[None])).box((0, 0, 0), (1, *SHAPE))[0]
        contours.append(found)
    drawn, wanted = contours
    for mask, colour in ((drawn & ~wanted, PREDICTION), (drawn & wanted, BOTH), (wanted & ~drawn, "crimson")):
        y, x = np.nonzero(mask)
        axis.scatter(x, y, s=16, marker="s", color=colour, linewidths=0)
    return int(np.count_nonzero(wanted & ~drawn))


if __name__ == "__main__":
    main()
