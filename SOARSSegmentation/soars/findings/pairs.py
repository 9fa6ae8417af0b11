"""Left against right: the halves of a pair have about the same volume and mirror each other's place."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from soars.catalogue import CATALOGUE, partner
from soars.findings.finding import CHECK, MIDLINE_MM, SERIOUS, Finding, Locator
from soars.findings.norms import Norms, volume_off
from soars.findings.scan_edge import reaches_edge
from soars.structures import StructureSet

VOLUME_RATIO, VOLUME_SERIOUS = 1.5, 2.0
"""The larger half over the smaller, from which on it is worth a finding, and one of them probably wrong."""
ALIKE_SD = 0.5
"""Halves whose distances from the cohort's mean differ by less than this are as unusual as each other."""
FEWEST_VOXELS = 40
"""Smaller volumes depend on where the voxels happen to lie."""
FAR_MM = 15.0
"""Halves that are so far from mirroring each other are worth a finding."""
PROBABLY_OUTSIDE = "; probably outside the scan"
MISSED = ", although its other half is in the scan: the patient lacks it, or it was missed"
"""How the reasons end for which an organ that was not found is absent."""


def pair_findings(
    structures: StructureSet, locator: Locator, norms: Norms | None = None
) -> Iterator[Finding]:
    """Pairs whose halves differ in volume or do not mirror each other; none of them empty.

    A finding on volumes is that half's whose volume is the less usual; both halves' where the cohort cannot say.
    """
    for oar in CATALOGUE.values():
        left, right = oar.name, partner(oar.name)
        if oar.side != "left" or right is None or left not in structures or right not in structures:
            continue
        yield from _sides(structures, locator, left, right)
        yield from _volumes(structures, locator, norms, left, right)
        yield from _places(structures, locator, left, right)


def absent_halves(structures: StructureSet, absent: dict[str, str], locator: Locator) -> list[Finding]:
    """Findings about organs that are not probably outside the scan, since their other half lies wholly within it and so
    does the middle of its mirror image. Their reasons in `absent` (organ -> why) are changed."""
    findings = []
    for name, reason in absent.items():
        other = partner(name)
        if (
            not reason.endswith(PROBABLY_OUTSIDE)
            or other is None
            or other not in structures
            or structures.is_empty(other)
            or reaches_edge(structures, other)
        ):
            continue
        place = np.asarray(structures.centre_of_mass(other))
        place[0] -= 2 * float(locator.left_mm(place))
        index = locator.geometry.to_index(place)
        if (index < 0).any() or (index > np.asarray(locator.geometry.shape) - 1).any():
            continue
        absent[name] = reason.removesuffix(PROBABLY_OUTSIDE) + MISSED
        advice = "Look at this place, and draw it if it is there."
        text = f"it is reported as absent: {absent[name]}"
        findings.append(Finding(name, "absent", CHECK, text, advice, locator.at_index(index)))
    return findings


def _sides(structures: StructureSet, locator: Locator, left: str, right: str) -> Iterator[Finding]:
    for name, side, sign in ((left, "right", -1.0), (right, "left", 1.0)):
        centre = np.asarray(structures.centre_of_mass(name))
        if sign * float(locator.left_mm(centre)) > MIDLINE_MM:
            text = f"it lies on the patient's {side}"
            advice = "Swap it with the other half of the pair, or check whether the scan is mirrored."
            yield Finding(name, "wrong_side", SERIOUS, text, advice, locator.at_point(centre))


def _volumes(
    structures: StructureSet, locator: Locator, norms: Norms | None, left: str, right: str
) -> Iterator[Finding]:
    small, large = sorted((left, right), key=structures.volume_cc)
    a, b = structures.volume_cc(small), structures.volume_cc(large)
    if b < VOLUME_RATIO * a or structures.voxels(large) < FEWEST_VOXELS:
        return
    for name in _less_usual(structures, small, large, norms):
        other = large if name == small else small
        mask = structures.crop(name)
        side, opposite = ("left", "right") if name == left else ("right", "left")
        yield Finding(
            name,
            "asymmetry",
            SERIOUS if b >= VOLUME_SERIOUS * a else CHECK,
            f"{structures.volume_cc(name):.3g} cc on the {side}, "
            f"{structures.volume_cc(other):.3g} cc on the {opposite}",
            "Compare both sides: a part is missing on one or too much is drawn on the other, "
            "unless that is the anatomy.",
            locator.in_mask(mask.array, mask.start),
        )


def _less_usual(structures: StructureSet, small: str, large: str, norms: Norms | None) -> tuple[str, ...]:
    """The half whose volume is farther from the usual one: the cohort's, or the middle of the catalogue's limits.

    Both of them when the cohort's spread is known and they are about as far from its middle.
    """
    if norms is not None:
        off = [volume_off(structures, name, norms) for name in (small, large)]
        if off[0] is not None and off[1] is not None:
            if abs(abs(off[0]) - abs(off[1])) < ALIKE_SD:
                return small, large
            return (large,) if abs(off[1]) > abs(off[0]) else (small,)
    usual = CATALOGUE[large].usual_volume_cc
    if usual is None:
        return (small,)
    middle = (np.log(usual[0]) + np.log(usual[1])) / 2
    far = [abs(np.log(structures.volume_cc(name)) - middle) for name in (small, large)]
    return (large,) if far[1] > far[0] else (small,)


def _places(structures: StructureSet, locator: Locator, left: str, right: str) -> Iterator[Finding]:
    centres = np.array([structures.centre_of_mass(name) for name in (left, right)])
    lateral = np.abs(locator.left_mm(centres))
    apart = np.array([lateral[0] - lateral[1], *(centres[0, 1:] - centres[1, 1:])])
    if np.linalg.norm(apart) < FAR_MM:
        return
    axis = int(np.abs(apart).argmax())
    words = (("nearer the middle", "farther out"), ("farther front", "farther back"), ("lower", "higher"))[
        axis
    ]
    how = words[int(apart[axis] > 0)]
    yield Finding(
        left,
        "asymmetry",
        CHECK,
        f"it lies {abs(apart[axis]):.0f} mm {how} than the right one",
        "Compare both sides, unless the head is turned or tilted.",
        locator.at_point(centres[0]),
    )
