"""What is trained: a network with the loss of its branch, or an anchor and a mid-level network end to end."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from soars.networks.blocks import MakeBlock
from soars.networks.build import build
from soars.networks.phnn import PHnn
from soars_training.fitting.losses import marginal_dice_ce, masked_dice_bce, masked_heatmap_l2
from soars_training.fitting.options import FitOptions
from soars_training.windows.task import Batch, BranchTask


class Model(nn.Module):
    """Something with a loss."""

    def begin(self, step: int, steps: int) -> None:
        """Called before each of the `steps` steps, for what changes in the course of a run."""

    def loss(self, batch: Batch, balance: float) -> Tensor:
        """The scalar loss of a batch; `balance` is the power of rarity at this step (see `losses`)."""
        raise NotImplementedError


class BranchModel(Model):
    """One branch with deep supervision: coarser decoder levels answer too while it learns (as in nnU-Net).

    `steps` says for each output how many voxels (z, y, x) of the input one of its voxels covers, the finest first. The
    heads of the coarser levels (`extra`) stay behind when the network is exported. A P-HNN's progressive sums are all
    supervised, with equal weights, and all of full size.
    """

    def __init__(
        self, options: FitOptions, task: BranchTask | None = None, make: MakeBlock | None = None
    ) -> None:
        """`make` builds the network's blocks; as the options name them when None."""
        super().__init__()
        self.task, self.dice_only = task or options.task, options.dice_only
        architecture = options.architecture_of(self.task)
        self.network = build(architecture, make)
        if isinstance(self.network, PHnn):
            self.extra = nn.ModuleList()
            self.steps = [(1, 1, 1)] * len(architecture.features)
            self.decay = 1.0
            return
        self.decay = 0.5
        levels = max(1, min(options.supervised, len(architecture.features) - 1))
        self.extra = nn.ModuleList(
            nn.Conv3d(width, architecture.out_channels, 1) for width in architecture.features[1:levels]
        )
        self.steps = [(1, 1, 1)]
        for stride in architecture.strides[: levels - 1]:
            z, y, x = (a * b for a, b in zip(self.steps[-1], stride, strict=True))
            self.steps.append((z, y, x))

    def loss(self, batch: Batch, balance: float) -> Tensor:
        inputs, target, known, possible = batch
        return self.loss_of(self.outputs(inputs), target, known, possible, balance)

    def outputs(self, inputs: Tensor) -> list[Tensor]:
        """Logits or heat maps of the supervised levels, the finest (of a P-HNN the last sum) first."""
        if isinstance(self.network, PHnn):
            return self.network.sums(inputs)[::-1]
        features = self.network.decoded(inputs)[::-1]
        heads = [self.network.head, *self.extra]
        return [head(level) for head, level in zip(heads, features, strict=False)]

    def loss_of(
        self, outputs: list[Tensor], target: Tensor, known: Tensor, possible: Tensor, balance: float
    ) -> Tensor:
        """The mean of the outputs' losses, a U-Net's coarser ones each counting half of the next finer."""
        losses = []
        for output, (z, y, x) in zip(outputs, self.steps, strict=True):
            wanted = target[..., ::z, ::y, ::x]
            if self.task.branch == "detection":
                losses.append(masked_heatmap_l2(output, wanted, known))
            elif self.task.branch == "small_hard":
                losses.append(masked_dice_bce(output, wanted, known, balance, self.dice_only))
            else:
                where = possible[..., ::z, ::y, ::x]
                losses.append(marginal_dice_ce(output, wanted, known, balance, where, self.dice_only))
        weights = [self.decay**i for i in range(len(losses))]
        return sum(w * loss for w, loss in zip(weights, losses, strict=True)) / sum(weights)  # type: ignore[return-value]


class EndToEnd(Model):
    """An anchor and a mid-level branch as one network (paper: third step of training).

    The mid-level branch's gradient runs through the anchors' probabilities into the anchor branch. The batch's classes
    are the anchors followed by the mid-level organs, its input the CT alone.
    """

    def __init__(self, anchor: BranchModel, mid_level: BranchModel) -> None:
        super().__init__()
        self.anchor, self.mid_level = anchor, mid_level

    def loss(self, batch: Batch, balance: float) -> Tensor:
        ct, labels, known, possible = batch
        anchors = len(self.anchor.task.classes)
        first = self.anchor.outputs(ct)
        guide = torch.softmax(first[0].float(), dim=1)[:, 1:]
        second = self.mid_level.outputs(torch.cat((ct, guide.to(ct.dtype)), dim=1))
        is_anchor = labels <= anchors
        anchor_labels = torch.where(is_anchor, labels, 0)
        mid_labels = torch.where(is_anchor, 0, labels.long() - anchors)
        return self.anchor.loss_of(
            first, anchor_labels, known[:, :anchors], possible[:, :anchors], balance
        ) + self.mid_level.loss_of(second, mid_labels, known[:, anchors:], possible[:, anchors:], balance)
