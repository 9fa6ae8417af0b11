"""From what a network puts out to probabilities, as small whole numbers."""

from __future__ import annotations

import numpy as np


def fixed_point(logits: np.ndarray, activation: str, unit: int) -> np.ndarray:
    """Apply the activation to logits [channel, z, y, x] (overwritten) and round to uint16 multiples of 1 / `unit`."""
    if activation == "softmax":
        logits -= logits.max(axis=0)
        np.exp(logits, out=logits)
        logits *= np.float32(unit) / logits.sum(axis=0)
    elif activation == "sigmoid":
        np.clip(logits, -30, 30, out=logits)
        np.negative(logits, out=logits)
        np.exp(logits, out=logits)
        logits += 1
        np.divide(np.float32(unit), logits, out=logits)
    else:
        np.clip(logits, 0, 1, out=logits)
        logits *= np.float32(unit)
    logits += np.float32(0.5)
    return logits.astype(np.uint16)
