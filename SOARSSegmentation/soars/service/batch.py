"""A batch: many CTs, one after the other, through the same `soars.run.case.segment_case` as a single one.

The bundle is checked and the cascade's networks are loaded once; the next CT is hashed and read by another process
while one is computed. A case is written all or nothing, so a batch that was killed goes on where it stopped. At most
two CTs are in this process's memory, however long the batch is. `soars.service.workers` does the same with several
cases at once.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Sequence
from concurrent.futures import BrokenExecutor, Future
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from soars.errors import BundleError, CancelledError, EngineError, InputError, SoarsError
from soars.parallel import one_ahead
from soars.progress import Progress, Reporter, duration
from soars.service.cases import BatchCase
from soars.service.segmenter import BatchOptions, Read, Segmenter, disk_is_full, look

log = logging.getLogger(__name__)

SEGMENTED, UP_TO_DATE, FAILED = "segmented", "up to date", "failed"
"""States of a case: done now; done before from the same inputs; left out."""


@dataclass(frozen=True)
class Outcome:
    """What became of a case. ``message`` is why it failed; ``fault`` that the reason is an error of this program."""

    case: str
    state: str
    message: str = ""
    fault: bool = False


def run_batch(
    cases: Sequence[BatchCase],
    output: Path,
    options: BatchOptions,
    report: Reporter,
    after_each: Callable[[Sequence[Outcome]], None] = lambda outcomes: None,
) -> list[Outcome]:
    """Segment the cases into ``output``/NAME each; one that cannot be segmented is reported and left out.

    Args:
        after_each: called with what is known so far, after every case.

    Raises `SoarsError` for what concerns all cases: bundle, organs, an engine that cannot run even the first case, a
    full disk; `CancelledError`.
    """
    segmenter = Segmenter(options)
    batch = _Batch(output, segmenter, report)
    for case in cases:
        if case.problem:
            batch.note(Outcome(case.name, FAILED, case.problem))
    usable = [case for case in cases if not case.problem]
    clock = Remaining(len(cases), len(cases) - len(usable))
    looking = partial(look, output=output, options=options, bundle_sha256=segmenter.sha256)
    for case, read in one_ahead(looking, usable):
        batch.note(batch.settle(case, read, clock))
        after_each(batch.outcomes)
    order = {case.name: place for place, case in enumerate(cases)}
    return sorted(batch.outcomes, key=lambda outcome: order[outcome.case])


class _Batch:
    """What the cases of one batch share."""

    def __init__(self, output: Path, segmenter: Segmenter, report: Reporter) -> None:
        self.output, self.segmenter, self.report = output, segmenter, report
        self.outcomes: list[Outcome] = []

    def note(self, outcome: Outcome) -> None:
        self.outcomes.append(outcome)
        if outcome.state == FAILED:
            log.warning("%s was left out: %s", outcome.case, outcome.message)

    def settle(self, case: BatchCase, future: Future[Read], clock: Remaining) -> Outcome:
        """Make a case's results, or find out why that is not possible."""
        try:
            read = future.result()
            if read.ct is None:
                clock.passed()
                return Outcome(case.name, UP_TO_DATE)
            start = time.perf_counter()
            self.segmenter.segment(case, self.output, read, clock.reporter(case.name, self.report))
            clock.worked(time.perf_counter() - start)
            return Outcome(case.name, SEGMENTED)
        except CancelledError:
            raise
        except Exception as error:
            if self._concerns_all(error):
                raise
            failed = failure(case.name, error)
        clock.passed()
        return failed

    def _concerns_all(self, error: Exception) -> bool:
        ran = any(outcome.state != FAILED for outcome in self.outcomes)
        return concerns_all(error, ran)


def concerns_all(error: Exception, ran: bool) -> bool:
    """Whether no other case can do better: the disk is full, or the engine has not ``ran`` for any case yet."""
    if isinstance(error, SoarsError) and disk_is_full(error):
        return True
    return isinstance(error, BundleError | EngineError) and not ran


def failure(case: str, error: Exception) -> Outcome:
    """What to say of a case that an error has stopped: a sentence, and whether the fault is the program's."""
    if isinstance(error, SoarsError):
        return Outcome(case, FAILED, str(error))
    if isinstance(error, MemoryError):
        return Outcome(case, FAILED, "not enough memory; close other programs or use a smaller CT")
    if isinstance(error, BrokenExecutor):
        return Outcome(case, FAILED, "reading it crashed or ran out of memory; it may be damaged", fault=True)
    log.debug("internal error in %s", case, exc_info=error)  # ours, and must not cost the other cases
    return Outcome(case, FAILED, f"internal error: {type(error).__name__}: {error}", fault=True)


class Remaining:
    """How far the batch is, and how long the rest will take at the pace of the cases segmented so far."""

    def __init__(self, of: int, done: int, at_once: int = 1) -> None:
        self._of, self._done, self._at_once = of, done, at_once
        self._worked_s: list[float] = []

    def passed(self) -> None:
        """A case took no work."""
        self._done += 1

    def worked(self, seconds: float) -> None:
        self._done += 1
        self._worked_s.append(seconds)

    def reporter(self, case: str, report: Reporter) -> Reporter:
        """One that shows a case's progress within the batch's."""

        def within(progress: Progress) -> None:
            step = f"{progress.stage} {progress.done}/{progress.of}" if progress.of else progress.stage
            report(Progress("cases", self._done, self._of, f"{self._left()}{case}: {step}"))

        return within

    def show(self, case: str, report: Reporter) -> None:
        """Show that a case has ended."""
        report(Progress("cases", self._done, self._of, f"{self._left()}{case}"))

    def _left(self) -> str:
        if not self._worked_s:
            return ""
        seconds = sum(self._worked_s) / len(self._worked_s) * (self._of - self._done) / self._at_once
        return f"{duration(seconds)} left, "


def summary_line(outcomes: Sequence[Outcome]) -> str:
    """``3 segmented, 1 up to date, 1 failed``."""
    counts = {state: sum(o.state == state for o in outcomes) for state in (SEGMENTED, UP_TO_DATE, FAILED)}
    return ", ".join(f"{count} {state}" for state, count in counts.items())


def error_of(outcomes: Sequence[Outcome], output: Path) -> InputError | None:
    """What a batch ends with when cases of it failed."""
    failed = sum(outcome.state == FAILED for outcome in outcomes)
    if not failed:
        return None
    return InputError(f"{failed} of {len(outcomes)} cases failed; {output / 'cases.csv'} says why")
