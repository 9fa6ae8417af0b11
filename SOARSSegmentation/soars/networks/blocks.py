"""Blocks of convolutions, with the kernel and the order of layers that an architecture names (torch)."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import torch
from torch import Tensor, nn
from torch.nn import functional

from soars.networks.architecture import Architecture, BlockShape
from soars.networks.names import LayerOrder

_Size = tuple[int, int, int]

MakeBlock = Callable[[int, BlockShape], nn.Module]
"""From a block's number and shape, without the stride of a max-pooling, to the module."""


class Block(nn.Sequential):
    """Convolutions of one kernel choice, the first with the stride, each with its norm and activation.

    `first` is the very first of a network: before it there is nothing to activate, and a ReLU would cut off all HU
    below the batch's mean.
    """

    def __init__(self, shape: BlockShape, kernel: str, order: LayerOrder, first: bool) -> None:
        layers = convolution(shape.in_channels, shape.out_channels, kernel, shape.stride, order)
        if first and order != "conv-norm-act":
            layers = [layer for n, layer in enumerate(layers) if n != 1]
        for _ in range(shape.units - 1):
            layers += convolution(shape.out_channels, shape.out_channels, kernel, (1, 1, 1), order)
        super().__init__(*layers)


class InstanceNorm(nn.GroupNorm):
    """Instance normalisation, written as GroupNorm with one channel a group: the same numbers, without the layout
    copies that make `InstanceNorm3d` slow in channels-last memory on CPUs.

    There GroupNorm is quick, but its gradient takes thirty times as long as that of batch normalisation, which is the
    same for one sample (torch 2.13).
    """

    def __init__(self, channels: int) -> None:
        super().__init__(channels, channels)

    def forward(self, x: Tensor) -> Tensor:
        if not x.is_cpu or not torch.is_grad_enabled() or x.is_contiguous():
            return super().forward(x)
        samples = [
            functional.batch_norm(sample, None, None, self.weight, self.bias, training=True, eps=self.eps)
            for sample in x.split(1)
        ]
        return samples[0] if len(samples) == 1 else torch.cat(samples)


def plain_blocks(architecture: Architecture) -> MakeBlock:
    """Blocks as the architecture names them."""

    def make(number: int, shape: BlockShape) -> nn.Module:
        return Block(shape, architecture.blocks[number], architecture.order, number == 0)

    return make


def convolution(
    in_channels: int, out_channels: int, kernel: str, stride: _Size, order: LayerOrder = "conv-norm-act"
) -> list[nn.Module]:
    """The layers of one convolution: 2D and 3D are one kernel, pseudo-3D is the axial plane, then across slices."""
    return [
        layer for unit in _units(in_channels, out_channels, kernel, stride) for layer in _unit(*unit, order)
    ]


def _units(
    in_channels: int, out_channels: int, kernel: str, stride: _Size
) -> Iterator[tuple[int, int, _Size, _Size]]:
    shape, width = kernel.split("_k")
    k = int(width)
    if shape == "p3d":
        yield in_channels, out_channels, (1, k, k), (1, *stride[1:])
        yield out_channels, out_channels, (k, 1, 1), (stride[0], 1, 1)
    else:
        yield in_channels, out_channels, (k, k, k) if shape == "3d" else (1, k, k), stride


def _unit(
    in_channels: int, out_channels: int, kernel: _Size, stride: _Size, order: LayerOrder
) -> list[nn.Module]:
    padding = tuple(k // 2 for k in kernel)
    conv = nn.Conv3d(in_channels, out_channels, kernel, stride, padding, bias=False)  # type: ignore[arg-type]
    if order == "conv-norm-act":
        return [conv, InstanceNorm(out_channels), nn.LeakyReLU(0.01, inplace=True)]
    return [nn.BatchNorm3d(in_channels), nn.ReLU(), conv]
