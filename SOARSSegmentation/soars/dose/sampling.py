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

_AT_A_TIME = 1 << 20
"""Most samples that are interpolated at a time."""
_PARALLEL = 1e-9
"""Axes of dose and CT that differ by less are parallel, as they are in most files."""
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
    grid = Geometry.of(dose)
    values = sitk.GetArrayViewFromImage(dose)
    # index in the dose grid (z, y, x) = turn @ index in the box + shift
    shift = grid.to_index(box.origin)
    turn = np.stack([grid.to_index(box.to_physical(unit)) - shift for unit in np.eye(3)], axis=1)
    turn[np.abs(turn) < _PARALLEL] = 0
    at = np.flatnonzero(inside)
    gy = np.empty(len(at), np.float32)
    outside = 0
    for first in range(0, len(at), _AT_A_TIME):
        some = at[first : first + _AT_A_TIME]
        rows = some // inside.shape[2]
        planes = rows // inside.shape[1]
        index = (planes, rows - planes * inside.shape[1], some - rows * inside.shape[2])
        places = []
        beyond = np.zeros(len(some), dtype=bool)
        for axis in range(3):
            place = np.full(len(some), shift[axis])
            for factor, along in zip(turn[axis], index, strict=True):
                if factor:
                    place += factor * along
            beyond |= (place < -0.5) | (place >= values.shape[axis] - 0.5)
            places.append(np.clip(place, 0, values.shape[axis] - 1, out=place))
        part = _trilinear(values, places)
        part[beyond] = 0
        outside += int(np.count_nonzero(beyond))
        gy[first : first + len(some)] = part
    return DoseSamples(gy, box.voxel_cc, outside / max(len(at), 1))


def _trilinear(values: Samples, places: list[npt.NDArray[np.float64]]) -> npt.NDArray[np.float64]:
    """Values [z, y, x] at fractional indices within the array, interpolated linearly in three directions."""
    flat = values.reshape(-1)
    steps = (values.shape[1] * values.shape[2], values.shape[2], 1)
    corner = np.zeros(len(places[0]), np.int64)
    parts, jumps = [], []
    for place, step, count in zip(places, steps, values.shape, strict=True):
        low = np.minimum(place.astype(np.int64), max(count - 2, 0))
        corner += low * step
        parts.append(place - low)
        jumps.append(step if count > 1 else 0)
    found = []
    for z in (0, jumps[0]):
        lines = []
        for y in (0, jumps[1]):
            ends = [flat[z + y + x :].take(corner).astype(np.float64) for x in (0, jumps[2])]
            lines.append(ends[0] + parts[2] * (ends[1] - ends[0]))
        found.append(lines[0] + parts[1] * (lines[1] - lines[0]))
    return np.asarray(found[0] + parts[0] * (found[1] - found[0]))


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
