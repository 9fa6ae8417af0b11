"""Several processes that train one network, started by torchrun.

Plain DistributedDataParallel: it averages gradients, and all else (the windows' numbers, checkpoints, resuming bit for
bit, signals) is this package's own loop, which a framework's trainer would have to be talked out of doing itself.

Every process draws its own share of a step's windows. `--batch` is a process's, so that two processes with a batch of
one see at every step the windows that one process with a batch of two sees. Batch normalisation takes its statistics
from all of them, too, where torch can do that (`synchronised`).
"""

from __future__ import annotations

import atexit
import logging
import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import timedelta

import torch
from torch import Tensor, distributed, nn

from soars.errors import InputError
from soars_training.fitting.models import BranchModel, EndToEnd, Model
from soars_training.windows.task import Batch

log = logging.getLogger(__name__)

LONGEST_WAIT = timedelta(hours=12)
"""While the first process validates, the others wait."""

Loss = Callable[[Batch, float], Tensor]


def join(device: torch.device) -> torch.device:
    """Meet the other processes that torchrun has started, if it has; returns the device of this one.

    Raises `InputError` when they cannot meet.
    """
    if int(os.environ.get("WORLD_SIZE", "1")) == 1:
        return device
    if device.type == "cuda":
        device = torch.device("cuda", int(os.environ.get("LOCAL_RANK", "0")))
        torch.cuda.set_device(device)
    if not distributed.is_initialized():
        try:
            distributed.init_process_group("nccl" if device.type == "cuda" else "gloo", timeout=LONGEST_WAIT)
        except (RuntimeError, ValueError) as error:
            raise InputError(
                f"the processes of torchrun could not meet: {str(error).splitlines()[0]}"
            ) from error
        atexit.register(_leave)
    return device


def count() -> int:
    """How many processes train together; 1 without torchrun."""
    return distributed.get_world_size() if _several() else 1


def rank() -> int:
    """This process's number among them, from 0."""
    return distributed.get_rank() if _several() else 0


def is_first() -> bool:
    """Whether this process is the one that validates and writes."""
    return rank() == 0


def alone(what: str) -> None:
    """Raise `InputError` when several processes run what only one can."""
    if int(os.environ.get("WORLD_SIZE", "1")) > 1:
        raise InputError(f"{what} runs in one process; start it without torchrun")


def loss_of(model: Model, device: torch.device) -> tuple[Loss, Callable[[bool], object]]:
    """The model's loss, whose gradients are averaged over all processes, and a context for micro-batches: entered with
    True where more of a step's micro-batches follow, and gradients are only added up."""
    if not _several():
        return model.loss, _nothing
    # Parts of other systems' networks learn from a later step on, and not every window shows a small organ.
    every = isinstance(model, BranchModel) or (isinstance(model, EndToEnd) and model.small_hard is None)
    synchronised(model, device)
    together = nn.parallel.DistributedDataParallel(_LossModule(model), find_unused_parameters=not every)
    return together, lambda more: together.no_sync() if more else _nothing(more)


def synchronised(model: Model, device: torch.device) -> None:
    """Let the batch normalisations of a branch, in place and with their weights, take mean and variance over the
    windows of all processes, as those of one process with the larger batch do (torch's `SyncBatchNorm`).

    Torch has that for CUDA only; elsewhere each process's are of its own windows, which a warning says. So are those of
    other systems, which do not run all of their layers for every sample: a process would wait for the others in vain.
    In `EndToEnd` they are frozen.
    """
    if isinstance(model, EndToEnd) or not any(isinstance(m, nn.BatchNorm3d) for m in model.modules()):
        return
    if device.type == "cuda" and isinstance(model, BranchModel):
        nn.SyncBatchNorm.convert_sync_batchnorm(model)
    elif is_first():
        log.warning(
            "batch normalisation takes each process's windows by themselves here, so that %d processes do not learn "
            "quite what one learns with as many times the batch",
            count(),
        )


def agree(total: float, stop: bool, device: torch.device) -> tuple[float, bool]:
    """The mean loss of all processes, and whether any of them is to stop: they stop at the same step."""
    if not _several():
        return total, stop
    told = torch.tensor([total / count(), float(stop)], dtype=torch.float64, device=device)
    distributed.all_reduce(told)
    return float(told[0]), bool(told[1] > 0)


class _LossModule(nn.Module):
    """The loss as a forward pass, which is what DistributedDataParallel follows."""

    def __init__(self, model: Model) -> None:
        super().__init__()
        self.model = model

    def forward(self, batch: Batch, balance: float) -> Tensor:
        return self.model.loss(batch, balance)


@contextmanager
def _nothing(_more: bool) -> Iterator[None]:
    yield


def _several() -> bool:
    return distributed.is_available() and distributed.is_initialized()


def _leave() -> None:
    if _several():
        distributed.destroy_process_group()
