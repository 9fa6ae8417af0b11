"""DeepMind's loss: per output channel the cross-entropy of the worst pixels of a slice."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional


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
