"""A batch over Ray: one actor a GPU, or a few processors, on this machine or a cluster.

The actors write their results into a folder that all machines see. Ray is in the extra ``ray`` and is imported here
only.
"""

from __future__ import annotations

import logging
import os
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from soars.errors import InputError
from soars.parallel import available_processors
from soars.progress import Progress, Reporter
from soars.service.batch import Outcome
from soars.service.cases import BatchCase
from soars.service.segmenter import BatchOptions, Segmenter
from soars.service.spread import Answer, Lost, Settler, spread

log = logging.getLogger(__name__)

LOCAL = "local"
MOST_CORES = 4
"""Of an actor without a GPU, unless something else is asked for: more threads gain little."""
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


def run_on_ray(
    cases: Sequence[BatchCase],
    output: Path,
    options: BatchOptions,
    cluster: Cluster,
    report: Reporter,
    after_each: Callable[[Sequence[Outcome]], None] = lambda outcomes: None,
) -> list[Outcome]:
    """As `soars.service.batch.run_batch`, on the actors of a cluster."""
    bundle = Segmenter(options).bundle  # what is wrong with it is said before anything is started
    report(Progress("ray", message="starting Ray"))
    with _connected(cluster) as ray:
        return spread(
            cases, output, _Actors(ray, *_actors(ray, cluster, options, bundle.sha256)), report, after_each
        )


class _Worker(Settler):
    """What an actor is; Ray names its process after the class."""


class _Actors:
    """The crew of a cluster's actors."""

    cannot_work = "no worker of the cluster can work; is this version of SOARS installed there?"

    def __init__(self, ray: Any, make: Callable[[], Any], most: int) -> None:
        self.at_once = most
        self._ray, self._make = ray, make
        self._running: dict[Any, Any] = {}

    def hire(self) -> Any:
        return self._make()

    def give(self, worker: Any, case: BatchCase, output: Path) -> None:
        self._running[worker.settle.remote(case, str(output))] = worker

    def wait(self) -> list[tuple[Any, Answer | Lost]]:
        found: list[tuple[Any, Answer | Lost]] = []
        for reference in self._ray.wait(list(self._running), timeout=_POLL_S)[0]:
            actor = self._running.pop(reference)
            try:
                found.append((actor, self._ray.get(reference)))
            except self._ray.exceptions.RayError as error:
                log.debug("a worker of Ray was lost", exc_info=error)
                found.append((actor, Lost(type(error).__name__)))
        return found


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


def _actors(
    ray: Any, cluster: Cluster, options: BatchOptions, bundle_sha256: str
) -> tuple[Callable[[], Any], int]:
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
    return lambda: remote.remote(options, threads, bundle_sha256), most
