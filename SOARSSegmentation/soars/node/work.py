"""Segmenting the queued cases, one at a time, in a process of its own.

A crash or a fault there, or a CT that takes all memory, costs the node nothing; the case is tried once more, in a new
process, and then set aside. The networks stay open in that process, until their bundle is replaced. What no case is to
blame for (a full disk, a bundle or an engine that cannot be used) leaves the case in the queue.
"""

from __future__ import annotations

import multiprocessing
import shutil
import threading
import time
from collections.abc import Mapping
from dataclasses import dataclass, replace
from multiprocessing.connection import Connection
from pathlib import Path

from soars.bundle.manifest import Bundle
from soars.bundle.store import read_bundle
from soars.dicom.rtstruct import write_rtstruct
from soars.dicom.seg.write import write_seg
from soars.errors import BundleError, EngineError, InputError, SoarsError
from soars.node.audit import Audit, Reason
from soars.node.config import Config, Destination, Rule
from soars.node.spool import CT, RESULTS, Spool
from soars.parallel import begin_unheard
from soars.progress import ignore
from soars.report.outputs import RTSTRUCT
from soars.run.case import Case
from soars.service.cases import BatchCase
from soars.service.segmenter import Segmenter, Writer, disk_is_full, look

SEG = "seg.dcm"
MOST_CRASHES = 2
PAUSE_S = 30.0
"""Before a case is tried again that is not to blame."""
_POLL_S = 0.2
_ENDING_S = 1.0
"""For the node to say that it ends: the process that segments may be ended first."""
_NOT_ITS_FAULT: tuple[Reason, ...] = ("disk-full", "engine")


@dataclass(frozen=True)
class Job:
    """A case to segment: its folder, which holds the CT, and who will get the results."""

    folder: Path
    rule: Rule
    destinations: Mapping[str, Destination]


@dataclass(frozen=True)
class Answer:
    """How a job ended: no reason when it has its results, else the reason and the message for people. ``anew``: a new
    process may do better, as this one's card may be lost, or its bundle be another by now."""

    reason: Reason = ""
    message: str = ""
    anew: bool = False


def files_for(name: str, destination: Destination) -> list[str]:
    """The files among a case's results that a destination gets."""
    rtstruct = f"rtstruct-{name}.dcm" if destination.names is not None else RTSTRUCT
    return [rtstruct] * destination.rtstruct + [SEG] * destination.seg


class Work:
    """Takes the cases out of the queue, the one that came first first."""

    def __init__(self, config: Config, spool: Spool, audit: Audit, stop: threading.Event) -> None:
        self._config, self._spool, self._audit, self._stop = config, spool, audit, stop
        self._worker = _Worker()
        self._not_before: dict[str, float] = {}
        self.busy_with = ""
        self.problem: Reason = ""
        self.seconds, self.count = 0.0, 0

    def step(self) -> None:
        """Segment the cases that wait."""
        while not self._stop.is_set():
            with self._spool.lock:
                case = self._next()
                self.busy_with = case
            if not case:
                return
            try:
                self._segment(case)
            finally:
                self.busy_with = ""

    def is_busy(self, case: str) -> bool:
        return case == self.busy_with

    def close(self) -> None:
        self._worker.kill()

    def _next(self) -> str:
        now = time.monotonic()
        ready = (r.id for r in self._spool.records("queued") if self._not_before.get(r.id, 0.0) <= now)
        return next(ready, "")

    def _segment(self, case: str) -> None:
        record = self._spool.record("queued", case)
        rule = self._config.rule(record.rule)
        if rule is None:
            self._fail(case, "no-rule", f"there is no rule {record.rule!r} any more; send the series again")
            return
        start = time.monotonic()
        destinations = {name: self._config.destinations[name] for name in rule.send}
        job = Job(self._spool.folder("queued", case).resolve(), rule, destinations)
        answer = self._worker.run(job, self._config.limits.case_s, self._stop)
        if answer is None:
            return  # the node stops; the case stays where it is
        seconds = time.monotonic() - start
        if not answer.reason:
            self.problem = ""
            self.seconds, self.count = self.seconds + seconds, self.count + 1
            self._audit.note("segmented", case, more={"seconds": round(seconds, 1)})
            self._spool.move(case, "queued", "sending")
        elif answer.reason in _NOT_ITS_FAULT:
            if self.problem != answer.reason:
                self._audit.note("waiting", case, answer.reason)
            self.problem = answer.reason
            self._not_before[case] = time.monotonic() + PAUSE_S
        elif (answer.anew or answer.reason == "crashed") and record.crashes + 1 < MOST_CRASHES:
            self._spool.write("queued", replace(record, crashes=record.crashes + 1))
            self._audit.note("waiting", case, answer.reason)
        else:
            self._fail(case, answer.reason, answer.message)

    def _fail(self, case: str, reason: Reason, message: str) -> None:
        self._audit.note("failed", case, reason)
        self._spool.fail(self._spool.record("queued", case), "queued", reason, message)


