"""What is trained: a network with the loss of its branch, or an anchor and a mid-level network end to end."""

from __future__ import annotations

from typing import Self

import torch
from torch import Tensor, nn

from soars.networks.blocks import MakeBlock
from soars.networks.build import build
from soars.networks.phnn import PHnn
from soars.networks.pointwise import Pointwise
from soars_training.fitting.losses import marginal_dice_ce, masked_dice_bce, masked_heatmap_l2
from soars_training.fitting.options import FitOptions
from soars_training.windows.staged import VoiPlace
from soars_training.windows.task import Batch, BranchTask


class Model(nn.Module):
    """Something with a loss."""

    def begin(self, step: int, steps: int) -> None:
        """Called before each of the `steps` steps, for what changes in the course of a run."""

    def loss(self, batch: Batch, balance: float) -> Tensor:
        """The scalar loss of a batch; `balance` is the power of rarity, or an organ's share, at this step (see
        `losses`)."""
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
            Pointwise(width, architecture.out_channels) for width in architecture.features[1:levels]
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
        if inputs.is_cpu:  # convolutions and their gradients take a third of the time in this layout
            inputs = inputs.contiguous(memory_format=torch.channels_last_3d)
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
    """The branches of the cascade as one network (paper: third step of training); its loss is the sum of theirs.

    The gradients of the mid-level and detection branches run through the anchors' probabilities into the anchor branch.
    The small and hard branch sees its volume of interest where the heat map peaks (which has no gradient); when it also
    takes the heat map, its gradient runs through that into the detection branch, and on. The batch is that of
    `StagedWindows`, or its first four tensors for anchors and mid-level organs alone: its classes are the anchors
    followed by the mid-level organs, each branch with a label map [N, 2, z, y, x], its input the CT alone.
    """

    def __init__(
        self,
        anchor: BranchModel,
        mid_level: BranchModel,
        detection: BranchModel | None = None,
        small_hard: BranchModel | None = None,
    ) -> None:
        super().__init__()
        self.anchor, self.mid_level = anchor, mid_level
        self.detection, self.small_hard = detection, small_hard

    def train(self, mode: bool = True) -> Self:
        """Batch normalisation keeps the statistics of the branches' own runs: here a batch is a window or two, and the
        guide would be another one than at inference."""
        super().train(mode)
        for module in self.modules():
            if isinstance(module, nn.BatchNorm3d):
                module.eval()
        return self

    def loss(self, batch: Batch, balance: float) -> Tensor:
        ct, labels, known, possible, *more = batch
        anchors = len(self.anchor.task.classes)
        first = self.anchor.outputs(ct)
        guide = torch.softmax(first[0].float(), dim=1)[:, 1:]
        guided = torch.cat((ct, guide.to(ct.dtype)), dim=1)
        second = self.mid_level.outputs(guided)
        anchor_labels, mid_labels = labels[:, 0], (labels[:, 1].long() - anchors).clamp_min(0)
        total = self.anchor.loss_of(
            first, anchor_labels, known[:, :anchors], possible[:, :anchors], balance
        ) + self.mid_level.loss_of(second, mid_labels, known[:, anchors:], possible[:, anchors:], balance)
        if self.detection is None:
            return total
        wanted, seen, *voi = more
        sees_anchors = "anchor" in self.detection.task.inputs
        maps = self.detection.outputs(guided if sees_anchors else ct)
        total = total + self.detection.loss_of(maps, wanted, seen, possible, balance)
        if self.small_hard is None or not voi[0].numel():
            return total
        return total + self._small_loss(self.small_hard, maps[0], voi, balance)

    @staticmethod
    def _small_loss(branch: BranchModel, maps: Tensor, voi: list[Tensor], balance: float) -> Tensor:
        """Of one window (its maps [1, G, z, y, x]) and the volume of interest in it."""
        ct, masks, known, row = voi
        place = VoiPlace.unpacked(row[0])
        heat_map = maps[0, place.channel].float()
        start = place.start(heat_map)
        shape = [int(n - 2 * r) for n, r in zip(ct.shape[2:], place.reach, strict=True)]
        box = (slice(None), slice(None), *(slice(s, s + n) for s, n in zip(start, shape, strict=True)))
        channels = [ct[box]]
        if "heatmap" in branch.task.inputs:
            channels.append(place.map_in(heat_map, start, shape)[None, None].to(ct.dtype))
        nothing = known.new_ones((1, len(branch.task.classes), 0, 0, 0))
        return branch.loss_of(branch.outputs(torch.cat(channels, 1)), masks[box], known, nothing, balance)
