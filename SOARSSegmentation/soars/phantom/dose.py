"""A plausible dose: 70 Gy to a tumour of the throat, 54 Gy to the neck's lymph nodes, falling off outside."""

from __future__ import annotations

import numpy as np

from soars.phantom.shapes import ellipsoid, join, tube
from soars.phantom.surface import body
from soars.phantom.variation import Variation, Warp

PRESCRIPTION_GY = (70.0, 54.0)
DOSE_SPACING_MM = 3.0


def dose_gy(v: Variation, warp: Warp, axes_mm: tuple[np.ndarray, np.ndarray, np.ndarray]) -> np.ndarray:
    """Dose in Gy, float32 [z, y, x], at patient coordinates (z, y, x) mm."""
    s = 1 if v.chance("tumour left", 0.5) else -1
    high = join(
        ellipsoid(np.array([s * 14, -32, -52]) + v.shift("tumour", 5), (17, 18, 26)),
        tube([(s * 34, -12, -60), (s * 36, -14, -95)], 11),
        smooth_mm=8,
    )
    chains = [
        tube(
            [(side * 36, 0, -38), (side * 38, -10, -80), (side * 36, -12, -125), (side * 42, -12, -168)],
            [10, 13, 13, 12],
        )
        for side in (1, -1)
    ]
    low = join(*chains, ellipsoid((0, -30, -55), (28, 20, 36)), smooth_mm=8)
    skin = body(v)
    out = np.empty(tuple(len(a) for a in axes_mm), np.float32)
    for k in range(0, out.shape[0], 8):
        x, y, z = warp.coordinates(axes_mm[0][k : k + 8], axes_mm[1], axes_mm[2])
        near, far = high.distance(x, y, z), low.distance(x, y, z)
        boost = PRESCRIPTION_GY[0] * 1.02 * _falloff(near - 4, 3.0, 22.0, 0.30)
        elective = PRESCRIPTION_GY[1] * 1.02 * _falloff(far - 4, 3.5, 28.0, 0.38)
        dose = np.maximum(boost, elective) + 0.08 * np.minimum(boost, elective) * (
            1 - _falloff(near - 4, 4, 1, 0.0)
        )
        dose *= 1 + 0.015 * np.sin(x * 0.11 + 1) * np.sin(y * 0.13) * np.sin(z * 0.09)
        build_up = np.clip(0.55 - skin.distance(x, y, z) * 0.09, 0, 1)
        out[k : k + 8] = np.maximum(dose * build_up, 0)
    return out


def _falloff(d: np.ndarray, edge_mm: float, reach_mm: float, bath: float) -> np.ndarray:
    """1 inside, a sigmoid edge, then a slow tail: the share `bath` of the dose falls off over `reach_mm`."""
    edge = 1 / (1 + np.exp(np.clip(d / edge_mm, -30, 30)))
    return (1 - bath) * edge + bath * np.exp(-np.maximum(d, 0) / reach_mm)
