"""Which torch device a system runs on, and what is said when that fails."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

from soars.devices import EXPECTED, card_number, is_card, is_device
from soars.errors import EngineError

if TYPE_CHECKING:
    import torch


def torch_device(device: str, engine: str = "auto") -> torch.device:
    """The device for "auto", "cpu", "cuda" or "cuda:1".

    Raises `EngineError` for one that is not there, and for an engine other than torch.
    """
    import torch

    from soars.cascade.torch_engine import cuda_problem

    if engine not in ("auto", "torch"):
        raise EngineError(f"engine {engine} cannot run this bundle, only torch can; choose --engine auto")
    if not is_device(device):
        raise EngineError(f"unknown device {device!r}; choose {EXPECTED}")
    if device == "cpu":
        return torch.device("cpu")
    problem = cuda_problem(card_number(device))
    if problem is None:
        return torch.device(device if is_card(device) else "cuda")
    if is_card(device):
        raise EngineError(f"device {device} cannot be used: {problem}; choose --device cpu or auto")
    return torch.device("cpu")


@contextmanager
def running_on(device: str, network: str) -> Iterator[None]:
    """Around what runs a system's own network: a card that is full or was lost is an `EngineError`, for which a case
    can wait. On a processor an error of torch is a fault, and stays as it is."""
    try:
        yield
    except RuntimeError as error:
        if device == "cpu":
            raise
        from soars.cascade.torch_engine import failed

        raise failed(error, network, device) from error
