"""The description of UaNet as data: what a bundle's manifest stores."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields
from typing import Any

from soars.errors import BundleError

STRIDE = 8
"""Voxels of the image along each axis that one voxel of the shared features covers."""
DIVISOR = 16
"""The image's sides must be multiples of this: the encoder halves it four times."""
PAPER_BASES = (7.0, 15.0, 30.0, 50.0)
PAPER_SHAPES = ((1.0, 2.5, 2.5), (1.0, 2.5, 5.0), (1.0, 5.0, 2.5))
_MOST = 65536


@dataclass(frozen=True)
class RegionArchitecture:
    """UaNet (Tang et al., Nature Machine Intelligence 2019): organs are found as boxes, then drawn in their boxes.

    The defaults are the authors'; where their article and their code differ (channels of the shared features, kernels
    of the heads), the code's.

    Attributes:
        classes: organs.
        widths: channels of the encoder's first convolutions, and of its levels at 1/2, 1/4, 1/8 and 1/16.
        fused: channels of the shared features at 1/8 (feature_map_8).
        hidden: channels of the proposal head.
        pooled: a box's features are pooled to so many voxels along each axis.
        dense: widths of the two layers that classify and refine a box.
        mask: channels of the layers that draw in a box.
        bases: edge lengths of the anchors in voxels.
        shapes: each base times each of these (z, y, x) is an anchor.
        normalised: each dense layer normalises its values before the ReLU, which the authors' do not. Of thousands of
            inputs that are never negative a few steps of Adam can otherwise push every value below zero at once, and
            then nothing ever learns there again.
    """

    classes: int
    widths: tuple[int, ...] = (24, 32, 64, 64, 64)
    fused: int = 128
    hidden: int = 64
    pooled: int = 6
    dense: tuple[int, ...] = (512, 256)
    mask: int = 64
    bases: tuple[float, ...] = PAPER_BASES
    shapes: tuple[tuple[float, ...], ...] = PAPER_SHAPES
    normalised: bool = False

    def __post_init__(self) -> None:
        if len(self.widths) != 5 or len(self.dense) != 2:
            raise BundleError("architecture: expected five widths and two dense layers")
        counts = (self.classes, *self.widths, self.fused, self.hidden, self.pooled, *self.dense, self.mask)
        if min(counts) < 1 or max(counts) > _MOST or self.pooled > 64:
            raise BundleError(f"architecture: numbers of channels out of bounds: {counts}")
        sizes = (*self.bases, *(side for shape in self.shapes for side in shape))
        if not self.bases or not self.shapes or any(len(shape) != 3 for shape in self.shapes):
            raise BundleError("architecture: expected bases, and shapes of three sides")
        if not 0 < min(sizes) <= max(sizes) < 1000 or len(self.bases) * len(self.shapes) > 100:
            raise BundleError(f"architecture: anchors out of bounds: {sizes}")

    @property
    def anchors(self) -> int:
        """At every voxel of the shared features."""
        return len(self.bases) * len(self.shapes)

    def to_dict(self) -> dict[str, Any]:
        """`normalised` is named where it is set, so that other bundles stay readable to earlier versions."""
        return {
            key: [list(v) if isinstance(v, tuple) else v for v in value]
            if isinstance(value, tuple)
            else value
            for key, value in asdict(self).items()
            if key != "normalised" or value
        }

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> RegionArchitecture:
        """Raises `BundleError` when a key is missing or unknown, or has the wrong type."""
        try:
            if set(data) | {"normalised"} != {f.name for f in fields(cls)}:
                raise ValueError(f"keys {sorted(data)}")
            if type(data.get("normalised", False)) is not bool:
                raise TypeError("normalised: true or false expected")
            whole = [data[k] for k in ("classes", "fused", "hidden", "pooled", "mask")]
            if any(type(n) is not int for n in (*whole, *data["widths"], *data["dense"])):
                raise TypeError("whole numbers expected")
            return cls(
                **{k: data[k] for k in ("classes", "fused", "hidden", "pooled", "mask")},
                widths=tuple(data["widths"]),
                dense=tuple(data["dense"]),
                bases=tuple(float(b) for b in data["bases"]),
                shapes=tuple(tuple(float(s) for s in shape) for shape in data["shapes"]),
                normalised=data.get("normalised", False),
            )
        except (KeyError, TypeError, ValueError, OverflowError) as error:
            raise BundleError(f"architecture description is not valid: {repr(error)[:200]}") from error
