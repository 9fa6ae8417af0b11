"""The same work on many cases, spread over several processors."""

from __future__ import annotations

import logging
import multiprocessing
import multiprocessing.connection
import os
import signal
import threading
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import BrokenExecutor, Future, ProcessPoolExecutor, as_completed, wait
from dataclasses import dataclass
from typing import TypeVar

from soars.errors import InputError

Item = TypeVar("Item")
Result = TypeVar("Result")


def in_processes(
    work: Callable[[Item], Result], items: Sequence[Item], processes: int
) -> Iterator[tuple[int, Result]]:
    """(index, ``work(item)``) of every item, as each is ready; the first error is raised, and no new item is started
    after it. Raises `InputError` when a process dies.

    With one process, or one item, the work is done in this process, in order; otherwise ``work`` and the items must
    be picklable. Warnings logged in other processes are not shown: return them.
    """
    if processes <= 1 or len(items) <= 1:
        for index, item in enumerate(items):
            yield index, work(item)
        return
    # Fresh interpreters: forking a process that runs threads, as SimpleITK does, may make it hang.
    context = multiprocessing.get_context("spawn")
    pool = ProcessPoolExecutor(min(processes, len(items)), mp_context=context, initializer=_begin)
    try:
        futures = {pool.submit(work, item): index for index, item in enumerate(items)}
        for future in as_completed(futures):
            yield futures[future], future.result()
    except BrokenExecutor as error:
        raise InputError(
            "a process that worked on a case has ended without a word: it crashed, ran out of memory, or took far too "
            "long over a damaged file; do it again in one process to see which"
        ) from error
    finally:
        pool.shutdown(wait=True, cancel_futures=True)


@dataclass(frozen=True)
class LeftOut:
    """Why an item was left out by `or_left_out`."""

    why: str


def or_left_out(work: Callable[[Item], Result], item: Item) -> Result | LeftOut:
    """``work(item)``, or why bad input or a lack of memory prevents it: for many cases of which one may be damaged."""
    try:
        return work(item)
    except InputError as error:
        return LeftOut(str(error))
    except MemoryError:
        return LeftOut("not enough memory")


def one_ahead(work: Callable[[Item], Result], items: Sequence[Item]) -> Iterator[tuple[Item, Future[Result]]]:
    """(item, finished future of ``work(item)``) of every item, in order. While one is used here, another process works
    at the next one, never further.

    An error is in the future of its item; so is `BrokenExecutor` when the process died of it, after which a new
    process takes the next item. ``work``, items and results must be picklable.
    """
    worker: ProcessPoolExecutor | None = None
    future: Future[Result] | None = None
    try:
        for index, item in enumerate(items):
            if future is None:
                worker = _worker()
                future = worker.submit(work, item)
            wait([future])
            done, future = future, None
            if isinstance(done.exception(), BrokenExecutor) and worker is not None:
                worker.shutdown(wait=False)
                worker = None
            if index + 1 < len(items):
                worker = worker or _worker()
                future = worker.submit(work, items[index + 1])
            yield item, done
    finally:
        if worker is not None:
            worker.shutdown(wait=False, cancel_futures=True)


def available_processors() -> int:
    """Number of processors that this process may use."""
    affinity = getattr(os, "sched_getaffinity", None)
    return len(affinity(0)) if affinity is not None else os.cpu_count() or 1


def _worker() -> ProcessPoolExecutor:
    context = multiprocessing.get_context("spawn")
    return ProcessPoolExecutor(1, mp_context=context, initializer=begin_unheard)


def begin_unheard() -> None:
    """As `_begin`; Ctrl-C, which reaches the whole terminal, is the parent's business."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    _begin()


def _begin() -> None:
    """Set up a worker process."""
    threading.Thread(target=_end_with_parent, name="soars-parent-watch", daemon=True).start()
    logging.getLogger("soars").addHandler(logging.NullHandler())
    logging.getLogger("soars").propagate = False


def _end_with_parent() -> None:
    """End this process when the one that started it has ended, even if that was killed and could not say so."""
    parent = multiprocessing.parent_process()
    if parent is not None:
        multiprocessing.connection.wait([parent.sentinel])
        os._exit(1)
