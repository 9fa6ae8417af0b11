"""Losses for partly labelled cases.

An OAR that nobody annotated is unknown, not background. For the softmax branches its probability joins the
background's before Dice and cross-entropy are taken (marginal loss; Fang & Yan, IEEE TMI 2020, and Shi et al., MedIA
2021), for the sigmoid and heat-map branches its channel is left out of the loss.
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional

_EPSILON = 1e-5
MAX_CLASS_WEIGHT = 30.0


def marginal_dice_ce(logits: Tensor, labels: Tensor, annotated: Tensor, balance: float = 0.5) -> Tensor:
    """Dice plus balanced cross-entropy over the annotated classes, everything else counted as background.

    A class weighs by a power of its rarity in the batch (see `class_weights`): an organ of a few hundred voxels is
    otherwise learned as background first, and Dice alone has next to no gradient to bring it back.

    Args:
        logits: [batch, 1 + K, z, y, x], background first.
        labels: integer [batch, z, y, x], 0 background, k for class k.
        annotated: bool [batch, K].
        balance: the power; 0 weighs all voxels alike.

    Returns: the scalar loss, 1 - mean Dice (per sample and annotated class that is present or predicted) + CE.
    """
    probabilities = _marginal_probabilities(logits.float(), annotated)
    target = functional.one_hot(labels.long(), logits.shape[1]).movedim(-1, 1).float()
    voxel_weight = (target * class_weights(target, balance)[:, None, None, None]).sum(1)
    log_likelihood = (target * torch.log(probabilities.clamp_min(1e-6))).sum(1)
    cross_entropy = -(log_likelihood * voxel_weight).sum() / voxel_weight.sum()
    return cross_entropy + _one_minus_dice(probabilities[:, 1:], target[:, 1:], annotated)


def class_weights(target: Tensor, balance: float = 0.5) -> Tensor:
    """Weight [1 + K] of each class of a one-hot target [batch, 1 + K, z, y, x]: how many times rarer it is than the
    commonest class, to the power `balance`, at most `MAX_CLASS_WEIGHT`."""
    counts = target.sum((0, 2, 3, 4))
    return (counts.max() / counts.clamp_min(1)).pow(balance).clamp_max(MAX_CLASS_WEIGHT)


def masked_dice_bce(logits: Tensor, masks: Tensor, known: Tensor, balance: float = 0.5) -> Tensor:
    """Dice plus balanced binary cross-entropy of independent (possibly overlapping) organs.

    Args:
        logits: [batch, K, z, y, x].
        masks: {0, 1} [batch, K, z, y, x].
        known: bool [batch, K], the channels that count.
        balance: an organ's voxels weigh as many times more as they are rarer than the others, to this power, at most
            `MAX_CLASS_WEIGHT`.
    """
    logits, masks = logits.float(), masks.float()
    weight = known.float()
    inside = masks.sum((2, 3, 4), keepdim=True)
    rarity = (masks[0, 0].numel() - inside) / inside.clamp_min(1)
    voxel_weight = torch.where(masks > 0, rarity.clamp_min(1).pow(balance).clamp_max(MAX_CLASS_WEIGHT), 1.0)
    per_voxel = functional.binary_cross_entropy_with_logits(logits, masks, reduction="none") * voxel_weight
    per_channel = per_voxel.sum((2, 3, 4)) / voxel_weight.sum((2, 3, 4))
    bce = (per_channel * weight).sum() / weight.sum().clamp_min(1)
    return bce + _one_minus_dice(torch.sigmoid(logits), masks, known)


def masked_heatmap_l2(heatmaps: Tensor, target: Tensor, known: Tensor, peak_weight: float = 200.0) -> Tensor:
    """L2 distance to the target heat maps; voxels near a peak weigh more, since a peak fills 0.1 % of a window.

    Args:
        heatmaps, target: [batch, K, z, y, x]; target in [0, 1].
        known: bool [batch, K].
    """
    squared = (heatmaps.float() - target) ** 2 * (1 + peak_weight * target)
    weight = known.float()
    return (squared.mean((2, 3, 4)) * weight).sum() / weight.sum().clamp_min(1)


def _marginal_probabilities(logits: Tensor, annotated: Tensor) -> Tensor:
    probabilities = torch.softmax(logits, dim=1)
    unknown = (~annotated).to(probabilities)[:, :, None, None, None]
    organs = probabilities[:, 1:]
    background = probabilities[:, :1] + (organs * unknown).sum(1, keepdim=True)
    return torch.cat((background, organs * (1 - unknown)), dim=1)


def _one_minus_dice(probabilities: Tensor, target: Tensor, counted: Tensor) -> Tensor:
    overlap = (probabilities * target).sum((2, 3, 4))
    total = probabilities.sum((2, 3, 4)) + target.sum((2, 3, 4))
    # An organ that is not in the window has no Dice to gain; cross-entropy alone keeps it empty.
    weight = (counted & (target.sum((2, 3, 4)) > 0)).float()
    dice = (2 * overlap + _EPSILON) / (total + _EPSILON)
    return ((1 - dice) * weight).sum() / weight.sum().clamp_min(1)
