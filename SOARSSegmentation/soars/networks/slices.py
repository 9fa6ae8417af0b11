"""The description of DeepMind's residual U-Net as data: what a bundle's manifest stores."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

from soars.errors import BundleError

CONTEXT = 21
"""Slices that the network sees to draw the central one (Nikolov et al., J Med Internet Res 2021)."""
_LARGEST_SIZE, _MOST_CHANNELS, _MOST_BLOCKS = 2048, 8192, 10


@dataclass(frozen=True)
class SliceArchitecture:
    """A residual U-Net that sees `CONTEXT` slices and draws one.

    The paper gives eight levels, seven residual blocks down and up, a residual fully connected block at the bottom and
    sigmoid outputs; the figure with kernels and channels is not in its text. Ours: ten convolutions of three slices
    without padding, spread over the blocks on the way down, take 21 slices to one; the way up works in the plane.

    Attributes:
        classes: output channels.
        size: rows and columns of the input, fixed by the fully connected block.
        channels: per block on the way down; each halves rows and columns.
        lost: slices that each block takes away, 0, 2 or 4; `CONTEXT` - 1 in all.
        hidden: width of the fully connected block.
    """

    classes: int
    size: int
    channels: tuple[int, ...]
    lost: tuple[int, ...]
    hidden: int

    def __post_init__(self) -> None:
        blocks = len(self.channels)
        if not 1 <= blocks <= _MOST_BLOCKS or len(self.lost) != blocks:
            raise BundleError(
                f"architecture: {blocks} blocks (1 to {_MOST_BLOCKS}) with {len(self.lost)} depths"
            )
        numbers = (self.classes, self.hidden, *self.channels)
        if min(numbers) < 1 or max(numbers) > _MOST_CHANNELS:
            raise BundleError(f"architecture: channels must be from 1 to {_MOST_CHANNELS}, got {numbers}")
        if any(n not in (0, 2, 4) for n in self.lost) or sum(self.lost) != CONTEXT - 1:
            raise BundleError(
                f"architecture: each block takes away 0, 2 or 4 slices, {CONTEXT - 1} in all, got {self.lost}"
            )
        if not 1 <= self.size <= _LARGEST_SIZE or self.size % 2**blocks:
            raise BundleError(
                f"architecture: size {self.size} must be a multiple of {2**blocks}, at most {_LARGEST_SIZE}"
            )

    @property
    def bottom(self) -> int:
        """Values that the fully connected block takes and gives, per slice."""
        return (self.size >> len(self.channels)) ** 2 * self.channels[-1]

    def to_dict(self) -> dict[str, Any]:
        return asdict(self) | {"channels": list(self.channels), "lost": list(self.lost)}

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> SliceArchitecture:
        """Raises `BundleError` when a key is missing or unknown, or has the wrong type."""
        try:
            if set(data) != {"classes", "size", "channels", "lost", "hidden"}:
                raise ValueError(f"keys {sorted(data)}")
            whole = [data["classes"], data["size"], data["hidden"], *data["channels"], *data["lost"]]
            if any(type(n) is not int for n in whole):
                raise TypeError("whole numbers expected")
            return cls(
                data["classes"], data["size"], tuple(data["channels"]), tuple(data["lost"]), data["hidden"]
            )
        except (KeyError, TypeError, ValueError) as error:
            raise BundleError(f"architecture description is not valid: {repr(error)[:200]}") from error
