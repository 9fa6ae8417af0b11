"""The U-Net that an `Architecture` describes (torch)."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from soars.networks.architecture import Architecture
from soars.networks.blocks import MakeBlock, plain_blocks
from soars.networks.pointwise import Pointwise


class UNet(nn.Module):
    """Encoder and decoder of convolution blocks, each with the kernel the architecture names.

    Input [batch, in_channels, z, y, x], output [batch, out_channels, z, y, x] (logits or heat maps, no activation);
    z, y and x must be multiples of ``architecture.divisor``.
    """

    def __init__(self, architecture: Architecture, make: MakeBlock | None = None) -> None:
        """`make` builds the blocks, as the architecture names them when None."""
        super().__init__()
        self.architecture = architecture
        make = make or plain_blocks(architecture)
        features, levels, shapes = architecture.features, len(architecture.features), architecture.shapes()
        self.encoder = nn.ModuleList(make(i, shapes[i]) for i in range(levels))
        self.up = nn.ModuleList(
            nn.ConvTranspose3d(features[i + 1], features[i], architecture.strides[i], architecture.strides[i])
            for i in range(levels - 2, -1, -1)
        )
        self.decoder = nn.ModuleList(make(i, shapes[i]) for i in range(levels, len(shapes)))
        self.head = Pointwise(features[0], architecture.out_channels)

    @property
    def heads(self) -> tuple[str, ...]:
        """The names of the layers whose output channels are the network's."""
        return ("head",)

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
