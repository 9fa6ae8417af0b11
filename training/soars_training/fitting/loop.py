"""The training loop: one for every model, interrupted and resumed at any step."""

from __future__ import annotations

import logging
import math
import os
import signal
import threading
import time
from collections.abc import Callable, Generator, Iterator, Sequence
from contextlib import closing, contextmanager
from dataclasses import dataclass
from pathlib import Path
from types import FrameType
from typing import Any

import numpy as np
import torch
from torch.utils.data import DataLoader
from tqdm import tqdm

from soars.cascade.torch_engine import cpu_has_bf16, cuda_problem
from soars.devices import card_number, is_card
from soars.errors import CancelledError, InputError
from soars.supervise import SIGNALS, saving_first
from soars_training.cohorts.disk import require_disk
from soars_training.fitting import processes
from soars_training.fitting.options import BEST, LAST, MOST_WORKERS, RUN_FILE
from soars_training.fitting.state import TrainingState, balance, learning_rate
from soars_training.fitting.validate import CaseScore, mean_per_organ
from soars_training.windows.task import Batch, TrainingData

log = logging.getLogger(__name__)

LOG_EVERY = 20
CHECKPOINTS = 3
"""So many lie on the disk at once: the last, the next that takes its place, and the best (without the optimiser)."""


def train(
    state: TrainingState,
    data: TrainingData,
    output: Path,
    device: torch.device,
    validate: Callable[[], list[CaseScore]],
    after_step: Callable[[], None] = lambda: None,
) -> None:
    """Run to the last step, from wherever the state stands.

    `validate` gives the DSC of the held-out patients' organs, or nothing; it is called every `validate_every`
    steps and at the end. `after_step` is called after every step. Raises `InputError` before the first step when the
    disk has no room for the checkpoints, and when the loss is no longer a number; `CancelledError` on a request to end
    (SIGTERM, SIGINT, a closed terminal), with a checkpoint written.

    A request waits for the end of the step, but not for that of a validation, which is repeated when the run goes on.
    """
    options = state.options
    precision = training_precision(device)
    if processes.is_first():
        require_disk(output, CHECKPOINTS * state.size_bytes(), "the checkpoints")
    output.mkdir(parents=True, exist_ok=True)
    loss = processes.loss_of(state.model, device)
    if (
        state.step == 0 and processes.is_first()
    ):  # a run that is overwritten stays until the new one can begin
        for name in (RUN_FILE, LAST, BEST):
            (output / name).unlink(missing_ok=True)
    with saving_first(), _requests() as stop, closing(_batches(data, state, device)) as every_batch:
        if state.step and processes.is_first() and _is_due(state) and not _is_scored(state):
            stopping = not _score(state, output, validate, stop)
            state.save(output)
            if stopping:
                raise _stopped(state, output)
        for batches in every_batch:
            started = time.monotonic()
            stopping = _one_step(state, batches, device, precision, loss, stop.asked)
            after_step()
            state.seconds += time.monotonic() - started
            last = state.step == options.steps
            if processes.is_first():
                if not stopping and _is_due(state):
                    stopping = not _score(state, output, validate, stop)
                if last or stopping or state.step % options.checkpoint_every == 0:
                    state.save(output)
            if stopping:
                raise _stopped(state, output)


def training_device(name: str) -> torch.device:
    """The device asked for; `auto` takes a CUDA device if there is one. Raises `InputError` for one that is absent."""
    problem = cuda_problem(card_number(name))
    if is_card(name) and problem:
        raise InputError(f"--device {name}: {problem}; choose --device cpu or auto")
    if name == "cpu" or problem:
        return torch.device("cpu")
    return torch.device(name if is_card(name) else "cuda")


def training_precision(device: torch.device) -> torch.dtype:
    """bfloat16 where the processor or GPU computes in it."""
    return torch.bfloat16 if device.type == "cuda" or cpu_has_bf16() else torch.float32


@contextmanager
def deterministic(wanted: bool) -> Iterator[None]:
    """With `wanted`, only algorithms that give the same bits every time."""
    before = torch.are_deterministic_algorithms_enabled()
    torch.use_deterministic_algorithms(wanted or before)
    try:
        yield
    finally:
        torch.use_deterministic_algorithms(before)


def _is_due(state: TrainingState) -> bool:
    """Whether the held-out patients are drawn after this step."""
    every = state.options.validate_every
    return state.step == state.options.steps or (every > 0 and state.step % every == 0)


def _is_scored(state: TrainingState) -> bool:
    return any(step == state.step for step, _, _ in state.scores)


def _score(
    state: TrainingState, output: Path, validate: Callable[[], list[CaseScore]], stop: _Requests
) -> bool:
    """Note how good the model is; False when a request to end came meanwhile, and nothing was noted."""
    try:
        with stop.at_once():
            scores = validate()
    except _Asked:
        return False
    if not scores:
        return True
    means = mean_per_organ(scores)
    state.scores += [(state.step, organ, value) for organ, value in means.items()]
    state.cases = [(score.case, score.organ, score.dsc) for score in scores]
    mean = float(np.mean(list(means.values())))
    log.info("step %d: mean DSC of the held-out patients %.4f", state.step, mean)
    if mean > state.best:
        state.best = mean
        state.save_best(output)
    return True


def _stopped(state: TrainingState, output: Path) -> CancelledError:
    return CancelledError(
        f"stopped at step {state.step} of {state.options.steps}; {output / LAST} is written: "
        "the same command with --resume goes on from there"
    )


