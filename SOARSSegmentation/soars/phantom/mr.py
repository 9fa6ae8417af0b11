"""A synthetic T1-weighted MR of a phantom: what registration and networks that see CT and MR are tested with.

Tissues have the order of brightness that T1 gives them (fat, marrow, white matter, grey matter and muscle, fluid, air
and cortical bone), which is not that of the CT. Some organs that a CT hardly shows stand out in it. The scan has its
own field of view and voxels, and the patient lies elsewhere in it, by a known rigid motion.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from types import MappingProxyType

import numpy as np
import SimpleITK as sitk

from soars.phantom.make import Phantom

SPACING_MM = (0.9, 0.9, 2.5)
EXTENT_MM = (210.0, 230.0, 190.0)
NOISE = 12.0
BIAS = 0.12
"""How much brighter than the mean the field of the coil makes the brightest place."""

HU_KNOTS = (-1000.0, -400.0, -120.0, -60.0, 0.0, 15.0, 35.0, 60.0, 120.0, 250.0, 500.0, 900.0, 3000.0)
BRIGHTNESS_AT = (5.0, 10.0, 850.0, 800.0, 180.0, 220.0, 430.0, 420.0, 400.0, 260.0, 200.0, 60.0, 20.0)
ORGANS: Mapping[str, float] = MappingProxyType(
    {
        "Brainstem": 520.0,
        "SpinalCord": 500.0,
        "Cerebellum": 460.0,
        "Parotid_L": 640.0,
        "Parotid_R": 640.0,
        "Glnd_Submand_L": 560.0,
        "Glnd_Submand_R": 560.0,
        "Eye_L": 150.0,
        "Eye_R": 150.0,
        "OpticNrv_L": 470.0,
        "OpticNrv_R": 470.0,
        "OpticChiasm": 560.0,
        "Pituitary": 620.0,
        "Hypothalmus": 590.0,
        "Pineal": 340.0,
        "Cochlea_L": 120.0,
        "Cochlea_R": 120.0,
    }
)
"""Brightness of organs that differ from other tissue of their HU."""


@dataclass(frozen=True)
class SyntheticMr:
    """An MR of a phantom.

    Attributes:
        image: float32, LPS mm, in a position of its own.
        to_mr: maps a point of the phantom's CT to the MR's (LPS mm): what a registration has to find.
    """

    image: sitk.Image
    to_mr: sitk.Euler3DTransform


def make_mr(
    phantom: Phantom,
    *,
    seed: int = 0,
    rotation_degrees: Sequence[float] = (0.0, 0.0, 0.0),
    shift_mm: Sequence[float] = (0.0, 0.0, 0.0),
    extent_mm: Sequence[float] = EXTENT_MM,
    spacing_mm: Sequence[float] = SPACING_MM,
    centre_mm: Sequence[float] | None = None,
    organs: Mapping[str, float] = ORGANS,
) -> SyntheticMr:
    """Scan a phantom by MR.

    Args:
        seed: of noise and coil.
        rotation_degrees: of the patient about x, y and z between the two scans.
        shift_mm: of the patient between the two scans, LPS.
        extent_mm: field of view (x, y, z).
        spacing_mm: voxel size (x, y, z).
        centre_mm: middle of the field of view as a point of the CT; that of the brainstem when None.
        organs: brightness of organs that differ from other tissue of their HU.
    """
    ct = phantom.ct
    hu = sitk.GetArrayFromImage(ct).astype(np.float32)
    values = np.interp(hu, HU_KNOTS, BRIGHTNESS_AT).astype(np.float32)
    for name, brightness in organs.items():
        if name in phantom.structures and not phantom.structures.is_empty(name):
            organ = phantom.structures.crop(name)
            values[organ.slices][organ.array] = brightness
    values[~phantom.anatomy.full("Body")] = 0.0
    tissue = sitk.GetImageFromArray(values)
    tissue.CopyInformation(ct)

    if centre_mm is None:
        centre_mm = phantom.structures.centre_of_mass("Brainstem") or _middle(ct)
    to_mr = sitk.Euler3DTransform()
    to_mr.SetCenter([float(v) for v in centre_mm])
    to_mr.SetRotation(*(float(v) for v in np.deg2rad(rotation_degrees)))
    to_mr.SetTranslation([float(v) for v in shift_mm])

    size = np.maximum(np.round(np.asarray(extent_mm) / spacing_mm), 8).astype(int)
    middle = np.asarray(to_mr.TransformPoint([float(v) for v in centre_mm]))
    out = sitk.ResampleImageFilter()
    out.SetSize(size.tolist())
    out.SetOutputSpacing([float(v) for v in spacing_mm])
    out.SetOutputOrigin((middle - (size - 1) * np.asarray(spacing_mm) / 2).tolist())
    out.SetTransform(to_mr.GetInverse())
    out.SetInterpolator(sitk.sitkLinear)
    laid = out.Execute(tissue)
    rng = np.random.default_rng(seed)
    scanned = sitk.GetArrayFromImage(laid) * _coil(rng, (size[2], size[1], size[0]))
    noise = rng.normal(0, NOISE, (2, *scanned.shape)).astype(np.float32)
    image = sitk.GetImageFromArray(np.hypot(scanned + noise[0], noise[1]))  # magnitude: Rician
    image.CopyInformation(laid)
    return SyntheticMr(image, to_mr)


def _middle(ct: sitk.Image) -> Sequence[float]:
    middle: Sequence[float] = ct.TransformContinuousIndexToPhysicalPoint([(n - 1) / 2 for n in ct.GetSize()])
    return middle


def _coil(rng: np.random.Generator, shape: tuple[int, int, int]) -> np.ndarray:
    """A smooth field about 1, a plane wave along each axis, [z, y, x]."""
    field = np.ones(shape, np.float32)
    for axis, n in enumerate(shape):
        along = np.cos(np.linspace(0, np.pi, n) * rng.uniform(0.5, 1.2) + rng.uniform(0, np.pi))
        field += (BIAS / 3 * along).astype(np.float32).reshape([-1 if a == axis else 1 for a in range(3)])
    return field
