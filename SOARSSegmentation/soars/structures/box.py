"""`Box`: a block of voxels of an array [z, y, x]. Arithmetic on corners is written here and nowhere else."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import reduce

Index = tuple[int, int, int]


def _index(values: Iterable[int]) -> Index:
    z, y, x = (int(v) for v in values)
    return (z, y, x)


@dataclass(frozen=True)
class Box:
    """From voxel ``start`` up to, but without, voxel ``stop``; (z, y, x) each, and possibly beyond the array.

    >>> Box((0, 0, 0), (4, 4, 4)) & Box((2, 2, 2), (8, 8, 3))
    Box(start=(2, 2, 2), stop=(4, 4, 3))
    """

    start: Index
    stop: Index

    @classmethod
    def at(cls, start: Sequence[int], shape: Sequence[int]) -> Box:
        """The box of a shape whose first voxel is ``start``."""
        first = _index(start)
        return cls(first, _index(a + n for a, n in zip(first, shape, strict=True)))

    @classmethod
    def between(cls, start: Iterable[int], stop: Iterable[int]) -> Box:
        """From one voxel up to another, of whatever kind of whole numbers."""
        return cls(_index(start), _index(stop))

    @classmethod
    def of(cls, shape: Sequence[int]) -> Box:
        """All of an array of this shape."""
        return cls.at((0, 0, 0), shape)

    @classmethod
    def around(cls, boxes: Iterable[Box]) -> Box:
        """The smallest box that holds them all; empty boxes do not count."""
        return reduce(lambda a, b: a | b, boxes, EMPTY_BOX)

    @property
    def shape(self) -> Index:
        return _index(max(0, b - a) for a, b in zip(self.start, self.stop, strict=True))

    @property
    def is_empty(self) -> bool:
        return 0 in self.shape

    @property
    def slices(self) -> tuple[slice, slice, slice]:
        """Where the box lies in the array; it must not begin before it."""
        return self.slices_in(Box((0, 0, 0), self.stop))

    def slices_in(self, outer: Box) -> tuple[slice, slice, slice]:
        """Where the box lies in an array that holds the voxels of ``outer``."""
        if any(a < o for a, o in zip(self.start, outer.start, strict=True)):
            raise ValueError(f"{self} begins before {outer}")
        inside = self.relative_to(outer.start)
        z, y, x = (slice(a, a + n) for a, n in zip(inside.start, self.shape, strict=True))
        return (z, y, x)

    def relative_to(self, origin: Sequence[int]) -> Box:
        """The same voxels, counted from ``origin``."""
        return Box(
            _index(a - o for a, o in zip(self.start, origin, strict=True)),
            _index(b - o for b, o in zip(self.stop, origin, strict=True)),
        )

    def grown(self, by: int) -> Box:
        """Larger by some voxels on every side."""
        return Box(_index(a - by for a in self.start), _index(b + by for b in self.stop))

    def contains(self, other: Box) -> bool:
        """Whether every voxel of the other box is in this one; true of an empty one."""
        return other.is_empty or (self & other) == other

    def __and__(self, other: Box) -> Box:
        """The voxels of both."""
        return Box(
            _index(max(a, b) for a, b in zip(self.start, other.start, strict=True)),
            _index(min(a, b) for a, b in zip(self.stop, other.stop, strict=True)),
        )

    def __or__(self, other: Box) -> Box:
        """The smallest box that holds both."""
        if self.is_empty or other.is_empty:
            return other if self.is_empty else self
        return Box(
            _index(min(a, b) for a, b in zip(self.start, other.start, strict=True)),
            _index(max(a, b) for a, b in zip(self.stop, other.stop, strict=True)),
        )


EMPTY_BOX = Box((0, 0, 0), (0, 0, 0))
