"""A batch over several workers: each settles one case at a time, and takes the next when it is done.

A worker is a process of this machine (`soars.service.workers`) or an actor of Ray (`soars.service.cluster`). When one
dies, another takes its place, and its case is tried once more. Results are written by the workers, all or nothing.
"""

from __future__ import annotations

import logging
import socket
import time
from collections import deque
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Generic, Protocol, TypeVar

from soars.errors import BundleError, EngineError
from soars.progress import Reporter, ignore
from soars.service.batch import FAILED, SEGMENTED, UP_TO_DATE, Outcome, Remaining, concerns_all, failure
from soars.service.cases import BatchCase
from soars.service.segmenter import BatchOptions, Segmenter, look

log = logging.getLogger(__name__)

ATTEMPTS = 2
MOST_LOST = 5
"""Workers that may be lost before the first of them has answered: then it is not the cases' fault."""

Worker = TypeVar("Worker")


@dataclass(frozen=True)
class Answer:
    """What a worker made of a case; ``error`` when it concerns all cases."""

    outcome: Outcome
    seconds: float = 0.0
    error: Exception | None = None


@dataclass(frozen=True)
class Lost:
    """A worker has died instead of answering; ``how``, in a word."""

    how: str


class Settler:
    """What a worker is inside: it segments one case after the other, its networks open. ``bundle_sha256`` is that of
    the bundle with which the batch was started: with another one, of another machine or put there since, no case is
    segmented."""

    def __init__(self, options: BatchOptions, threads: int | None, bundle_sha256: str) -> None:
        self._segmenter = Segmenter(options, threads)
        self._is_another = self._segmenter.bundle.sha256 != bundle_sha256
        self._ran = False

    def settle(self, case: BatchCase, output: str, report: Reporter = ignore) -> Answer:
        """Segment a case unless its results are there."""
        start = time.perf_counter()
        if self._is_another:
            bundle = self._segmenter.bundle
            other = BundleError(
                f"a worker on {socket.gethostname()} has another bundle {bundle.name} ({bundle.version}) than the "
                "batch was started with; install the same everywhere and start it again"
            )
            return Answer(failure(case.name, other), error=other)
        try:
            read = look(case, Path(output), self._segmenter.options, self._segmenter.sha256)
            if read.ct is None:
                return Answer(Outcome(case.name, UP_TO_DATE))
            self._segmenter.segment(case, Path(output), read, report)
            self._ran = True
            return Answer(Outcome(case.name, SEGMENTED), time.perf_counter() - start)
        except Exception as error:
            concerned = type(error)(str(error)) if concerns_all(error, self._ran) else None
            return Answer(failure(case.name, error), error=concerned)


class Crew(Protocol[Worker]):
    """Workers of one kind, ``at_once`` at most; ``cannot_work`` is what to say when none of them ever answers."""

    at_once: int
    cannot_work: str

    def hire(self) -> Worker:
        """A new worker, in its place or in that of one that died."""

    def give(self, worker: Worker, case: BatchCase, output: Path) -> None:
        """Have a worker that is free settle a case."""

    def wait(self) -> Collection[tuple[Worker, Answer | Lost]]:
        """The workers that have answered or died since the last call; may be none, after a while."""


class _Batch(Generic[Worker]):
    """A batch that is being worked at."""

    def __init__(
        self, cases: Sequence[BatchCase], output: Path, crew: Crew[Worker], report: Reporter
    ) -> None:
        self.outcomes = [Outcome(case.name, FAILED, case.problem) for case in cases if case.problem]
        for outcome in self.outcomes:
            log.warning("%s was left out: %s", outcome.case, outcome.message)
        self._waiting = deque((case, 1) for case in cases if not case.problem)
        self._crew, self._output, self._report = crew, output, report
        self._clock = Remaining(len(cases), len(self.outcomes), max(crew.at_once, 1))
        self._busy: dict[Worker, tuple[BatchCase, int]] = {}
        self._lost, self._answered = 0, False

    def run(self, after_each: Callable[[Sequence[Outcome]], None]) -> None:
        for _ in range(self._crew.at_once):
            self._give(None)
        while self._busy:
            for worker, said in self._crew.wait():
                if worker not in self._busy:
                    continue  # it has died with nothing to do
                case, attempt = self._busy.pop(worker)
                if isinstance(said, Lost):
                    self._lose(case, attempt, said)
                    self._give(None)
                    continue
                self._answered = True
                if said.error is not None:
                    raise said.error
                self._note(said)
                self._give(worker)
                after_each(self.outcomes)

    def _give(self, worker: Worker | None) -> None:
        """The next case, if there is one, to a worker, or to a new one."""
        if self._waiting:
            case, attempt = self._waiting.popleft()
            worker = self._crew.hire() if worker is None else worker
            self._busy[worker] = case, attempt
            self._crew.give(worker, case, self._output)

    def _lose(self, case: BatchCase, attempt: int, lost: Lost) -> None:
        """A worker has died: its case is the next to be tried, or has failed."""
        self._lost += not self._answered
        if self._lost > MOST_LOST:
            raise EngineError(f"{self._crew.cannot_work} ({lost.how})")
        log.warning("a worker was lost at %s (%s)", case.name, lost.how)
        if attempt < ATTEMPTS:
            self._waiting.appendleft((case, attempt + 1))
        else:
            message = "the worker crashed or ran out of memory, twice; the CT may be damaged"
            self._note(Answer(Outcome(case.name, FAILED, message, fault=True)))

    def _note(self, answer: Answer) -> None:
        outcome = answer.outcome
        self.outcomes.append(outcome)
        if outcome.state == SEGMENTED:
            self._clock.worked(answer.seconds)
        else:
            self._clock.passed()
        if outcome.state == FAILED:
            log.warning("%s was left out: %s", outcome.case, outcome.message)
        self._clock.show(outcome.case, self._report)


def spread(
    cases: Sequence[BatchCase],
    output: Path,
    crew: Crew[Worker],
    report: Reporter,
    after_each: Callable[[Sequence[Outcome]], None],
) -> list[Outcome]:
    """Settle the cases, as `soars.service.batch.run_batch` does, by the workers of a crew."""
    batch = _Batch(cases, output, crew, report)
    batch.run(after_each)
    order = {case.name: place for place, case in enumerate(cases)}
    return sorted(batch.outcomes, key=lambda outcome: order[outcome.case])
