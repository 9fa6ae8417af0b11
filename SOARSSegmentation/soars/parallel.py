"""The same work on many cases, spread over several processors."""

from __future__ import annotations

import logging
import multiprocessing
import multiprocessing.connection
import os
import threading
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from typing import TypeVar

Item = TypeVar("Item")
Result = TypeVar("Result")


def in_processes(
    work: Callable[[Item], Result], items: Sequence[Item], processes: int
) -> Iterator[tuple[int, Result]]:
    """(index, ``work(item)``) of every item, as each is ready; the first error is raised, and no new item is started
    after it.

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
    finally:
        pool.shutdown(wait=True, cancel_futures=True)


def available_processors() -> int:
    """Number of processors that this process may use."""
    affinity = getattr(os, "sched_getaffinity", None)
    return len(affinity(0)) if affinity is not None else os.cpu_count() or 1


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
