"""The parts of UaNet that a `RegionArchitecture` describes (torch)."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional

from soars.networks.pointwise import Pointwise
from soars.networks.regions import RegionArchitecture

Slices = tuple[slice, slice, slice]


class Features(NamedTuple):
    """What the heads look at, each [1, C, z, y, x]: the image, the encoder's features at 1/2, 1/4 and 1/8 (shared)."""

    image: Tensor
    half: Tensor
    quarter: Tensor
    shared: Tensor


class RegionNet(nn.Module):
    """Encoder, proposal head, box head and mask head. One image at a time; its sides are multiples of 16.

    Boxes are the caller's business (`soars.systems.uanet.boxes`): heads take and give arrays of them.
    """

    def __init__(self, architecture: RegionArchitecture) -> None:
        super().__init__()
        self.architecture = a = architecture
        pre, half, quarter, eighth, sixteenth = a.widths
        self.pre = nn.Sequential(*_unit(1, pre, 2), *_unit(pre, pre, 1))
        self.level_2 = nn.Sequential(_Residual(pre, half), _Residual(half, half))
        self.level_4 = nn.Sequential(nn.MaxPool3d(2), _Residual(half, quarter), _Residual(quarter, quarter))
        self.level_8 = nn.Sequential(nn.MaxPool3d(2), *_chain(quarter, eighth))
        self.level_16 = nn.Sequential(nn.MaxPool3d(2), *_chain(eighth, sixteenth))
        self.up = nn.Sequential(
            nn.ConvTranspose3d(sixteenth, eighth, 2, 2), nn.BatchNorm3d(eighth), nn.ReLU(inplace=True)
        )
        self.fuse = nn.Sequential(*_chain(2 * eighth, a.fused))
        self.proposal = Pointwise(a.fused, a.hidden)
        self.objectness = Pointwise(a.hidden, a.anchors)
        self.anchor_deltas = Pointwise(a.hidden, 6 * a.anchors)
        self.dense = nn.Sequential(
            *_dense(a.fused * a.pooled**3, a.dense[0], a.normalised),
            *_dense(a.dense[0], a.dense[1], a.normalised),
        )
        self.box_class = nn.Linear(a.dense[1], 1 + a.classes)
        self.box_deltas = nn.Linear(a.dense[1], 6 * (1 + a.classes))
        m = a.mask
        self.mask = nn.ModuleList(
            [
                _local(a.fused, m),
                _local(m + quarter, m),
                _local(m, m),
                _local(m + half, m),
                _local(m, m),
                _local(m + 1, m),
            ]
        )
        self.mask_class = Pointwise(m, a.classes)

    def encode(self, image: Tensor) -> Features:
        """Features of an image [1, 1, z, y, x]."""
        half = self.level_2(self.pre(image))
        quarter = self.level_4(half)
        eighth = self.level_8(quarter)
        shared = self.fuse(torch.cat((self.up(self.level_16(eighth)), eighth), 1))
        return Features(image, half, quarter, shared)

    def propose(self, shared: Tensor) -> tuple[Tensor, Tensor]:
        """For every anchor, voxel by voxel of the shared features (z, y, x) and anchor by anchor, the logit that it
        holds an organ [n], and the deltas of its box [n, 6]; float32."""
        with _float32(shared):
            x = functional.relu(self.proposal(shared.float()))
            logits = self.objectness(x)[0].permute(1, 2, 3, 0).reshape(-1)
            deltas = self.anchor_deltas(x)[0]
            deltas = deltas.reshape(-1, 6, *deltas.shape[1:]).permute(2, 3, 4, 0, 1).reshape(-1, 6)
        return logits, deltas

    def classify(self, shared: Tensor, boxes: Sequence[Slices]) -> tuple[Tensor, Tensor]:
        """Of each box (slices of the shared features) the logits [n, 1 + K], background first, and each class's deltas
        [n, 1 + K, 6]; float32."""
        size = self.architecture.pooled
        with _float32(shared):
            maps = shared.float()
            pooled = [
                functional.adaptive_max_pool3d(maps[(slice(None), slice(None), *b)], size) for b in boxes
            ]
            x = self.dense(torch.cat(pooled).flatten(1))
            return self.box_class(x), self.box_deltas(x).reshape(len(boxes), -1, 6)

    def draw(self, features: Features, box: Slices, organ: int) -> Tensor:
        """Logits [z, y, x] of one organ in a box (slices of the shared features), at the image's resolution."""
        return self.draw_alike(features, [box], [organ])[0]

    def draw_alike(self, features: Features, boxes: Sequence[Slices], organs: Sequence[int]) -> Tensor:
        """Logits [n, z, y, x] of organs, each in a box of its own; the boxes have one size. Gives what drawing
        them one by one does, and keeps a GPU busier."""

        def cut(maps: Tensor, scale: int) -> Tensor:
            corners = [[slice(scale * side.start, scale * side.stop) for side in box] for box in boxes]
            return torch.cat([maps[:, :, z, y, x] for z, y, x in corners])

        x = cut(features.shared, 1)
        layers = iter(self.mask)
        for scale, skip in ((2, features.quarter), (4, features.half), (8, features.image)):
            x = functional.interpolate(x, scale_factor=2, mode="trilinear", align_corners=False)
            x = next(layers)(x)
            x = next(layers)(torch.cat((x, cut(skip, scale)), 1))
        with _float32(x):
            weight, bias = self.mask_class.weight, self.mask_class.bias
            assert bias is not None
            mine = torch.stack([weight[organ, :, 0, 0, 0] for organ in organs])[:, None]
            level = torch.stack([bias[organ] for organ in organs])[:, None, None]
            logits = torch.baddbmm(level, mine, x.float().flatten(2))
            return logits.reshape(len(boxes), *x.shape[2:])


