"""Voxels that organs of two sources claim.

One model never gives a voxel to two organs that exclude each other; two models do. Such a voxel goes to the organ whose
contour is expected to be better, and where that is not known for both, to the one listed first in the composite.
Organs of one source are left as they are, and so is an organ within another (a lens in its eye).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from soars.catalogue import may_overlap
from soars.structures import StructureSet


@dataclass(frozen=True)
class Settlement:
    """``loser`` gave ``share`` of its voxels to ``winner``."""

    winner: str
    loser: str
    share: float


def settle_overlaps(
    structures: StructureSet,
    source_of: Mapping[str, str],
    precedence: Sequence[str],
    expected_dsc: Mapping[str, float],
) -> list[Settlement]:
    """Give every contested voxel to one organ, in place; returns the settlements, in the order of ``precedence``.

    Args:
        structures: organs of several sources on one grid.
        source_of: organ -> its source.
        precedence: all organs, in the order in which they win where confidence does not decide.
        expected_dsc: organ -> expected DSC, as far as it is known.
    """
    settled = []
    names = [name for name in precedence if name in structures]
    for i, first in enumerate(names):
        for second in names[i + 1 :]:
            if source_of[first] != source_of[second] and not may_overlap(first, second):
                second_is_better = expected_dsc.get(second, 0.0) > expected_dsc.get(first, 2.0)
                winner, loser = (second, first) if second_is_better else (first, second)
                share = _take(structures, winner, loser)
                if share > 0:
                    settled.append(Settlement(winner, loser, share))
    return settled


def _take(structures: StructureSet, winner: str, loser: str) -> float:
    """Remove the winner's voxels from the loser; returns the share of the loser's voxels that went."""
    mask = structures.crop(loser)
    common = mask.array & structures.crop(winner).box(mask.start, mask.shape)
    if not common.any():
        return 0.0
    structures.add_crop(loser, mask.start, mask.array & ~common, structures.info.get(loser))
    return float(common.sum() / mask.voxels)
