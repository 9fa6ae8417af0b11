"""Organs that the scan cuts off."""

from __future__ import annotations

import numpy as np

from soars.findings.finding import CHECK, Finding, Locator
from soars.structures import StructureSet


def reaches_edge(structures: StructureSet, name: str) -> bool:
    """Whether voxels of the organ lie at the edge of the scan."""
    mask = structures.crop(name)
    return any(
        a == 0 or b == n for a, b, n in zip(mask.start, mask.stop, structures.geometry.shape, strict=True)
    )


def cut_by_scan(structures: StructureSet, name: str, locator: Locator) -> Finding | None:
    """A finding when voxels lie at the edge of the scan, where most of them do."""
    mask, shape = structures.crop(name), structures.geometry.shape
    faces: list[tuple[np.ndarray, tuple[int, ...]]] = []
    for axis in range(3):
        if mask.start[axis] == 0:
            faces.append((mask.array.take([0], axis), mask.start))
        if mask.stop[axis] == shape[axis]:
            last = tuple(s + (mask.shape[a] - 1) * (a == axis) for a, s in enumerate(mask.start))
            faces.append((mask.array.take([-1], axis), last))
    if not faces:
        return None
    voxels, start = max(faces, key=lambda face: int(face[0].sum()))
    advice = "Do not use its volume or dose: a part of the organ lies outside the scan."
    text = "it reaches the edge of the scan and is probably cut off"
    return Finding(
        name, "cut_off", CHECK, text, advice, locator.in_mask(voxels, (start[0], start[1], start[2]))
    )