def _one_step(
    state: TrainingState,
    batches: Sequence[Batch],
    device: torch.device,
    precision: torch.dtype,
    loss_of: tuple[processes.Loss, Callable[[bool], Any]],
    stop: bool,
) -> bool:
    """One optimiser step over the micro-batches of a step; returns whether this process, or another one that trains
    with it, was asked to stop."""
    options = state.options
    rate, power = learning_rate(options, state.step), balance(options, state.step)
    for group in state.optimiser.param_groups:
        group["lr"] = rate
    state.model.train()
    # All of the model's, not the optimiser's alone: a search has weights that learn elsewhere (the shares of kernels).
    state.model.zero_grad(set_to_none=True)
    total = 0.0
    state.model.begin(state.step, options.steps)
    compute, adding_up = loss_of
    for number, batch in enumerate(batches, start=1):
        there = tuple(part.to(device, non_blocking=True) for part in batch)
        with adding_up(number < len(batches)):
            with torch.autocast(device.type, precision, precision != torch.float32):
                loss = compute(there, power) / len(batches)
            loss.backward()
        total += float(loss.detach())
    total, stop = processes.agree(total, stop, device)
    if not math.isfinite(total):
        raise InputError(
            f"the loss is {total} at step {state.step}; lower --learning-rate, or check the cases for broken CTs"
        )
    if options.max_gradient:
        mine = [weight for group in state.optimiser.param_groups for weight in group["params"]]
        torch.nn.utils.clip_grad_norm_(mine, options.max_gradient)
    state.optimiser.step()
    state.step += 1
    state.average()
    state.pending.append(total)
    if state.step % LOG_EVERY == 0 or state.step == options.steps:
        state.losses.append((state.step, float(np.mean(state.pending)), rate, round(state.seconds, 1)))
        state.pending.clear()
    return stop


def _leave_ending_to_the_loop(_worker: int) -> None:
    """Schedulers and terminals signal all processes of a run: one that died of it would keep the loop from saving."""
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, signal.SIG_IGN)


@contextmanager
def _workers_ended(rounds: Iterator[Any]) -> Iterator[None]:
    """After the block the processes of a loader's iterator are gone.

    What is raised about a window, or about a process that died, is in a cycle with the iterator and keeps it, and since
    its processes do not hear SIGTERM, the program would wait for them at its exit for ever.
    """
    try:
        yield
    finally:
        rounds._shutdown_workers()  # type: ignore[attr-defined]


def worker_count(asked: int | None, device: torch.device) -> int:
    """How many processes draw the windows when so many, or None, were asked for.

    On a CPU the network needs the cores, and one process is ahead of it; a GPU waits for several.
    """
    if asked is not None:
        return asked
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return max(1, min(cores - 1, MOST_WORKERS)) if device.type == "cuda" else 1


def _batches(
    data: TrainingData, state: TrainingState, device: torch.device
) -> Generator[list[Batch], None, None]:
    """For each step still to do its micro-batches, windows drawn in other processes; of several processes that train
    together each has its own share of the windows.

    Samples that differ in shape (VOIs, say) are seen one at a time, and the gradients of a batch added up.
    """
    options = state.options
    width = options.batch
    size = width if data.stackable else 1
    loader: DataLoader[Any] = DataLoader(
        data,  # type: ignore[arg-type]
        batch_size=size,
        sampler=_Share(state.step, options.steps, width, processes.rank(), processes.count()),
        collate_fn=data.collate,
        num_workers=worker_count(options.workers, device),
        prefetch_factor=4,
        pin_memory=device.type == "cuda",
        worker_init_fn=_leave_ending_to_the_loop,
    )
    pending: list[Batch] = []
    rounds = iter(loader)
    with (
        _workers_ended(rounds),
        tqdm(
            total=options.steps,
            initial=state.step,
            desc=data.title,
            unit="step",
            mininterval=5,
            disable=not processes.is_first(),
        ) as bar,
    ):
        for batch in rounds:
            pending.append(batch)
            if len(pending) * size == width:
                yield pending
                pending = []
                bar.update()
                if state.losses:
                    bar.set_postfix(loss=f"{state.losses[-1][1]:.3f}", refresh=False)


@dataclass(frozen=True)
class _Share:
    """The numbers of the windows of one process: of every step's `width` times `count` windows its own `width`."""

    first_step: int
    steps: int
    width: int
    rank: int
    count: int

    def __iter__(self) -> Iterator[int]:
        for step in range(self.first_step, self.steps):
            start = (step * self.count + self.rank) * self.width
            yield from range(start, start + self.width)

    def __len__(self) -> int:
        return (self.steps - self.first_step) * self.width


class _Asked(BaseException):
    """A request to end came where it is not waited for. Not an `Exception`, so that nobody on the way keeps it."""


class _Requests:
    """Whether the run was asked to end."""

    def __init__(self) -> None:
        self.asked = False
        self._at_once = False

    def handle(self, _number: int, _frame: FrameType | None) -> None:
        self.asked = True
        if self._at_once:
            self._at_once = False
            raise _Asked

    @contextmanager
    def at_once(self) -> Iterator[None]:
        """In this block a request raises `_Asked`, unless other processes wait for this one to come to its end."""
        self._at_once = processes.count() == 1
        try:
            yield
        finally:
            self._at_once = False


@contextmanager
def _requests() -> Iterator[_Requests]:
    """Requests to end (`SIGNALS`) are noted instead of ending the process (in the main thread only)."""
    stop = _Requests()
    if threading.current_thread() is not threading.main_thread():
        yield stop
        return
    handle = stop.handle
    handled = [number for number in SIGNALS if signal.getsignal(number) is not signal.SIG_IGN]
    before = {number: signal.signal(number, handle) for number in handled}
    try:
        yield stop
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
