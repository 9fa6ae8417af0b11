"""Anatomical clean-up of the masks: every part on its side, one piece per organ, nothing too small to be one."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
import scipy

from soars.cascade.sides import Midline, settle_sides
from soars.catalogue import CATALOGUE, Oar
from soars.findings.finding import CHECK, SERIOUS, Finding, Locator
from soars.structures import Mask, StructureSet

MIN_VOXELS = 3
"""Fewer are noise, not an organ."""
ABSENT_BELOW = 0.1
"""A piece smaller than this share of the organ's smallest usual volume is not an organ."""
PIECE_NOTED = 0.1
"""Removing separate pieces is worth a warning when they make up more than this share of the organ."""
PIECE_SERIOUS = 0.3
"""The organ is probably wrong when they make up more than this."""


@dataclass(frozen=True)
class Settled:
    """What was done to the masks, as findings, and why an organ was taken to be absent."""

    findings: list[Finding] = field(default_factory=list)
    absent: dict[str, str] = field(default_factory=dict)


def settle(structures: StructureSet, midline: Midline) -> Settled:
    """Put organs on their sides and keep one piece where anatomy has one; changes `structures`.

    An organ of which nothing plausible is left is removed from `structures` and reported as absent.
    """
    locator = Locator(structures.geometry, midline.left_mm)
    settled = Settled(settle_sides(structures, midline))
    for name in structures.names:
        oar = CATALOGUE[name]
        if oar.single_component:
            settled.findings.extend(_keep_largest(structures, name, locator))
        reason = _implausible(structures, oar)
        if reason is not None:
            structures.remove(name)
            settled.absent[name] = reason
            advice = "Check whether the organ is in the scan, and draw it if it is."
            settled.findings.append(
                Finding(name, "absent", CHECK, f"it is reported as absent: {reason}", advice)
            )
    return settled


def largest_component(mask: Mask) -> tuple[np.ndarray, float]:
    """The largest 26-connected piece in the mask's box, and which share of the voxels all others make up."""
    labels, count = scipy.ndimage.label(mask.array, np.ones((3, 3, 3)))
    if count < 2:
        return mask.array, 0.0
    sizes = np.bincount(labels.ravel())[1:]
    return labels == 1 + int(sizes.argmax()), float(1 - sizes.max() / sizes.sum())


def _keep_largest(structures: StructureSet, name: str, locator: Locator) -> list[Finding]:
    """Keep the largest piece; a finding at the next largest when more than a tenth was removed."""
    mask = structures.crop(name)
    kept, removed = largest_component(mask)
    if removed == 0:
        return []
    structures.add_crop(name, mask.start, kept, structures.info.get(name))
    if removed <= PIECE_NOTED:
        return []
    lost, _ = largest_component(Mask(mask.start, mask.array & ~kept))
    return [
        Finding(
            name,
            "pieces",
            SERIOUS if removed > PIECE_SERIOUS else CHECK,
            f"{100 * removed:.0f} % of what was found lay in separate pieces and was removed",
            "Look at the place of the removed piece: if it is the organ, draw it; the rest may be incomplete.",
            locator.in_mask(lost, mask.start),
        )
    ]


def _implausible(structures: StructureSet, oar: Oar) -> str | None:
    voxels, volume = structures.voxels(oar.name), structures.volume_cc(oar.name)
    if voxels == 0:
        return "nothing of it is left on its own side of the patient"
    smallest = oar.usual_volume_cc[0] * ABSENT_BELOW if oar.usual_volume_cc else 0.0
    # On thick slices a small organ may be a few voxels: then the volume decides.
    if volume < smallest or (
        voxels < MIN_VOXELS and (not oar.usual_volume_cc or volume < oar.usual_volume_cc[0])
    ):
        return f"only {voxels} voxels ({volume:.2g} cc) were found, too little for this organ"
    return None
