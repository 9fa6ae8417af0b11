"""Area of the surface inside one 2 x 2 x 2 neighbourhood of voxels: marching cubes with vertices at edge midpoints.

A voxel is a point at a corner of the cube; the surface cuts every edge between a voxel inside and one outside in
its middle. This is the surface of the DeepMind paper (Nikolov et al., JMIR 2021;23(7):e26151, methods), whose
areas weigh the surface DSC there. The cases are those of Lorensen and Cline (SIGGRAPH 1987): a cube with more
voxels inside than outside has the surface of its complement, and a face with two voxels diagonally inside keeps
them apart. Polygons that are not flat can be cut into triangles in several ways: the cut with the largest area in a
cube of side 1 is taken.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from functools import cache, lru_cache
from itertools import product

import numpy as np
import numpy.typing as npt

Floats = npt.NDArray[np.float64]
Point = tuple[float, float, float]
Triangle = tuple[Point, Point, Point]
Corner = tuple[int, int, int]

CORNERS: tuple[Corner, ...] = tuple((z, y, x) for z in (0, 1) for y in (0, 1) for x in (0, 1))
"""Corner (z, y, x) of bit 0 to 7 of a neighbourhood's code."""


@lru_cache(maxsize=64)
def element_areas(spacing_mm: tuple[float, float, float]) -> Floats:
    """Area in mm^2 of the surface in a neighbourhood, shape (256,), by the code whose bit ``i`` says that voxel
    ``CORNERS[i]`` is inside; ``spacing_mm`` (z, y, x)."""
    dz, dy, dx = spacing_mm
    areas = np.zeros(256)
    for code, normals in enumerate(_normals()):
        if len(normals):
            areas[code] = np.linalg.norm(normals * (dy * dx, dz * dx, dz * dy), axis=1).sum()
    areas.flags.writeable = False
    return areas


@cache
def _normals() -> tuple[Floats, ...]:
    """For each code the normals (z, y, x) of its triangles in a cube of side 1, as long as the triangle is large;
    shape (n, 3)."""
    table: list[Floats] = []
    for code in range(256):
        few = code if code.bit_count() <= 4 else 255 - code
        inside = frozenset(corner for bit, corner in enumerate(CORNERS) if few >> bit & 1)
        triangles = [t for loop in _loops(inside) for t in _largest(loop)]
        table.append(np.array([_normal(t) for t in triangles]).reshape(-1, 3))
    return tuple(table)


def _loops(inside: frozenset[Corner]) -> list[list[Point]]:
    """Closed polygons of edge midpoints around the corners inside."""
    neighbours: dict[Point, list[Point]] = {}
    for face in _faces():
        for a, b in _segments(face, inside):
            neighbours.setdefault(a, []).append(b)
            neighbours.setdefault(b, []).append(a)
    loops = []
    while neighbours:
        point = min(neighbours)
        loop = []
        while point in neighbours:
            loop.append(point)
            following = [p for p in neighbours.pop(point) if p in neighbours]
            if following:
                point = following[0]
        loops.append(loop)
    return loops


def _faces() -> Iterator[tuple[Corner, ...]]:
    """The six faces: four corners each, going round."""
    for axis, side in product(range(3), (0, 1)):
        face = []
        for pair in ((0, 0), (0, 1), (1, 1), (1, 0)):
            corner = list(pair)
            corner.insert(axis, side)
            face.append((corner[0], corner[1], corner[2]))
        yield tuple(face)


def _segments(face: Sequence[Corner], inside: frozenset[Corner]) -> list[tuple[Point, Point]]:
    """Where the surface cuts a face: between two midpoints of its edges, none, once or twice."""
    state = [corner in inside for corner in face]
    middle = [_middle(face[i], face[(i + 1) % 4]) for i in range(4)]
    if sum(state) == 2 and state[0] == state[2]:  # diagonal: round each of the two
        return [(middle[i - 1], middle[i]) for i in range(4) if state[i]]
    cut = [middle[i] for i in range(4) if state[i] != state[(i + 1) % 4]]
    return [(cut[0], cut[1])] if cut else []


def _middle(a: Corner, b: Corner) -> Point:
    return ((a[0] + b[0]) / 2, (a[1] + b[1]) / 2, (a[2] + b[2]) / 2)


def _largest(loop: Sequence[Point]) -> list[Triangle]:
    def area(triangles: list[Triangle]) -> float:
        return round(sum(math.hypot(*_normal(t)) for t in triangles), 9)

    return max(_triangulations(loop), key=area)


def _triangulations(polygon: Sequence[Point]) -> Iterator[list[Triangle]]:
    """Every way to cut a polygon into triangles between its vertices."""
    if len(polygon) < 3:
        yield []
        return
    for i in range(1, len(polygon) - 1):
        for before in _triangulations(polygon[: i + 1]):
            for after in _triangulations(polygon[i:]):
                yield [*before, (polygon[0], polygon[i], polygon[-1]), *after]


def _normal(triangle: Triangle) -> Point:
    """Half the cross product of two sides."""
    (az, ay, ax), (bz, by, bx), (cz, cy, cx) = triangle
    u, v = (bz - az, by - ay, bx - ax), (cz - az, cy - ay, cx - ax)
    return (
        (u[1] * v[2] - u[2] * v[1]) / 2,
        (u[2] * v[0] - u[0] * v[2]) / 2,
        (u[0] * v[1] - u[1] * v[0]) / 2,
    )
