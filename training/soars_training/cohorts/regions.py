"""Where an organ usually lies relative to the others: the only place where one that nobody drew can be.

An organ without contours is unknown, not absent, and its voxels may not be taught as background. But a larynx is
unknown only about the larynx: predicted in the shoulder it is wrong, contoured or not. For every pair of organs the box
that holds the one, seen from the centre of the other, is taken from the cases in which both were drawn; the usual
region of an unknown organ is where the boxes of all drawn organs meet.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

import numpy as np

from soars_training.cohorts.cache import CachedCase

MARGIN_MM = 25.0
FEWEST_CASES = 5
"""Both organs must be present in this many cases before their offset is used."""

FAR_MM, FAR_TIMES = 30.0, 4.0
"""An organ is misplaced when its place differs from the usual one by more than the first, and by more than the second
times what is usual for it: the middle of a cord depends on where the scan ends."""
Centres = Mapping[str, Mapping[str, np.ndarray]]
"""Case -> organ -> the middle of its bounding box (x, y, z) in mm, which one stray voxel moves."""

Region = tuple[np.ndarray, np.ndarray]
"""Lowest and highest corner, (z, y, x)."""


@dataclass(frozen=True)
class UsualRegions:
    """(reference organ, organ) -> box in mm that the organ lies in, seen from the reference's centre."""

    offsets_mm: Mapping[tuple[str, str], Region]

    @staticmethod
    def learn(cases: Iterable[CachedCase]) -> UsualRegions:
        """Computed from the organs' bounding boxes, ignoring the outermost twentieth of the cases at either side."""
        corners: dict[tuple[str, str], list[np.ndarray]] = {}
        for case in cases:
            spacing = np.asarray(case.spacing_mm[::-1])
            boxes = {
                organ: _extent(case, organ) * spacing for organ in case.masks if organ not in case.slices
            }
            for reference, around in boxes.items():
                for organ, box in boxes.items():
                    corners.setdefault((reference, organ), []).append(box - around.mean(0))
        offsets = {}
        for pair, found in corners.items():
            if len(found) >= FEWEST_CASES:
                low, high = np.percentile(np.stack(found), (5, 95), axis=0)
                offsets[pair] = (low[0] - MARGIN_MM, high[1] + MARGIN_MM)
        return UsualRegions(offsets)

    def box(self, case: CachedCase, organ: str) -> Region | None:
        """Voxel indices of the region of an organ in a case; None when nothing is known: it may be anywhere."""
        spacing = np.asarray(case.spacing_mm[::-1])
        low, high = np.full(3, -np.inf), np.full(3, np.inf)
        for reference in case.masks.keys() - case.slices.keys():
            if (reference, organ) in self.offsets_mm:
                centre = _extent(case, reference).mean(0)
                below, above = self.offsets_mm[reference, organ]
                low = np.maximum(low, centre + below / spacing)
                high = np.minimum(high, centre + above / spacing)
        if not np.isfinite(low).all() or (low >= high).any():
            return None
        return low, high


def misplaced(centres: Centres) -> dict[str, tuple[str, ...]]:
    """Organ -> the cases in which it lies elsewhere, for a person to look at.

    An organ's place is seen from every other organ of its case, and compared with the cohort's median. How far it is
    off is what three quarters of the others agree on at least: one that is wrong does not make the others so.
    """
    organs = sorted({organ for there in centres.values() for organ in there})
    found = {}
    for organ in organs:
        off: dict[str, list[float]] = {}
        for other in (o for o in organs if o != organ):
            seen = {
                c: there[organ] - there[other] for c, there in centres.items() if {organ, other} <= {*there}
            }
            if len(seen) >= FEWEST_CASES:
                usual = np.median(list(seen.values()), axis=0)
                for case, at in seen.items():
                    off.setdefault(case, []).append(float(np.linalg.norm(at - usual)))
        by_case = {case: float(np.quantile(apart, 0.25)) for case, apart in off.items()}
        limit = max(FAR_MM, FAR_TIMES * float(np.median(list(by_case.values()) or [0.0])))
        found[organ] = tuple(case for case, apart in by_case.items() if apart > limit)
    return found


def _extent(case: CachedCase, organ: str) -> np.ndarray:
    """[2, 3]: first voxel of an organ's crop and the one just beyond it."""
    start, crop = case.masks[organ]
    return np.array([start, np.add(start, crop.shape)], float)
