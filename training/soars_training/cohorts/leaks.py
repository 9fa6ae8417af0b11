"""End slices in which the CT holds nothing but a blob about an organ.

Some sources mask the CT with the region where dose was allowed; beyond the scan's end that region shrinks to the
organs' contours, and the picture gives away the organ (57 of 170 OpenKBP training patients). A network learns the
shape of the mask there, not the anatomy.
"""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from soars.structures.box import Box
from soars_training.cohorts.cache import CachedCase

TISSUE_HU = -500
THIN = ((0.15, 8.0), (0.35, 5.0))
"""A slice leaks when, for either pair, its tissue is less than the first number times the median slice's and also less
than the second number times the area of the organs drawn in it."""

BLOB_SHARE = 0.1
"""Slices with less than this share of the fullest slice's tissue do not count towards the median."""


def leaking_slices(tissue: np.ndarray, drawn: np.ndarray) -> np.ndarray:
    """bool [z]: the slices at either end that show tissue only about an organ, and all beyond them.

    `tissue` and `drawn` count the voxels of tissue and of organs in each slice.
    """
    leaks = np.zeros(len(tissue), bool)
    if not tissue.any():
        return leaks
    usual = np.median(tissue[tissue > BLOB_SHARE * tissue.max()])
    seen = np.zeros(len(tissue), bool)
    for share, times in THIN:
        seen |= (tissue > 0) & (tissue < share * usual) & (tissue < times * drawn)
    thin = tissue < THIN[-1][0] * usual
    for order in (np.arange(len(tissue)), np.arange(len(tissue))[::-1]):
        run = order[: int(np.argmin(thin[order]))]
        inner = np.flatnonzero(seen[run])
        if len(inner):
            leaks[run[: inner[-1] + 1]] = True
    return leaks


def without_leaking_slices(case: CachedCase) -> CachedCase:
    """The case cut to the slices between the leaking ones; organs beyond them are cut off with them."""
    tissue = (case.ct_hu > TISSUE_HU).sum((1, 2))
    kept = np.flatnonzero(~leaking_slices(tissue, _drawn(case).sum((1, 2))))
    first, last = int(kept[0]), int(kept[-1]) + 1
    if (first, last) == (0, len(case.ct_hu)):
        return case
    masks = {}
    for organ, ((z, y, x), crop) in case.masks.items():
        part = crop[max(0, first - z) : max(0, last - z)]
        if part.any():
            masks[organ] = ((max(z, first) - first, y, x), part)
    x0, y0, z0 = case.origin_mm
    origin = (x0, y0, z0 + first * case.spacing_mm[2])
    slices = {organ: labelled[first:last] for organ, labelled in case.slices.items()}
    return replace(case, ct_hu=case.ct_hu[first:last], origin_mm=origin, masks=masks, slices=slices)


def _drawn(case: CachedCase) -> np.ndarray:
    organs = np.zeros(case.ct_hu.shape, bool)
    for start, crop in case.masks.values():
        organs[Box.at(start, crop.shape).slices] |= crop
    return organs
