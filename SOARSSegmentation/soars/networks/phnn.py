"""The 3D progressive holistically nested network of SOARS (CVPR 2020, section 3; Harrison et al., MICCAI 2017)."""

from __future__ import annotations

from dataclasses import replace
from typing import cast

from torch import Tensor, nn
from torch.nn import functional

from soars.networks.architecture import Architecture
from soars.networks.blocks import MakeBlock, plain_blocks
from soars.networks.pointwise import Pointwise


class PHnn(nn.Module):
    """Blocks with max-pooling between them; each block's side output is added to the sum of those before.

    Side output m is a 1 x 1 x 1 convolution, up-sampled linearly to the input's size; a_m = a_(m-1) + side_m, from the
    finest on, without any further weights. Every sum is supervised, the last one is the output. Sizes as those of
    `soars.networks.unet.UNet`. The side outputs are computed in the precision of their own weights.
    """

    def __init__(self, architecture: Architecture, make: MakeBlock | None = None) -> None:
        """`make` builds the blocks, as the architecture names them when None."""
        super().__init__()
        self.architecture = architecture
        make = make or plain_blocks(architecture)
        self.encoder = nn.ModuleList(
            make(i, replace(shape, stride=(1, 1, 1))) for i, shape in enumerate(architecture.shapes())
        )
        self.sides = nn.ModuleList(
            Pointwise(width, architecture.out_channels) for width in architecture.features
        )

    @property
    def heads(self) -> tuple[str, ...]:
        """The names of the layers whose output channels are the network's."""
        return tuple(f"sides.{i}" for i in range(len(self.sides)))

    def forward(self, x: Tensor) -> Tensor:
        return self.sums(x)[-1]

    def sums(self, x: Tensor) -> list[Tensor]:
        """The progressive outputs, all of the input's size: of the finest block alone first, of all blocks last."""
        sums: list[Tensor] = []
        scale = [1.0, 1.0, 1.0]
        for block, layer, stride in zip(
            self.encoder, self.sides, ((1, 1, 1), *self.architecture.strides), strict=True
        ):
            scale = [a * b for a, b in zip(scale, stride, strict=True)]
            if max(stride) > 1:
                x = functional.max_pool3d(x, stride, stride)
            x = block(x)
            side = cast(nn.Conv3d, layer)
            answer = side(x.to(side.weight.dtype))
            if max(scale) > 1:
                answer = functional.interpolate(
                    answer, scale_factor=scale, mode="trilinear", align_corners=False
                )
            sums.append(sums[-1] + answer if sums else answer)
        return sums
