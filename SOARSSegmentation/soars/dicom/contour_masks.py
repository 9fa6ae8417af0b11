"""From the contours of one ROI, as clinics' files have them, to its mask on the CT's grid.

What an RTSTRUCT means by several contours on one slice is not said by DICOM except for CLOSEDPLANAR_XOR (PS3.3,
C.8.8.6.3), so this is what planning systems are seen to mean:

- one contour within another is a hole, a third within that an island, and so on (even-odd), whatever the type;
- the same contour twice is one contour (a copy must not cancel it);
- CLOSED_PLANAR contours that overlap in part are one area, their union.

rt-utils draws through the centres of an organ's outermost voxels, so that whether these are inside is undecided by
the contour. It means them to be (`image_helper.find_mask_contours` of its 1.2.7), with specks of one or two points.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import numpy.typing as npt
from pydicom.dataset import Dataset
from pydicom.tag import Tag

from soars.dicom.contours import Contour, fill
from soars.errors import InputError
from soars.structures.model import Geometry, Mask, tight_mask

BoolArray = npt.NDArray[np.bool_]
#: Contours may lie this far, in slices, from the slice they are put on, and be this far from flat.
OFF_SLICE = 0.4
OUT_OF_PLANE = 0.1
SAME_PLANE = 0.02
#: A contour is within another when this part of its voxels is: holes are drawn to the outline, and a bit over it.
WITHIN = 0.9
#: A vertex runs through a voxel's centre when it is this near, in voxels.
THROUGH_CENTRES = 0.01
CONTOUR_DATA = Tag(0x3006, 0x0050)
_XOR = "CLOSEDPLANAR_XOR"
_CLOSED = ("CLOSED_PLANAR", _XOR)


def contours_to_mask(
    items: Sequence[Dataset],
    geometry: Geometry,
    path: Path,
    name: str,
    warnings: list[str],
    *,
    lines_inside: bool = False,
) -> Mask:
    """The voxels whose centres the contours enclose.

    Args:
        items: of an ROI's Contour Sequence.
        geometry: the CT's grid.
        path, name: the file and the ROI, for messages.
        warnings: what is odd is added.
        lines_inside: voxels belong to the organ whose centres contours run through, as rt-utils means it.

    Raises `InputError` for points that are no numbers and contours that are not parallel to the slices.
    """
    left_out: Counter[str] = Counter()
    least = 1 if lines_inside else 3
    on_slice = _placed(items, geometry, f"{path}: a contour of {name!r}", left_out, least)
    what = f"{path.name}: {name!r}"
    whole: list[Contour] = []
    patches: list[tuple[tuple[int, int, int], BoolArray]] = []
    overlapping = copies = 0
    for z, found in on_slice.items():
        distinct = list({_key(contour): (contour, xor) for contour, xor in found}.values())
        copies += len(found) - len(distinct)
        patch = _union(distinct, geometry) if len(distinct) > 1 else None
        if patch is None:
            whole += [contour for contour, _ in distinct]
        else:
            overlapping += 1
            patches.append(((z, *patch[0]), patch[1][None]))
    for kind, count in left_out.items():
        warnings.append(f"{path.name}: {count} contour{'s' * (count > 1)} of {name!r} left out: {kind}")
    if copies:
        warnings.append(f"{what}: {copies} contour{'s' * (copies > 1)} drawn twice, counted once")
    if overlapping:
        warnings.append(
            f"{what}: contours overlap in part on {overlapping} slice{'s' * (overlapping > 1)}; read as one area there"
        )
    if not on_slice:
        return tight_mask(np.zeros((0, 0, 0), dtype=bool))
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
    items: Sequence[Dataset], geometry: Geometry, what: str, left_out: Counter[str], least: int
) -> dict[int, list[tuple[Contour, bool]]]:
    """The closed contours of at least so many points, by slice, each with whether it is CLOSEDPLANAR_XOR."""
    found: dict[int, list[tuple[float, Contour, bool]]] = {}
    for item in items:
        kind = str(item.get("ContourGeometricType") or "").strip()
        points = _points(what, item) if kind in _CLOSED else np.zeros((0, 3))
        if len(points) < least:
            left_out[
                f"fewer than {least} point{'s' * (least > 1)}"
                if kind in _CLOSED
                else f"{kind or 'no type'}, not CLOSED_PLANAR"
            ] += 1
            continue
        index = geometry.to_index(points)
        level = float(np.median(index[:, 0]))
        if np.abs(index[:, 0] - level).max() > OUT_OF_PLANE:
            raise InputError(
                f"{what} is not parallel to the slices of the CT; convert it to contours on this CT first"
            )
        z = round(level)
        if abs(level - z) > OFF_SLICE:
            left_out["halfway between slices"] += 1
        elif not 0 <= z < geometry.size[2]:
            left_out["above or below the CT"] += 1
        else:
            found.setdefault(z, []).append((level, Contour(z, index[:, :0:-1]), kind == _XOR))
    placed = {}
    for z, several in found.items():
        # of several planes that come to lie on one slice the nearest counts: together they would cancel each other
        nearest = min((level for level, *_ in several), key=lambda level: abs(level - z))
        placed[z] = [(contour, xor) for level, contour, xor in several if abs(level - nearest) < SAME_PLANE]
        if len(placed[z]) < len(several):
            left_out["another plane is nearer to the slice"] += len(several) - len(placed[z])
    return placed


def _points(what: str, item: Dataset) -> npt.NDArray[np.float64]:
    """LPS mm, shape (n, 3)."""
    try:
        element = item.get_item(CONTOUR_DATA)
        value = element.value if element is not None else b""
        if isinstance(value, bytes):  # not yet parsed by pydicom
            numbers = np.array(value.rstrip(b" \0").split(b"\\") if value.strip() else [], dtype=np.float64)
        else:
            numbers = np.array([float(v) for v in value or []], dtype=np.float64)
        points = numbers.reshape(-1, 3)
        if not np.isfinite(points).all():
            raise ValueError("not a number")
    except (ValueError, TypeError) as error:
        raise InputError(f"{what} has damaged points ({error})") from error
    return points


def _key(contour: Contour) -> bytes:
    """The same for contours through the same points, wherever they begin and whichever way they run."""
    points = np.round(contour.points, 4) + 0.0
    return bytes(points[np.lexsort(points.T)].tobytes())


def _union(
    contours: Sequence[tuple[Contour, bool]], geometry: Geometry
) -> tuple[tuple[int, int], BoolArray] | None:
    """(first voxel (y, x), area) of a slice on which CLOSED_PLANAR contours overlap in part, None when none do."""
    boxes = [(c.points.min(axis=0), c.points.max(axis=0)) for c, _ in contours]
    pairs = [
        (a, b)
        for a in range(len(contours))
        for b in range(a)
        if not (contours[a][1] or contours[b][1])
        and (boxes[a][0] <= boxes[b][1]).all()
        and (boxes[b][0] <= boxes[a][1]).all()
    ]
    if not pairs:
        return None
    low = np.clip(np.floor(np.min([box[0] for box in boxes], axis=0)).astype(int), 0, None)
    high = np.ceil(np.max([box[1] for box in boxes], axis=0)) + 1
    size = np.clip(np.minimum(high, geometry.size[:2]).astype(int) - low, 0, None)
    areas = []
    for contour, _ in contours:
        start, box = fill([contour], geometry.shape[1:])
        areas.append(tight_mask(box, (0, *start[1:])).box((0, low[1], low[0]), (1, size[1], size[0]))[0])
    group = list(range(len(contours)))
    for a, b in pairs:
        common = np.count_nonzero(areas[a] & areas[b])
        if 0 < common < WITHIN * min(np.count_nonzero(areas[a]), np.count_nonzero(areas[b])):
            group = [group[b] if g == group[a] else g for g in group]
    if len(set(group)) == len(group):
        return None
    area = np.zeros(areas[0].shape, dtype=bool)
    for g in set(group):
        area ^= np.any([areas[k] for k in range(len(areas)) if group[k] == g], axis=0)
    return (int(low[1]), int(low[0])), area


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
    masks = [mask for mask in (tight_mask(box, start) for start, box in patches) if not mask.is_empty]
    if len(masks) < 2:
        return masks[0] if masks else tight_mask(np.zeros((0, 0, 0), dtype=bool))
    low = np.min([mask.start for mask in masks], axis=0)
    high = np.max([mask.stop for mask in masks], axis=0)
    together = np.zeros(tuple(high - low), dtype=bool)
    for mask in masks:
        z, y, x = (slice(a - o, b - o) for a, b, o in zip(mask.start, mask.stop, low, strict=True))
        together[z, y, x] |= mask.array
    return tight_mask(together, [int(v) for v in low])
