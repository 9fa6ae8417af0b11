"""Anchor probabilities for every cached case: the guide that the mid-level and detection branches learn with.

The trained anchor network is frozen (paper: anchor first, then the branches it guides), so its output is computed
once, by the engine and the windows of inference, instead of in every training step.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch
from safetensors.torch import save
from tqdm import tqdm

from soars.bundle.integrity import Weights
from soars.cascade.torch_engine import TorchEngine, cpu_has_bf16
from soars.cascade.windows import Foreground
from soars.devices import is_card
from soars.errors import InputError
from soars.files import staged_folder, write_json
from soars.networks.names import Precision
from soars_training.cohorts.cache import CacheIndex, read_case
from soars_training.fitting.options import FittedRun, fingerprint
from soars_training.release.export import branch_spec
from soars_training.windows.loaded import GUIDE_FILE, GUIDE_SUFFIX
from soars_training.windows.whole import whole_patient


def write_guides(cache: Path, anchor_run: Path, output: Path, device: str = "auto") -> int:
    """Write one `<case>.guide.npz` per case (uint8 [K, z, y, x], probability times 255), and `guide.json` with the
    fingerprint of the anchors' network, and the patients whom its run held out and learned from. Returns the number of
    cases.

    All of them or none: guides of another network would stay beside the new ones. Raises `InputError` for a cache of
    another spacing than the run's: its network would not know the patients' size."""
    run, index = FittedRun.load(anchor_run), CacheIndex.load(cache)
    run.require_spacing(index.spacing_mm, cache)
    if device == "auto":
        device = "cuda" if torch.cuda.is_available() else "cpu"
    precision: Precision = "bf16" if is_card(device) or cpu_has_bf16() else "fp32"
    network = run.network(anchor_run)
    weights = Weights(anchor_run, save(network.state_dict()))
    engine = TorchEngine(weights, branch_spec(run), device=device, precision=precision)
    cases = index.cases
    before = [path.name for path in output.glob(f"*{GUIDE_SUFFIX}")]
    names = {GUIDE_FILE, *before, *(f"{entry.name}{GUIDE_SUFFIX}" for entry in cases)}
    with staged_folder(output, sorted(names), overwrite=True) as staging:
        patients = {"held_out": list(run.held_out), "learned": list(run.learned or ())}
        write_json(staging / GUIDE_FILE, patients | {"network": fingerprint(network)})
        for entry in tqdm(cases, desc="guide", unit="case"):
            case = read_case(cache / entry.file)
            probabilities = whole_patient(engine, branch_spec(run), run.task(), case)
            np.savez_compressed(
                staging / f"{entry.name}{GUIDE_SUFFIX}",
                anchors=np.asarray(run.classes, dtype=np.str_),
                probabilities=_as_bytes(Foreground(probabilities).window((slice(None),) * 3)),
            )
    return len(cases)


def guide_anchors(folder: Path) -> tuple[str, ...]:
    """The anchor organs whose probabilities a guide folder holds, in channel order.

    Raises `InputError` when there is no guide in it.
    """
    first = next(iter(sorted(folder.glob(f"*{GUIDE_SUFFIX}"))), None)
    if first is None:
        raise InputError(f"{folder}: no anchor probabilities here; run soars-train guide")
    with np.load(first) as data:
        return tuple(data["anchors"].tolist())


def _as_bytes(probabilities: np.ndarray) -> np.ndarray:
    return np.rint(np.clip(probabilities, 0, 1) * 255).astype(np.uint8)
