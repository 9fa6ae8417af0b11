"""UaNet's losses: focal and smooth L1 for boxes, a Dice-like one for masks."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional

GAMMA = 2.0
ALPHA, BETA, EPSILON = 0.5, 0.5, 1e-5
LEAST = 1e-12
"""Of phi before its logarithm is taken."""


def focal_loss(logits: Tensor, target: Tensor, weight: Tensor) -> Tensor:
    """Weighted binary focal loss, sum(w (1 - p_t)^2 CE) / sum(w); the factor (1 - p_t)^2 is held constant.

    Args:
        logits: [n]; target: {0, 1} [n]; weight: [n], not negative.
    """
    probability = torch.sigmoid(logits)
    wrong = torch.where(target > 0, 1 - probability, probability).detach() ** GAMMA
    entropy = functional.binary_cross_entropy_with_logits(logits, target.to(logits.dtype), reduction="none")
    return (weight * wrong * entropy).sum() / weight.sum().clamp_min(1e-12)


def anchor_weights(labels: Tensor) -> Tensor:
    """Of anchors labelled 1, 0, or -1 for ignored, [n]: positives weigh 1, and all negatives together as much as all
    positives; where there is no positive the negatives weigh 1 together."""
    positive, negative = labels == 1, labels == 0
    share = max(int(positive.sum()), 1) / max(int(negative.sum()), 1)
    return positive.float() + negative.float() * share


def code_loss(found: Tensor, wanted: Tensor) -> Tensor:
    """Smooth L1 of box codes [n, 6]: the mean over boxes of each component, summed; 0 without boxes."""
    if not len(found):
        return found.sum() * 0
    return functional.smooth_l1_loss(found, wanted, reduction="none").mean(0).sum()


def class_loss(logits: Tensor, target: Tensor) -> Tensor:
    """Cross-entropy [n, 1 + K] against classes [n], each class weighing by its rarity among the boxes.

    The weight of a class is N / max(1, its boxes), scaled so that all weights add up to 1.
    """
    counts = torch.bincount(target, minlength=logits.shape[1]).clamp_min(1)
    weight = len(target) / counts.to(logits.dtype)
    return functional.cross_entropy(logits, target, weight / weight.sum())


def mask_loss(probabilities: Tensor, mask: Tensor, logarithm: bool = False) -> Tensor:
    """1 - phi of an organ in its box, phi = sum(m g) / (sum(m g) + a sum(m (1 - g)) + b sum((1 - m) g) + e) with
    a = b = 0.5: one minus a soft Dice.

    With ``logarithm`` -log(phi) instead, which comes to the same as phi nears 1. Of 1 - phi an organ that fills a
    thousandth of its box has hardly a gradient before it is found; of -log(phi) it has as much as one that fills half
    (Wong et al., MICCAI 2018, without their power).
    """
    mask = mask.to(probabilities.dtype)
    both = (probabilities * mask).sum()
    extra, missed = (probabilities * (1 - mask)).sum(), ((1 - probabilities) * mask).sum()
    phi = both / (both + ALPHA * extra + BETA * missed + EPSILON)
    return -torch.log(phi.clamp_min(LEAST)) if logarithm else 1 - phi
