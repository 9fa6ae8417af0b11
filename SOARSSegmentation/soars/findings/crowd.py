"""Which voxels belong to other organs."""

from __future__ import annotations

import numpy as np

from soars.catalogue import is_within
from soars.structures import StructureSet
from soars.structures.box import Box


class Crowd:
    """How many organs of a set each voxel belongs to, counted once for all questions.

    The set must stay as it is meanwhile.
    """

    def __init__(self, structures: StructureSet) -> None:
        self._structures = structures
        self._bounds = Box.around(structures.crop(name).bounds for name in structures.names)
        self._counts = np.zeros(self._bounds.shape, np.uint16)
        for name in structures.names:
            mask = structures.crop(name)
            if not mask.is_empty:
                self._counts[mask.bounds.slices_in(self._bounds)] += mask.array

    def others(self, name: str, box: Box) -> np.ndarray:
        """bool in the box, which may reach beyond the scan: the other organs, but for those that are a part of this one
        or the reverse."""
        found = np.zeros(box.shape, np.uint16)
        common = self._bounds & box
        if not common.is_empty:
            found[common.slices_in(box)] = self._counts[common.slices_in(self._bounds)]
        for other in self._structures.names:
            if other == name or related(name, other):
                crop = self._structures.crop(other)
                common = crop.bounds & box
                if not common.is_empty:
                    found[common.slices_in(box)] -= crop.array[common.slices_in(crop.bounds)]
        return found > 0

    def shared(self, name: str) -> int:
        """How many of an organ's voxels any other organ has as well."""
        mask = self._structures.crop(name)
        return int(np.count_nonzero(mask.array & (self._counts[mask.bounds.slices_in(self._bounds)] > 1)))


def related(name: str, other: str) -> bool:
    """Whether one of two organs is a part of the other."""
    return is_within(name, other) or is_within(other, name)
