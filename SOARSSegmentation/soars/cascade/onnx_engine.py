"""The onnxruntime engine: float32, no torch needed."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from concurrent.futures import TimeoutError as NotYet
from typing import Any

import numpy as np
import onnxruntime

from soars.bundle.integrity import Weights
from soars.bundle.manifest import BranchSpec
from soars.cascade.activations import fixed_point, no_numbers
from soars.devices import card_number, is_card
from soars.errors import BundleError, CancelledError, EngineError

onnxruntime.disable_telemetry_events()  # in addition to the variable that `soars` sets, which older versions ignore

_FATAL = 4
"""Anything less than fatal is raised as an exception as well, and need not be printed, too."""
POLL_S = 0.1
"""How often a running network checks whether it was cancelled."""


class OnnxSession:
    """A network in an onnxruntime session: float32 [batch, channel, z, y, x] in, the same out.

    Raises `BundleError` when the file is not such a network with this many input channels, `EngineError` when the
    device fails. ``title`` names the network in messages: "branch anchor".
    """

    def __init__(
        self,
        weights: Weights,
        channels: int,
        title: str,
        *,
        device: str = "cpu",
        threads: int | None = None,
        cancelled: Callable[[], bool] = lambda: False,
    ) -> None:
        options = onnxruntime.SessionOptions()
        # Spinning worker threads slow down everything else in the process, including SimpleITK and numpy.
        options.add_session_config_entry("session.intra_op.allow_spinning", "0")
        # Not the other format, whose references to files are not checked.
        options.add_session_config_entry("session.load_model_format", "ONNX")
        options.log_severity_level = _FATAL
        if threads:
            options.intra_op_num_threads = threads
        card = is_card(device)
        provider = "CUDAExecutionProvider" if card else "CPUExecutionProvider"
        chosen = (provider, {"device_id": card_number(device)}) if card else provider
        path = weights.path
        _give_files(options, weights)
        try:
            self._session = onnxruntime.InferenceSession(weights.data, options, providers=[chosen])
        except Exception as error:  # onnxruntime's own exceptions share no base class
            raise BundleError(
                f"{path}: onnxruntime cannot load this network: {_first_line(error)}"
            ) from error
        if provider not in self._session.get_providers():
            raise EngineError(f"onnxruntime could not start on the device {device}; choose --device cpu")
        inputs, outputs = self._session.get_inputs(), self._session.get_outputs()
        tensors = all(one.type.startswith("tensor(") for one in (*inputs, *outputs))
        if len(inputs) != 1 or len(outputs) != 1 or not tensors or len(inputs[0].shape) != 5:
            raise BundleError(f"{path}: expected one input [batch, channel, z, y, x] and one output")
        there = inputs[0].shape[1]
        if isinstance(there, int) and there != channels:
            raise BundleError(f"{path}: takes {there} channels, but {title} has {channels}")
        self.path, self._title, self._device = path, title, device
        self._input = inputs[0].name
        self._cancelled = cancelled
        self._worker = ThreadPoolExecutor(1, thread_name_prefix="soars-onnx")

    def run(self, window: np.ndarray, expected: tuple[int, ...]) -> np.ndarray:
        """The output for a window; raises `BundleError` for one of another shape, `EngineError` when the network fails
        or gives values that are NaN or infinite, `CancelledError`."""
        try:
            output = self._run_stoppable({self._input: np.ascontiguousarray(window, dtype=np.float32)})
        except CancelledError:
            raise
        except Exception as error:
            raise EngineError(
                f"onnxruntime failed on {self._title} ({self._device}): {_first_line(error)}"
            ) from error
        if output.shape != expected:
            raise BundleError(f"{self.path}: gave an output of shape {output.shape}, expected {expected}")
        result = np.asarray(output, dtype=np.float32)
        if not np.isfinite(result.sum(dtype=np.float64)):
            raise no_numbers(self._title.removeprefix("branch "), self._device, "fp32")
        return result

    def _run_stoppable(self, inputs: Mapping[str, np.ndarray]) -> Any:
        """The network's output, computed on another thread: a cancel, or a signal to this one, stops it at the next
        operator, also within a loop of the graph that would never end."""
        options = onnxruntime.RunOptions()
        options.log_severity_level = _FATAL
        future = self._worker.submit(self._session.run, None, inputs, options)
        try:
            while True:
                try:
                    return future.result(timeout=POLL_S)[0]
                except NotYet:
                    if self._cancelled():
                        raise CancelledError("cancelled; nothing was written") from None
        except BaseException:
            options.terminate = True
            raise


class OnnxEngine:
    """A branch's ONNX file in an onnxruntime session.

    Raises `BundleError` when the file is not a network of the branch's channels, `EngineError` when the device fails.
    """

    def __init__(
        self,
        weights: Weights,
        spec: BranchSpec,
        *,
        device: str = "cpu",
        threads: int | None = None,
        cancelled: Callable[[], bool] = lambda: False,
    ) -> None:
        self._spec = spec
        self._session = OnnxSession(
            weights,
            spec.architecture.in_channels,
            f"branch {spec.name}",
            device=device,
            threads=threads,
            cancelled=cancelled,
        )

    def run(self, window: np.ndarray) -> np.ndarray:
        """See `soars.cascade.engine.Engine.run`."""
        return self._session.run(window, (1, self._spec.architecture.out_channels, *window.shape[2:]))[0]

    def run_fixed(self, window: np.ndarray, units: np.ndarray) -> np.ndarray:
        """See `soars.cascade.engine.Engine.run_fixed`."""
        return fixed_point(self.run(window), self._spec.activation, units)


def has_cuda(number: int = 0) -> bool:
    """Whether this onnxruntime was built for CUDA and finds a device of this number."""
    if "CUDAExecutionProvider" not in onnxruntime.get_available_providers():
        return False
    try:
        devices = onnxruntime.get_ep_devices()
    except (AttributeError, RuntimeError):
        return True
    return sum(device.ep_name == "CUDAExecutionProvider" for device in devices) > number


def _give_files(options: onnxruntime.SessionOptions, weights: Weights) -> None:
    """Let the session take the files that the graph refers to from memory, where their hashes were checked."""
    if not weights.external:
        return
    if not hasattr(options, "add_external_initializers_from_files_in_memory"):
        raise EngineError(
            f"{weights.path}: keeps weights in other files, for which this onnxruntime is too old; update it "
            "(pip install --upgrade onnxruntime)"
        )
    names, contents = list(weights.external), list(weights.external.values())
    options.add_external_initializers_from_files_in_memory(names, contents, [len(c) for c in contents])


def _first_line(error: BaseException) -> str:
    return (str(error).splitlines() or [type(error).__name__])[0]
