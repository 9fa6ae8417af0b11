"""What a cohort's numbers suggest: a stratum for each organ, and windows for the memory at hand. A person decides."""

from __future__ import annotations

import math
import os
from collections.abc import Sequence
from dataclasses import dataclass

from soars.errors import InputError
from soars.networks.architecture import Architecture
from soars.networks.names import Branch

SMALL_CC = 3.0
"""The largest of the papers' small and hard organs, the optic nerves and inner ears, stay below it."""
CONTRAST_HU = 100.0
"""Bone and air stand out from their surroundings by more, soft tissues by less."""
BYTES_A_UNIT = 12.0
"""Kept for the gradient, per voxel and channel of a convolution with its norm and activation, under autocast: the
convolution's output and the copy for the next one in 16 bits, the norm's in 32, and as much again of one level while
its gradient is computed."""
BYTES_A_LOGIT = 24.0
"""The same of the output: logits, their logarithms and probabilities in 32 bits, and the gradients."""
STATE_BYTES = 20
"""A weight, its gradient, its average and the optimiser's two moments, in 32 bits."""
LARGEST_BATCH = 4


@dataclass(frozen=True)
class Window:
    """A training window (z, y, x) and batch, what they need in GB, and the size of a checkpoint in MB."""

    patch: tuple[int, int, int]
    batch: int
    memory_gb: float
    checkpoint_mb: float


def propose_stratum(median_cc: float, contrast_hu: float) -> tuple[Branch, str]:
    """The stratum that volume and contrast suggest, and why (SOARS, CVPR 2020, section 3: anchors have high contrast,
    small and hard organs are very small; the papers' own were chosen by clinicians).

    `contrast_hu` is the organ's median HU minus that of its surroundings.
    """
    if median_cc < SMALL_CC:
        return "small_hard", f"{median_cc:.2g} cc are less than {SMALL_CC:g}"
    if abs(contrast_hu) >= CONTRAST_HU:
        return "anchor", f"{abs(contrast_hu):.0f} HU from its surroundings"
    return "mid_level", f"only {abs(contrast_hu):.0f} HU from its surroundings"


def training_gb(architecture: Architecture, patch: Sequence[int], batch: int) -> float:
    """What a step of training needs, without the cases."""
    voxels = math.prod(patch) * batch
    kept = sum(shape.share * shape.out_channels * shape.units for shape in architecture.shapes())
    state = weights(architecture) * STATE_BYTES
    return (voxels * (kept * BYTES_A_UNIT + architecture.out_channels * BYTES_A_LOGIT) + state) / 1e9


def weights(architecture: Architecture) -> int:
    """About how many weights a network has: those of its blocks' convolutions."""
    taps = {"2d": lambda k: k * k, "3d": lambda k: k**3, "p3d": lambda k: k * k + k}
    total = 0
    for shape, block in zip(architecture.shapes(), architecture.blocks, strict=True):
        kind, width = block.split("_k")
        pairs = shape.out_channels * (shape.in_channels + (shape.units - 1) * shape.out_channels)
        total += pairs * taps[kind](int(width))
    return total


def propose_window(size: Sequence[int], architecture: Architecture, memory_gb: float) -> Window:
    """The largest window that fits: it grows along the axis of which it covers the smallest share of a scan of `size`
    voxels (z, y, x) until it covers the scan or the memory is used; then the batch grows.

    Raises `InputError` when not even the smallest window that the network can halve fits.
    """
    step = architecture.divisor
    patch = [2 * d if n > d else d for n, d in zip(size, step, strict=True)]
    if training_gb(architecture, patch, 1) > memory_gb:
        raise InputError(
            f"{memory_gb:.2g} GB are too few to train a network of {'-'.join(map(str, architecture.features))} channels"
        )
    while True:
        shares = [p / n if p < n else math.inf for p, n in zip(patch, size, strict=True)]
        order = sorted(range(3), key=lambda axis: shares[axis])
        grown = next((g for axis in order if (g := _grown(patch, axis, step, shares)) is not None
                      and training_gb(architecture, g, 1) <= memory_gb), None)  # fmt: skip
        if grown is None:
            break
        patch = grown
    batch = 1
    while batch < LARGEST_BATCH and training_gb(architecture, patch, batch + 1) <= memory_gb:
        batch += 1
    z, y, x = patch
    checkpoint = weights(architecture) * 4 * 4 / 1e6
    return Window((z, y, x), batch, training_gb(architecture, patch, batch), checkpoint)


def physical_memory_gb() -> float:
    """This computer's memory; 8 where it cannot be asked for."""
    try:
        return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 1e9
    except (AttributeError, ValueError, OSError):
        return 8.0


def _grown(patch: Sequence[int], axis: int, step: Sequence[int], shares: Sequence[float]) -> list[int] | None:
    if math.isinf(shares[axis]):
        return None
    return [p + (step[axis] if a == axis else 0) for a, p in enumerate(patch)]
