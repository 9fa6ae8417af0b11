"""A CT of a soft-tissue column with a skull and two bright boxes in it, and a cache of a few of them to train on."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import SimpleITK as sitk

from soars.structures import Geometry, StructureSet
from soars_training.cohorts.prepare import SourceCase, write_volume_cache

ORGANS = ("Brainstem", "Parotid_L")
SPACING_MM = (4.0, 4.0, 4.0)


def box_case(seed: int, *, annotated: tuple[str, ...] = ORGANS) -> SourceCase:
    """Left is at larger x; the brainstem is bright and on the right, the parotid dark and on the left."""
    rng = np.random.default_rng(seed)
    z, y, x = np.indices((28, 32, 32))
    column = ((x - 15.5) / 14) ** 2 + ((y - 15.5) / 14) ** 2 < 1
    hu = np.where(column, 40 + rng.normal(0, 10, z.shape), -1000.0)
    masks = {}
    for organ, (start, value) in {"Brainstem": ((8, 12, 6), 500), "Parotid_L": ((12, 12, 18), -250)}.items():
        first = np.array(start) + rng.integers(-2, 3, 3)
        masks[organ] = np.all([(i >= s) & (i < s + 8) for i, s in zip((z, y, x), first, strict=True)], axis=0)
        hu[masks[organ]] = value
    image = sitk.GetImageFromArray(hu.astype(np.int16))
    image.SetSpacing(SPACING_MM)
    image.SetOrigin((-62.0, -62.0, -54.0))
    structures = StructureSet(Geometry.of(image))
    for organ in annotated:
        structures.add(organ, masks[organ])
    return SourceCase(f"c{seed}", "train", image, structures, frozenset(annotated))


def box_cache(folder: Path, cases: int) -> Path:
    """A cache of so many of them, seeds 0, 1, 2 ..."""
    folder.mkdir(parents=True, exist_ok=True)
    write_volume_cache((box_case(n) for n in range(cases)), folder, SPACING_MM, "boxes")
    return folder
