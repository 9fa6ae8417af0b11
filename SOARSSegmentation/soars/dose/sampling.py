"""The dose in an organ's voxels, in one of three conventions.

``ct`` (ours, and CERR's)
    One sample a voxel of the CT grid whose centre is inside: the dose there, interpolated linearly in three
    directions.
``oversampled``
    Every voxel is split in two along each axis; eight samples a voxel. Volume and shape stay, the dose is taken
    more finely.
``interpolated``
    The shape is interpolated between slices (signed distance to the contour, linear in z; Raya and Udupa, IEEE
    Trans Med Imaging 1990;9:32-42) and ends with the first and last slice's plane, without half a slice beyond:
    what Eclipse is seen to do. Sub-slices of at most 1 mm. A single slice keeps its thickness.

Planning systems differ in just this; comparing the three shows how much it matters for an organ.
"""

from __future__ import annotations

from dataclasses import dataclass
from math import ceil

import numpy as np
import numpy.typing as npt
import SimpleITK as sitk

from soars.errors import InputError
from soars.structures.model import BoolArray, Geometry, Mask

SAMPLINGS = ("ct", "oversampled", "interpolated")
DEFAULT_SAMPLING = SAMPLINGS[0]

_OUTSIDE = -1e30
_SLAB = 4_000_000
"""Most samples that are interpolated at a time."""
_SUB_SLICE_MM = 1.0

Samples = npt.NDArray[np.float32]


@dataclass(frozen=True, eq=False)
class DoseSamples:
    """Dose in Gy, shape (n,), in no order; each stands for ``sample_cc``. ``outside`` is the share of samples
    beyond the dose grid, where 0 Gy is assumed."""

    gy: Samples
    sample_cc: float
    outside: float


def sample_dose(
    dose: sitk.Image, geometry: Geometry, mask: Mask, sampling: str = DEFAULT_SAMPLING
) -> DoseSamples:
    """The dose (image in Gy) in a mask on ``geometry``. No samples for an empty mask; `InputError` for an unknown
    ``sampling``."""
    if sampling not in SAMPLINGS:
        raise InputError(f"unknown sampling {sampling!r}; there are {', '.join(SAMPLINGS)}")
    if mask.is_empty:
        return DoseSamples(np.zeros(0, np.float32), geometry.voxel_cc, 0.0)
    box = geometry.cropped(mask.start, mask.shape)
    if sampling == "ct":
        return _sampled(dose, box, mask.array)
    if sampling == "oversampled":
        fine = refined(box, (2, 2, 2))
        return _sampled(dose, fine, mask.array.repeat(2, 0).repeat(2, 1).repeat(2, 2))
    return _between_slices(dose, box, mask.array)


def refined(box: Geometry, parts: tuple[int, int, int]) -> Geometry:
    """The same box with every voxel split into ``parts`` (z, y, x)."""
    first = box.to_physical([(1 / n - 1) / 2 for n in parts])
    x, y, z = ((n * k, s / k) for n, s, k in zip(box.size, box.spacing, parts[::-1], strict=True))
    origin = (float(first[0]), float(first[1]), float(first[2]))
    return Geometry((x[0], y[0], z[0]), (x[1], y[1], z[1]), origin, box.direction)


def _sampled(dose: sitk.Image, box: Geometry, inside: BoolArray) -> DoseSamples:
    """The dose at the voxels of a box that are inside."""
    slices = max(1, _SLAB // max(1, box.size[0] * box.size[1]))
    parts = []
    for z in range(0, box.size[2], slices):
        some = inside[z : z + slices]
        part = box.cropped((z, 0, 0), some.shape)
        image = sitk.Resample(
            dose,
            part.size,
            sitk.Transform(),
            sitk.sitkLinear,
            part.origin,
            part.spacing,
            part.direction,
            _OUTSIDE,
            sitk.sitkFloat32,
        )
        parts.append(sitk.GetArrayFromImage(image)[some])
    gy = np.concatenate(parts)
    beyond = gy <= _OUTSIDE / 2
    outside = float(beyond.mean()) if len(gy) else 0.0
    if outside:
        gy[beyond] = 0
    return DoseSamples(gy, box.voxel_cc, outside)


def _between_slices(dose: sitk.Image, box: Geometry, inside: BoolArray) -> DoseSamples:
    """Samples of the shape between slices; all stand for the same volume, because every slice is split alike."""
    parts = max(1, ceil(box.spacing[2] / _SUB_SLICE_MM - 1e-9))
    fine = refined(box, (parts, 1, 1))
    distances = [_signed_distance(plane, box.spacing) if plane.any() else None for plane in inside]
    above_plane = np.zeros(
        fine.shape, dtype=bool
    )  # `parts` sub-slices from each slice's plane to the next one's
    alone = np.zeros_like(inside)
    for z, (below, here, above) in enumerate(
        zip([None, *distances[:-1]], distances, [*distances[1:], None], strict=True)
    ):
        if here is not None and above is not None:
            for k in range(parts):
                t = (k + 0.5) / parts
                above_plane[z * parts + k] = (1 - t) * here + t * above < 0
        elif here is not None and below is None:
            alone[z] = inside[z]
    if not above_plane.any() and not alone.any():  # slices that have nothing in common
        alone = inside
    first = fine.to_physical((parts / 2, 0, 0))
    half_up = Geometry(
        fine.size, fine.spacing, (float(first[0]), float(first[1]), float(first[2])), fine.direction
    )
    samples = [_sampled(dose, half_up, above_plane), _sampled(dose, fine, alone.repeat(parts, axis=0))]
    gy = np.concatenate([part.gy for part in samples])
    outside = sum(part.outside * len(part.gy) for part in samples) / len(gy)
    return DoseSamples(gy, fine.voxel_cc, outside)


def _signed_distance(plane: BoolArray, spacing: tuple[float, float, float]) -> npt.NDArray[np.float64]:
    """Distance in mm to the border between inside and outside, negative inside, of one slice [y, x]."""
    from scipy.ndimage import distance_transform_edt

    padded = np.pad(plane, 1)
    step = (spacing[1], spacing[0])
    signed = distance_transform_edt(~padded, sampling=step) - distance_transform_edt(padded, sampling=step)
    return np.asarray(signed[1:-1, 1:-1], dtype=np.float64)
