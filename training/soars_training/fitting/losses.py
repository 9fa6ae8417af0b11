"""Losses for partly labelled cases.

An OAR that nobody annotated is unknown, not background. For the softmax branches its probability joins the
background's before Dice and cross-entropy are taken, in the region where the organ can be (marginal loss; Fang & Yan,
IEEE TMI 2020, and Shi et al., MedIA 2021), for the sigmoid and heat-map branches its channel is left out of the loss.
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional

_EPSILON = 1e-5
MAX_CLASS_WEIGHT = 30.0


def marginal_dice_ce(
    logits: Tensor,
    labels: Tensor,
    annotated: Tensor,
    balance: float = 0.5,
    possible: Tensor | None = None,
    dice_only: bool = False,
) -> Tensor:
    """Dice plus balanced cross-entropy over the annotated classes, everything else counted as background.

    A class is weighted by a power of its rarity in the batch (see `class_weights`): an organ of a few hundred voxels is
    otherwise learned as background first, and Dice alone has almost no gradient to bring it back. All in logarithms
    (log-sum-exp), so that the voxel that is furthest off has the largest gradient, and not none.

    Args:
        logits: [batch, 1 + K, z, y, x], background first.
        labels: integer [batch, z, y, x], 0 background, k for class k.
        annotated: bool [batch, K].
        balance: the power; 0 weighs all voxels alike.
        possible: bool [batch, K, z, y, x], where a class that is not annotated may be; everywhere when None. Outside
            of it the class is known to be absent.
        dice_only: without the cross-entropy (the papers' DSC loss).

    Returns: the scalar loss, 1 - mean Dice (per sample and annotated class that is present) + CE.
    """
    log_p = _marginal_log_probabilities(logits.float(), annotated, possible).flatten(2)
    labels = labels.long().flatten(1)
    # Gathering each voxel's own class spares a one-hot copy of the labels, the largest tensor of a training step.
    own = log_p.gather(1, labels[:, None])[:, 0]
    counts = torch.stack([torch.bincount(sample, minlength=logits.shape[1]) for sample in labels])
    overlap = torch.zeros_like(counts, dtype=own.dtype).scatter_add(1, labels, own.exp())
    total = log_p[:, 1:].exp().sum(2) + counts[:, 1:]
    dice_loss = _one_minus_dice(overlap[:, 1:], total, annotated & (counts[:, 1:] > 0))
    if dice_only:
        return dice_loss
    weight = class_weights(counts.sum(0), balance)[labels]
    return dice_loss - (own * weight).sum() / weight.sum()


def class_weights(counts: Tensor, balance: float = 0.5) -> Tensor:
    """Weight [1 + K] of each class by its voxel count [1 + K]: how many times rarer it is than the commonest class, to
    the power `balance`, at most `MAX_CLASS_WEIGHT`."""
    return (counts.max() / counts.clamp_min(1)).pow(balance).clamp_max(MAX_CLASS_WEIGHT)


def masked_dice_bce(
    logits: Tensor, masks: Tensor, known: Tensor, balance: float = 0.5, dice_only: bool = False
) -> Tensor:
    """Dice plus balanced binary cross-entropy of independent (possibly overlapping) organs.

    Once a sigmoid says 0 the Dice has no gradient there. Of an organ of a thousandth of the volume only the part that
    is learned first would be found, were its other voxels a thousandth of the cross-entropy, too.

    Args:
        logits: [batch, K, z, y, x].
        masks: {0, 1} [batch, K, z, y, x].
        known: bool [batch, K], the channels that count.
        balance: an organ's voxels together make up at least this share of its cross-entropy, its other voxels the rest;
            with 0 all voxels weigh alike.
        dice_only: without the cross-entropy (the papers' DSC loss).
    """
    if not known.any():
        return logits.sum() * 0
    logits, masks = logits[known].float().flatten(1), masks[known].float().flatten(1)
    inside = masks.sum(1)
    probabilities = torch.sigmoid(logits)
    overlap = (probabilities * masks).sum(1)
    dice_loss = _one_minus_dice(overlap, probabilities.sum(1) + inside, inside > 0)
    if dice_only:
        return dice_loss
    wrong = functional.binary_cross_entropy_with_logits(logits, masks, reduction="none")
    here, outside = (wrong * masks).sum(1), (wrong * (1 - masks)).sum(1)
    voxels = masks.shape[1]
    share = torch.where(inside > 0, (inside / voxels).clamp_min(balance), 0.0)
    mean = share * here / inside.clamp_min(1) + (1 - share) * outside / (voxels - inside).clamp_min(1)
    return dice_loss + mean.mean()


def masked_heatmap_l2(heatmaps: Tensor, target: Tensor, known: Tensor, peak_weight: float = 200.0) -> Tensor:
    """L2 distance to the target heat maps; voxels near a peak weigh more, since a peak fills 0.1 % of a window.

    A peak weighs alike whether it is wanted or predicted: were a false one as cheap as background, a map would learn to
    peak at each of the organs that look a little like its own.

    Args:
        heatmaps, target: [batch, K, z, y, x]; target in [0, 1].
        known: bool [batch, K].
    """
    heatmaps = heatmaps.float()
    near = torch.maximum(target, heatmaps.detach().clamp(0, 1))
    squared = (heatmaps - target) ** 2 * (1 + peak_weight * near)
    weight = known.float()
    return (squared.mean((2, 3, 4)) * weight).sum() / weight.sum().clamp_min(1)


def _marginal_log_probabilities(logits: Tensor, annotated: Tensor, possible: Tensor | None) -> Tensor:
    """log p [batch, 1 + K, z, y, x]; the background's takes in what the unknown classes have where they can be."""
    log_p = torch.log_softmax(logits, dim=1)
    unknown = torch.nonzero((~annotated).any(0))[:, 0]
    if not len(unknown):
        return log_p
    joins = (~annotated)[:, unknown, None, None, None]
    if possible is not None:
        joins = joins & possible[:, unknown]
    hidden = log_p[:, 1 + unknown].masked_fill(~joins, -torch.inf)
    background = torch.logsumexp(torch.cat((log_p[:, :1], hidden), 1), 1, keepdim=True)
    return torch.cat((background, log_p[:, 1:]), 1)


def _one_minus_dice(overlap: Tensor, total: Tensor, counted: Tensor) -> Tensor:
    """One minus the mean Dice of the counted organs, all three of one shape. An organ that is not in the window has no
    Dice to gain, cross-entropy alone keeps it empty."""
    dice = (2 * overlap + _EPSILON) / (total + _EPSILON)
    return ((1 - dice) * counted).sum() / counted.sum().clamp_min(1)
