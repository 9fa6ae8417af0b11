"""The relaxed network: every convolution is a mixture of the six kernels, by a softmax that its block shares."""

from __future__ import annotations

from dataclasses import replace
from functools import reduce

import torch
from torch import Tensor, nn

from soars.networks.architecture import KERNELS, BlockShape
from soars.networks.blocks import Block
from soars.networks.names import LayerOrder
from soars_training.fitting.models import BranchModel
from soars_training.fitting.options import FitOptions


class SearchModel(BranchModel):
    """A branch whose blocks have not yet chosen their kernel: `alphas[block]` are the logits of the choice (equations 7
    and 8).

    The alphas stand in the order of `Architecture.blocks`.
    """

    def __init__(self, options: FitOptions) -> None:
        drawn: dict[int, nn.Parameter] = {}

        def make(number: int, shape: BlockShape) -> nn.Module:
            drawn[number] = nn.Parameter(1e-3 * torch.randn(len(KERNELS)))
            return _MixedBlock(shape, options.order, number == 0, drawn[number])

        super().__init__(options, make=make)
        self.alphas = nn.ParameterList(drawn[number] for number in sorted(drawn))

    def weights(self) -> list[nn.Parameter]:
        """All parameters but the alphas."""
        chosen = {id(alpha) for alpha in self.alphas}
        return [p for p in self.parameters() if id(p) not in chosen]

    def shares(self) -> list[list[float]]:
        """The mixture of every block, in the order of `KERNELS`; each sums to 1."""
        return [torch.softmax(alpha.detach(), 0).tolist() for alpha in self.alphas]

    def choice(self) -> tuple[str, ...]:
        """The kernel with the largest share in every block."""
        return tuple(KERNELS[int(alpha.detach().argmax())] for alpha in self.alphas)


class _MixedBlock(nn.Module):
    """Mixed convolutions that share a block's alpha."""

    def __init__(self, shape: BlockShape, order: LayerOrder, first: bool, alpha: nn.Parameter) -> None:
        super().__init__()
        whole = replace(shape, units=1)
        later = replace(whole, in_channels=shape.out_channels, stride=(1, 1, 1))
        self.units = nn.ModuleList(
            _MixedConvolution(whole if n == 0 else later, order, first and n == 0) for n in range(shape.units)
        )
        self.alpha = alpha

    def forward(self, x: Tensor) -> Tensor:
        shares = torch.softmax(self.alpha, 0)
        for unit in self.units:
            x = unit(x, shares)
        return x


class _MixedConvolution(nn.Module):
    """Each kernel has its own weights and normalisation; the outputs are summed, weighted by their shares."""

    def __init__(self, shape: BlockShape, order: LayerOrder, first: bool) -> None:
        super().__init__()
        self.kernels = nn.ModuleList(Block(shape, kernel, order, first) for kernel in KERNELS)

    def forward(self, x: Tensor, shares: Tensor) -> Tensor:
        # One after the other, since a stack has no channels-last layout.
        return reduce(torch.add, (s * kernel(x) for s, kernel in zip(shares, self.kernels, strict=True)))
