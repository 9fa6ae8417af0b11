"""A convolution of one voxel that is safe in mixed precision (torch)."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional


class Pointwise(nn.Conv3d):
    """A 1 x 1 x 1 convolution; on a processor it is computed in float32, whatever autocast asks for or the weights are.

    torch 2.13's bfloat16 kernel for it writes beyond its memory on processors with AMX, for some shapes: 16 channels of
    8 x 128 x 128 voxels crash the process, 16 of 64 x 64 x 64 do not.
    """

    def __init__(
        self, inputs: int, outputs: int, stride: tuple[int, int, int] = (1, 1, 1), *, bias: bool = True
    ) -> None:
        super().__init__(inputs, outputs, 1, stride, bias=bias)

    def forward(self, x: Tensor) -> Tensor:
        if not x.is_cpu:
            return super().forward(x)
        bias = None if self.bias is None else self.bias.float()
        with torch.autocast("cpu", enabled=False):
            return functional.conv3d(x.float(), self.weight.float(), bias, self.stride)
