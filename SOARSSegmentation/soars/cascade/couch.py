"""The patient without what the patient lies on: couch tops, rails and head rests are told by their shape.

They are thin, and a rigid couch has the same cross-section over a long way along the body; nobody reaches into it. So
what is thin and stays at the same place is the couch, wherever it touches the patient. What is thin and short, as a
nose or an ear, is the patient's as long as it begins at something thick.
"""

from __future__ import annotations

import numpy as np
import scipy

THIN_MM = 24.0
"""What a ball of this diameter does not fit into is thin."""
BULK_CC = 5.0
"""And a part of the patient on its own, as the lower jaw below an open mouth, has room for the centres of many such
balls: so much of it."""
REACH_MM = 18.0
"""No thin part of the patient, as a nose or an ear, reaches farther from the thick ones; a couch's rail does."""
LONG_MM = 120.0
"""Over so long a way along the body a thing is looked for at the same place,"""
LONG_SHARE = 0.6
"""and has to be there in so much of it: an ear or a nose is in less than half."""
LEAST_CM2 = 4.0
"""A smaller cross-section is an edge of the patient, or nothing to worry about."""
AIRWAY_CM2 = 25.0
"""No airway's cross-section is larger; the gap between a neck and a couch often is."""
LUNG_HU = -930.0
"""A lung is denser than this in the mean, a gap is not."""


def patient_of(solid: np.ndarray, hu: np.ndarray, spacing_mm: float) -> np.ndarray:
    """Which voxels are of the patient, with a margin of two voxels, bool [z, y, x]; none when nothing is solid.

    Args:
        solid: what is no air, bool [z, y, x], +z towards the head.
        hu: the CT on the same grid.
        spacing_mm: of the grid, along all axes.
    """
    couch = couch_of(solid, hu, spacing_mm)
    core = scipy.ndimage.binary_opening(solid & ~couch)
    pieces, count = scipy.ndimage.label(core)
    if count == 0:
        return core
    least = round(BULK_CC * 1000 / spacing_mm**3)
    thick = _opened(_filled(core, hu, spacing_mm), THIN_MM / 2 / spacing_mm, least)
    sizes = np.bincount(pieces[thick], minlength=count + 1) if thick.any() else np.zeros(count + 1, int)
    if not sizes[1:].any():
        sizes = np.bincount(pieces.ravel())
    patient = pieces == 1 + int(sizes[1:].argmax())
    bulk = patient & thick
    if bulk.any():
        patient &= within(bulk, REACH_MM / spacing_mm)
        pieces, _ = scipy.ndimage.label(patient)
        patient = patient & np.isin(pieces, np.unique(pieces[bulk]))
    grown = scipy.ndimage.binary_dilation(patient, iterations=2)  # a margin: nose tip, ears, skin
    for z in range(grown.shape[0]):  # airways open to the outside in other planes are closed in the axial one
        grown[z] = scipy.ndimage.binary_fill_holes(grown[z])
    return grown & ~couch


def couch_of(solid: np.ndarray, hu: np.ndarray, spacing_mm: float) -> np.ndarray:
    """Which voxels are of a rigid couch, bool [z, y, x]; arguments as of `patient_of`."""
    opened = scipy.ndimage.binary_opening(solid)
    # In a short scan a part of the patient on its own may be everywhere, as a couch is; in a long one it is not.
    short = len(solid) * spacing_mm < LONG_MM
    least = round(BULK_CC * 1000 / spacing_mm**3) if short else None
    thick = _opened(_filled(opened, hu, spacing_mm), THIN_MM / 2 / spacing_mm, least)
    # One voxel is left to the patient: balls of voxels do not fit a smooth surface everywhere.
    thin = opened & ~scipy.ndimage.binary_dilation(thick)
    length = min(round(LONG_MM / spacing_mm), len(solid))
    stays = _running_mean(thin, length) >= LONG_SHARE
    couch = np.zeros_like(solid)
    for z, plane in enumerate(stays):
        pieces, count = scipy.ndimage.label(plane)
        if count:
            areas_cm2 = np.bincount(pieces.ravel()) * spacing_mm**2 / 100
            areas_cm2[0] = 0
            couch[z] = (areas_cm2 >= LEAST_CM2)[pieces]
    return couch


def _filled(solid: np.ndarray, hu: np.ndarray, spacing_mm: float) -> np.ndarray:
    """With airways and lungs, seen slice by slice; gaps between the patient and other things stay open."""
    filled = solid.copy()
    for z, plane in enumerate(solid):
        holes = scipy.ndimage.binary_fill_holes(plane) & ~plane
        pieces, count = scipy.ndimage.label(holes)
        if count:
            numbers = np.arange(count + 1)
            areas_cm2 = np.bincount(pieces.ravel()) * spacing_mm**2 / 100
            means_hu = scipy.ndimage.mean(hu[z], pieces, numbers)
            inside = (areas_cm2 <= AIRWAY_CM2) | (means_hu >= LUNG_HU)
            inside[0] = False
            filled[z] |= inside[pieces]
    return filled


def _opened(solid: np.ndarray, radius: float, least: int | None = None) -> np.ndarray:
    """What balls of a radius in voxels cover that fit in.

    Of the pieces that the balls' centres make, the largest counts, or those of at least so many voxels. The patient is
    taken to go on beyond the first and last slice.
    """
    pad = int(np.ceil(radius)) + 1
    longer = np.pad(np.pad(solid, ((pad, pad), (0, 0), (0, 0)), mode="edge"), ((0, 0), (1, 1), (1, 1)))
    centres = ~within(~longer, radius)[:, 1:-1, 1:-1]
    pieces, count = scipy.ndimage.label(centres)
    if not count:
        return np.zeros_like(solid)
    sizes = np.bincount(pieces.ravel())
    sizes[0] = 0
    kept = sizes >= (sizes.max() if least is None else min(least, sizes.max()))
    covered = within(kept[pieces], radius)
    return covered[pad:-pad] & solid


def within(voxels: np.ndarray, radius: float) -> np.ndarray:
    """What is no farther than a radius, in voxels, from one of the voxels, bool [z, y, x].

    As a threshold on the Euclidean distance transform, in a tenth of its time for the few voxels of a radius here: the
    ball is put together from lines along x.
    """
    lines: dict[int, np.ndarray] = {}
    out = np.zeros_like(voxels)
    depth, height, _ = voxels.shape
    up, across = min(int(radius), depth - 1), min(int(radius), height - 1)
    for dz in range(-up, up + 1):
        for dy in range(-across, across + 1):
            left = radius**2 - dz**2 - dy**2
            if left < 0:
                continue
            half = int(left**0.5)
            if half not in lines:
                lines[half] = scipy.ndimage.maximum_filter1d(voxels, 2 * half + 1, axis=2, mode="constant")
            z, y = slice(max(dz, 0), depth + min(dz, 0)), slice(max(dy, 0), height + min(dy, 0))
            from_z, from_y = slice(max(-dz, 0), depth - max(dz, 0)), slice(max(-dy, 0), height - max(dy, 0))
            out[z, y] |= lines[half][from_z, from_y]
    return out


def _running_mean(voxels: np.ndarray, length: int) -> np.ndarray:
    """The mean over `length` slices about each one; towards the ends over the first and last `length`."""
    sums = np.cumsum(np.pad(voxels, ((1, 0), (0, 0), (0, 0))), axis=0, dtype=np.float32)
    means = (sums[length:] - sums[:-length]) / length
    first = np.clip(np.arange(len(voxels)) - length // 2, 0, len(means) - 1)
    centred: np.ndarray = means[first]
    return centred
