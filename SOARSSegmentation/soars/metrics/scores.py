"""How good a contour is: every figure of one organ, and of all organs of a case::

    from soars.metrics import score_structures

    for score in score_structures(prediction, reference):
        print(score.organ, score.dsc, score.hd95_mm, score.surface_dsc)

`OrganScore` defines every figure; `soars.metrics.distances` defines the distances.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt

from soars.errors import InputError
from soars.metrics.distances import (
    DEFAULT_DEFINITION,
    DEFINITIONS,
    average,
    average_each_way,
    hausdorff,
    surface_dice,
    surface_distances,
)
from soars.metrics.path_length import added_path_length
from soars.metrics.sides import on_other_side
from soars.metrics.tolerances import Tolerance, catalogue_tolerances, tolerance_of
from soars.progress import Progress, Reporter, ignore
from soars.structures.mask import EMPTY_MASK, dice
from soars.structures.model import Geometry, Mask, StructureSet, tight_mask

COMPARED, MISSING, EXTRA, BOTH_EMPTY, NOT_ANNOTATED = (
    "compared",
    "missing",
    "extra",
    "both empty",
    "not annotated",
)
STATES = (COMPARED, MISSING, EXTRA, BOTH_EMPTY, NOT_ANNOTATED)
"""What there is to compare: both sides have voxels; only the reference has; only the prediction has, where the
reference says that the organ is absent; neither has; the reference lacks the structure, so nothing can be said."""

_LARGE_BYTES = 1 << 24


@dataclass(frozen=True)
class OrganScore:
    """One organ of one case.

    The two sides are the prediction (or the observer being assessed) and the reference. Where one side has no voxel
    (``missing``, ``extra``) DSC and surface DSC are 0 and distances infinite; where neither has (``both empty``),
    or the reference was not annotated, they are nan. Infinite distances belong in medians and quartiles; a mean
    leaves them out and must say how many there were. The added path length is finite: all of the reference's
    contours where the prediction is missing, 0 where the reference has none.

    Attributes:
        organ: its name.
        state: one of `STATES`.
        definition: of surfaces and distances, see `soars.metrics.distances`.
        dsc: Dice similarity coefficient of the voxels.
        hd_mm, hd95_mm: Hausdorff distance, and its 95 % variant.
        asd_mm: mean surface distance both ways; the ways apart in ``asd_to_reference_mm`` (from the prediction's
            surface) and ``asd_to_prediction_mm`` (from the reference's).
        surface_dsc: at ``tolerance_mm``, whose origin is ``tolerance_source``; nan and None without a tolerance.
        apl_mm: added path length, see `soars.metrics.path_length`.
        volume_cc, reference_volume_cc: by counting voxels.
        volume_difference_cc: prediction minus reference; ``volume_difference_percent`` of the reference, nan when
            it is empty.
        centroid_shift_mm: distance of the centres of mass; ``centroid_shift_lps_mm`` from the reference's to the
            prediction's, towards the patient's left, back and head. nan when a side is empty.
        other_side: the prediction lies nearer to the reference's organ of the other side.
    """

    organ: str
    state: str
    definition: str
    dsc: float
    hd_mm: float
    hd95_mm: float
    asd_mm: float
    asd_to_reference_mm: float
    asd_to_prediction_mm: float
    surface_dsc: float
    tolerance_mm: float | None
    tolerance_source: str | None
    apl_mm: float
    volume_cc: float
    reference_volume_cc: float
    volume_difference_cc: float
    volume_difference_percent: float
    centroid_shift_mm: float
    centroid_shift_lps_mm: tuple[float, float, float]
    other_side: bool = False


def score_structures(
    prediction: StructureSet,
    reference: StructureSet,
    *,
    organs: Iterable[str] | None = None,
    tolerances: Mapping[str, Tolerance] | None = None,
    definition: str = DEFAULT_DEFINITION,
    threads: int = 1,
    progress: Reporter = ignore,
) -> list[OrganScore]:
    """Compare the structures of two sets on one grid, by name.

    Args:
        prediction, reference: on the same grid; `InputError` when not.
        organs: which, in this order; all of the reference, then those that only the prediction has, when None.
        tolerances: of the surface DSC, by organ ("*": all others); the catalogue's when None.
        threads: organs computed at the same time.

    A structure that the reference does not have is ``not annotated``, one that the prediction does not have is
    ``missing``.
    """
    if not prediction.geometry.same_as(reference.geometry):
        raise InputError(
            f"the two sides lie on different grids ({prediction.geometry.describe()}; "
            f"{reference.geometry.describe()}); resample one to the other first"
        )
    names = list(organs) if organs is not None else list(dict.fromkeys((*reference, *prediction)))
    known = catalogue_tolerances() if tolerances is None else tolerances

    def score(name: str) -> OrganScore:
        return _score_named(name, prediction, reference, tolerance_of(name, known), definition)

    scores = []
    with ThreadPoolExecutor(max_workers=max(threads, 1)) as pool:
        results = pool.map(score, names) if threads > 1 else map(score, names)
        for done, result in enumerate(results, start=1):
            scores.append(result)
            progress(Progress("compare", done, len(names), result.organ))
    return scores


def score_masks(
    prediction: Mask | np.ndarray,
    reference: Mask | np.ndarray,
    geometry: Geometry,
    *,
    organ: str = "",
    tolerance: Tolerance | None = None,
    definition: str = DEFAULT_DEFINITION,
) -> OrganScore:
    """Compare two masks: cropped ones, or full boolean arrays [z, y, x], on ``geometry``."""
    ours, theirs = _cropped(prediction, reference)
    dz, dy, dx = geometry.spacing[2], geometry.spacing[1], geometry.spacing[0]
    distances = surface_distances(ours, theirs, (dz, dy, dx), definition)
    to_reference, to_prediction = average_each_way(distances)
    volume, reference_volume = ours.voxels * geometry.voxel_cc, theirs.voxels * geometry.voxel_cc
    shift = _centroid_shift(ours, theirs, geometry)
    within = float("nan")
    if tolerance is not None and definition != "medpy":
        within = surface_dice(distances, tolerance.mm)
    return OrganScore(
        organ=organ,
        state=_state(ours, theirs),
        definition=definition,
        dsc=dice(ours, theirs),
        hd_mm=hausdorff(distances),
        hd95_mm=hausdorff(distances, 95),
        asd_mm=average(distances),
        asd_to_reference_mm=to_reference,
        asd_to_prediction_mm=to_prediction,
        surface_dsc=within,
        tolerance_mm=None if tolerance is None else tolerance.mm,
        tolerance_source=None if tolerance is None else tolerance.source,
        apl_mm=added_path_length(ours, theirs, (dz, dy, dx)),
        volume_cc=volume,
        reference_volume_cc=reference_volume,
        volume_difference_cc=volume - reference_volume,
        volume_difference_percent=100 * (volume / reference_volume - 1) if reference_volume else float("nan"),
        centroid_shift_mm=float(np.linalg.norm(shift)),
        centroid_shift_lps_mm=shift,
    )


def not_annotated(
    organ: str, volume_cc: float = float("nan"), definition: str = DEFAULT_DEFINITION
) -> OrganScore:
    """The score of an organ that the reference does not have: only its volume is known."""
    nan = float("nan")
    return OrganScore(
        organ=organ,
        state=NOT_ANNOTATED,
        definition=definition,
        dsc=nan,
        hd_mm=nan,
        hd95_mm=nan,
        asd_mm=nan,
        asd_to_reference_mm=nan,
        asd_to_prediction_mm=nan,
        surface_dsc=nan,
        tolerance_mm=None,
        tolerance_source=None,
        apl_mm=nan,
        volume_cc=volume_cc,
        reference_volume_cc=nan,
        volume_difference_cc=nan,
        volume_difference_percent=nan,
        centroid_shift_mm=nan,
        centroid_shift_lps_mm=(nan, nan, nan),
    )


def _score_named(
    name: str,
    prediction: StructureSet,
    reference: StructureSet,
    tolerance: Tolerance | None,
    definition: str,
) -> OrganScore:
    if definition not in DEFINITIONS:
        raise InputError(f"unknown definition {definition!r}; there are {', '.join(DEFINITIONS)}")
    if name not in reference:
        volume = prediction.volume_cc(name) if name in prediction else float("nan")
        return not_annotated(name, volume, definition)
    ours = prediction.crop(name) if name in prediction else EMPTY_MASK
    score = score_masks(
        ours,
        reference.crop(name),
        reference.geometry,
        organ=name,
        tolerance=tolerance,
        definition=definition,
    )
    return replace(score, other_side=True) if on_other_side(name, prediction, reference) else score


def _cropped(prediction: Mask | np.ndarray, reference: Mask | np.ndarray) -> tuple[Mask, Mask]:
    """Both as cropped masks. Finding an organ in a large array takes longer than comparing it, so both are searched at
    the same time."""
    sides = (prediction, reference)
    if all(isinstance(m, Mask) or m.nbytes < _LARGE_BYTES for m in sides):
        ours, theirs = (m if isinstance(m, Mask) else tight_mask(m) for m in sides)
        return ours, theirs
    with ThreadPoolExecutor(max_workers=2) as pool:
        ours, theirs = pool.map(lambda m: m if isinstance(m, Mask) else tight_mask(m), sides)
    return ours, theirs


def _state(ours: Mask, theirs: Mask) -> str:
    if ours.is_empty:
        return BOTH_EMPTY if theirs.is_empty else MISSING
    return EXTRA if theirs.is_empty else COMPARED


def _centroid_shift(ours: Mask, theirs: Mask, geometry: Geometry) -> tuple[float, float, float]:
    """From the reference's centre of mass to the prediction's, LPS mm; nan when one is empty."""
    if ours.is_empty or theirs.is_empty:
        return (float("nan"), float("nan"), float("nan"))
    moved = (_centre(ours) - _centre(theirs))[::-1]
    x, y, z = geometry.matrix[:3, :3] @ moved
    return (float(x), float(y), float(z))


def _centre(mask: Mask) -> npt.NDArray[np.float64]:
    """Centre of mass as a voxel index (z, y, x)."""
    rows = mask.array.reshape(-1, mask.shape[2]).astype(np.float32)
    places = np.stack([np.ones(mask.shape[2]), np.arange(mask.shape[2])], axis=1).astype(np.float32)
    counts, sums = (rows @ places).reshape(*mask.shape[:2], 2).astype(np.float64).transpose(2, 0, 1)
    z, y = counts.sum(axis=1), counts.sum(axis=0)
    first = np.array([np.arange(len(z)) @ z, np.arange(len(y)) @ y, sums.sum()])
    return np.asarray(first / counts.sum() + mask.start)
