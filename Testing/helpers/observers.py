"""What phantoms lack: observers who differ, and test patients from another hospital than those trained on."""

from __future__ import annotations

import zlib
from dataclasses import replace

import numpy as np
import scipy
import SimpleITK as sitk

from soars.structures import Geometry, Mask, StructureSet, tight_mask
from soars_training.cohorts.phantoms import phantom_case
from soars_training.cohorts.prepare import SourceCase

JITTER_MM = 0.8
"""Standard deviation by which an observer's contour is off, the same way within `LATTICE_MM`."""
LATTICE_MM = 8.0
REACH_MM = 4.0


def drawn_by(observer: int, structures: StructureSet) -> StructureSet:
    """The structures as an observer draws them: every surface moved in and out by a smooth random field.

    The field is another one for every organ and, since it is drawn over the organ's box, for every grid. An organ that
    would vanish stays as it is.
    """
    geometry = structures.geometry
    drawn = StructureSet(geometry)
    for name in structures.names:
        mask = structures.crop(name)
        if mask.array.any():
            mask = _moved(mask, geometry, np.random.default_rng([observer, zlib.crc32(name.encode())]))
        drawn.add_mask(name, mask)
    return drawn


def another_hospital(seed: int) -> SourceCase:
    """A patient as none of those trained on: scanned at 1 x 1 x 2.5 mm, every second one with shoulders and couch,
    dental streaks in all, 4 to 8 % larger or smaller, blurred by another kernel, noisier by 12 HU, and 12 HU off with a
    gain of 0.97."""
    case = phantom_case(seed, (1.0, 1.0, 2.5), ("head_neck", "full")[seed % 2], artefact=True)
    rng = np.random.default_rng([seed, 77])
    size = float(rng.choice((-1, 1)) * rng.uniform(0.04, 0.08))
    hu = sitk.GetArrayFromImage(case.ct).astype(np.float32)
    hu = scipy.ndimage.gaussian_filter(hu, (0.0, 0.6, 0.6))
    grain = scipy.ndimage.gaussian_filter(rng.standard_normal(hu.shape, dtype=np.float32), (0.0, 0.6, 0.6))
    hu = 0.97 * hu + 12 + 12 * grain / grain.std()
    ct = sitk.GetImageFromArray(np.clip(np.rint(hu), -1024, 3071).astype(np.int16))
    ct.SetSpacing([s * (1 + size) for s in case.ct.GetSpacing()])
    ct.SetOrigin(case.ct.GetOrigin())
    structures = StructureSet(Geometry.of(ct))
    for name in case.structures.names:
        structures.add_mask(name, case.structures.crop(name))
    return replace(case, ct=ct, structures=structures)


def _moved(mask: Mask, geometry: Geometry, rng: np.random.Generator) -> Mask:
    spacing = np.asarray(geometry.spacing)[::-1]
    reach = np.ceil(REACH_MM / spacing).astype(int)
    start = np.maximum(np.asarray(mask.start) - reach, 0)
    stop = np.minimum(np.asarray(mask.start) + mask.array.shape + reach, geometry.shape)
    inside = np.zeros(stop - start, bool)
    inside[tuple(slice(s, s + n) for s, n in zip(mask.start - start, mask.array.shape, strict=True))] = (
        mask.array
    )
    half = spacing.min() / 2
    outwards = np.where(
        inside,
        half - scipy.ndimage.distance_transform_edt(inside, spacing),
        scipy.ndimage.distance_transform_edt(~inside, spacing) - half,
    )
    moved = outwards < _field(inside.shape, spacing, rng)
    return tight_mask(moved, [int(v) for v in start]) if moved.any() else mask


def _field(shape: tuple[int, ...], spacing_mm: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Smooth normal deviates of standard deviation `JITTER_MM` over a box of that many voxels."""
    knots = [int(np.ceil(n * s / LATTICE_MM)) + 2 for n, s in zip(shape, spacing_mm, strict=True)]
    values = rng.standard_normal(knots)
    where = np.meshgrid(
        *(np.arange(n) * s / LATTICE_MM for n, s in zip(shape, spacing_mm, strict=True)), indexing="ij"
    )
    field = scipy.ndimage.map_coordinates(values, where, order=1, mode="nearest")
    # Between the knots an average of eight varies less than one of them: by (2/3)^3 in the mean.
    return np.clip(field * (1.5**1.5) * JITTER_MM, -REACH_MM, REACH_MM)
