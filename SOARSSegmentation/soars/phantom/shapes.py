"""Signed distance shapes: an organ before there is a grid.

A `Shape` is a box in which it lies and a function of coordinate arrays (x, y, z in mm, float32) that is negative
inside. The values are close to millimetres near the surface, not exact far from it; joins and offsets rely on that.
The primitives follow the closed forms collected by I. Quilez, "distance functions" (iquilezles.org).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

Point = npt.ArrayLike  # x, y, z in mm
Points = npt.ArrayLike | Sequence[npt.ArrayLike]
Distance = Callable[[np.ndarray, np.ndarray, np.ndarray], np.ndarray]
TABLE_STEP_MM = 0.25


@dataclass(frozen=True)
class Shape:
    """A solid: `distance(x, y, z)` in about mm, negative inside; everything inside lies in the box [lo, hi]."""

    lo: np.ndarray
    hi: np.ndarray
    distance: Distance

    def grown(self, by_mm: float) -> Shape:
        """The solid with its surface moved outwards (inwards when negative)."""
        pad = max(by_mm, 0.0)
        return Shape(self.lo - pad, self.hi + pad, lambda x, y, z: self.distance(x, y, z) - by_mm)

    def without(self, other: Shape, smooth_mm: float = 0.0) -> Shape:
        """This solid with the other cut away."""
        return Shape(
            self.lo,
            self.hi,
            lambda x, y, z: -_smooth_min(-self.distance(x, y, z), other.distance(x, y, z), smooth_mm),
        )

    def within(self, other: Shape, smooth_mm: float = 0.0) -> Shape:
        """The intersection of both solids."""
        return Shape(
            np.maximum(self.lo, other.lo),
            np.minimum(self.hi, other.hi),
            lambda x, y, z: -_smooth_min(-self.distance(x, y, z), -other.distance(x, y, z), smooth_mm),
        )

    def between(self, axis: int, lo: float = -1e4, hi: float = 1e4) -> Shape:
        """The part with lo <= coordinate <= hi along the axis (0 = x, 1 = y, 2 = z)."""
        box_lo, box_hi = self.lo.copy(), self.hi.copy()
        box_lo[axis], box_hi[axis] = max(box_lo[axis], lo), min(box_hi[axis], hi)

        def distance(x: np.ndarray, y: np.ndarray, z: np.ndarray) -> np.ndarray:
            c = (x, y, z)[axis]
            out = self.distance(x, y, z)
            if lo > -1e4:
                out = np.maximum(out, lo - c)
            return np.maximum(out, c - hi) if hi < 1e4 else out

        return Shape(box_lo, box_hi, distance)


def _smooth_min(a: np.ndarray, b: np.ndarray, k: float) -> np.ndarray:
    """The smaller of two distances with the crease rounded over k mm (polynomial smooth minimum)."""
    if k <= 0:
        return np.minimum(a, b)
    h = np.abs(a - b)
    np.subtract(k, h, out=h)
    np.maximum(h, 0, out=h)
    return np.minimum(a, b) - h * h * (0.25 / k)


def join(*shapes: Shape, smooth_mm: float = 0.0) -> Shape:
    """All solids as one, their creases filled over `smooth_mm`."""
    lo = np.min([s.lo for s in shapes], axis=0) - smooth_mm / 4
    hi = np.max([s.hi for s in shapes], axis=0) + smooth_mm / 4

    def distance(x: np.ndarray, y: np.ndarray, z: np.ndarray) -> np.ndarray:
        out = shapes[0].distance(x, y, z)
        for shape in shapes[1:]:
            out = _smooth_min(out, shape.distance(x, y, z), smooth_mm)
        return out

    return Shape(lo, hi, distance)


def ellipsoid(centre: Point, radii: Point, tilt_deg: float = 0.0, plane: str = "xz") -> Shape:
    """An ellipsoid, its axes turned by `tilt_deg` in one coordinate plane."""
    cx, cy, cz = np.asarray(centre, float).tolist()
    a, b, c = np.asarray(radii, float).tolist()
    i, j = "xyz".index(plane[0]), "xyz".index(plane[1])
    cos, sin = float(np.cos(np.deg2rad(tilt_deg))), float(np.sin(np.deg2rad(tilt_deg)))
    reach = np.array([a, b, c])
    if tilt_deg:
        reach[i], reach[j] = (
            np.hypot(reach[i] * cos, reach[j] * sin),
            np.hypot(reach[i] * sin, reach[j] * cos),
        )

    def distance(x: np.ndarray, y: np.ndarray, z: np.ndarray) -> np.ndarray:
        p = [x - cx, y - cy, z - cz]
        if tilt_deg:
            p[i], p[j] = cos * p[i] + sin * p[j], cos * p[j] - sin * p[i]
        u, v, w = p[0] / a, p[1] / b, p[2] / c
        k0 = np.sqrt(u * u + v * v + w * w) + 1e-6
        u /= a
        v /= b
        w /= c
        k1 = np.sqrt(u * u + v * v + w * w) + 1e-9
        return k0 * (k0 - 1) / k1

    centre_array = np.array([cx, cy, cz])
    return Shape(centre_array - reach, centre_array + reach, distance)


def tube(points: Points, radii: npt.ArrayLike, flat: tuple[float, float] = (1.0, 1.0)) -> Shape:
    """A round rod along a polyline, its radius (mm) varying along it; `flat` stretches the section along x and y.

    The ends are half balls.
    """
    p = np.array(points, float)
    r = np.broadcast_to(np.asarray(radii, float), (len(p),)).copy()
    fx, fy = flat
    scale = np.array([fx, fy, 1.0])
    q = p / scale
    lo, hi = (p - r[:, None] * scale).min(axis=0), (p + r[:, None] * scale).max(axis=0)

    def distance(x: np.ndarray, y: np.ndarray, z: np.ndarray) -> np.ndarray:
        x, y = x / fx, y / fy
        out = np.full(np.broadcast_shapes(x.shape, y.shape, z.shape), np.inf, np.float32)
        for k in range(len(q) - 1):
            ax, ay, az = map(float, q[k])
            dx, dy, dz = map(float, q[k + 1] - q[k])
            length2 = dx * dx + dy * dy + dz * dz + 1e-9
            px, py, pz = x - ax, y - ay, z - az
            t = np.clip((px * dx + py * dy + pz * dz) / length2, 0, 1)
            d = np.sqrt((px - t * dx) ** 2 + (py - t * dy) ** 2 + (pz - t * dz) ** 2)
            d -= float(r[k]) + t * float(r[k + 1] - r[k])
            np.minimum(out, d, out=out)
        return out * min(fx, fy)

    return Shape(lo, hi, distance)


def ribbon(points: Points, half_thickness: float, half_height: npt.ArrayLike, round_mm: float = 1.0) -> Shape:
    """An upright wall along a polyline (x, y, z of its middle), e.g. the body of the mandible."""
    p = np.array(points, float)
    hh = np.broadcast_to(np.asarray(half_height, float), (len(p),)).copy()
    pad = np.stack([np.full(len(p), half_thickness), np.full(len(p), half_thickness), hh], axis=1)

    def distance(x: np.ndarray, y: np.ndarray, z: np.ndarray) -> np.ndarray:
        out = np.full(np.broadcast_shapes(x.shape, y.shape, z.shape), np.inf, np.float32)
        for k in range(len(p) - 1):
            ax, ay, az = map(float, p[k])
            dx, dy, dz = map(float, p[k + 1] - p[k])
            px, py = x - ax, y - ay
            t = np.clip((px * dx + py * dy) / (dx * dx + dy * dy + 1e-9), 0, 1)
            side = np.sqrt((px - t * dx) ** 2 + (py - t * dy) ** 2) - (half_thickness - round_mm)
            up = np.abs(z - az - t * dz) - (float(hh[k]) - round_mm + t * float(hh[k + 1] - hh[k]))
            d = np.sqrt(np.maximum(side, 0) ** 2 + np.maximum(up, 0) ** 2) + np.minimum(
                np.maximum(side, up), 0
            )
            d -= round_mm
            np.minimum(out, d, out=out)
        return out

    return Shape((p - pad).min(axis=0), (p + pad).max(axis=0), distance)


def cylinder(centre: Point, radii: tuple[float, float], half_height: float, round_mm: float = 1.0) -> Shape:
    """An upright elliptic cylinder with rounded rims, e.g. a vertebral body."""
    cx, cy, cz = np.asarray(centre, float).tolist()
    a, b = radii[0] - round_mm, radii[1] - round_mm
    h = half_height - round_mm

    def distance(x: np.ndarray, y: np.ndarray, z: np.ndarray) -> np.ndarray:
        side = _ellipse(x - cx, y - cy, a, b)
        up = np.abs(z - cz) - h
        return (
            np.sqrt(np.maximum(side, 0) ** 2 + np.maximum(up, 0) ** 2)
            + np.minimum(np.maximum(side, up), 0)
            - round_mm
        )

    reach = np.array([radii[0], radii[1], half_height])
    return Shape(np.array(centre, float) - reach, np.array(centre, float) + reach, distance)


def _ellipse(px: np.ndarray, py: np.ndarray, a: float, b: float) -> np.ndarray:
    u, v = px / a, py / b
    k0 = np.sqrt(u * u + v * v) + 1e-6
    k1 = np.sqrt((u / a) ** 2 + (v / b) ** 2) + 1e-9
    return k0 * (k0 - 1) / k1


def loft(sections: Sequence[Sequence[float]], power: int = 2, cx: float = 0.0) -> Shape:
    """A body stacked from upright sections (z, centre y, half width x, half depth y), smooth between them.

    `power` 2 gives ellipses, 3 and 4 squarer and squarer sections. The ends are cut flat.
    """
    table = np.array(sections, float)
    table = table[np.argsort(table[:, 0])]
    z_lo, z_hi = table[0, 0], table[-1, 0]
    steps = np.arange(z_lo, z_hi + TABLE_STEP_MM, TABLE_STEP_MM)
    rows = np.stack([_smooth_interp(steps, table[:, 0], table[:, k]) for k in (1, 2, 3)]).astype(np.float32)

    def distance(x: np.ndarray, y: np.ndarray, z: np.ndarray) -> np.ndarray:
        index = ((z - float(z_lo)) * (1 / TABLE_STEP_MM) + 0.5).astype(np.int32)
        np.clip(index, 0, rows.shape[1] - 1, out=index)
        a, b = rows[1][index], rows[2][index]
        u, v = np.abs((x - cx) / a), np.abs((y - rows[0][index]) / b)
        u2, v2 = u * u, v * v
        if power == 4:
            k0 = np.sqrt(np.sqrt(u2 * u2 + v2 * v2)) + 1e-4
            gu, gv, scale = u2 * u / a, v2 * v / b, k0 * k0 * k0
        elif power == 3:
            k0 = np.cbrt(u2 * u + v2 * v) + 1e-4
            gu, gv, scale = u2 / a, v2 / b, k0 * k0
        else:
            k0 = np.sqrt(u2 + v2) + 1e-4
            gu, gv, scale = u / a, v / b, k0
        side = (k0 - 1) * scale / (np.sqrt(gu * gu + gv * gv) + 1e-9)
        side = np.maximum(side, -np.minimum(a, b))
        return np.maximum(side, np.maximum(float(z_lo) - z, z - float(z_hi)))

    half = np.abs(table[:, 2]).max()
    return Shape(
        np.array([cx - half, (table[:, 1] - table[:, 3]).min() - 2, z_lo]),
        np.array([cx + half, (table[:, 1] + table[:, 3]).max() + 2, z_hi]),
        distance,
    )


def _smooth_interp(at: np.ndarray, knots: np.ndarray, values: np.ndarray) -> np.ndarray:
    """Monotone cubic (Fritsch-Carlson) through the knots."""
    from scipy.interpolate import PchipInterpolator

    if len(knots) < 3:
        return np.interp(at, knots, values)
    return PchipInterpolator(knots, values)(np.clip(at, knots[0], knots[-1]))
