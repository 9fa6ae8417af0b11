"""Geometric metrics of contours: DSC, Hausdorff and mean surface distance, surface DSC, added path length and
related figures. docs/metrics.md defines each number."""

from soars.catalogue import partner
from soars.metrics.distances import (
    DEFAULT_DEFINITION,
    DEFINITIONS,
    SurfaceDistances,
    average,
    average_each_way,
    hausdorff,
    surface_dice,
    surface_distances,
    surface_overlap,
)
from soars.metrics.path_length import added_path_length
from soars.metrics.scores import OrganScore, dice, score_masks, score_structures
from soars.metrics.sides import on_other_side
from soars.metrics.tolerances import Tolerance, catalogue_tolerances, one_tolerance, read_tolerances

__all__ = [
    "DEFAULT_DEFINITION",
    "DEFINITIONS",
    "OrganScore",
    "SurfaceDistances",
    "Tolerance",
    "added_path_length",
    "average",
    "average_each_way",
    "catalogue_tolerances",
    "dice",
    "hausdorff",
    "on_other_side",
    "one_tolerance",
    "partner",
    "read_tolerances",
    "score_masks",
    "score_structures",
    "surface_dice",
    "surface_distances",
    "surface_overlap",
]
