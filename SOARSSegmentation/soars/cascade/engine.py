"""What runs a network: the contract of an engine, and the choice between torch and onnxruntime.

``auto`` takes, in this order, what is fastest on the machine: torch on a CUDA device; torch on a CPU with bfloat16
units (AMX or AVX512-BF16), where it needs a quarter of onnxruntime's time for a large network and the same few
seconds for a small one; else onnxruntime on the CPU; else torch in float32. The choice and its reason are part of
every result.
An engine or device that was asked for by name is used or refused, never replaced.
"""

from __future__ import annotations

import importlib.util
import logging
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Protocol

import numpy as np

from soars.errors import EngineError
from soars.manifest import Bundle

log = logging.getLogger(__name__)

DEVICES = ("auto", "cpu", "cuda")
ENGINES = ("auto", "torch", "onnxruntime")
WEIGHTS = {"torch": "safetensors", "onnxruntime": "onnx"}
"""Which of a bundle's weight files an engine reads."""


@dataclass(frozen=True)
class EngineInfo:
    """What ran the networks: ``engine`` "torch" or "onnxruntime" (with version), ``device`` "cpu" or "cuda",
    ``precision`` "fp32", "bf16" or "fp16", ``reason`` why, in words for the report."""

    engine: str
    device: str
    precision: str
    reason: str


class Engine(Protocol):
    """One network, ready to run."""

    def run(self, window: np.ndarray) -> np.ndarray:
        """Logits or heat maps, float32 [out_channels, z, y, x], of a window, float32 [1, in_channels, z, y, x]."""

    def run_fixed(self, window: np.ndarray, unit: int) -> np.ndarray:
        """Probabilities (or heat maps, cut to [0, 1]) as uint16 multiples of 1 / `unit`, [out_channels, z, y, x]."""


def choose_engine(
    bundle: Bundle, branches: Iterable[str], *, engine: str = "auto", device: str = "auto"
) -> EngineInfo:
    """Decide what runs these branches of the bundle.

    Raises `EngineError` when an engine or device asked for is not there, when the bundle has no weights for the engine,
    or when no engine can be used.
    """
    if engine not in ENGINES:
        raise EngineError(f"unknown engine {engine!r}; choose one of {', '.join(ENGINES)}")
    if device not in DEVICES:
        raise EngineError(f"unknown device {device!r}; choose one of {', '.join(DEVICES)}")
    names = list(branches)
    refused: dict[str, str] = {}
    for candidate in WEIGHTS:
        missing = [b for b in names if WEIGHTS[candidate] not in bundle.branches[b].files]
        if importlib.util.find_spec(candidate) is None:
            refused[candidate] = f"{candidate} is not installed"
        elif candidate == "torch" and importlib.util.find_spec("safetensors") is None:
            refused[candidate] = "safetensors, which the torch engine reads weights with, is not installed"
        elif missing:
            refused[candidate] = (
                f"bundle {bundle.name} has no {WEIGHTS[candidate]} weights for {', '.join(missing)}"
            )
    if engine != "auto" and engine in refused:
        raise EngineError(f"engine {engine} cannot be used: {refused[engine]}")
    usable = [e for e in WEIGHTS if e not in refused and engine in ("auto", e)]
    if not usable:
        raise EngineError(
            f"no engine can run bundle {bundle.name}: {'; '.join(refused.values())}; "
            "install onnxruntime (pip install onnxruntime)"
        )
    chosen = _choose(usable, device, refused)
    log.info("engine %s on %s in %s: %s", chosen.engine, chosen.device, chosen.precision, chosen.reason)
    return chosen


def open_engine(bundle: Bundle, branch: str, info: EngineInfo, threads: int | None = None) -> Engine:
    """The branch's network on the engine; raises `EngineError` or `BundleError` when its weights cannot be used."""
    spec = bundle.branches[branch]
    path = bundle.weights(branch, WEIGHTS[info.engine])
    if info.engine == "torch":
        from soars.cascade.torch_engine import TorchEngine

        return TorchEngine(path, spec, device=info.device, precision=info.precision, threads=threads)
    from soars.cascade.onnx_engine import OnnxEngine

    return OnnxEngine(path, spec, device=info.device, threads=threads)


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


def _choose(usable: list[str], device: str, refused: dict[str, str]) -> EngineInfo:
    if "torch" in usable:
        from soars.cascade import torch_engine

        cuda = torch_engine.cuda_problem() if device != "cpu" else "the CPU was asked for"
        if cuda is None:
            return EngineInfo("torch", "cuda", "fp16", "torch finds a CUDA device")
        if device == "cuda":
            if "onnxruntime" in usable and _onnx_cuda():
                return EngineInfo("onnxruntime", "cuda", "fp32", f"CUDA was asked for; torch: {cuda}")
            raise EngineError(f"device cuda cannot be used: {cuda}; choose --device cpu or auto")
        if torch_engine.cpu_has_bf16():
            return EngineInfo("torch", "cpu", "bf16", f"{cuda}; the processor computes in bfloat16")
        if "onnxruntime" not in usable:
            why = refused.get("onnxruntime", "torch was asked for")
            return EngineInfo("torch", "cpu", "fp32", f"{cuda}; the processor has no bfloat16 units; {why}")
        return EngineInfo("onnxruntime", "cpu", "fp32", f"{cuda}; the processor has no bfloat16 units")
    why = refused.get("torch", "onnxruntime was asked for")
    if device != "cpu" and _onnx_cuda():
        return EngineInfo("onnxruntime", "cuda", "fp32", f"{why}; onnxruntime finds a CUDA device")
    if device == "cuda":
        raise EngineError(
            f"device cuda cannot be used: {why}, and onnxruntime has no CUDA provider here; choose --device cpu or auto"
        )
    return EngineInfo("onnxruntime", "cpu", "fp32", why)


def _onnx_cuda() -> bool:
    from soars.cascade import onnx_engine

    return onnx_engine.has_cuda()
