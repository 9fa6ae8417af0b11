"""The torch engine: CUDA in float16, CPUs in bfloat16 where the processor has units for it, else float32."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial

import numpy as np
import torch
from safetensors import SafetensorError
from safetensors.torch import load

from soars.bundle.integrity import Weights
from soars.bundle.manifest import BranchSpec
from soars.cascade.activations import fixed_point, no_numbers
from soars.errors import BundleError, CancelledError, EngineError
from soars.networks.build import build
from soars.networks.names import Precision
from soars.networks.unet import UNet

_CHUNK = 1 << 18
"""Voxels whose logits are in memory at once."""


class TorchEngine:
    """A branch's network with the weights of a safetensors file.

    A U-Net's last layer, a 1 x 1 x 1 convolution, is taken as a matrix product over the channels-last features, in
    float32 also where the rest runs in less: rounding the logits themselves would move contours most, and torch has no
    fast path for such a convolution. A P-HNN adds its side outputs up in float32 itself.

    Raises `BundleError` when the weights are not those of the architecture, `EngineError` when the device fails.
    """

    def __init__(
        self,
        weights: Weights,
        spec: BranchSpec,
        *,
        device: str = "cpu",
        precision: Precision = "fp32",
        threads: int | None = None,
        cancelled: Callable[[], bool] = lambda: False,
    ) -> None:
        if threads:
            torch.set_num_threads(threads)
        self._spec, self._device, self._precision = spec, torch.device(device), precision
        with torch.device("meta"):
            network = build(spec.architecture)
        try:
            network.load_state_dict(load(weights.data), assign=True)
        except SafetensorError as error:
            raise BundleError(f"{weights.path}: not a readable safetensors file: {error}") from error
        except RuntimeError as error:
            raise BundleError(
                f"{weights.path}: these weights are not those of branch {spec.name}: {_brief(error)}"
            ) from error
        network.eval().requires_grad_(False)
        self._dtype = {"fp32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}[precision]
        try:
            network.to(self._device, self._dtype, memory_format=torch.channels_last_3d)  # type: ignore[call-overload]
        except RuntimeError as error:
            raise EngineError(f"torch cannot use the device {device}: {_brief(error)}") from error
        channels = spec.architecture.out_channels
        if isinstance(network, UNet):
            assert network.head.bias is not None
            self._weight = network.head.weight.reshape(channels, -1).float()
            self._bias = network.head.bias.float()[:, None]
            network.head = torch.nn.Identity()  # type: ignore[assignment]
        else:
            network.sides.float()
            self._weight = torch.eye(channels, device=self._device)
            self._bias = torch.zeros(channels, 1, device=self._device)
        if (
            self._device.type == "cpu"
            and self._dtype == torch.float32
            and torch.backends.mkldnn.is_available()
        ):
            convolve_by_onednn(network)
        self._network = network
        stop_between_layers(network, cancelled)

    def run(self, window: np.ndarray) -> np.ndarray:
        """See `soars.cascade.engine.Engine.run`."""
        return self._run(window, torch.float32, lambda logits, _slices: logits)

    def run_fixed(self, window: np.ndarray, units: np.ndarray) -> np.ndarray:
        """See `soars.cascade.engine.Engine.run_fixed`."""
        activation = {
            "softmax": lambda logits: torch.softmax(logits, dim=0),
            "sigmoid": torch.sigmoid_,
            "heatmap": lambda logits: logits.clamp_(0, 1),
        }[self._spec.activation]
        scale = torch.from_numpy(units).to(self._device)

        def fixed(logits: torch.Tensor, slices: slice) -> torch.Tensor:
            return activation(logits).mul_(scale[slices].reshape(1, -1)).add_(0.5)

        return self._run(window, torch.uint16, fixed)

    def _run(
        self, window: np.ndarray, dtype: torch.dtype, activate: Callable[[torch.Tensor, slice], torch.Tensor]
    ) -> np.ndarray:
        """The network without its last layer, then that layer and the activation some slices at a time."""
        array = torch.from_numpy(np.ascontiguousarray(window, dtype=np.float32))
        channels, (depth, *plane) = len(self._weight), window.shape[2:]
        try:
            with torch.inference_mode():
                array = array.to(self._device, self._dtype).contiguous(memory_format=torch.channels_last_3d)
                features = self._network(array)[0].permute(1, 2, 3, 0)
                out = torch.empty((channels, *window.shape[2:]), dtype=dtype, device=self._device)
                slices = max(1, _CHUNK // (plane[0] * plane[1]))
                for start in range(0, depth, slices):
                    some = slice(start, start + slices)
                    part = features[some]
                    voxels = part.reshape(-1, part.shape[-1]).float()
                    # Classes are rows: a softmax within the rows of [voxels, classes] takes ten times as long.
                    logits = torch.addmm(self._bias, self._weight, voxels.t())
                    if not torch.isfinite(logits.sum()):
                        raise no_numbers(self._spec.name, self._device.type, self._precision)
                    out[:, some] = activate(logits, some).to(dtype).reshape(channels, *part.shape[:3])
                return out.cpu().numpy()
        except RuntimeError as error:
            raise failed(error, f"branch {self._spec.name}", self._device.type) from error


@dataclass(frozen=True)
class NetworkEngine:
    """A network that is in memory already, as an engine: for training, and for systems that build their own."""

    network: torch.nn.Module
    spec: BranchSpec
    device: torch.device
    precision: torch.dtype

    def run(self, window: np.ndarray) -> np.ndarray:
        inputs = torch.from_numpy(np.ascontiguousarray(window, dtype=np.float32)).to(self.device)
        exact = self.precision == torch.float32
        try:
            with torch.no_grad(), torch.autocast(self.device.type, self.precision, not exact):
                result = self.network(inputs)[0].float().cpu().numpy()
        except RuntimeError as error:
            raise failed(error, f"branch {self.spec.name}", self.device.type) from error
        if not np.isfinite(result.sum(dtype=np.float64)):
            raise no_numbers(self.spec.name, self.device.type, _NAME_OF[self.precision])
        return result

    def run_fixed(self, window: np.ndarray, units: np.ndarray) -> np.ndarray:
        return fixed_point(self.run(window), self.spec.activation, units)


_NAME_OF: Mapping[torch.dtype, Precision] = {torch.float32: "fp32", torch.bfloat16: "bf16"}


def failed(error: RuntimeError, network: str, device: str) -> EngineError:
    """What torch reported while it ran a network (a branch's, or a system's own), as an error for the user."""
    if isinstance(error, torch.OutOfMemoryError):
        return EngineError(
            f"the {device} device ran out of memory on {network}; "
            "close other programs that use it, or choose --device cpu"
        )
    return EngineError(f"torch failed on {network} ({device}): {_brief(error)}")


def convolve_by_onednn(network: torch.nn.Module) -> None:
    """Have every 3D convolution of a float32 network on the CPU run in oneDNN, also those of the coarse levels.

    For one small window torch takes a slower way of its own (its `use_mkldnn` wants 20480 channels times slices times
    rows), which costs a small network a quarter of its time.
    """
    for layer in network.modules():
        if type(layer) is torch.nn.Conv3d:
            layer.forward = partial(_convolved, layer)  # type: ignore[method-assign]


def _convolved(layer: torch.nn.Conv3d, values: torch.Tensor) -> torch.Tensor:
    assert not isinstance(layer.padding, str)
    found: torch.Tensor = torch.mkldnn_convolution(
        values, layer.weight, layer.bias, layer.padding, layer.stride, layer.dilation, layer.groups
    )
    return found


def stop_between_layers(network: torch.nn.Module, cancelled: Callable[[], bool]) -> None:
    """Let the network ask ``cancelled`` before each of its layers, and raise `CancelledError` when it says so: a window
    of a large network takes many seconds on a slow computer."""

    def check(*_: object) -> None:
        if cancelled():
            raise CancelledError("cancelled; nothing was written")

    for layer in network.modules():
        if not any(layer.children()):
            layer.register_forward_pre_hook(check)


def cuda_problem(number: int = 0) -> str | None:
    """Why torch cannot use this CUDA device here, or None when it can."""
    if torch.version.cuda is None:
        return "the installed torch is a CPU build"
    if not torch.cuda.is_available():
        return "torch finds no CUDA device"
    there = torch.cuda.device_count()
    if number >= there:
        return f"torch finds {there} CUDA device{'s' * (there > 1)}, the last of them cuda:{there - 1}"
    return None


def cpu_has_bf16() -> bool:
    """Whether the processor multiplies bfloat16 matrices in hardware (AMX or AVX512-BF16)."""
    tests = (
        getattr(torch.cpu, name, None) for name in ("_is_amx_tile_supported", "_is_avx512_bf16_supported")
    )
    return any(test is not None and test() for test in tests)


def _brief(error: BaseException) -> str:
    return " ".join(str(error).split())[:300]
