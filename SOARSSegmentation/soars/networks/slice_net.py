"""The residual U-Net that a `SliceArchitecture` describes (torch)."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional

from soars.networks.pointwise import Pointwise
from soars.networks.slices import CONTEXT, SliceArchitecture


class SliceNet(nn.Module):
    """Input [batch, 1, n + 20, size, size], output [batch, classes, n, size, size]: logits of n slices.

    Each slice is drawn from itself and the ten on either side, and from nothing else: convolutions along z are without
    padding, and normalisation is over one slice at a time. So n neighbouring slices drawn together are the same as
    drawn one by one.
    """

    def __init__(self, architecture: SliceArchitecture) -> None:
        super().__init__()
        self.architecture = a = architecture
        before = (1, *a.channels[:-1])
        after = (a.channels[0], *a.channels[:-1])
        levels = range(len(a.channels))
        self.down = nn.ModuleList(_Down(before[i], a.channels[i], a.lost[i]) for i in levels)
        self.bottom = _Bottom(a.bottom, a.hidden)
        self.up = nn.ModuleList(_Up(a.channels[i], before[i], after[i]) for i in reversed(levels))
        self.head = Pointwise(a.channels[0], a.classes)

    def forward(self, x: Tensor) -> Tensor:
        slices = x.shape[2] - (CONTEXT - 1)
        skips = []
        for down in self.down:
            skips.append(_central(x, slices))
            x = down(x)
        x = self.bottom(x)
        for up in self.up:
            x = up(x, skips.pop())
        # In float32 also where the rest is not: rounding logits moves contours.
        with torch.autocast(x.device.type, enabled=False):
            return self.head(x.float())


class _Down(nn.Module):
    """Two convolutions, the first with stride 2 in the plane, and a shortcut; takes away `lost` slices."""

    def __init__(self, inputs: int, outputs: int, lost: int) -> None:
        super().__init__()
        first, second = (3 if lost >= 2 else 1), (3 if lost == 4 else 1)
        self.first = nn.Conv3d(inputs, outputs, (first, 3, 3), (1, 2, 2), (0, 1, 1), bias=False)
        self.second = nn.Conv3d(outputs, outputs, (second, 3, 3), 1, (0, 1, 1), bias=False)
        self.shortcut = Pointwise(inputs, outputs, (1, 2, 2), bias=False)
        self.norms = nn.ModuleList(_SliceNorm(outputs) for _ in range(3))

    def forward(self, x: Tensor) -> Tensor:
        y = functional.relu(self.norms[0](self.first(x)))
        y = self.norms[1](self.second(y))
        return functional.relu(y + self.norms[2](self.shortcut(_central(x, y.shape[2]))))


class _Bottom(nn.Module):
    """Residual fully connected block over each slice's whole feature map."""

    def __init__(self, values: int, hidden: int) -> None:
        super().__init__()
        self.narrow, self.wide = nn.Linear(values, hidden), nn.Linear(hidden, values)

    def forward(self, x: Tensor) -> Tensor:
        slices = x.transpose(1, 2)
        flat = slices.flatten(2)
        flat = flat + self.wide(functional.relu(self.narrow(flat)))
        return flat.reshape(slices.shape).transpose(1, 2)


class _Up(nn.Module):
    """Twice the rows and columns, joined with the skip's slices, then two convolutions in the plane and a shortcut."""

    def __init__(self, inputs: int, skip: int, outputs: int) -> None:
        super().__init__()
        self.larger = nn.ConvTranspose3d(inputs, outputs, (1, 2, 2), (1, 2, 2))
        joined = outputs + skip
        self.first = nn.Conv3d(joined, outputs, (1, 3, 3), 1, (0, 1, 1), bias=False)
        self.second = nn.Conv3d(outputs, outputs, (1, 3, 3), 1, (0, 1, 1), bias=False)
        self.shortcut = Pointwise(joined, outputs, bias=False)
        self.norms = nn.ModuleList(_SliceNorm(outputs) for _ in range(3))

    def forward(self, x: Tensor, skip: Tensor) -> Tensor:
        x = torch.cat((self.larger(x), skip), 1)
        y = functional.relu(self.norms[0](self.first(x)))
        y = self.norms[1](self.second(y))
        return functional.relu(y + self.norms[2](self.shortcut(x)))


class _SliceNorm(nn.GroupNorm):
    """Group normalisation of each slice by itself (groups of up to eight channels)."""

    def __init__(self, channels: int) -> None:
        super().__init__(max(1, channels // 8) if channels % 8 == 0 else 1, channels)

    def forward(self, x: Tensor) -> Tensor:
        slices = x.transpose(1, 2)
        n, d, c, h, w = slices.shape
        normed = super().forward(slices.reshape(n * d, c, h, w))
        return normed.reshape(n, d, c, h, w).transpose(1, 2)


def _central(x: Tensor, slices: int) -> Tensor:
    """The central slices."""
    return x.narrow(2, (x.shape[2] - slices) // 2, slices)
