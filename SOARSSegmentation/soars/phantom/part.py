"""One piece of the anatomy: a shape with its CT number and its names."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from soars.phantom.shapes import Shape

KEEP = ""  # an organ or tissue "name" that leaves what is already there
HuOf = Callable[[np.ndarray, np.ndarray, np.ndarray, np.ndarray], np.ndarray]


@dataclass(frozen=True)
class Part:
    """Painted over all earlier parts.

    hu: Hounsfield units, or a function of (distance mm, x, y, z).
    organ: catalogue name of the OAR this is, None for no OAR (removes an earlier one here), KEEP to leave it.
    tissue: in the same way, one of the general names (Bone_Skull, Spine, Airway, Brain, ...); None is plain Body.
    inner: the organ lies inside its parent (lens in eye, cochlea in inner ear) and does not remove it.
    """

    shape: Shape
    hu: float | HuOf
    organ: str | None = None
    tissue: str | None = KEEP
    inner: bool = False


def cortical(inside_hu: float, shell_hu: float, shell_mm: float) -> HuOf:
    """Spongy inside, dense outside: HU by depth under the surface."""

    def hu(d: np.ndarray, _x: np.ndarray, _y: np.ndarray, _z: np.ndarray) -> np.ndarray:
        depth = np.clip((-d - shell_mm) * (1 / 0.8) + 0.5, 0, 1)
        return shell_hu + (inside_hu - shell_hu) * depth

    return hu


def skull_vault(outer_hu: float, diploe_hu: float, thickness_mm: float) -> HuOf:
    """Two dense tables with diploe between."""

    def hu(d: np.ndarray, _x: np.ndarray, _y: np.ndarray, _z: np.ndarray) -> np.ndarray:
        from_middle = np.abs(-d / thickness_mm - 0.5)
        return diploe_hu + (outer_hu - diploe_hu) * np.clip((from_middle - 0.1) * 6, 0, 1)

    return hu


def marbled(hu_mean: float, amplitude_hu: float, cell_mm: float, phase: float) -> HuOf:
    """A mean with a smooth three-dimensional pattern (fatty glands, air cells, gyri), fixed in the anatomy."""
    k = 2 * np.pi / cell_mm

    def hu(_d: np.ndarray, x: np.ndarray, y: np.ndarray, z: np.ndarray) -> np.ndarray:
        pattern = np.sin(x * k + phase + 0.8 * np.sin(y * (0.6 * k)))
        pattern += np.sin(y * (0.9 * k) + 2 * phase + 0.8 * np.sin(z * (0.7 * k)))
        pattern += np.sin(z * (1.1 * k) + 3 * phase + 0.8 * np.sin(x * (0.5 * k)))
        return hu_mean + pattern * (amplitude_hu / 1.25)

    return hu
