"""A ball of tissue with four organs, as CT, structures and record of a run: what reports are tested with."""

from __future__ import annotations

from dataclasses import replace
from functools import lru_cache

import numpy as np
import SimpleITK as sitk

from soars.report.record import (
    PRESENT,
    BundleRecord,
    CtRecord,
    EngineRecord,
    OrganRecord,
    RunRecord,
    orientation_of,
)
from soars.structures import Geometry, StructureSet

CENTRE = np.array([10.0, -20.0, 300.0])
BALLS = {  # name: place relative to the centre and radius, LPS mm
    "SpinalCord": ((0, 30, -10), 8),
    "Parotid_L": ((40, 0, 0), 12),
    "Parotid_R": ((-40, 0, 6), 12),
    "Lens_L": ((25, -45, 30), 5),
}
COLOURS = {
    "SpinalCord": (230, 40, 40),
    "Parotid_L": (40, 210, 60),
    "Parotid_R": (50, 110, 250),
    "Lens_L": (240, 60, 230),
}
STRATA = {"SpinalCord": "anchor", "Lens_L": "small_hard"}


@lru_cache
def scene(code: str = "LPS", tilt_deg: float = 0.0) -> tuple[sitk.Image, StructureSet]:
    """A ball of tissue with four organs, the same in space whatever the orientation of the image."""
    size, spacing = np.array([90, 90, 42]), np.array([2.0, 2.0, 4.0])
    c, s = np.cos(np.radians(tilt_deg)), np.sin(np.radians(tilt_deg))
    direction = np.array([[c, -s, 0], [s, c, 0], [0, 0, 1]])
    image = sitk.Image(size.tolist(), sitk.sitkInt16)
    image.SetSpacing(spacing.tolist())
    image.SetDirection(direction.ravel().tolist())
    image.SetOrigin((CENTRE - direction @ (spacing * (size - 1) / 2)).tolist())
    if code != "LPS":
        image = sitk.DICOMOrient(image, code)
    geometry = Geometry.of(image)
    places = geometry.to_physical(np.stack(np.indices(geometry.shape), axis=-1))
    body = ((places - CENTRE) ** 2).sum(-1) < 75**2
    ct = sitk.GetImageFromArray(np.where(body, 40, -1000).astype(np.int16))
    ct.CopyInformation(image)
    structures = StructureSet(geometry)
    for name, (offset, radius) in BALLS.items():
        structures.add(name, ((places - CENTRE - offset) ** 2).sum(-1) <= radius**2)
    return ct, structures


def record_of(structures: StructureSet, **changes: object) -> RunRecord:
    organs = tuple(
        OrganRecord(
            name,
            f"Label of {name}",
            STRATA.get(name, "mid_level"),
            PRESENT,
            COLOURS.get(name, (128, 128, 128)),
            structures.voxels(name),
            structures.volume_cc(name),
        )
        for name in structures
    )
    geometry = structures.geometry
    record = RunRecord(
        ct=CtRecord(
            "case1",
            geometry.size,
            geometry.spacing,
            geometry.origin,
            geometry.direction,
            orientation_of(geometry.direction),
            "HEAD AND NECK",
            "1.2.3.4",
        ),
        bundle=BundleRecord(
            "starter", "1.2.0", "ab" * 32, 1, "MIT", "Eight organs", notes={"Trained on": "170 CTs"}
        ),
        organs=organs,
        engine=EngineRecord("onnxruntime 1.20", "cpu", "fp32"),
        timings_s={"read": 0.5, "anchor": 12.25},
        started_utc="2026-01-02T03:04:05Z",
        finished_utc="2026-01-02T03:05:05Z",
        libraries={"numpy": "2.0"},
    )
    return replace(record, **changes)  # type: ignore[arg-type]
