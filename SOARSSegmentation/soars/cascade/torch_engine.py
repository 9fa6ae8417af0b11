"""The torch engine: CUDA in float16, CPUs in bfloat16 where the processor has units for it, else float32."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors import SafetensorError
from safetensors.torch import load_file

from soars.errors import BundleError, EngineError
from soars.manifest import BranchSpec
from soars.networks.unet import UNet


class TorchEngine:
    """A branch's U-Net with the weights of a safetensors file.

    In reduced precision the last layer stays in float32: rounding the logits themselves would move contours most.

    Raises `BundleError` when the weights are not those of the architecture, `EngineError` when the device fails.
    """

    def __init__(
        self,
        path: Path,
        spec: BranchSpec,
        *,
        device: str = "cpu",
        precision: str = "fp32",
        threads: int | None = None,
    ) -> None:
        if threads:
            torch.set_num_threads(threads)
        self._spec, self._device, self._precision = spec, torch.device(device), precision
        with torch.device("meta"):
            network = UNet(spec.architecture)
        try:
            network.load_state_dict(load_file(path), assign=True)
        except (SafetensorError, OSError) as error:
            raise BundleError(f"{path}: not a readable safetensors file: {error}") from error
        except RuntimeError as error:
            raise BundleError(
                f"{path}: these weights are not those of branch {spec.name}: {_brief(error)}"
            ) from error
        network.eval().requires_grad_(False)
        self._dtype = {"fp32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}[precision]
        try:
            network.to(self._device, self._dtype, memory_format=torch.channels_last_3d)  # type: ignore[call-overload]
        except RuntimeError as error:
            raise EngineError(f"torch cannot use the device {device}: {_brief(error)}") from error
        if self._dtype != torch.float32:
            network.head.float()
            network.head.register_forward_pre_hook(_in_float32)
        self._network = network

    def run(self, window: np.ndarray) -> np.ndarray:
        """See `soars.cascade.engine.Engine.run`."""
        with torch.inference_mode():
            return self._forward(window).cpu().numpy()

    def run_fixed(self, window: np.ndarray, unit: int) -> np.ndarray:
        """See `soars.cascade.engine.Engine.run_fixed`."""
        with torch.inference_mode():
            logits = self._forward(window)
            if self._spec.activation == "softmax":
                values = torch.softmax(logits, dim=0)
            else:
                values = logits.sigmoid_() if self._spec.activation == "sigmoid" else logits.clamp_(0, 1)
            return values.mul_(unit).add_(0.5).to(torch.uint16).contiguous().cpu().numpy()

    def _forward(self, window: np.ndarray) -> torch.Tensor:
        array = torch.from_numpy(np.ascontiguousarray(window, dtype=np.float32))
        array = array.to(self._device, self._dtype).contiguous(memory_format=torch.channels_last_3d)
        try:
            return self._network(array)[0].float()
        except torch.OutOfMemoryError as error:
            raise EngineError(
                f"the {self._device.type} device ran out of memory on branch {self._spec.name}; "
                "close other programs that use it, or choose --device cpu"
            ) from error


def cuda_problem() -> str | None:
    """Why torch cannot use CUDA here, or None when it can."""
    if torch.version.cuda is None:
        return "the installed torch is a CPU build"
    if not torch.cuda.is_available():
        return "torch finds no CUDA device"
    return None


def cpu_has_bf16() -> bool:
    """Whether the processor multiplies bfloat16 matrices in hardware (AMX or AVX512-BF16)."""
    tests = (
        getattr(torch.cpu, name, None) for name in ("_is_amx_tile_supported", "_is_avx512_bf16_supported")
    )
    return any(test is not None and test() for test in tests)


def _in_float32(module: torch.nn.Module, inputs: tuple[Any, ...]) -> tuple[torch.Tensor]:
    return (inputs[0].float(),)


def _brief(error: BaseException) -> str:
    return " ".join(str(error).split())[:300]
