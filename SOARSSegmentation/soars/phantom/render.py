"""From the list of parts to voxels: each part is painted inside its own box only, a few slices at a time."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np

from soars.phantom.part import KEEP, Part
from soars.phantom.variation import Warp

CHUNK_VOXELS = 250_000
BOX_MARGIN_MM = 2.0
BODY = "Body"  # whatever is not a tissue of its own is still the patient


@dataclass
class Canvas:
    """The CT being painted (float32 HU [z, y, x]) with label volumes; `axes_mm` are patient coordinates (z, y, x)."""

    axes_mm: tuple[np.ndarray, np.ndarray, np.ndarray]
    hu: np.ndarray
    organs: np.ndarray
    inner: np.ndarray
    tissues: np.ndarray
    organ_names: list[str] = field(default_factory=list)
    tissue_names: list[str] = field(default_factory=list)

    @staticmethod
    def empty(axes_mm: tuple[np.ndarray, np.ndarray, np.ndarray]) -> Canvas:
        shape = tuple(len(a) for a in axes_mm)
        return Canvas(
            axes_mm,
            np.full(shape, -1000, np.float32),
            np.zeros(shape, np.uint8),
            np.zeros(shape, np.uint8),
            np.zeros(shape, np.uint8),
        )

    def value(self, names: list[str], name: str | None) -> int:
        """The label value of a name (its place in the list, from 1); 0 for None."""
        if name is None:
            return 0
        if name not in names:
            names.append(name)
        return names.index(name) + 1


def patient_boxes(parts: Sequence[Part], warp: Warp) -> np.ndarray:
    """Boxes [n, 2, 3] (lo and hi, x y z, patient mm) around the parts as they lie in the patient."""
    steps = np.array(np.meshgrid([0, 0.5, 1], [0, 0.5, 1], [0, 0.5, 1], indexing="ij")).reshape(3, -1).T
    lo = np.array([p.shape.lo for p in parts])[:, None, :]
    hi = np.array([p.shape.hi for p in parts])[:, None, :]
    points = (lo + steps[None] * (hi - lo)).reshape(-1, 3)
    moved = warp.to_patient(points).reshape(len(parts), -1, 3)
    margin = BOX_MARGIN_MM + 0.02 * (hi - lo)[:, 0, :]
    return np.stack([moved.min(axis=1) - margin, moved.max(axis=1) + margin], axis=1)


def paint(canvas: Canvas, parts: Sequence[Part], warp: Warp) -> None:
    """Paint the parts in order."""
    spacing = np.array([a[1] - a[0] if len(a) > 1 else 1.0 for a in canvas.axes_mm])
    for part, (lo, hi) in zip(parts, patient_boxes(parts, warp), strict=True):
        ranges = []
        for axis in range(3):
            values = canvas.axes_mm[axis]
            first = int(np.searchsorted(values, lo[2 - axis] - spacing[axis]))
            last = int(np.searchsorted(values, hi[2 - axis] + spacing[axis]))
            ranges.append((first, last))
        if any(b <= a for a, b in ranges):
            continue
        (z0, z1), (y0, y1), (x0, x1) = ranges
        deep = max(1, CHUNK_VOXELS // ((y1 - y0) * (x1 - x0)))
        for start in range(z0, z1, deep):
            block = (slice(start, min(start + deep, z1)), slice(y0, y1), slice(x0, x1))
            _paint_block(canvas, part, warp, block, spacing)


def _paint_block(
    canvas: Canvas, part: Part, warp: Warp, block: tuple[slice, ...], spacing: np.ndarray
) -> None:
    z, y, x = (values[s] for values, s in zip(canvas.axes_mm, block, strict=True))
    cx, cy, cz = warp.coordinates(z, y, x)
    d = part.shape.distance(cx, cy, cz)
    inside = d < 0
    alpha = 0.5 - d / _voxel_width(d, spacing)
    np.clip(alpha, 0, 1, out=alpha)
    hu = part.hu(d, cx, cy, cz) if callable(part.hu) else part.hu
    view = canvas.hu[block]
    view += alpha * (hu - view)
    if part.inner:
        canvas.inner[block][inside] = canvas.value(canvas.organ_names, part.organ)
    elif part.organ != KEEP:
        canvas.organs[block][inside] = canvas.value(canvas.organ_names, part.organ)
        canvas.inner[block][inside] = 0
    if part.tissue != KEEP:  # None: plain body again
        canvas.tissues[block][inside] = canvas.value(canvas.tissue_names, part.tissue or BODY)


def _voxel_width(d: np.ndarray, spacing: np.ndarray) -> np.ndarray:
    """How much the distance changes across one voxel (its shadow along the surface's normal): the soft edge's width."""
    width = np.full(d.shape, 1e-3, np.float32)
    for axis in range(3):
        if d.shape[axis] == 1:
            width += float(spacing[axis]) * 0.3
            continue
        step = np.abs(np.diff(d, axis=axis))
        head = [slice(None)] * 3
        tail = [slice(None)] * 3
        head[axis], tail[axis] = slice(0, -1), slice(-1, None)
        width[tuple(head)] += step
        width[tuple(tail)] += step[tuple(tail)]
    return width
