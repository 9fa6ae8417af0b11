"""The description of a U-Net as data: what a bundle's manifest stores and what the network is built from."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from soars.errors import BundleError

KERNELS = ("2d_k3", "2d_k5", "3d_k3", "3d_k5", "p3d_k3", "p3d_k5")
"""Kernel choices of a block: 2D in the axial plane, full 3D, or pseudo-3D (axial 2D, then 1D across slices)."""

MOST_LEVELS, MOST_CHANNELS, MOST_STRIDE = 12, 16384, 16
"""Bounds far above any network in use, so that a description cannot exhaust the memory."""


@dataclass(frozen=True)
class UNetArchitecture:
    """A U-Net with one kernel choice per block.

    Attributes:
        in_channels, out_channels: channels of the input and of the output (logits or heat maps).
        features: channels per resolution level, finest first.
        strides: for each step down, the stride along (z, y, x); one fewer than `features`.
        blocks: kernel choice per block, the encoder's from fine to coarse, then the decoder's from coarse to
            fine; ``2 * len(features) - 1`` of them.
    """

    in_channels: int
    out_channels: int
    features: tuple[int, ...]
    strides: tuple[tuple[int, int, int], ...]
    blocks: tuple[str, ...]

    def __post_init__(self) -> None:
        levels = len(self.features)
        if levels < 1 or min((self.in_channels, self.out_channels, *self.features)) < 1:
            raise BundleError(f"architecture: channel counts must be positive, got {self}")
        if levels > MOST_LEVELS or max((self.in_channels, self.out_channels, *self.features)) > MOST_CHANNELS:
            raise BundleError(
                f"architecture: more than {MOST_LEVELS} levels or {MOST_CHANNELS} channels fit in no computer's memory"
            )
        if len(self.strides) != levels - 1 or any(
            len(s) != 3 or min(s) < 1 or max(s) > MOST_STRIDE for s in self.strides
        ):
            raise BundleError(
                f"architecture: {levels} levels need {levels - 1} strides (z, y, x), got {self.strides}"
            )
        if len(self.blocks) != 2 * levels - 1:
            raise BundleError(
                f"architecture: {levels} levels need {2 * levels - 1} blocks, got {len(self.blocks)}"
            )
        unknown = sorted(set(self.blocks) - set(KERNELS))
        if unknown:
            raise BundleError(
                f"architecture: unknown kernel choice {', '.join(unknown)}; known: {', '.join(KERNELS)}"
            )

    @classmethod
    def plain(cls, in_channels: int, out_channels: int, features: tuple[int, ...]) -> UNetArchitecture:
        """The default network: 3x3x3 kernels everywhere, every level half as fine as the one above."""
        levels = len(features)
        return cls(
            in_channels, out_channels, features, ((2, 2, 2),) * (levels - 1), ("3d_k3",) * (2 * levels - 1)
        )

    @property
    def divisor(self) -> tuple[int, int, int]:
        """The input's extent along (z, y, x) must be a multiple of this."""
        total = [1, 1, 1]
        for stride in self.strides:
            total = [a * b for a, b in zip(total, stride, strict=True)]
        return total[0], total[1], total[2]

    def to_dict(self) -> dict[str, Any]:
        return {
            "type": "unet",
            "in_channels": self.in_channels,
            "out_channels": self.out_channels,
            "features": list(self.features),
            "strides": [list(s) for s in self.strides],
            "blocks": list(self.blocks),
        }

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> UNetArchitecture:
        """Raises `BundleError` when a key is missing, has the wrong type or an unknown value."""
        try:
            if data["type"] != "unet":
                raise BundleError(f"architecture: unknown type {data['type']!r}; this version knows 'unet'")
            return cls(
                in_channels=int(data["in_channels"]),
                out_channels=int(data["out_channels"]),
                features=tuple(int(f) for f in data["features"]),
                strides=tuple((int(z), int(y), int(x)) for z, y, x in data["strides"]),
                blocks=tuple(str(b) for b in data["blocks"]),
            )
        except (KeyError, TypeError, ValueError, OverflowError) as error:
            raise BundleError(f"architecture description is not valid: {repr(error)[:200]}") from error
