"""What runs a network: the contract of an engine, and the choice between torch and onnxruntime.

``auto`` chooses the fastest on the machine: torch on a CUDA device; for a large network torch on a CPU with bfloat16
units (AMX or AVX512-BF16), where a window of a 31 M parameter U-Net takes 0.7 s instead of 2.0 s; else onnxruntime on
the CPU, or torch in float32 where there is no onnxruntime. A small network gains little from bfloat16, and in float32
both engines give the same contours on every machine: on a real CT 99.96 % of the voxels that either calls organ are
the same (bfloat16: 99.7 %). Where networks stay open for many CTs, a small network runs in float32 on torch, if it is
there: it computes up to a third faster, but takes two seconds to start. The choice and its reason are part of every
result.
An engine or device requested by name is used or refused, never replaced.
"""

from __future__ import annotations

import importlib.metadata
import importlib.util
import logging
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Protocol

import numpy as np

from soars.bundle.integrity import read_weights
from soars.bundle.manifest import Bundle
from soars.devices import EXPECTED, card_number, is_card, is_device
from soars.errors import EngineError
from soars.networks.architecture import Architecture
from soars.networks.names import (
    ENGINE_CHOICES,
    Branch,
    EngineName,
    Precision,
    WeightKind,
)

log = logging.getLogger(__name__)

WEIGHTS: Mapping[EngineName, WeightKind] = {"torch": "safetensors", "onnxruntime": "onnx"}
"""Which of a bundle's weight files an engine reads."""
LARGE_NETWORK = 100_000
"""Multiplications per voxel from which a network is worth bfloat16 (nnU-Net's usual one has 215,000)."""


@dataclass(frozen=True)
class EngineInfo:
    """What ran the networks: ``engine`` "torch" or "onnxruntime" (with version), ``device`` "cpu", "cuda" or "cuda:1",
    ``precision`` "fp32", "bf16" or "fp16", ``reason`` why, in words for the report."""

    engine: EngineName
    device: str
    precision: Precision
    reason: str


class Engine(Protocol):
    """One network, ready to run."""

    def run(self, window: np.ndarray) -> np.ndarray:
        """Logits or heat maps, float32 [out_channels, z, y, x], of a window, float32 [1, in_channels, z, y, x]."""

    def run_fixed(self, window: np.ndarray, units: np.ndarray) -> np.ndarray:
        """Probabilities (or heat maps, cut to [0, 1]) times `units`, rounded: uint16 [out_channels, z, y, x].

        Args:
            window: as for `run`.
            units: float32 [z, y, x], the value of a probability of 1 at each voxel; at most 65535.

        Both raise `EngineError` when the network fails or gives values that are NaN or infinite.
        """


def choose_engine(
    bundle: Bundle,
    branches: Iterable[Branch],
    *,
    engine: str = "auto",
    device: str = "auto",
    many: bool = False,
) -> EngineInfo:
    """Decide what runs these branches of the bundle; ``many`` where they stay open for many CTs.

    Raises `EngineError` when an engine or device asked for is not there, when the bundle has no weights for the engine,
    or when no engine can be used.
    """
    if engine not in ENGINE_CHOICES:
        raise EngineError(f"unknown engine {engine!r}; choose one of {', '.join(ENGINE_CHOICES)}")
    if not is_device(device):
        raise EngineError(f"unknown device {device!r}; choose {EXPECTED}")
    names = list(branches)
    refused: dict[EngineName, str] = {}
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
    large = any(multiplications(bundle.branches[b].architecture) >= LARGE_NETWORK for b in names)
    chosen = _choose(usable, device, refused, large, many)
    log.info("engine %s on %s in %s: %s", chosen.engine, chosen.device, chosen.precision, chosen.reason)
    return chosen


def open_engine(
    bundle: Bundle,
    branch: Branch,
    info: EngineInfo,
    threads: int | None = None,
    cancelled: Callable[[], bool] = lambda: False,
) -> Engine:
    """The branch's network on the engine; raises `EngineError` or `BundleError` when its weights cannot be used.

    ``cancelled`` is checked also while a window is computed: at every layer (torch) or operator (onnxruntime).
    """
    spec = bundle.branches[branch]
    weights = read_weights(bundle, branch, WEIGHTS[info.engine])
    if info.engine == "torch":
        from soars.cascade.torch_engine import TorchEngine

        return TorchEngine(
            weights, spec, device=info.device, precision=info.precision, threads=threads, cancelled=cancelled
        )
    from soars.cascade.onnx_engine import OnnxEngine

    return OnnxEngine(weights, spec, device=info.device, threads=threads, cancelled=cancelled)


