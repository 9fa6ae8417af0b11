"""Distances between two surfaces, computed once; Hausdorff distance, mean distance and surface DSC read from them.

Three published definitions, which give different numbers for the same contours (name yours in every table):

``surface-distance`` (the default): google-deepmind/surface-distance 0.1
    Elements stand at the corners of voxels and weigh as much as their area. HD95 is the larger of the two
    directions' distances within which 95 % of the area lies, not interpolated. The mean distance is the mean of
    the two directions' means by area (the program gives them apart, as `average_each_way`). The surface DSC is a
    share of the area.
``monai``: MONAI 1.6
    Elements are the centres of border voxels, all alike. HD95 is the larger of the two directions' interpolated
    quantiles. The mean distance is that of all elements of both surfaces (its ``symmetric=True``; its default is
    one way, here ``to_reference`` of `average_each_way`). The surface DSC is a share of the elements.
``medpy``: medpy 0.5
    Elements as MONAI's. HD95 is the interpolated quantile of both directions' distances together. The mean
    distance is that of all elements of both surfaces (its ``assd``; before 0.5 the mean of the two directions'
    means). No surface DSC.

The largest distance, HD, is taken over both directions everywhere.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from soars.errors import InputError
from soars.metrics.nearest import nearest_distances
from soars.metrics.surface import Floats, corner_surface, voxel_surface
from soars.structures.model import Mask

DEFINITIONS = ("surface-distance", "monai", "medpy")
DEFAULT_DEFINITION = DEFINITIONS[0]


@dataclass(frozen=True, eq=False)
class SurfaceDistances:
    """Distances in mm, ascending, from the elements of each surface to the nearest element of the other, and the
    elements' weights in the same order (mm^2, or all 1).

    An empty surface has no elements, and all distances to it are infinite.
    """

    definition: str
    to_reference_mm: Floats
    weight_of_prediction: Floats
    to_prediction_mm: Floats
    weight_of_reference: Floats

    @property
    def both_empty(self) -> bool:
        return not len(self.to_reference_mm) and not len(self.to_prediction_mm)


def surface_distances(
    prediction: Mask,
    reference: Mask,
    spacing_mm: tuple[float, float, float],
    definition: str = DEFAULT_DEFINITION,
) -> SurfaceDistances:
    """Distances between the surfaces of two masks on one grid of ``spacing_mm`` (z, y, x).

    Raises `InputError` for an unknown ``definition``.
    """
    if definition not in DEFINITIONS:
        raise InputError(f"unknown definition {definition!r}; there are {', '.join(DEFINITIONS)}")
    spacing = (float(spacing_mm[0]), float(spacing_mm[1]), float(spacing_mm[2]))
    if definition == "surface-distance":
        ours, theirs = corner_surface(prediction, spacing), corner_surface(reference, spacing)
    else:
        ours, theirs = voxel_surface(prediction), voxel_surface(reference)
    forth = nearest_distances(ours.index, theirs.index, spacing)
    back = nearest_distances(theirs.index, ours.index, spacing)
    if definition == "monai":  # which keeps distances in single precision, as its tolerance
        forth, back = (d.astype(np.float32).astype(np.float64) for d in (forth, back))
    return SurfaceDistances(definition, *_sorted(forth, ours.weight), *_sorted(back, theirs.weight))


def hausdorff(distances: SurfaceDistances, percent: float = 100.0) -> float:
    """Hausdorff distance in mm, or the distance within which ``percent`` of each surface lies (95: HD95).

    Infinite when one side is empty, nan when both are.
    """
    if distances.both_empty:
        return float("nan")
    sides = (
        (distances.to_reference_mm, distances.weight_of_prediction),
        (distances.to_prediction_mm, distances.weight_of_reference),
    )
    if not all(len(d) for d, _ in sides):
        return float("inf")
    if percent >= 100:
        return float(max(d[-1] for d, _ in sides))
    if distances.definition == "surface-distance":
        return max(_reached(d, weight, percent / 100) for d, weight in sides)
    if distances.definition == "monai":
        return max(_single_precision_quantile(d, percent / 100) for d, _ in sides)
    return float(np.quantile(np.concatenate([d for d, _ in sides]), percent / 100))


def average_each_way(distances: SurfaceDistances) -> tuple[float, float]:
    """Mean distance in mm from the prediction's surface to the reference's, and from the reference's to the
    prediction's.

    A surface that is there has infinite distance to one that is not; the mean over no surface is nan.
    """
    return (
        _mean(distances.to_reference_mm, distances.weight_of_prediction),
        _mean(distances.to_prediction_mm, distances.weight_of_reference),
    )


def average(distances: SurfaceDistances) -> float:
    """Mean surface distance in mm, both ways together as the definition has it (see the table above).

    Infinite when one side is empty, nan when both are.
    """
    if distances.both_empty:
        return float("nan")
    there, back = average_each_way(distances)
    if np.isnan(there) or np.isnan(back):
        return float("inf")
    if distances.definition != "surface-distance":
        return float(np.concatenate([distances.to_reference_mm, distances.to_prediction_mm]).mean())
    return (there + back) / 2


def surface_dice(distances: SurfaceDistances, tolerance_mm: float) -> float:
    """Share of both surfaces that lies within ``tolerance_mm`` of the other (Nikolov et al., JMIR
    2021;23(7):e26151).

    Zero when one side is empty, nan when both are.
    """
    there, back = _within(distances, tolerance_mm)
    whole = float(distances.weight_of_prediction.sum() + distances.weight_of_reference.sum())
    return float((there + back) / whole) if whole else float("nan")


def surface_overlap(distances: SurfaceDistances, tolerance_mm: float) -> tuple[float, float]:
    """Share of the prediction's surface within ``tolerance_mm`` of the reference's, and the other way round; nan
    for a side that is empty."""
    there, back = _within(distances, tolerance_mm)
    of = (distances.weight_of_prediction.sum(), distances.weight_of_reference.sum())
    return (there / of[0] if of[0] else float("nan"), back / of[1] if of[1] else float("nan"))


def _reached(distances: Floats, weight: Floats, share: float) -> float:
    """The first distance within which at least ``share`` of the weight lies."""
    reached = np.cumsum(weight) / weight.sum()
    return float(distances[min(int(np.searchsorted(reached, share)), len(distances) - 1)])


def _single_precision_quantile(values: Floats, share: float) -> float:
    """Interpolated quantile of ascending values as torch computes it: the rank has single precision, which
    shows."""
    rank = np.float32(share) * np.float32(len(values) - 1)
    below, above = int(np.floor(rank)), min(int(np.ceil(rank)), len(values) - 1)
    part = float(rank - np.float32(below))
    return float(values[below] + part * (values[above] - values[below]))


def _mean(distances: Floats, weight: Floats) -> float:
    return float((distances * weight).sum() / weight.sum()) if len(distances) else float("nan")


def _within(distances: SurfaceDistances, tolerance_mm: float) -> tuple[float, float]:
    if distances.definition == "monai":
        tolerance_mm = float(np.float32(tolerance_mm))
    parts = []
    for values, weight in (
        (distances.to_reference_mm, distances.weight_of_prediction),
        (distances.to_prediction_mm, distances.weight_of_reference),
    ):
        parts.append(float(weight[: int(np.searchsorted(values, tolerance_mm, side="right"))].sum()))
    return parts[0], parts[1]


def _sorted(distances: Floats, weight: Floats) -> tuple[Floats, Floats]:
    order = np.lexsort((weight, distances))
    return distances[order], weight[order]
