"""From the contours of one ROI, as clinics' files have them, to its mask on the CT's grid.

DICOM defines the meaning of several contours on one slice only for CLOSEDPLANAR_XOR (PS3.3, C.8.8.6.3), so this follows
what planning systems do:

- one contour within another is a hole, a third within that an island, and so on (even-odd), whatever the type;
- the same contour twice is one contour (a copy must not cancel it): contours that enclose the same voxel centres are;
- CLOSED_PLANAR contours that overlap in part are one area, their union.

rt-utils draws through the centres of an organ's outermost voxels, so the contour leaves open whether these are inside.
It intends them to be (`image_helper.find_mask_contours` of its 1.2.7), with specks of one or two points. A wall of one
voxel it draws as two contours through the same centres; it writes no copies, so neither counts as one.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import numpy.typing as npt
from pydicom.dataset import Dataset
from pydicom.tag import Tag

from soars.ct.stack import UNEVEN_LIMIT_MM
from soars.dicom.contour_overlap import area_of_overlapping, same_area
from soars.dicom.contours import Contour, fill
from soars.structures.mask import EMPTY_MASK, union
from soars.structures.model import Geometry, Mask, tight_mask

BoolArray = npt.NDArray[np.bool_]
#: Contours may lie this far, in slices, from the slice they are put on, and be this far from flat.
OFF_SLICE = 0.4
OUT_OF_PLANE = 0.1
SAME_PLANE = 0.02
#: A vertex runs through a voxel's centre when it is this near, in voxels.
THROUGH_CENTRES = 0.01
CONTOUR_DATA = Tag(0x3006, 0x0050)
_XOR = "CLOSEDPLANAR_XOR"
_CLOSED = ("CLOSED_PLANAR", _XOR)
_BETWEEN, _BEYOND = "halfway between slices", "above or below the CT"
_ELSEWHERE = {_BETWEEN, _BEYOND}
"""Reasons of contours that are as they should be, but not on the slices of this CT: their ROI is there, and empty."""
_VALUE_ERRORS = (ArithmeticError, AttributeError, LookupError, NotImplementedError, TypeError, ValueError)


class _Unusable(Exception):
    """Why a contour is left out."""


def contours_to_mask(
    items: Sequence[Dataset],
    geometry: Geometry,
    path: Path,
    name: str,
    warnings: list[str],
    *,
    lines_inside: bool = False,
    beside_mm: dict[str, float] | None = None,
) -> Mask | None:
    """The voxels whose centres the contours enclose; None when not one of the contours is of a kind that encloses any.

    Args:
        items: of an ROI's Contour Sequence.
        geometry: the CT's grid.
        path, name: the file and the ROI, for messages.
        warnings: what is odd is added.
        lines_inside: voxels belong to the organ whose centres contours run through, as rt-utils means it.
        beside_mm: by ``name``, how far contours lie from their slices, where that is farther than slices of a CT lie
            from their places.

    A contour that cannot be used (points that are not numbers, not parallel to the slices, open, a point) is left out,
    with one warning for each reason.
    """
    left_out: Counter[str] = Counter()
    noted: Counter[str] = Counter()
    on_slice, off = _placed(items, geometry, left_out, noted, 1 if lines_inside else 3)
    if beside_mm is not None and off * geometry.spacing[2] > UNEVEN_LIMIT_MM:
        beside_mm[name] = off * geometry.spacing[2]
    what = f"{path.name}: {name!r}"
    whole: list[Contour] = []
    patches: list[tuple[tuple[int, int, int], BoolArray]] = []
    overlapping = copies = cancelled = 0
    for z, found in on_slice.items():
        distinct = found if lines_inside else _without_copies(found, geometry.shape[1:])
        copies += len(found) - len(distinct)
        cancelling: list[tuple[int, int]] = []
        patch = area_of_overlapping(distinct, geometry.shape[1:], cancelling) if len(distinct) > 1 else None
        cancelled += bool(cancelling) and not lines_inside
        if patch is None:
            whole += [contour for contour, _ in distinct]
        else:
            overlapping += 1
            patches.append(((z, *patch[0]), patch[1][None]))
    for kind, count in left_out.items():
        warnings.append(f"{path.name}: {count} contour{'s' * (count > 1)} of {name!r} left out: {kind}")
    for kind, count in noted.items():
        warnings.append(f"{what}: {count} contour{'s' * (count > 1)} {kind}")
    if copies:
        warnings.append(f"{what}: {copies} contour{'s' * (copies > 1)} drawn twice, counted once")
    if overlapping:
        warnings.append(
            f"{what}: contours overlap in part on {overlapping} slice{'s' * (overlapping > 1)}; read as one area there"
        )
    if cancelled:
        warnings.append(
            f"{what}: two contours of nearly the same area cancel each other on {cancelled} "
            f"slice{'s' * (cancelled > 1)}, as an outline and its hole do; check there, one may be a copy"
        )
    if not on_slice:
        elsewhere = _ELSEWHERE & left_out.keys()
        return EMPTY_MASK if elsewhere or not items else None
    if whole:
        patches.append(fill(whole, geometry.shape[1:]))
    if lines_inside:
        patches += _lines([contour for found in on_slice.values() for contour, _ in found], geometry)
    mask = _joined(patches)
    if mask.is_empty:
        warnings.append(f"{what}: the contours enclose no voxel centre of the CT")
    low = np.min([contour.points.min(axis=0) for found in on_slice.values() for contour, _ in found], axis=0)
    high = np.max([contour.points.max(axis=0) for found in on_slice.values() for contour, _ in found], axis=0)
    if (low < -1).any() or (high > np.array(geometry.size[:2])).any():
        warnings.append(f"{what} reaches beyond the CT and was cut off there")
    gaps = max(on_slice) - min(on_slice) + 1 - len(on_slice)
    if gaps:
        warnings.append(f"{what}: {gaps} slice{'s' * (gaps > 1)} between its first and last have no contour")
    return mask


def _placed(
    items: Sequence[Dataset], geometry: Geometry, left_out: Counter[str], noted: Counter[str], least: int
) -> tuple[dict[int, list[tuple[Contour, bool]]], float]:
    """The closed contours of at least so many points, by slice, each with whether it is CLOSEDPLANAR_XOR; and how far,
    in slices, the farthest lies from its slice.

    What cannot be used is counted in ``left_out`` by its reason, what is odd in ``noted``.
    """
    found: dict[int, list[tuple[float, Contour, bool]]] = {}
    for item in items:
        try:
            kind = str(item.get("ContourGeometricType") or "").strip()
            points = _points(item, noted) if kind in _CLOSED else None
            level, contour = _on_slice(kind, points, geometry, least)
        except _Unusable as reason:
            left_out[str(reason)] += 1
        except _VALUE_ERRORS:  # pydicom converts a value when it is asked for
            left_out["one of its values is damaged"] += 1
        else:
            found.setdefault(contour.z, []).append((level, contour, kind == _XOR))
    placed, off = {}, 0.0
    for z, several in found.items():
        # of several planes that come to lie on one slice the nearest counts: together they would cancel each other
        nearest = min((level for level, *_ in several), key=lambda level: abs(level - z))
        off = max(off, abs(nearest - z))
        placed[z] = [(contour, xor) for level, contour, xor in several if abs(level - nearest) < SAME_PLANE]
        if len(placed[z]) < len(several):
            left_out["another plane is nearer to the slice"] += len(several) - len(placed[z])
    return placed, off


def _on_slice(
    kind: str, points: npt.NDArray[np.float64] | None, geometry: Geometry, least: int
) -> tuple[float, Contour]:
    """Where along the slices a contour lies, in slices, and its points on the slice that is nearest."""
    if points is None:
        raise _Unusable(f"{kind or 'no type'}, not CLOSED_PLANAR")
    if len(points) < least:
        raise _Unusable(f"fewer than {least} point{'s' * (least > 1)}")
    index = geometry.to_index(points)
    level = float(np.median(index[:, 0]))
    if np.abs(index[:, 0] - level).max() > OUT_OF_PLANE:
        raise _Unusable("not parallel to the slices of the CT")
    z = round(level)
    if abs(level - z) > OFF_SLICE:
        raise _Unusable(_BETWEEN)
    if not 0 <= z < geometry.size[2]:
        raise _Unusable(_BEYOND)
    return level, Contour(z, index[:, :0:-1])


def _points(item: Dataset, noted: Counter[str]) -> npt.NDArray[np.float64]:
    """LPS mm, shape (n, 3), moved by the Contour Offset Vector where there is one: the contour of a slab lies in its
    middle, which the vector leads to (PS3.3 C.8.8.6 until 2003, retired since)."""
    element = item.get_item(CONTOUR_DATA)
    value = element.value if element is not None else b""
    try:
        if isinstance(value, bytes):  # not yet parsed by pydicom
            numbers = np.array(value.rstrip(b" \0").split(b"\\") if value.strip() else [], dtype=np.float64)
        else:
            numbers = np.array([float(v) for v in value or []], dtype=np.float64)
    except (ValueError, TypeError):
        raise _Unusable("points that are not numbers") from None
    if not np.isfinite(numbers).all():
        raise _Unusable("points that are not numbers")
    if len(numbers) % 3:
        raise _Unusable(f"{len(numbers)} numbers, which are not points of three")
    points = numbers.reshape(-1, 3)
    said = item.get("NumberOfContourPoints")
    if said is not None and str(said).strip() and int(said) != len(points):
        noted["with a different number of points than stated"] += 1
    offset = item.get("ContourOffsetVector")
    if offset:
        vector = np.array([float(v) for v in offset])
        if vector.shape != (3,) or not np.isfinite(vector).all():
            raise _Unusable("an invalid Contour Offset Vector")
        if vector.any():
            points = points + vector
            noted["moved by the Contour Offset Vector"] += 1
    return points


def _without_copies(found: list[tuple[Contour, bool]], shape: tuple[int, int]) -> list[tuple[Contour, bool]]:
    """The contours of a slice, each once."""
    distinct = list({_key(contour): (contour, xor) for contour, xor in found}.values())
    return same_area(distinct, shape) if len(distinct) > 1 else distinct


def _key(contour: Contour) -> bytes:
    """The same for contours through the same points, wherever they begin and whichever way they run."""
    points = np.round(contour.points, 4) + 0.0
    return bytes(points[np.lexsort(points.T)].tobytes())


def _lines(contours: Sequence[Contour], geometry: Geometry) -> list[tuple[tuple[int, int, int], BoolArray]]:
    """(first voxel, box) of the voxels whose centres contours run through, those that run through them only."""
    drawn = []
    for contour in contours:
        points = np.round(contour.points)
        off = np.abs(points - contour.points).max()
        if off > THROUGH_CENTRES or np.abs(points).max() > 2 * max(
            geometry.size
        ):  # no line of endless length
            continue
        edges = np.roll(points, -1, axis=0) - points
        steps = np.maximum(np.abs(edges).max(axis=1), 1).astype(int)
        edge = np.repeat(np.arange(len(points)), steps)
        part = (np.arange(len(edge)) - np.repeat(np.cumsum(steps) - steps, steps)) / steps[edge]
        x, y = np.rint(points[edge] + part[:, None] * edges[edge]).astype(int).T
        on = (x >= 0) & (y >= 0) & (x < geometry.size[0]) & (y < geometry.size[1])
        if on.any():
            x, y = x[on], y[on]
            box = np.zeros((1, np.ptp(y) + 1, np.ptp(x) + 1), dtype=bool)
            box[0, y - y.min(), x - x.min()] = True
            drawn.append(((contour.z, int(y.min()), int(x.min())), box))
    return drawn


def _joined(patches: Sequence[tuple[tuple[int, int, int], BoolArray]]) -> Mask:
    """Boxes of one grid as one mask."""
    return union(tight_mask(box, start) for start, box in patches)
