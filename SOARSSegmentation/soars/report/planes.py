"""Which planes show every organ: a greedy choice of axis-aligned slices."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import SimpleITK as sitk

from soars.structures import Mask, StructureSet

AXIS = {"axial": 2, "coronal": 1, "sagittal": 0}
"""The LPS axis along which a view's planes are stacked."""

_WELL_SEEN = 0.6
"""An organ counts as shown by a plane when its area there is at least this part of its largest."""
_APART_MM = 8.0
"""Closer planes look alike, so that another one is preferred."""


@dataclass(frozen=True)
class Plane:
    """An axis-aligned plane: its view and its place on the LPS axis across it, in mm."""

    view: str
    position_mm: float


def choose_planes(
    image: sitk.Image,
    structures: StructureSet,
    names: Sequence[str],
    view: str,
    *,
    least: int = 0,
    most: int = 8,
    everybody: bool = True,
) -> list[Plane]:
    """The few planes of `view` that together show each of the organs `names`, in patient order.

    Greedy set cover: always the plane that shows most organs not shown yet, the areas deciding a tie. At most
    `most` planes show organs near their largest area; with `everybody` an organ that none of them meets gets one
    more. Planes between the chosen ones are added until there are `least`.
    """
    axis = AXIS[view]
    step, offset = _plane_grid(image, axis)
    areas = {name: _areas(structures.crop(name), structures, axis, step, offset) for name in names}
    areas = {name: area for name, area in areas.items() if area}
    if not areas:
        return []
    relative = {name: _relative(area) for name, area in areas.items()}
    chosen: list[int] = []
    waiting = set(areas)

    def gain(index: int) -> float:
        shown = sum(1.0 for name in waiting if relative[name].get(index, 0.0) >= _WELL_SEEN)
        beside = any(abs(index - other) * step < _APART_MM for other in chosen)
        return (
            shown + 0.01 * sum(part.get(index, 0.0) for part in relative.values()) - (0.5 if beside else 0.0)
        )

    indices = sorted({index for area in areas.values() for index in area})
    while waiting and len(chosen) < most:
        best = max(indices, key=gain)
        chosen.append(best)
        waiting -= {name for name in waiting if relative[name].get(best, 0.0) >= _WELL_SEEN}
    for area in areas.values() if everybody else ():
        if not any(index in area for index in chosen):
            chosen.append(max(area, key=lambda index: area[index]))
    while len(chosen) < min(least, len(indices)):
        chosen.append(max(indices, key=lambda index: min(abs(index - other) for other in chosen)))
    order = sorted(set(chosen), reverse=axis == 2)
    return [Plane(view, offset + index * step) for index in order]


def plane_through(image: sitk.Image, structures: StructureSet, name: str, view: str) -> Plane | None:
    """The plane of `view` in which the organ `name` is largest; None when it is empty."""
    axis = AXIS[view]
    step, offset = _plane_grid(image, axis)
    area = _areas(structures.crop(name), structures, axis, step, offset)
    if not area:
        return None
    return Plane(view, offset + max(area, key=lambda index: area[index]) * step)


def _plane_grid(image: sitk.Image, axis: int) -> tuple[float, float]:
    """Distance and origin of the planes across `axis`: the image's own slices where it is not tilted."""
    direction = np.array(image.GetDirection()).reshape(3, 3)
    column = int(np.argmax(np.abs(direction[axis])))
    return float(image.GetSpacing()[column]), float(image.GetOrigin()[axis])


def _areas(mask: Mask, structures: StructureSet, axis: int, step: float, offset: float) -> dict[int, int]:
    """Voxels of the mask by plane index."""
    places = np.argwhere(mask.array)
    if not len(places):
        return {}
    along = structures.geometry.to_physical(places + np.array(mask.start))[:, axis]
    indices, counts = np.unique(np.rint((along - offset) / step).astype(int), return_counts=True)
    return dict(zip(indices.tolist(), counts.tolist(), strict=True))


def _relative(area: Mapping[int, int]) -> dict[int, float]:
    largest = max(area.values())
    return {index: count / largest for index, count in area.items()}
