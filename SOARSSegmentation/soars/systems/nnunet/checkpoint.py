"""nnU-Net's checkpoints are pickles, which can run code when read; a bundle holds their weights as safetensors.

torch reads a checkpoint with ``weights_only``, which builds tensors and plain values and nothing else. One that needs
more is refused, unless whoever imports it says that they trust its source.
"""

from __future__ import annotations

import pickle
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from soars.errors import BundleError

if TYPE_CHECKING:
    import torch


@dataclass(frozen=True)
class Checkpoint:
    """What prediction needs of a checkpoint.

    Attributes:
        trainer: name of nnU-Net's trainer class.
        configuration: e.g. "3d_fullres".
        mirroring_axes: axes (0 z, 1 y, 2 x) along which the network may be mirrored; () for none.
        weights: the network's state, by name; names may share a tensor.
    """

    trainer: str
    configuration: str
    mirroring_axes: tuple[int, ...]
    weights: Mapping[str, torch.Tensor]


def read_checkpoint(path: Path, *, trust: bool = False) -> Checkpoint:
    """Read a checkpoint; ``trust`` also reads one that could run code.

    Raises `BundleError` when it is refused, damaged, or no checkpoint of nnU-Net v2.
    """
    data = _load(path, trust)
    try:
        axes = data.get("inference_allowed_mirroring_axes") or ()
        weights = {
            str(name).removeprefix("module."): tensor for name, tensor in data["network_weights"].items()
        }
        checkpoint = Checkpoint(
            str(data["trainer_name"]),
            str(data["init_args"]["configuration"]),
            tuple(int(axis) for axis in axes),
            weights,
        )
    except (KeyError, TypeError, AttributeError, ValueError) as error:
        raise BundleError(
            f"{path}: not a checkpoint of nnU-Net v2 ({type(error).__name__}: {error})"
        ) from error
    if not weights or not all(hasattr(tensor, "data_ptr") for tensor in weights.values()):
        raise BundleError(f"{path}: its network_weights are not tensors")
    return checkpoint


def _load(path: Path, trust: bool) -> dict[str, Any]:
    import torch

    try:
        with torch.serialization.safe_globals(_plain_numpy()):
            data = torch.load(path, map_location="cpu", weights_only=True)
    except pickle.UnpicklingError as error:
        if not trust:
            raise BundleError(
                f"{path}: reading it would need more than weights and plain values, so it could run code; if you trust "
                "where it comes from, import it with --trust-checkpoint"
            ) from error
        data = _load_trusted(path)
    except (RuntimeError, EOFError, OSError, ValueError) as error:
        raise BundleError(f"{path}: cannot be read as a checkpoint ({error})") from error
    if not isinstance(data, dict):
        raise BundleError(f"{path}: not a checkpoint of nnU-Net v2")
    return data


def _load_trusted(path: Path) -> Any:
    import torch

    try:
        return torch.load(path, map_location="cpu", weights_only=False)
    except Exception as error:  # a pickle may raise anything
        raise BundleError(f"{path}: cannot be read as a checkpoint ({error})") from error


def _plain_numpy() -> list[Any]:
    """What numpy's numbers are pickled as; nnU-Net logs its scores as such."""
    import numpy as np

    kinds = ("Float64DType", "Float32DType", "Int64DType", "Int32DType", "BoolDType")
    scalar = np.core.multiarray.scalar if np.__version__ < "2" else np._core.multiarray.scalar  # type: ignore[attr-defined]
    return [scalar, np.dtype, *(getattr(np.dtypes, kind) for kind in kinds)]


def unique_tensors(weights: Mapping[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """One name for each tensor: nnU-Net's networks have their layers under two or three names."""
    seen: set[tuple[int, tuple[int, ...]]] = set()
    out = {}
    for name, tensor in weights.items():
        key = (tensor.data_ptr(), tuple(tensor.shape))
        if key not in seen or tensor.numel() == 0:
            seen.add(key)
            out[name] = tensor.contiguous()
    return out


def with_shared_names(
    stored: Mapping[str, torch.Tensor], network: torch.nn.Module, where: str
) -> dict[str, torch.Tensor]:
    """The network's whole state from one name for each tensor; raises `BundleError` when they do not fit."""
    state = network.state_dict()
    names: dict[tuple[int, tuple[int, ...]], str] = {}
    for name, tensor in state.items():
        if name in stored:
            names[tensor.data_ptr(), tuple(tensor.shape)] = name
    try:
        whole = {name: stored[names[t.data_ptr(), tuple(t.shape)]] for name, t in state.items()}
    except KeyError as error:
        raise BundleError(f"{where}: the weights do not fit the network of its plans") from error
    unknown = set(stored) - set(state)
    wrong = [name for name, tensor in whole.items() if tensor.shape != state[name].shape]
    if unknown or wrong:
        raise BundleError(
            f"{where}: the weights do not fit the network of its plans ({[*unknown, *wrong][0]})"
        )
    return whole
