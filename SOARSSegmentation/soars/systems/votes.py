"""Several networks that learned the same organs vote: a voxel is kept when at least half of them agree.

UaNet's authors let several checkpoints vote so, and entrants of the HaN-Seg challenge the networks of several folds.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence

import numpy as np

from soars.structures.box import Box

Part = tuple[tuple[int, int, int], np.ndarray]
"""Where probabilities begin on the working grid (z, y, x), and the probabilities [z, y, x]; 0 beyond them."""


def vote(found: Sequence[Mapping[str, Part]], organs: Collection[str]) -> dict[str, Part]:
    """What each network has found -> the organs that have a voxel on which at least (n + 1) // 2 of n agree.

    A voxel's value is the probability that so many of the networks reach: it passes one half where they agree, and
    borders stay as smooth as those of one network.
    """
    needed = (len(found) + 1) // 2
    voted = {}
    for organ in organs:
        parts = [one[organ] for one in found if organ in one]
        if len(parts) < needed:
            continue
        whole = Box.around(Box.at(start, values.shape) for start, values in parts)
        stack = np.zeros((len(found), *whole.shape), parts[0][1].dtype)
        for one, (start, values) in zip(stack, parts, strict=False):
            one[Box.at(start, values.shape).relative_to(whole.start).slices] = values
        reached = np.partition(stack, len(found) - needed, axis=0)[len(found) - needed]
        if (reached > 0.5).any():
            voted[organ] = (whole.start, reached)
    return voted
