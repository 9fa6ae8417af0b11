"""A batch over Ray: one actor a GPU, or a few processors, on this machine or a cluster.

Each actor segments one case at a time and takes the next when it is done. When one dies, another takes its place, and
its case is tried once more. Results are written by the actors, all or nothing, into a folder that all machines see. Ray
is in the extra ``ray`` and is imported here only.
"""

from __future__ import annotations

import logging
import os
import time
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from soars.errors import EngineError, InputError
from soars.parallel import available_processors
from soars.progress import Progress, Reporter, ignore
from soars.service.batch import FAILED, SEGMENTED, UP_TO_DATE, Outcome, Remaining, concerns_all, failure
from soars.service.cases import BatchCase
from soars.service.segmenter import BatchOptions, Segmenter, look

log = logging.getLogger(__name__)

LOCAL = "local"
MOST_CORES = 4
"""Of an actor without a GPU, unless something else is asked for: more threads gain little."""
ATTEMPTS = 2
MOST_LOST = 5
"""Workers that may be lost before the first of them has answered: then it is not the cases' fault."""
_POLL_S = 1.0
_STORE_BYTES = 100 << 20
"""Ray's shared memory; only paths and outcomes pass through it."""


@dataclass(frozen=True)
class Cluster:
    """``address`` of a running cluster, or `LOCAL`; ``workers`` at most (None: as many as fit), ``cores`` of each
    (None: a few, or with a GPU Ray's default)."""

    address: str
    workers: int | None = None
    cores: int | None = None


@dataclass(frozen=True)
class _Answer:
    """What an actor made of a case; ``error`` when it concerns all cases."""

    outcome: Outcome
    seconds: float = 0.0
    error: Exception | None = None


@dataclass
class _Running:
    actor: Any
    case: BatchCase
    attempt: int


def run_on_ray(
    cases: Sequence[BatchCase],
    output: Path,
    options: BatchOptions,
    cluster: Cluster,
    report: Reporter,
    after_each: Callable[[Sequence[Outcome]], None] = lambda outcomes: None,
) -> list[Outcome]:
    """As `soars.service.batch.run_batch`, on the actors of a cluster."""
    Segmenter(options)  # what is wrong with the bundle is said before anything is started
    outcomes = [Outcome(case.name, FAILED, case.problem) for case in cases if case.problem]
    for outcome in outcomes:
        log.warning("%s was left out: %s", outcome.case, outcome.message)
    waiting = deque((case, 1) for case in cases if not case.problem)
    report(Progress("ray", message="starting Ray"))
    with _connected(cluster) as ray:
        make, most = _actors(ray, cluster, options)
        count = min(most, len(waiting))
        clock = Remaining(len(cases), len(outcomes), max(count, 1))
        running: dict[Any, _Running] = {}
        lost = 0  # workers, before the first answer

        def give(actor: Any) -> None:
            if waiting:
                case, attempt = waiting.popleft()
                running[actor.settle.remote(case, str(output))] = _Running(actor, case, attempt)

        for _ in range(count):
            give(make())
        while running:
            for reference in ray.wait(list(running), timeout=_POLL_S)[0]:
                one = running.pop(reference)
                try:
                    answer: _Answer = ray.get(reference)
                    actor, lost = one.actor, -len(cases) * ATTEMPTS
                except ray.exceptions.RayError as error:
                    lost += 1
                    if lost > MOST_LOST:
                        raise EngineError(
                            f"no worker of the cluster can work; is this version of SOARS installed there? {error}"
                        ) from error
                    log.warning("a worker was lost at %s (%s)", one.case.name, type(error).__name__)
                    actor = make()
                    if one.attempt < ATTEMPTS:
                        waiting.appendleft((one.case, one.attempt + 1))
                        give(actor)
                        continue
                    message = "the worker crashed or ran out of memory, twice; the CT may be damaged"
                    answer = _Answer(Outcome(one.case.name, FAILED, message, fault=True))
                if answer.error is not None:
                    raise answer.error
                _note(answer, outcomes, clock, report)
                after_each(outcomes)
                give(actor)
    order = {case.name: place for place, case in enumerate(cases)}
    return sorted(outcomes, key=lambda outcome: order[outcome.case])


def _note(answer: _Answer, outcomes: list[Outcome], clock: Remaining, report: Reporter) -> None:
    outcome = answer.outcome
    outcomes.append(outcome)
    if outcome.state == SEGMENTED:
        clock.worked(answer.seconds)
    else:
        clock.passed()
    if outcome.state == FAILED:
        log.warning("%s was left out: %s", outcome.case, outcome.message)
    clock.show(outcome.case, report)


class _Worker:
    """What an actor is: a process that segments one case after the other."""

    def __init__(self, options: BatchOptions, threads: int | None) -> None:
        self._segmenter = Segmenter(options, threads)
        self._ran = False

    def settle(self, case: BatchCase, output: str) -> _Answer:
        """Segment a case unless its results are there."""
        start = time.perf_counter()
        try:
            read = look(case, Path(output), self._segmenter.options, self._segmenter.sha256)
            if read.ct is None:
                return _Answer(Outcome(case.name, UP_TO_DATE))
            self._segmenter.segment(case, Path(output), read, ignore)
            self._ran = True
            return _Answer(Outcome(case.name, SEGMENTED), time.perf_counter() - start)
        except Exception as error:
            concerned = type(error)(str(error)) if concerns_all(error, self._ran) else None
            return _Answer(failure(case.name, error), error=concerned)


@contextmanager
def _connected(cluster: Cluster) -> Iterator[Any]:
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")  # nothing is reported to anybody
    os.environ.setdefault("RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO", "0")
    try:
        import ray
    except ImportError as error:
        raise InputError("ray is missing: pip install 'soars-segmentation[ray]'") from error
    quiet: dict[str, Any] = {"logging_level": logging.ERROR, "log_to_driver": False}
    try:
        if cluster.address == LOCAL:
            ray.init(
                num_cpus=max(available_processors(), cluster.cores or 1),
                include_dashboard=False,
                object_store_memory=_STORE_BYTES,
                **quiet,
            )
        else:
            ray.init(address=cluster.address, **quiet)
    except Exception as error:  # whatever Ray raises when it cannot start or connect
        raise InputError(f"Ray cannot be used at {cluster.address}: {error}") from error
    try:
        yield ray
    finally:
        ray.shutdown()


def _actors(ray: Any, cluster: Cluster, options: BatchOptions) -> tuple[Callable[[], Any], int]:
    """What makes an actor, and how many fit."""
    there = ray.cluster_resources()
    gpus = int(there.get("GPU", 0)) if options.device != "cpu" else 0
    processors = int(there.get("CPU", 1))
    if gpus:
        needs = {"num_gpus": 1, "num_cpus": cluster.cores or 1}
        threads, fit = cluster.cores, gpus
    else:
        threads = cluster.cores or min(MOST_CORES, processors)
        needs = {"num_cpus": threads}
        fit = processors // threads
    if fit < 1:
        raise InputError(f"no machine of the cluster has {threads} processors for a worker; choose fewer")
    remote = ray.remote(**needs)(_Worker)
    most = min(fit, cluster.workers or fit)
    return lambda: remote.remote(options, threads), most
