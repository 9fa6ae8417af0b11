"""DeepMind's loss: per output channel the cross-entropy of the worst pixels of a slice; and a Dice to go with it."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional

EPSILON = 1e-5


def top_k_loss(logits: Tensor, masks: Tensor, known: Tensor, share: float) -> Tensor:
    """Pixel-wise binary cross-entropy; of each channel and slice only the given share of pixels with the largest
    values counts, and of these the mean; then the mean over what is labelled (Nikolov et al. 2021; the share is not
    given there).

    Args:
        logits: [batch, K, slices, y, x].
        masks: {0, 1}, of the same shape.
        known: bool [batch, K, slices], what is labelled; the rest contributes nothing.
        share: of a slice's pixels, in (0, 1]; at least one pixel counts.
    """
    if not known.any():
        return logits.sum() * 0
    losses = functional.binary_cross_entropy_with_logits(
        logits[known].float(), masks[known].float(), reduction="none"
    ).flatten(1)
    kept = max(1, round(share * losses.shape[1]))
    return torch.topk(losses, kept, dim=1).values.mean()


def organ_loss(logits: Tensor, masks: Tensor, known: Tensor) -> Tensor:
    """-log of the soft Dice of each organ that a sample holds, the mean over these; 0 where there is none.

    Pixel by pixel a lens, five pixels of a slice, pulls a hundredth as hard as the brainstem, and a network that is not
    sure of it stays below one half everywhere. Here both pull alike.

    Args:
        logits, masks, known: as for `top_k_loss`; an organ's slices together are one sum, those not labelled left out.
    """
    seen = known[..., None, None]
    found, truth = torch.sigmoid(logits.float()) * seen, masks.float() * seen
    both, total = (found * truth).sum((2, 3, 4)), (found + truth).sum((2, 3, 4))
    there = truth.flatten(2).any(2)
    dice = (2 * both + EPSILON) / (total + EPSILON)
    return (-torch.log(dice) * there).sum() / there.sum().clamp_min(1)
