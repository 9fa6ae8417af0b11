"""How much an organ differs from its proposal, by a comparison of voxels."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:  # soars.structures imports SimpleITK, which is slow to import and not needed here
    from soars.structures import Mask


@dataclass(frozen=True)
class OrganChange:
    """``voxels_added`` are in the result and not in the proposal, ``voxels_removed`` the reverse; ``dsc`` is the
    Dice similarity coefficient 2|P and R| / (|P| + |R|), 1 where both are empty; ``volume_cc`` is the result's."""

    voxels_added: int
    voxels_removed: int
    dsc: float
    volume_cc: float

    @property
    def changed(self) -> bool:
        """Whether any voxel differs."""
        return self.voxels_added > 0 or self.voxels_removed > 0


def organ_change(proposal: Mask, result: Mask, voxel_cc: float) -> OrganChange:
    """Compare two masks on the same grid, whose voxels have ``voxel_cc`` cubic centimetres.

    Works on the masks' bounding boxes only, so it takes milliseconds for an organ of any CT.
    """
    before, after = proposal.voxels, result.voxels
    both = _common_voxels(proposal, result)
    dsc = 2.0 * both / (before + after) if before + after else 1.0
    return OrganChange(after - both, before - both, dsc, after * voxel_cc)


def check_change(change: OrganChange) -> str | None:
    """Why the numbers cannot be a change, or None: for those that come from a file."""
    if change.voxels_added < 0 or change.voxels_removed < 0:
        return "a number of voxels is negative"
    if not 0.0 <= change.dsc <= 1.0:
        return "the DSC is not between 0 and 1"
    if not (math.isfinite(change.volume_cc) and change.volume_cc >= 0.0):
        return "the volume is not a number of cubic centimetres"
    return None


def _common_voxels(first: Mask, second: Mask) -> int:
    low = [max(a, b) for a, b in zip(first.start, second.start, strict=True)]
    high = [min(a, b) for a, b in zip(first.stop, second.stop, strict=True)]
    if any(a >= b for a, b in zip(low, high, strict=True)):
        return 0
    in_first, in_second = (
        mask.array[tuple(slice(a - s, b - s) for a, b, s in zip(low, high, mask.start, strict=True))]
        for mask in (first, second)
    )
    return int(np.count_nonzero(in_first & in_second))
