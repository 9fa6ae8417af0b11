"""What anatomy says of the masks: one piece per organ, a plausible volume, and whether the scan cuts the organ off."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
import scipy

from soars.cascade.preprocess import Body
from soars.cascade.sides import find_midline, settle_sides
from soars.catalogue import CATALOGUE, Oar
from soars.structures import Mask, StructureSet

MIN_VOXELS = 3
"""Fewer are noise, not an organ."""
ABSENT_BELOW = 0.1
"""A piece smaller than this share of the organ's smallest usual volume is no organ."""
PIECE_NOTED = 0.1
"""Removing separate pieces is worth a warning when they make up more than this share of the organ."""
LONG_ORGANS = frozenset({"SpinalCord", "Esophagus", "BrachialPlex_L", "BrachialPlex_R", "Trachea"})
"""Organs that go on beyond any head-and-neck scan: that the scan cuts them is no news."""


@dataclass
class Findings:
    """Per organ: warnings about it, and why it is absent."""

    warnings: dict[str, list[str]] = field(default_factory=dict)
    absent: dict[str, str] = field(default_factory=dict)

    def warn(self, organ: str, text: str) -> None:
        self.warnings.setdefault(organ, []).append(text)


def settle(structures: StructureSet, body: Body) -> Findings:
    """Put organs on their sides, keep one piece where anatomy has one, and judge volumes; changes `structures`.

    An organ of which nothing plausible is left is removed from `structures` and reported as absent.
    """
    findings = Findings()
    for name, notes in settle_sides(structures, find_midline(structures, body)).items():
        for note in notes:
            findings.warn(name, note)
    for name in structures.names:
        oar = CATALOGUE[name]
        if oar.single_component:
            _keep_largest(structures, name, findings)
        reason = _implausible(structures, oar)
        if reason is not None:
            structures.remove(name)
            findings.absent[name] = reason
            findings.warn(name, f"reported as absent: {reason}")
            continue
        cut = _cut_by_scan(structures, name)
        if cut and name not in LONG_ORGANS:
            findings.warn(name, "it reaches the edge of the scan and is probably cut off")
        _judge_volume(structures, oar, cut, findings)
    return findings


def largest_component(mask: Mask) -> tuple[np.ndarray, float]:
    """The largest 26-connected piece in the mask's box, and which share of the voxels all others make up."""
    labels, count = scipy.ndimage.label(mask.array, np.ones((3, 3, 3)))
    if count < 2:
        return mask.array, 0.0
    sizes = np.bincount(labels.ravel())[1:]
    return labels == 1 + int(sizes.argmax()), float(1 - sizes.max() / sizes.sum())


def _keep_largest(structures: StructureSet, name: str, findings: Findings) -> None:
    mask = structures.crop(name)
    kept, removed = largest_component(mask)
    if removed > 0:
        structures.add_crop(name, mask.start, kept, structures.info.get(name))
    if removed > PIECE_NOTED:
        findings.warn(name, f"separate pieces making up {100 * removed:.0f} % of it were removed")


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


def _cut_by_scan(structures: StructureSet, name: str) -> bool:
    mask = structures.crop(name)
    return any(
        a == 0 or b == n for a, b, n in zip(mask.start, mask.stop, structures.geometry.shape, strict=True)
    )


def _judge_volume(structures: StructureSet, oar: Oar, cut: bool, findings: Findings) -> None:
    if oar.usual_volume_cc is None:
        return
    low, high = oar.usual_volume_cc
    volume = structures.volume_cc(oar.name)
    if volume > high or (volume < low and not (cut and oar.name not in LONG_ORGANS)):
        findings.warn(oar.name, f"its volume, {volume:.3g} cc, is outside the usual {low:g} to {high:g} cc")
