"""From training runs to a model bundle: safetensors and ONNX of every branch, manifest, model card.

The weights are stored once, in half precision, in the .safetensors file; the ONNX graph names them there as external
data and casts them to float32, so both engines compute with the same numbers and a bundle is half the size of one with
a copy each. The two files of a branch must therefore stay in one folder, which the bundle guarantees.
"""

from __future__ import annotations

import json
import logging
import struct
import warnings
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import onnx
import torch
from onnx import TensorProto, helper
from safetensors.torch import save_file
from torch import nn

from soars.bundle.store import BranchSpec, Bundle, read_bundle, write_manifest
from soars.cascade.engine import WEIGHTS, EngineInfo, open_engine
from soars.errors import EngineError, InputError
from soars.files import staged_folder
from soars.networks.build import Network
from soars.networks.names import BRANCHES, Branch, EngineName, WeightKind
from soars_training.fitting.options import FittedRun, fingerprint
from soars_training.windows.task import ACTIVATION_OF, WINDOWS_HU

log = logging.getLogger(__name__)

OPSET = 17
LARGEST_DIFFERENCE = 0.02
"""Of an engine's output from that of the network that was trained, as a share of the output, both root mean squares:
rounding the weights to half precision makes a thousandth."""


@dataclass(frozen=True)
class BundleFacts:
    """A bundle's description of itself; `card` is the model card's Markdown with its required sections."""

    name: str
    version: str
    description: str
    licence: str
    card: str

    def fields(self) -> dict[str, object]:
        """As the manifest has them."""
        return {
            "name": self.name,
            "version": self.version,
            "description": self.description,
            "licence": self.licence,
        }


def export_bundle(
    runs: Sequence[Path], output: Path, facts: BundleFacts, stride: float | None = None
) -> Bundle:
    """Write a bundle folder from finished runs (one a branch); nothing is left behind when it fails.

    `stride` is the step between windows as a share of the window, of the branches that see a scan by windows.

    Raises `InputError` when two runs train the same branch, one was guided by other anchors than these runs have, an
    engine does not draw with the bundle as the network does that was trained, or `output` exists. Where the anchors are
    the same organs of another network, or a run has learned from patients that another one held out, a warning says so.
    """
    loaded = {run.branch: (folder, run) for folder, run in ((f, FittedRun.load(f)) for f in runs)}
    if len(loaded) != len(runs):
        raise InputError("two of the runs train the same branch; give one run a branch")
    _check_guides(loaded)
    _warn_of_patients(loaded)
    with staged_bundle(output, facts) as work:
        branches: dict[str, object] = {}
        voi_mm: Mapping[str, tuple[float, float, float]] = {}
        window_hu = WINDOWS_HU[0]
        trained: dict[Branch, tuple[np.ndarray, np.ndarray]] = {}
        for branch in (b for b in BRANCHES if b in loaded):
            folder, run = loaded[branch]
            files: dict[WeightKind, str] = {"safetensors": f"{branch}.safetensors", "onnx": f"{branch}.onnx"}
            network = run.network(folder)
            trained[branch] = _example(network)
            export_network(network, work, files["safetensors"], files["onnx"])
            spec = branch_spec(run, files)
            branches[branch] = (spec if branch == "small_hard" else replace(spec, stride=stride)).to_dict()
            window_hu = run.windows_hu[0]
            voi_mm = run.voi_mm or voi_mm
        fields = {
            "window_hu": list(window_hu),
            "branches": branches,
            "voi_mm": {group: list(mm) for group, mm in voi_mm.items()},
        }
        write_manifest(work, {**facts.fields(), **fields})
        _check_engines(read_bundle(work), trained)
    return read_bundle(output)


def _example(network: Network) -> tuple[np.ndarray, np.ndarray]:
    """A window [1, C, z, y, x] of noise, and what a network makes of it [K, z, y, x]."""
    architecture = network.architecture
    shape = (1, architecture.in_channels, *(2 * d for d in architecture.divisor))
    window = np.random.default_rng(0).uniform(-1, 1, shape).astype(np.float32)
    with torch.inference_mode():
        return window, network.eval()(torch.from_numpy(window))[0].numpy()


def _check_guides(loaded: Mapping[Branch, tuple[Path, FittedRun]]) -> None:
    """Raise `InputError` for a run that was guided by other anchors, in number or order, than the bundle's, which would
    be taken for each other; warn of one that was guided by another network: it has learned from what that draws."""
    if "anchor" not in loaded:
        return
    folder, anchor = loaded["anchor"]
    for place, run in (pair for pair in loaded.values() if "anchor" in pair[1].inputs):
        if run.anchors != anchor.classes:
            raise InputError(
                f"{place}: was guided by {', '.join(run.anchors)}, but {folder} draws {', '.join(anchor.classes)}; "
                "export it with the run that guided it"
            )
        if run.guided_by and run.guided_by != fingerprint(anchor.network(folder)):
            log.warning(
                "%s: was guided by another network than that of %s, and may draw worse with this one than its run "
                "says; export it with the run that guided it, or train it with the guide of this one",
                place,
                folder,
            )


def _warn_of_patients(loaded: Mapping[Branch, tuple[Path, FittedRun]]) -> None:
    """Of patients whom one run held out and another one learned from: figures of them are not those of new patients."""
    for place, run in loaded.values():
        for other, (_, knowing) in loaded.items():
            if told := sorted(set(run.held_out).intersection(knowing.learned or ())):
                log.warning(
                    "%s: held out %s, from whom the %s run has learned; what the bundle reaches in them is better than "
                    "in new patients",
                    place,
                    ", ".join(told),
                    other,
                )


