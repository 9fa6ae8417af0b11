"""The ways to run a bundle's networks on a CPU: processor time of a window, and how many voxels come out the same.

    python Testing/benchmarks/engines.py CT [--bundle starter] [--threads 1]

onnxruntime in float32 is what `auto` takes for small networks, and what the others are compared with. The others:
torch in float32 and in bfloat16 (AMX where the processor has it), torch compiled in bfloat16, and onnxruntime in int8
(static, per channel, calibrated on windows of the same CT, which flatters it). "Same" is the share of the voxels that
either of the two calls organ which both give the same organ. Times are processor seconds of a network alone, the first
window of each left out; compiling is told apart.

Needs torch, and `onnx` for int8.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np

from soars.bundle.integrity import Weights
from soars.bundle.manifest import Bundle
from soars.bundle.store import load_bundle
from soars.cascade import engine as engines
from soars.cascade.engine import Engine, EngineInfo
from soars.cascade.onnx_engine import OnnxEngine
from soars.ct.images import CtScan, read_ct
from soars.networks.names import Branch
from soars.run.segment import SegmentOptions, segment
from soars.systems import cascade as system

WAYS = ("onnxruntime fp32", "torch fp32", "torch bf16", "torch bf16, compiled", "onnxruntime int8")
CALIBRATED_ON = 8
"""Windows."""


@dataclass
class Clocked:
    """An engine whose windows are timed and, for calibration, kept."""

    inner: Engine
    seconds: list[float] = field(default_factory=list)
    windows: list[np.ndarray] = field(default_factory=list)

    def run(self, window: np.ndarray) -> np.ndarray:
        return self._timed(lambda: self.inner.run(window), window)

    def run_fixed(self, window: np.ndarray, units: np.ndarray) -> np.ndarray:
        return self._timed(lambda: self.inner.run_fixed(window, units), window)

    def _timed(self, work: Callable[[], np.ndarray], window: np.ndarray) -> np.ndarray:
        self.windows.append(window)
        start = time.process_time()
        found = work()
        self.seconds.append(time.process_time() - start)
        return found


def main() -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("ct", type=Path)
    parser.add_argument("--bundle", default="starter")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--ways", nargs="+", choices=WAYS, default=WAYS)
    args = parser.parse_args()
    ct, bundle = read_ct(args.ct), load_bundle(args.bundle)
    reference: np.ndarray | None = None
    windows: dict[Branch, list[np.ndarray]] = {}
    print(f"{'':24}{'s a window':>12}{'first, s':>10}{'same, %':>10}")
    for way in args.ways:
        opened: dict[Branch, Clocked] = {}
        with tempfile.TemporaryDirectory() as folder:
            labels = _labels(ct, bundle, args.threads, _opener(way, windows, Path(folder), opened))
        if reference is None:
            reference = labels
            windows = {branch: one.windows for branch, one in opened.items()}
        organ = (labels > 0) | (reference > 0)
        seconds = [s for one in opened.values() for s in one.seconds[1:]]
        first = sum(one.seconds[0] for one in opened.values())
        same = 100 * float(np.mean(labels[organ] == reference[organ]))
        print(f"{way:24}{np.mean(seconds):12.3f}{first:10.2f}{same:10.2f}", flush=True)
    return 0


def _labels(ct: CtScan, bundle: Bundle, threads: int, opener: Callable[..., Engine]) -> np.ndarray:
    """The organs of a run as numbers on the CT's grid, uint8 [z, y, x]."""
    before = system.choose_engine, engines.open_engine
    system.choose_engine = lambda *a, **k: EngineInfo("onnxruntime", "cpu", "fp32", "")
    engines.open_engine = opener
    try:
        options = SegmentOptions(threads=threads, engines=engines.OpenEngines())
        structures = segment(ct, bundle, options).structures
    finally:
        system.choose_engine, engines.open_engine = before
    labels = np.zeros(structures.geometry.shape, np.uint8)
    for number, name in enumerate(bundle.organs, start=1):
        if name in structures:
            labels[structures.full(name)] = number
    return labels


def _opener(
    way: str, windows: dict[Branch, list[np.ndarray]], folder: Path, opened: dict[Branch, Clocked]
) -> Callable[..., Engine]:
    whole = engines.open_engine
    name, _, precision = way.removesuffix(", compiled").partition(" ")

    def open_engine(
        bundle: Bundle, branch: Branch, info: EngineInfo, threads: int | None, *rest: Any
    ) -> Engine:
        if precision == "int8":
            inner: Engine = _int8(bundle, branch, windows[branch], folder, threads)
        else:
            asked = replace(info, engine=name, precision=precision)  # type: ignore[arg-type]
            inner = whole(bundle, branch, asked, threads, *rest)
        if way.endswith("compiled"):
            import torch

            inner._network = torch.compile(inner._network)  # type: ignore[attr-defined]
        opened[branch] = Clocked(inner)
        return opened[branch]

    return open_engine


def _int8(
    bundle: Bundle, branch: Branch, windows: list[np.ndarray], folder: Path, threads: int | None
) -> Engine:
    from onnxruntime.quantization import CalibrationDataReader, QuantFormat, quantize_static
    from onnxruntime.quantization.shape_inference import quant_pre_process

    class Reader(CalibrationDataReader):
        def __init__(self) -> None:
            step = max(1, len(windows) // CALIBRATED_ON)
            self._left = iter(windows[::step])

        def get_next(self) -> dict[str, np.ndarray] | None:
            window = next(self._left, None)
            return None if window is None else {names[0]: np.ascontiguousarray(window, np.float32)}

    import onnx

    spec = bundle.branches[branch]
    path = bundle.folder / spec.files["onnx"]
    names = [one.name for one in onnx.load(path, load_external_data=False).graph.input]
    prepared, made = folder / f"{branch}.onnx", folder / f"{branch}-int8.onnx"
    quant_pre_process(str(path), str(prepared), skip_symbolic_shape=True)
    quantize_static(str(prepared), str(made), Reader(), quant_format=QuantFormat.QDQ, per_channel=True)
    return OnnxEngine(Weights(made, made.read_bytes()), spec, threads=threads)


if __name__ == "__main__":
    sys.exit(main())
