"""The description of a network as data: what a bundle's manifest stores and what the network is built from."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from soars.errors import BundleError
from soars.networks.names import LAYER_ORDERS, NETWORK_KINDS, LayerOrder, Name, NetworkKind, one_of

KERNELS = ("2d_k3", "2d_k5", "3d_k3", "3d_k5", "p3d_k3", "p3d_k5")
"""Kernel choices of a block: 2D in the axial plane, full 3D, or pseudo-3D (axial 2D, then 1D across slices)."""

MOST_LEVELS, MOST_CHANNELS, MOST_STRIDE = 12, 16384, 16
"""Bounds far above any network in use, so that a description cannot exhaust the memory."""


@dataclass(frozen=True)
class BlockShape:
    """A block of convolutions: its channels, the stride (z, y, x) before or in its first convolution, how many
    convolutions follow one another, and the share of the input's voxels that it works on."""

    in_channels: int
    out_channels: int
    stride: tuple[int, int, int]
    units: int
    share: float


@dataclass(frozen=True)
class Architecture:
    """A network with one kernel choice per block.

    Attributes:
        in_channels, out_channels: channels of the input and of the output (logits or heat maps).
        features: channels per resolution level, finest first.
        strides: for each step down, the stride along (z, y, x); one fewer than `features`.
        blocks: kernel choice per block: the encoder's from fine to coarse, then, of a U-Net, the decoder's from coarse
            to fine; ``2 * len(features) - 1`` of them, of a P-HNN ``len(features)``.
        network, order: of which kind, and how its layers follow one another.
    """

    in_channels: int
    out_channels: int
    features: tuple[int, ...]
    strides: tuple[tuple[int, int, int], ...]
    blocks: tuple[str, ...]
    network: NetworkKind = "unet"
    order: LayerOrder = "conv-norm-act"

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
        count = block_count(levels, self.network)
        if len(self.blocks) != count:
            raise BundleError(f"architecture: {levels} levels need {count} blocks, got {len(self.blocks)}")
        unknown = sorted(set(self.blocks) - set(KERNELS))
        if unknown:
            raise BundleError(
                f"architecture: unknown kernel choice {', '.join(unknown)}; known: {', '.join(KERNELS)}"
            )

    @classmethod
    def plain(
        cls,
        in_channels: int,
        out_channels: int,
        features: tuple[int, ...],
        network: NetworkKind = "unet",
        order: LayerOrder = "conv-norm-act",
    ) -> Architecture:
        """The default network: 3x3x3 kernels everywhere, every level half as fine as the one above."""
        levels = len(features)
        blocks = ("3d_k3",) * block_count(levels, network)
        return cls(in_channels, out_channels, features, ((2, 2, 2),) * (levels - 1), blocks, network, order)

    @property
    def divisor(self) -> tuple[int, int, int]:
        """The input's extent along (z, y, x) must be a multiple of this."""
        total = [1, 1, 1]
        for stride in self.strides:
            total = [a * b for a, b in zip(total, stride, strict=True)]
        return total[0], total[1], total[2]

    def shapes(self) -> list[BlockShape]:
        """The blocks, in the order of `blocks`. A U-Net's have two convolutions, the first with the stride, and the
        decoder's take the skip beside what comes from below; those of a P-HNN have two, from the third level on three,
        after a max-pooling by the stride (VGG-16's first stages)."""
        levels, share = len(self.features), 1.0
        found = []
        widths = (self.in_channels, *self.features)
        for i, stride in enumerate(((1, 1, 1), *self.strides)):
            share /= stride[0] * stride[1] * stride[2]
            units = 3 if self.network == "phnn" and i >= 2 else 2
            found.append(BlockShape(widths[i], self.features[i], stride, units, share))
        if self.network == "unet":
            for i in range(levels - 2, -1, -1):
                width = self.features[i]
                found.append(BlockShape(2 * width, width, (1, 1, 1), 2, found[i].share))
        return found

    @property
    def needs_format_2(self) -> bool:
        """Whether a bundle of format 1 cannot express it."""
        return (self.network, self.order) != ("unet", "conv-norm-act")

    def to_dict(self) -> dict[str, Any]:
        return {
            "type": self.network,
            "in_channels": self.in_channels,
            "out_channels": self.out_channels,
            "features": list(self.features),
            "strides": [list(s) for s in self.strides],
            "blocks": list(self.blocks),
            **({"order": self.order} if self.order != "conv-norm-act" else {}),
        }

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> Architecture:
        """Raises `BundleError` when a key is missing, has the wrong type or an unknown value."""
        try:
            return cls(
                in_channels=int(data["in_channels"]),
                out_channels=int(data["out_channels"]),
                features=tuple(int(f) for f in data["features"]),
                strides=tuple((int(z), int(y), int(x)) for z, y, x in data["strides"]),
                blocks=tuple(str(b) for b in data["blocks"]),
                network=_word("type", data["type"], NETWORK_KINDS),
                order=_word("order", data.get("order", "conv-norm-act"), LAYER_ORDERS),
            )
        except (KeyError, TypeError, ValueError, OverflowError) as error:
            raise BundleError(f"architecture description is not valid: {repr(error)[:200]}") from error


def block_count(levels: int, network: NetworkKind = "unet") -> int:
    """How many blocks a network of so many levels has."""
    return levels if network == "phnn" else 2 * levels - 1


def _word(name: str, text: object, known: tuple[Name, ...]) -> Name:
    word = one_of(text, known)
    if word is None:
        raise BundleError(f"architecture: unknown {name} {text!r}; this version knows {', '.join(known)}")
    return word