def _check_engines(bundle: Bundle, trained: Mapping[Branch, tuple[np.ndarray, np.ndarray]]) -> None:
    """Raise `InputError` when an engine that users run does not draw as the network does that was trained."""
    for branch, (window, wanted) in trained.items():
        for engine in WEIGHTS:
            info = EngineInfo(engine, "cpu", "fp32", "to check the bundle")
            with refused_beyond_half(f"branch {branch}"):
                require_alike(
                    f"branch {branch}", engine, open_engine(bundle, branch, info).run(window), wanted
                )


@contextmanager
def refused_beyond_half(what: str) -> Iterator[None]:
    """An engine that fails on a network is an `InputError` that says what may be the reason."""
    try:
        yield
    except EngineError as error:
        raise InputError(f"{what} cannot be exported: {error}; {_BEYOND}") from error


def require_alike(what: str, engine: EngineName, found: np.ndarray, wanted: np.ndarray) -> None:
    """Raise `InputError` when an engine's output is not that of the network that was trained (see
    `LARGEST_DIFFERENCE`)."""
    apart, size = (float(np.sqrt(np.mean(values**2, dtype=float))) for values in (found - wanted, wanted))
    if apart <= LARGEST_DIFFERENCE * size:
        return
    by = f"by {apart / size:.0%}" if size and np.isfinite(apart) else "with values that are no numbers"
    raise InputError(
        f"{what} cannot be exported: on {engine} it draws otherwise than it was trained to, {by}; {_BEYOND}"
    )


_BEYOND = "some of its weights may be beyond half precision, in which a bundle keeps them"


@contextmanager
def staged_bundle(output: Path, facts: BundleFacts) -> Iterator[Path]:
    """A folder with the model card, to be filled with weights and a manifest; it becomes `output` at the end, and
    nothing is left behind when that fails. Raises `InputError` when `output` exists."""
    if output.exists():
        raise InputError(f"{output} exists already; choose another folder or remove it")
    with staged_folder(output.parent, [output.name], folders=[output.name]) as staging:
        work = staging / output.name
        work.mkdir()
        (work / "card.md").write_text(facts.card, encoding="utf-8")
        yield work
        for path in work.iterdir():  # safetensors makes files that only their owner may read
            path.chmod(0o644)


def branch_spec(run: FittedRun, files: Mapping[WeightKind, str] | None = None) -> BranchSpec:
    """The manifest's entry for a finished run."""
    return BranchSpec(
        name=run.branch,
        inputs=run.inputs,
        classes=run.classes,
        activation=ACTIVATION_OF[run.branch],
        spacing_mm=run.spacing_mm,
        patch=run.patch,
        architecture=run.architecture,
        files=files or {},
        windows_hu=run.windows_hu if len(run.windows_hu) > 1 else (),
        mirror=run.task().mirrors(float(run.options.get("strength", {}).get("mirror", 0))),
    )


def export_network(network: Network, folder: Path, safetensors_name: str, onnx_name: str) -> None:
    """Write the weights in half precision and the ONNX graph that refers to them."""
    halves = {name: tensor.half().contiguous() for name, tensor in network.state_dict().items()}
    save_file(halves, folder / safetensors_name)
    network.load_state_dict({name: tensor.float() for name, tensor in halves.items()})
    network.eval()
    architecture = network.architecture
    shape = (1, architecture.in_channels, *(2 * d for d in architecture.divisor))
    write_graph(network, shape, folder / onnx_name, safetensors_name, {2: "z", 3: "y", 4: "x"})


def write_graph(
    network: nn.Module,
    shape: Sequence[int],
    path: Path,
    safetensors_name: str,
    axes: Mapping[int, str] | None = None,
) -> None:
    """Write a network's ONNX graph, whose weights are those of the safetensors file beside it.

    Args:
        network: in evaluation mode, with one input and one output.
        shape: of the input. axes: its axes, and the output's, that may have any size.
    """
    any_size = {"input": axes, "output": axes} if axes else None
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        torch.onnx.export(
            network,
            (torch.zeros(*shape),),
            str(path),
            input_names=["input"],
            output_names=["output"],
            dynamic_axes=any_size,
            opset_version=OPSET,
            do_constant_folding=False,
            training=torch.onnx.TrainingMode.PRESERVE,  # evaluation, but with batch norms left as they are
            dynamo=False,
        )
    model = onnx.load_model(path)
    refer_to_safetensors(model, path.with_name(safetensors_name), set(network.state_dict()))
    path.write_bytes(model.SerializeToString())


def refer_to_safetensors(model: onnx.ModelProto, path: Path, names: set[str]) -> None:
    """Replace each weight by a reference into the .safetensors file, followed by a cast to float32.

    File layout: 8 bytes little-endian header length, the JSON header, then the data its offsets count from
    (safetensors format specification).
    """
    with path.open("rb") as stream:
        (length,) = struct.unpack("<Q", stream.read(8))
        header = json.loads(stream.read(length))
    graph = model.graph
    kept, casts = [], []
    for tensor in graph.initializer:
        if tensor.name not in names:
            kept.append(tensor)
            continue
        begin, end = header[tensor.name]["data_offsets"]
        stored = TensorProto(
            name=f"{tensor.name}.half",
            dims=tensor.dims,
            data_type=TensorProto.FLOAT16,
            data_location=TensorProto.EXTERNAL,
        )
        for key, value in (("location", path.name), ("offset", 8 + length + begin), ("length", end - begin)):
            stored.external_data.add(key=key, value=str(value))
        kept.append(stored)
        casts.append(helper.make_node("Cast", [stored.name], [tensor.name], to=TensorProto.FLOAT))
    nodes = [*casts, *graph.node]
    del graph.initializer[:], graph.node[:]
    graph.initializer.extend(kept)
    graph.node.extend(nodes)
