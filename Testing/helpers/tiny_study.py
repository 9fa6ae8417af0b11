"""Studies for tests: patients of a few voxels, so that whole studies are simulated in seconds."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import SimpleITK as sitk

from soars.catalogue import SOARS42
from soars.structures import Geometry, StructureSet
from soars.study.plan.model import Plan
from soars.study.simulation.make import SimulationOptions, simulate_study
from soars.study.simulation.truth import Truth

SIZE = (24, 24, 30)
"""x, y, z voxels of 3 mm."""


def tiny_patient(number: int, folder: Path, options: SimulationOptions) -> tuple[Any, StructureSet, Any]:
    """A block of tissue with 42 organs of 3 x 2 x 3 voxels, none over another; the dose falls off with x."""
    rng = np.random.default_rng([options.seed, number])
    array = np.full(SIZE[::-1], 40, dtype=np.int16)
    array[:, :2], array[:, -2:] = -1000, 700
    array += rng.integers(-5, 6, array.shape).astype(np.int16)
    ct = sitk.GetImageFromArray(array)
    ct.SetSpacing((3.0, 3.0, 3.0))
    structures = StructureSet(Geometry.of(ct))
    for index, organ in enumerate(SOARS42):
        z, rest = divmod(index, 9)
        y, x = divmod(rest, 3)
        box = np.ones((3, 2, 3), dtype=bool)
        box[0, 0, 0] = rng.random() < 0.5
        structures.add_crop(organ, (2 + 5 * z, 5 + 5 * y, 2 + 6 * x), box)
    dose = sitk.Cast(
        sitk.GetImageFromArray(np.broadcast_to(70.0 - 2 * np.arange(SIZE[0]), SIZE[::-1])), sitk.sitkFloat32
    )
    dose.CopyInformation(ct)
    return ct, structures, dose if options.dose else None


def tiny_study(folder: Path, **options: Any) -> Plan:
    """A simulated study of such patients; options are those of `SimulationOptions`, and of `Truth` by their names."""
    truth = {name: options.pop(name) for name in list(options) if name in Truth.__dataclass_fields__}
    return simulate_study(folder, SimulationOptions(**options, truth=Truth(**truth)), patient=tiny_patient)