class OpenEngines:
    """Networks that stay open, so that many CTs load each of them once. They keep the memory of all of them together.

    `open` takes what `open_engine` takes. A network that is open already goes on asking the ``cancelled`` that it was
    opened with: give all runs the same.
    """

    def __init__(self) -> None:
        self._open: dict[tuple[object, ...], Engine] = {}

    def open(
        self,
        bundle: Bundle,
        branch: Branch,
        info: EngineInfo,
        threads: int | None = None,
        cancelled: Callable[[], bool] = lambda: False,
    ) -> Engine:
        key = (bundle.sha256, branch, info.engine, info.device, info.precision, threads)
        if key not in self._open:
            self._open[key] = open_engine(bundle, branch, info, threads, cancelled)
        return self._open[key]


def multiplications(architecture: Architecture) -> float:
    """Multiplications of a network per voxel of its window, the transposed convolutions left out."""
    return sum(
        shape.share
        * shape.out_channels
        * (shape.in_channels + (shape.units - 1) * shape.out_channels)
        * _taps(block)
        for shape, block in zip(architecture.shapes(), architecture.blocks, strict=True)
    )


def _taps(block: str) -> int:
    """Weights of a block's kernel for one pair of channels."""
    kind, width = block.split("_k")
    k = int(width)
    return {"2d": k * k, "3d": k**3, "p3d": k * k + k}[kind]


def _choose(
    usable: list[EngineName], device: str, refused: dict[EngineName, str], large: bool, many: bool
) -> EngineInfo:
    card, number = device if is_card(device) else "cuda", card_number(device)
    if "torch" not in usable:
        why = refused.get("torch", "onnxruntime was requested")
        if device != "cpu" and _onnx_cuda(number):
            return EngineInfo("onnxruntime", card, "fp32", f"{why}; onnxruntime finds a CUDA device")
        if is_card(device):
            raise EngineError(
                f"device {device} cannot be used: {why}, and onnxruntime finds no such CUDA device; "
                "choose --device cpu or auto"
            )
        return EngineInfo("onnxruntime", "cpu", "fp32", why)
    cuda = _torch_cuda_problem(number) if device != "cpu" else "the CPU was requested"
    if cuda is None:
        return EngineInfo("torch", card, "fp16", "torch finds a CUDA device")
    if is_card(device):
        if "onnxruntime" in usable and _onnx_cuda(number):
            return EngineInfo("onnxruntime", card, "fp32", f"CUDA was requested; torch: {cuda}")
        raise EngineError(f"device {device} cannot be used: {cuda}; choose --device cpu or auto")
    if large and _cpu_has_bf16():
        return EngineInfo(
            "torch", "cpu", "bf16", f"{cuda}; the network is large and the processor computes in bfloat16"
        )
    why = "the processor has no bfloat16 units" if large else "the network is small: float32 is fast enough"
    if many:
        return EngineInfo("torch", "cpu", "fp32", f"{cuda}; {why}; many CTs, for which torch starts once")
    if "onnxruntime" in usable:
        return EngineInfo("onnxruntime", "cpu", "fp32", f"{cuda}; {why}")
    return EngineInfo(
        "torch", "cpu", "fp32", f"{cuda}; {why}; {refused.get('onnxruntime', 'torch was requested')}"
    )


def _torch_cuda_problem(number: int) -> str | None:
    """Why torch cannot use this CUDA device here, or None.

    A CPU build says so in its version, without the seconds of an import.
    """
    try:
        if importlib.metadata.version("torch").endswith("+cpu"):
            return "the installed torch is a CPU build"
    except importlib.metadata.PackageNotFoundError:
        pass
    from soars.cascade.torch_engine import cuda_problem

    return cuda_problem(number)


def _cpu_has_bf16() -> bool:
    from soars.cascade.torch_engine import cpu_has_bf16

    return cpu_has_bf16()


def _onnx_cuda(number: int) -> bool:
    from soars.cascade import onnx_engine

    return onnx_engine.has_cuda(number)