class _Residual(nn.Module):
    """conv - BN - ReLU - conv - BN, with a shortcut."""

    def __init__(self, inputs: int, outputs: int) -> None:
        super().__init__()
        self.body = nn.Sequential(
            *_unit(inputs, outputs, 1), nn.Conv3d(outputs, outputs, 3, 1, 1), nn.BatchNorm3d(outputs)
        )
        self.shortcut = (
            nn.Identity()
            if inputs == outputs
            else nn.Sequential(Pointwise(inputs, outputs), nn.BatchNorm3d(outputs))
        )

    def forward(self, x: Tensor) -> Tensor:
        return functional.relu(self.body(x) + self.shortcut(x))


def _chain(inputs: int, outputs: int) -> list[nn.Module]:
    return [_Residual(inputs, outputs), _Residual(outputs, outputs), _Residual(outputs, outputs)]


def _unit(inputs: int, outputs: int, stride: int) -> list[nn.Module]:
    return [nn.Conv3d(inputs, outputs, 3, stride, 1), nn.BatchNorm3d(outputs), nn.ReLU(inplace=True)]


def _dense(inputs: int, outputs: int, normalised: bool) -> list[nn.Module]:
    norm = [nn.LayerNorm(outputs)] if normalised else []
    return [nn.Linear(inputs, outputs), *norm, nn.ReLU(inplace=True)]


def _local(inputs: int, outputs: int) -> nn.Module:
    """A convolution with local contrast normalisation: each channel of a box to mean 0 and variance 1, then an affine
    map (instance normalisation, written as a group a channel)."""
    return nn.Sequential(
        nn.Conv3d(inputs, outputs, 3, 1, 1), nn.GroupNorm(outputs, outputs), nn.ReLU(inplace=True)
    )


def _float32(x: Tensor) -> torch.autocast:
    """What scores and boxes are computed in, whatever the convolutions use."""
    return torch.autocast(x.device.type, enabled=False)
