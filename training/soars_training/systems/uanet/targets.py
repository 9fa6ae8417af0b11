"""Which anchors and boxes are positive, which negative, and which say nothing."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from soars.systems.uanet.boxes import encode, overlap

POSITIVE, NEGATIVE_ANCHOR, NEGATIVE_BOX = 0.5, 0.1, 0.2
"""Overlap with a true box: from the first on an anchor or box is positive, below the others negative."""
MOST_NEGATIVES = 80_000
MOST_PER_ORGAN = 4
IGNORED = -1


@dataclass(frozen=True)
class UnknownRegions:
    """Where organs may lie that nobody drew in a case: boxes there may not be taught as background.

    Attributes:
        matrix: [3, 4], from voxels (z, y, x, 1) of the sample to voxels of the case.
        boxes: [u, 2, 3], lowest and highest corner in voxels of the case; infinite for anywhere.
    """

    matrix: np.ndarray
    boxes: np.ndarray

    def hold(self, centres: np.ndarray) -> np.ndarray:
        """bool [n]: whether each centre [n, 3] lies in any of the regions."""
        at = centres @ self.matrix[:, :3].T + self.matrix[:, 3]
        inside = np.zeros(len(centres), bool)
        for low, high in self.boxes:
            inside |= ((at > low) & (at < high)).all(1)
        return inside


def anchor_targets(
    anchors: np.ndarray, truth: np.ndarray, unknown: UnknownRegions, rng: np.random.Generator
) -> tuple[np.ndarray, np.ndarray]:
    """Labels int8 [n] (1 positive, 0 negative, -1 ignored) and codes float32 [n, 6] of the positives.

    An anchor is positive when it overlaps a true box [m, 6] by half, or no other overlaps that box more; negative when
    it overlaps none by a tenth. At most `MOST_NEGATIVES` are kept.
    """
    labels = np.full(len(anchors), IGNORED, np.int8)
    codes = np.zeros((len(anchors), 6), np.float32)
    shared = overlap(anchors, truth) if len(truth) else np.zeros((len(anchors), 1))
    labels[shared.max(1) < NEGATIVE_ANCHOR] = 0
    if len(unknown.boxes):
        negative = np.flatnonzero(labels == 0)
        labels[negative[unknown.hold(anchors[negative, :3])]] = IGNORED
    negative = np.flatnonzero(labels == 0)
    if len(negative) > MOST_NEGATIVES:
        labels[rng.choice(negative, len(negative) - MOST_NEGATIVES, replace=False)] = IGNORED
    if len(truth):
        owner = shared.argmax(1)
        best = (shared == shared.max(0)) & (shared > 0)
        rows, columns = np.nonzero(best)
        owner[rows] = columns
        positive = (shared.max(1) >= POSITIVE) | best.any(1)
        labels[positive] = 1
        codes[positive] = encode(truth[owner[positive]], anchors[positive])
    return labels, codes


def sample_boxes(
    boxes: np.ndarray,
    truth: np.ndarray,
    unknown: UnknownRegions,
    most: int,
    rng: np.random.Generator,
) -> tuple[np.ndarray, np.ndarray]:
    """Positions of the boxes [n, 6] that the box head learns from, and for each its true box, -1 for background.

    At most `MOST_PER_ORGAN` positives of every true box [m, 6], and negatives up to ``most`` boxes in all.
    """
    if not len(boxes):
        return np.zeros(0, int), np.zeros(0, int)
    shared = overlap(boxes, truth) if len(truth) else np.zeros((len(boxes), 1))
    owner = shared.argmax(1)
    chosen: list[int] = []
    for k in range(len(truth)):
        mine = np.flatnonzero((owner == k) & (shared[:, k] >= POSITIVE))
        chosen += rng.permutation(mine)[:MOST_PER_ORGAN].tolist()
    negative = np.flatnonzero(shared.max(1) < NEGATIVE_BOX)
    if len(unknown.boxes):
        negative = negative[~unknown.hold(boxes[negative, :3])]
    others = rng.permutation(negative)[: max(most - len(chosen), 0)].tolist()
    positions = np.array([*chosen, *others], int)
    owners = np.array([*owner[chosen].tolist(), *([IGNORED] * len(others))], int)
    return positions, owners
