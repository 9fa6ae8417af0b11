"""The U-Net that an `UNetArchitecture` describes (torch)."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from soars.networks.architecture import UNetArchitecture

_Size = tuple[int, int, int]


class UNet(nn.Module):
    """Encoder and decoder of convolution blocks, each with the kernel the architecture names.

    Input [batch, in_channels, z, y, x], output [batch, out_channels, z, y, x] (logits or heat maps, no activation);
    z, y and x must be multiples of ``architecture.divisor``.

    Instance normalisation is written as GroupNorm with one channel a group: the same numbers, without the layout
    copies that make `InstanceNorm3d` slow in channels-last memory on CPUs.
    """

    def __init__(self, architecture: UNetArchitecture) -> None:
        super().__init__()
        self.architecture = architecture
        features, levels = architecture.features, len(architecture.features)
        widths = (architecture.in_channels, *features)
        steps: tuple[_Size, ...] = ((1, 1, 1), *architecture.strides)
        self.encoder = nn.ModuleList(
            _Block(widths[i], features[i], architecture.blocks[i], steps[i]) for i in range(levels)
        )
        below = list(range(levels - 2, -1, -1))
        self.up = nn.ModuleList(
            nn.ConvTranspose3d(features[i + 1], features[i], architecture.strides[i], architecture.strides[i])
            for i in below
        )
        self.decoder = nn.ModuleList(
            _Block(2 * features[i], features[i], architecture.blocks[levels + n], (1, 1, 1))
            for n, i in enumerate(below)
        )
        self.head = nn.Conv3d(features[0], architecture.out_channels, 1)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.decoded(x)[-1])

    def decoded(self, x: Tensor) -> list[Tensor]:
        """The decoder's features at every level, from the coarsest (the encoder's own) to the finest."""
        skips = []
        for block in self.encoder:
            x = block(x)
            skips.append(x)
        features = [skips.pop()]
        for up, block in zip(self.up, self.decoder, strict=True):
            features.append(block(torch.cat((up(features[-1]), skips.pop()), dim=1)))
        return features


class _Block(nn.Sequential):
    """Two convolutions of one kernel choice, the first with the stride, each followed by norm and LeakyReLU."""

    def __init__(self, in_channels: int, out_channels: int, kernel: str, stride: _Size) -> None:
        super().__init__(
            *convolution(in_channels, out_channels, kernel, stride),
            *convolution(out_channels, out_channels, kernel, (1, 1, 1)),
        )


def convolution(in_channels: int, out_channels: int, kernel: str, stride: _Size) -> list[nn.Module]:
    """The layers of one convolution: 2D and 3D are one kernel, pseudo-3D is the axial plane, then across slices."""
    shape, width = kernel.split("_k")
    k = int(width)
    if shape == "p3d":
        return [
            *_unit(in_channels, out_channels, (1, k, k), (1, *stride[1:])),
            *_unit(out_channels, out_channels, (k, 1, 1), (stride[0], 1, 1)),
        ]
    return _unit(in_channels, out_channels, (k, k, k) if shape == "3d" else (1, k, k), stride)


def _unit(in_channels: int, out_channels: int, kernel: _Size, stride: _Size) -> list[nn.Module]:
    padding = tuple(k // 2 for k in kernel)
    return [
        nn.Conv3d(in_channels, out_channels, kernel, stride, padding, bias=False),  # type: ignore[arg-type]
        nn.GroupNorm(out_channels, out_channels),
        nn.LeakyReLU(0.01, inplace=True),
    ]
