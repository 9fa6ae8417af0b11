"""What tells how good a contour is: how sure the networks are of it and of its neighbours, and how usual it is.

A bundle's calibration weighs it (`soars.findings.review.Score`).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, fields

import numpy as np

from soars.catalogue import partner
from soars.findings.norms import Norms, place_off, volume_off
from soars.findings.scan_edge import reaches_edge
from soars.structures import StructureSet

FARTHEST_SD = 5.0
"""Standard deviations count up to here: beyond, a contour is not worse still."""
LARGEST_LOG = 1.5
"""So does the logarithm of the ratio of a pair's volumes."""


@dataclass(frozen=True)
class Evidence:
    """Of one contour.

    Attributes:
        confidence: soft Dice confidence, 0 to 1.
        company: the mean confidence of the patient's other contours; its own when it is alone.
        volume: standard deviations, without sign, from the cohort's volume; 0 where there is no norm, and for organs
            that the scan cuts off.
        place: the same of its place relative to the other organs.
        asymmetry: natural logarithm of the larger half's volume over the smaller one's; 0 for an organ without its
            other half.
        size: as `volume`, with its sign: negative when the contour is small.
        spill: share of the organ's probability that its contour leaves out (`soars.cascade.confidence.spill`), 0 to 1.
    """

    confidence: float
    company: float
    volume: float = 0.0
    place: float = 0.0
    asymmetry: float = 0.0
    size: float = 0.0
    spill: float = 0.0


KINDS = tuple(field.name for field in fields(Evidence))


def evidence_of(
    structures: StructureSet,
    confidence: Mapping[str, float],
    norms: Norms | None,
    spill: Mapping[str, float] | None = None,
) -> dict[str, Evidence]:
    """For each organ of `confidence` (organ -> soft Dice confidence) that has a voxel; `spill` has the same organs."""
    present = structures.subset(n for n in structures.names if not structures.is_empty(n))
    whole = [n for n in present.names if not reaches_edge(present, n)]
    centres = {n: np.asarray(present.centre_of_mass(n)) for n in whole}
    found = {}
    for name in (n for n in confidence if n in present):
        others = [value for other, value in confidence.items() if other != name]
        size = place = asymmetry = 0.0
        if name in whole and norms is not None:
            size = float(np.clip(volume_off(present, name, norms) or 0.0, -FARTHEST_SD, FARTHEST_SD))
            place = min(place_off(name, centres, norms)[0], FARTHEST_SD)
        half = partner(name)
        if half is not None and name in whole and half in whole:
            ratio = abs(float(np.log(present.volume_cc(name) / present.volume_cc(half))))
            asymmetry = min(ratio, LARGEST_LOG)
        company = float(np.mean(others)) if others else confidence[name]
        found[name] = Evidence(
            confidence[name], company, abs(size), place, asymmetry, size, spill[name] if spill else 0.0
        )
    return found
