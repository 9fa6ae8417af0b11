"""The geometry of a stack of CT slices: from their positions to one regular grid, or the reason for refusing it.

Source: DICOM PS3.3, C.7.6.2 (Image Plane module). Everything is LPS mm.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from soars.errors import InputError

#: Row and column cosines may differ from unit length and from each other's right angle, and from slice to slice, by
#: this much: six decimals are usual, four occur; a thousandth turns a 500 mm image by 0.5 mm.
COSINE_TOLERANCE = 1e-3
#: Slices nearer to each other than this are at the same place (no CT has slices thinner than 0.1 mm).
SAME_POSITION_MM = 0.01
#: A gap above this multiple of the usual distance means that a slice is missing.
MISSING_SLICE_FACTOR = 1.5
#: A slice may lie this far from its place on the regular grid: positions are often rounded to 0.1 mm, and 0.2 mm is
#: far below what anybody delineates. Above it contours would be visibly displaced.
UNEVEN_LIMIT_MM = 0.2
#: Above this the deviation is worth a warning; below it is only rounding of decimal strings.
UNEVEN_WARNING_MM = 0.02
#: The same limits for slices that lie sideways of the straight stack (a tilted gantry, a moved table): half a pixel of
#: a planning CT.
SIDEWAYS_LIMIT_MM = 0.5
SIDEWAYS_WARNING_MM = 0.1
#: A stack needs at least this many slices to be a volume.
LEAST_SLICES = 3
#: How many places an error message names.
MOST_NAMED = 5


@dataclass(frozen=True)
class Plane:
    """Where one slice is: position of the first pixel's centre (mm), row and column cosines, a name for messages."""

    position: tuple[float, float, float]
    orientation: tuple[float, float, float, float, float, float]
    name: str


@dataclass(frozen=True)
class Stack:
    """A regular stack: `order[z]` is the index of the plane at z; spacing between slices, origin and direction (mm)."""

    order: tuple[int, ...]
    slice_spacing_mm: float
    origin: tuple[float, float, float]
    direction: tuple[float, ...]
    warnings: tuple[str, ...]


