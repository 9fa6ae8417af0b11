"""From a network's output to probabilities, as small whole numbers."""

from __future__ import annotations

import numpy as np

from soars.errors import EngineError
from soars.networks.names import Activation, Precision


def no_numbers(network: str, device: str, precision: Precision) -> EngineError:
    """The error for a network that gives NaN or infinity: taken as probabilities they would mean "no organ here"."""
    advice = (
        "the weights are damaged"
        if precision == "fp32"
        else "the weights are damaged, or overflow; choose --device cpu"
    )
    return EngineError(
        f"the {network} network gave values that are NaN or infinite on {device} in {precision}: {advice}"
    )


def fixed_point(logits: np.ndarray, activation: Activation, units: np.ndarray) -> np.ndarray:
    """Apply the activation to logits [channel, z, y, x] (overwritten), multiply by `units`, float32 [z, y, x], and
    round to uint16."""
    if activation == "softmax":
        logits -= logits.max(axis=0)
        np.exp(logits, out=logits)
        logits *= units / logits.sum(axis=0)
    elif activation == "sigmoid":
        np.clip(logits, -30, 30, out=logits)
        np.negative(logits, out=logits)
        np.exp(logits, out=logits)
        logits += 1
        np.divide(units, logits, out=logits)
    else:
        np.clip(logits, 0, 1, out=logits)
        logits *= units
    logits += np.float32(0.5)
    return logits.astype(np.uint16)
