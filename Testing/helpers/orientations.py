"""How a CT may lie."""

from __future__ import annotations

import numpy as np


def turned(*axes: tuple[str, float]) -> tuple[float, ...]:
    """Direction cosines after turns by degrees, exact where they are 0 or 1."""
    matrix = np.eye(3)
    for axis, degrees in axes:
        c, s = np.cos(np.deg2rad(degrees)), np.sin(np.deg2rad(degrees))
        i, j = {"x": (1, 2), "y": (2, 0), "z": (0, 1)}[axis]
        turn = np.eye(3)
        turn[i, i], turn[i, j], turn[j, i], turn[j, j] = c, -s, s, c
        matrix = matrix @ turn
    return tuple((np.round(matrix, 12) + 0.0).ravel().tolist())