def common_orientation(planes: Sequence[Plane]) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Row cosine, column cosine and normal (unit vectors) that all planes share.

    Raises `InputError` for cosines that are not an orientation and for planes of several orientations.
    """
    cosines = np.array([p.orientation for p in planes], dtype=float)
    rows, columns = cosines[:, :3], cosines[:, 3:]
    bad = (
        ~np.isfinite(cosines).all(axis=1)
        | (np.abs(np.linalg.norm(rows, axis=1) - 1) > COSINE_TOLERANCE)
        | (np.abs(np.linalg.norm(columns, axis=1) - 1) > COSINE_TOLERANCE)
        | (np.abs(np.einsum("ij,ij->i", rows, columns)) > COSINE_TOLERANCE)
    )
    if bad.any():
        first = int(np.argmax(bad))
        raise InputError(
            f"{planes[first].name}: Image Orientation (Patient) {_numbers(planes[first].orientation)} is not two "
            f"perpendicular unit vectors"
        )
    differ = np.abs(cosines - np.median(cosines, axis=0)).max(axis=1) > COSINE_TOLERANCE
    if differ.any():
        groups: dict[tuple[float, ...], int] = {}
        for row in np.round(cosines, 3) + 0.0:
            groups[tuple(row)] = groups.get(tuple(row), 0) + 1
        listed = "; ".join(
            f"{n} x {_numbers(g)}" for g, n in sorted(groups.items(), key=lambda i: -i[1])[:MOST_NAMED]
        )
        odd = min(groups, key=lambda g: groups[g])
        example = next(
            p.name for p, c in zip(planes, np.round(cosines, 3) + 0.0, strict=True) if tuple(c) == odd
        )
        raise InputError(
            f"the slices have different orientations ({listed}; for example {example}): they are not one volume; "
            f"remove the slices that do not belong to it"
        )
    row = rows.mean(axis=0)
    row /= np.linalg.norm(row)
    column = columns.mean(axis=0)
    column -= row * (row @ column)
    column /= np.linalg.norm(column)
    return row, column, np.cross(row, column)


def regular_stack(planes: Sequence[Plane]) -> Stack:
    """Put `planes` in order along their normal and check that they are a regular grid.

    Raises `InputError` for fewer than `LEAST_SLICES` slices, mixed orientation, a tilted gantry or slices shifted
    sideways, missing slices (naming the places) and uneven distances. The planes must have no duplicates
    (`same_position` finds them).
    """
    if len(planes) < LEAST_SLICES:
        raise InputError(
            f"only {_count(len(planes), 'slice')}: a CT needs at least {LEAST_SLICES} to be a volume"
        )
    row, column, normal = common_orientation(planes)
    positions = np.array([p.position for p in planes], dtype=float)
    along = positions @ normal
    order = np.argsort(along, kind="stable")
    positions, along = positions[order], along[order]
    warnings: list[str] = []

    _check_sideways(positions, normal, warnings)
    distances = np.diff(along)
    usual = float(np.median(distances))
    wide = np.flatnonzero(distances > MISSING_SLICE_FACTOR * usual)
    if wide.size:
        _raise_missing(planes, order, positions, normal, distances, usual, wide)
    spacing = float(along[-1] - along[0]) / (len(planes) - 1)
    deviation = along - (along[0] + spacing * np.arange(len(planes)))
    worst = float(np.abs(deviation).max())
    if worst > UNEVEN_LIMIT_MM:
        # the place to look at is where the distance itself is unusual
        place = int(np.argmax(np.abs(distances - usual)))
        raise InputError(
            f"the slices are unevenly spaced: usually {usual:g} mm apart, but {distances[place]:.3g} mm between "
            f"{planes[order[place]].name} and {planes[order[place + 1]].name} "
            f"(at {_place(positions[place], normal)}); export the series again with one slice distance"
        )
    if worst > UNEVEN_WARNING_MM:
        warnings.append(
            f"the slices are not quite evenly spaced: up to {worst:.2f} mm from a regular {spacing:.4g} mm grid"
        )
    direction = np.stack([row, column, normal], axis=1)
    return Stack(
        order=tuple(int(i) for i in order),
        slice_spacing_mm=spacing,
        origin=tuple(float(v) for v in positions[0]),  # type: ignore[arg-type]
        direction=tuple(float(v) for v in direction.ravel()),
        warnings=tuple(warnings),
    )


def same_position(planes: Sequence[Plane]) -> list[list[int]]:
    """Groups of two or more planes (indices) that lie at the same place."""
    _, _, normal = common_orientation(planes)
    along = np.array([p.position for p in planes], dtype=float) @ normal
    order = np.argsort(along, kind="stable")
    groups: list[list[int]] = []
    for i in order:
        if groups and along[i] - along[groups[-1][0]] < SAME_POSITION_MM:
            groups[-1].append(int(i))
        else:
            groups.append([int(i)])
    return [g for g in groups if len(g) > 1]


def _check_sideways(positions: np.ndarray, normal: np.ndarray, warnings: list[str]) -> None:
    """Refuse a sheared stack: slices must lie straight above each other along their normal."""
    offset = positions - positions[0]
    sideways = offset - np.outer(offset @ normal, normal)
    worst = float(np.linalg.norm(sideways, axis=1).max())
    if worst > SIDEWAYS_LIMIT_MM:
        line = offset[-1]
        length = float(np.linalg.norm(line))
        straight = np.linalg.norm(offset - np.outer(offset @ line, line) / length**2, axis=1).max()
        if straight <= SIDEWAYS_LIMIT_MM:
            angle = float(np.degrees(np.arccos(np.clip(abs(line @ normal) / length, -1, 1))))
            raise InputError(
                f"the gantry was tilted by {angle:.1f} degrees (the slices are sheared against each other), which this "
                f"program does not read; export the series without tilt, or resample it to straight slices first"
            )
        raise InputError(
            f"the slices are shifted sideways against each other by up to {worst:.1f} mm: they are not one volume"
        )
    if worst > SIDEWAYS_WARNING_MM:
        warnings.append(f"the slices are shifted sideways against each other by up to {worst:.2f} mm")


def _raise_missing(
    planes: Sequence[Plane],
    order: np.ndarray,
    positions: np.ndarray,
    normal: np.ndarray,
    distances: np.ndarray,
    usual: float,
    wide: np.ndarray,
) -> None:
    lost = int(sum(max(1, round(float(distances[i]) / usual) - 1) for i in wide))
    places = "; ".join(
        f"between {_place(positions[i], normal)} and {_place(positions[i + 1], normal)} "
        f"({planes[order[i]].name}, {planes[order[i + 1]].name})"
        for i in wide[:MOST_NAMED]
    )
    more = f"; and {wide.size - MOST_NAMED} more gaps" if wide.size > MOST_NAMED else ""
    raise InputError(
        f"{_count(lost, 'slice')} missing: the slices are {usual:g} mm apart, but there is a gap {places}{more}; "
        f"export the whole series again, since contours across a gap would be wrong"
    )


def _count(n: int, noun: str) -> str:
    return f"{n} {noun}" if n == 1 else f"{n} {noun}s"


def _place(position: np.ndarray, normal: np.ndarray) -> str:
    axis = int(np.argmax(np.abs(normal)))
    return f"{'xyz'[axis]} = {position[axis]:.2f} mm"


def _numbers(values: Sequence[float]) -> str:
    return "[" + ", ".join(f"{v:g}" for v in values) + "]"
