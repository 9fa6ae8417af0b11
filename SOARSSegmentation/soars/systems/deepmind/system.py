"""Running a bundle of DeepMind's U-Net (Nikolov et al., J Med Internet Res 2021)."""

from __future__ import annotations

import importlib.util
from collections.abc import Collection, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import scipy

from soars.bundle.fields import get_field, get_text
from soars.bundle.integrity import read_network
from soars.cascade.activations import no_numbers
from soars.cascade.engine import EngineInfo
from soars.errors import BundleError, EngineError
from soars.networks.names import EngineName
from soars.networks.slices import SliceArchitecture
from soars.systems.deepmind.slabs import RunSlab, probabilities, window_yx
from soars.systems.interface import Needs, SegmentOptions
from soars.systems.trained import Finder, Found, Step, TrainedSystem

if TYPE_CHECKING:
    import torch

NAME = "deepmind"
SLAB = 8
"""Slices that are drawn together."""
TORCH: EngineName = "torch"
ONNXRUNTIME: EngineName = "onnxruntime"


class DeepMindSystem(TrainedSystem):
    """A bundle of DeepMind's U-Net, ready to run; see `soars.systems.interface.System`.

    Runs in torch, or in onnxruntime where the bundle has a graph for it.
    """

    name = NAME
    title = "DeepMind's U-Net"
    setting_keys = ("network", "onnx")

    def read_settings(self, given: Mapping[str, Any]) -> None:
        self.architecture = SliceArchitecture.from_dict(get_field(given, "network", dict, ""))
        if self.architecture.classes != len(self.bundle.organs):
            raise BundleError(
                f"network.classes: {self.architecture.classes} for {len(self.bundle.organs)} organs"
            )
        self.graph = get_text(given, "onnx", "") if "onnx" in given else None
        if self.graph is not None and self.graph not in self.bundle.files:
            raise BundleError(f"onnx: {self.graph!r} is not listed in files")

    def network(self) -> torch.nn.Module:
        from soars.networks.slice_net import SliceNet

        return SliceNet(self.architecture)

    def needs(self, organs: Collection[str]) -> Needs:
        return Needs("run") if self._onnx_problem() is None else super().needs(organs)

    def open(self, options: SegmentOptions) -> tuple[EngineInfo, Finder]:
        runs_in_torch = not super().needs(()).missing_packages
        if options.engine == ONNXRUNTIME or (options.engine == "auto" and not runs_in_torch):
            problem = self._onnx_problem()
            if problem is not None:
                raise EngineError(f"engine {ONNXRUNTIME} cannot be used: {problem}; choose --engine auto")
            return self._in_onnxruntime(options)
        if not runs_in_torch:
            raise EngineError(f"engine {TORCH} cannot be used: it is not installed; choose --engine auto")
        info, network = self.in_torch(options)
        return info, self._finder(torch_runner(network))

    def _in_onnxruntime(self, options: SegmentOptions) -> tuple[EngineInfo, Finder]:
        from soars.cascade.onnx_engine import OnnxSession

        assert self.graph is not None
        if options.device not in ("auto", "cpu"):
            raise EngineError(
                f"{self.title} runs in {ONNXRUNTIME} on the processor only; choose --device cpu"
            )
        session = OnnxSession(
            read_network(self.bundle, self.graph, "onnx"),
            1,
            self.title,
            threads=options.threads,
            cancelled=options.cancel or (lambda: False),
        )
        size = self.architecture.size
        shape = (1, self.architecture.classes, SLAB, size, size)

        def run(slab: np.ndarray) -> np.ndarray:
            return scipy.special.expit(session.run(slab[None, None], shape)[0])

        return EngineInfo(
            ONNXRUNTIME, "cpu", "fp32", "torch was not asked for, or is not here"
        ), self._finder(run)

    def _onnx_problem(self) -> str | None:
        if self.graph is None:
            return f"bundle {self.bundle.name} has no ONNX graph"
        return None if importlib.util.find_spec(ONNXRUNTIME) else f"{ONNXRUNTIME} is not installed"

    def _finder(self, run: RunSlab) -> Finder:
        def find(ct: np.ndarray, organs: Collection[str], step: Step) -> Found:
            return find_organs(run, self.architecture, self.bundle.organs, ct, organs, step)

        return find


def torch_runner(network: torch.nn.Module) -> RunSlab:
    """A `SliceNet` in evaluation mode as what `find_organs` runs; values that are no numbers are an `EngineError`."""
    import torch

    device = next(network.parameters()).device

    def run(slab: np.ndarray) -> np.ndarray:
        with torch.no_grad():
            logits = network(torch.from_numpy(slab)[None, None].to(device))[0].float()
            if not torch.isfinite(logits.sum()):
                raise no_numbers(NAME, device.type, "fp32")
            return torch.sigmoid(logits).cpu().numpy()

    return run


def find_organs(
    run: RunSlab,
    architecture: SliceArchitecture,
    classes: Sequence[str],
    ct: np.ndarray,
    organs: Collection[str],
    step: Step,
) -> Found:
    """The organs whose probability passes one half anywhere; see `soars.systems.trained.Finder`."""
    size = architecture.size
    values = probabilities(run, ct, architecture.classes, size, SLAB, step)
    top, left = window_yx(ct.shape, size)
    return {
        organ: ((0, top, left), values[k])
        for k, organ in enumerate(classes)
        if organ in organs and (values[k] > 0.5).any()
    }
