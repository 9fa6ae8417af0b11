"""A batch on several cases at once: processes of this machine, each with its share of the processors.

Much of a case's way keeps one processor busy and no more: reading, finding the patient, writing, the report. Cases that
run beside each other fill the others meanwhile, and networks of ordinary size gain more from that than from threads.
"""

from __future__ import annotations

import multiprocessing
import multiprocessing.connection
from collections.abc import Callable, Sequence
from contextlib import suppress
from multiprocessing.connection import Connection
from pathlib import Path

from soars.headers.memory import free_memory
from soars.parallel import available_processors, begin_unheard
from soars.progress import Progress, Reporter
from soars.service.batch import Outcome
from soars.service.cases import BatchCase
from soars.service.segmenter import BatchOptions, Segmenter
from soars.service.spread import Answer, Lost, Settler, spread
from soars.staging import sweep

MOST_AT_ONCE = 4
"""Cases at once, unless something else is asked for: their memory adds up."""
_BYTES_EACH = 4 << 30
"""Memory that must be free for each of them; networks of nnU-Net's size on a long CT need about that."""
_CASES_EACH = 2
"""Cases from which it is worth starting a process for one more at once."""
_POLL_S = 1.0


def how_many_at_once(options: BatchOptions, cases: int) -> int:
    """How many cases to segment at once: one where a GPU or a system of another kind takes the whole machine, else as
    many as processors, free memory and the number of cases allow. Raises `SoarsError` as `Segmenter` does."""
    if Segmenter(options).takes_the_machine:
        return 1
    free = free_memory()
    fit = MOST_AT_ONCE if free is None else free // _BYTES_EACH
    return max(1, min(MOST_AT_ONCE, available_processors(), fit, cases // _CASES_EACH))


def run_at_once(
    cases: Sequence[BatchCase],
    output: Path,
    options: BatchOptions,
    at_once: int,
    report: Reporter,
    after_each: Callable[[Sequence[Outcome]], None] = lambda outcomes: None,
) -> list[Outcome]:
    """As `soars.service.batch.run_batch`, ``at_once`` cases at a time."""
    bundle = Segmenter(options).bundle  # what is wrong with it is said before anything is started
    crew = _Processes(options, bundle.sha256, at_once, report)
    try:
        return spread(cases, output, crew, report, after_each)
    finally:
        crew.end()
        if output.is_dir():
            sweep(output)  # what those that were interrupted had begun to write


class _Process:
    """A worker: a fresh interpreter, since this process may run threads."""

    def __init__(self, options: BatchOptions, threads: int, bundle_sha256: str) -> None:
        context = multiprocessing.get_context("spawn")
        self.connection, theirs = context.Pipe()
        arguments = theirs, options, threads, bundle_sha256
        self._process = context.Process(target=_serve, args=arguments, name="soars-case")
        self._process.start()
        theirs.close()

    def end(self) -> str:
        """End it, whatever it does; how it had ended, if it had."""
        self._process.join(0)
        code = self._process.exitcode
        self._process.kill()
        self._process.join()
        self.connection.close()
        return "it stopped answering" if code is None else f"exit code {code}"


class _Processes:
    """The crew of this machine's processes."""

    cannot_work = "no process that segments can be started; is there enough memory?"

    def __init__(self, options: BatchOptions, bundle_sha256: str, at_once: int, report: Reporter) -> None:
        self.at_once = at_once
        self._options, self._bundle_sha256, self._report = options, bundle_sha256, report
        self._threads = max(1, available_processors() // at_once)
        self._there: list[_Process] = []

    def hire(self) -> _Process:
        process = _Process(self._options, self._threads, self._bundle_sha256)
        self._there.append(process)
        return process

    def give(self, worker: _Process, case: BatchCase, output: Path) -> None:
        with suppress(OSError):  # it has died; waiting for its answer says so
            worker.connection.send((case, str(output)))

    def wait(self) -> list[tuple[_Process, Answer | Lost]]:
        by_connection = {process.connection: process for process in self._there}
        found: list[tuple[_Process, Answer | Lost]] = []
        for ready in multiprocessing.connection.wait(list(by_connection), _POLL_S):
            worker = by_connection[ready]  # type: ignore[index]
            try:
                said: Answer | Progress = worker.connection.recv()
            except (EOFError, OSError):
                self._there.remove(worker)
                found.append((worker, Lost(worker.end())))
                continue
            if isinstance(said, Progress):
                self._report(said)
            else:
                found.append((worker, said))
        return found

    def end(self) -> None:
        for process in self._there:
            process.end()


def _serve(connection: Connection, options: BatchOptions, threads: int, bundle_sha256: str) -> None:
    """A worker's life: cases in, progress and answers out."""
    begin_unheard()
    settler = Settler(options, threads, bundle_sha256)
    while True:
        try:
            case, output = connection.recv()
        except EOFError:
            return
        connection.send(settler.settle(case, output, connection.send))
