"""How much an organ differs from its proposal, by a comparison of voxels."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING

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
    from soars.structures.mask import dice

    before, after = proposal.voxels, result.voxels
    both = proposal.common_voxels(result)
    similarity = dice(proposal, result) if before + after else 1.0  # an organ that stays empty is unchanged
    return OrganChange(after - both, before - both, similarity, after * voxel_cc)


def check_change(change: OrganChange) -> str | None:
    """Why these numbers, read from a file, cannot be a change; None if they can."""
    if change.voxels_added < 0 or change.voxels_removed < 0:
        return "a number of voxels is negative"
    if not 0.0 <= change.dsc <= 1.0:
        return "the DSC is not between 0 and 1"
    if not (math.isfinite(change.volume_cc) and change.volume_cc >= 0.0):
        return "the volume is not a number of cubic centimetres"
    return None
