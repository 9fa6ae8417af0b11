"""The relaxed network: every convolution is a mixture of the six kernels, by a softmax that its block shares."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from soars.networks.architecture import KERNELS
from soars.networks.unet import convolution
from soars_training.fitting.models import BranchModel
from soars_training.fitting.options import FitOptions

Step = tuple[int, int, int]


class SearchModel(BranchModel):
    """A branch whose blocks have not yet chosen their kernel: `alphas[block]` are the logits of the choice (equations 7
    and 8).

    The blocks stand in the order of `UNetArchitecture.blocks`.
    """

    def __init__(self, options: FitOptions) -> None:
        super().__init__(options)
        architecture = self.network.architecture
        features, levels = architecture.features, len(architecture.features)
        self.alphas = nn.ParameterList(
            nn.Parameter(1e-3 * torch.randn(len(KERNELS))) for _ in architecture.blocks
        )
        widths, steps = (architecture.in_channels, *features), ((1, 1, 1), *architecture.strides)
        for i in range(levels):
            self.network.encoder[i] = _MixedBlock(widths[i], features[i], steps[i], self.alphas[i])
        for n, i in enumerate(range(levels - 2, -1, -1)):
            self.network.decoder[n] = _MixedBlock(
                2 * features[i], features[i], (1, 1, 1), self.alphas[levels + n]
            )

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
    """Two mixed convolutions that share a block's alpha."""

    def __init__(self, in_channels: int, out_channels: int, stride: Step, alpha: nn.Parameter) -> None:
        super().__init__()
        self.first = _MixedConvolution(in_channels, out_channels, stride)
        self.second = _MixedConvolution(out_channels, out_channels, (1, 1, 1))
        self.alpha = alpha

    def forward(self, x: Tensor) -> Tensor:
        shares = torch.softmax(self.alpha, 0)
        return self.second(self.first(x, shares), shares)


class _MixedConvolution(nn.Module):
    """Each kernel has its own weights and normalisation; the outputs are summed, weighted by their shares."""

    def __init__(self, in_channels: int, out_channels: int, stride: Step) -> None:
        super().__init__()
        self.kernels = nn.ModuleList(
            nn.Sequential(*convolution(in_channels, out_channels, kernel, stride)) for kernel in KERNELS
        )

    def forward(self, x: Tensor, shares: Tensor) -> Tensor:
        return torch.stack([s * kernel(x) for s, kernel in zip(shares, self.kernels, strict=True)]).sum(0)