class _Worker:
    """The other process, started when it is needed and again after its death."""

    def __init__(self) -> None:
        self._process: multiprocessing.process.BaseProcess | None = None
        self._connection: Connection | None = None

    def run(self, job: Job, limit_s: float, stop: threading.Event) -> Answer | None:
        """None when ``stop`` is set before the end."""
        if self._process is None or not self._process.is_alive():
            self._start()
        process, connection = self._process, self._connection
        assert process is not None and connection is not None
        end = time.monotonic() + limit_s
        try:
            connection.send(job)
            while not connection.poll(_POLL_S):
                if stop.is_set():
                    return None
                if time.monotonic() > end:
                    self.kill()
                    return Answer("too-long", f"it took more than {limit_s:g} s")
            answer: Answer = connection.recv()
        except (EOFError, OSError):
            if stop.wait(_ENDING_S):
                return None
            message = "the process that segmented it crashed or ran out of memory; the CT may be damaged"
            answer = Answer("crashed", message, anew=True)
        if answer.anew:
            self.kill()
        return answer

    def kill(self) -> None:
        if self._process is not None:
            self._process.kill()
            self._process.join()
            self._process.close()
            self._process = None
        if self._connection is not None:
            self._connection.close()
            self._connection = None

    def _start(self) -> None:
        self.kill()
        # A fresh interpreter: this process runs threads.
        context = multiprocessing.get_context("spawn")
        self._connection, theirs = context.Pipe()
        self._process = context.Process(target=_serve, args=(theirs,), name="soars-worker", daemon=True)
        self._process.start()
        theirs.close()


def _serve(connection: Connection) -> None:
    """The worker's life: jobs in, answers out."""
    begin_unheard()
    segmenters: dict[object, _Ready] = {}
    while True:
        try:
            job: Job = connection.recv()
        except EOFError:
            return
        connection.send(_answer(job, segmenters))


@dataclass
class _Ready:
    segmenter: Segmenter
    ran: bool = False


def _answer(job: Job, segmenters: dict[object, _Ready]) -> Answer:
    options = job.rule.options
    try:
        ready = segmenters.get(options)
        if ready is None or _is_replaced(ready.segmenter.bundle):
            ready = segmenters[options] = _Ready(Segmenter(options))
    except SoarsError as error:
        return Answer("engine", str(error))
    try:
        more = _writers(job.destinations)
        results = job.folder / RESULTS
        if not all((results / name).is_file() for name in more):
            shutil.rmtree(results, ignore_errors=True)  # made for other destinations
        case = BatchCase(RESULTS, job.folder / CT)
        read = look(case, job.folder, options, ready.segmenter.sha256)
        if read.ct is not None:
            ready.segmenter.segment(case, job.folder, read, ignore, more)
        ready.ran = True
        return Answer()
    except (BundleError, EngineError) as error:
        return Answer("fault", str(error), anew=True) if ready.ran else Answer("engine", str(error))
    except SoarsError as error:
        return Answer("disk-full" if disk_is_full(error) else "unreadable", str(error))
    except MemoryError:
        return Answer("unreadable", "not enough memory for this CT")
    except Exception as error:
        return Answer("fault", f"internal error: {type(error).__name__}: {error}", anew=True)


def _is_replaced(bundle: Bundle) -> bool:
    """Whether another bundle lies where this one was loaded from; one that is away is still in memory."""
    try:
        return read_bundle(bundle.folder).sha256 != bundle.sha256
    except BundleError:
        return False


def _writers(destinations: Mapping[str, Destination]) -> dict[str, Writer]:
    """What is written beside a case's usual results, by file."""
    found: dict[str, Writer] = {}
    for name, destination in destinations.items():
        for file in files_for(name, destination):
            if file == SEG:
                found[file] = _write_seg
            elif file != RTSTRUCT:
                found[file] = _with_names(destination)
    return found


def _write_seg(case: Case, path: Path) -> None:
    if case.ct.series is None:
        raise InputError("a DICOM SEG needs a DICOM CT")
    write_seg(case.structures, path, case.ct.series)


def _with_names(destination: Destination) -> Writer:
    def write(case: Case, path: Path) -> None:
        if case.ct.series is None:
            raise InputError("an RTSTRUCT needs a DICOM CT")
        write_rtstruct(case.structures, path, case.ct.series, roi_names=destination.roi_names)

    return write
