"""Segmenting one case after the other: the bundle is checked once, and the cascade's networks stay open.

What a batch, an actor of Ray and the DICOM node share. Each case goes through the same `soars.run.case.segment_case` as
a single one and is written all or nothing.
"""

from __future__ import annotations

import errno
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

from soars.bundle.manifest import CASCADE
from soars.bundle.store import load_bundle
from soars.cascade.engine import OpenEngines, choose_engine
from soars.cascade.run import needed_branches
from soars.ct.images import CtScan
from soars.devices import is_card
from soars.errors import EngineError, SoarsError
from soars.files import staged_folder
from soars.progress import Reporter
from soars.run.case import AtHand, Case, Request, check_places, is_own_result, read_case, segment_case
from soars.run.segment import wanted_organs
from soars.service.cases import BatchCase
from soars.service.result import FILES, Made, is_made, key_of, write_made
from soars.systems.registry import system_of

_DISK_FULL = (errno.ENOSPC, errno.EDQUOT)

Writer = Callable[[Case, Path], None]
"""Writes one more file of a case."""


@dataclass(frozen=True)
class BatchOptions:
    """How all cases are segmented; as in `soars.run.case.Request`. ``overwrite`` results of other inputs or options."""

    bundle: str
    device: str = "auto"
    engine: str = "auto"
    organs: tuple[str, ...] | None = None
    overwrite: bool = False


@dataclass(frozen=True)
class Read:
    """A case that was looked at: its key (see `soars.service.result`), and no CT when its results are there."""

    key: str
    ct: CtScan | None
    seconds: float


def look(case: BatchCase, output: Path, options: BatchOptions, bundle_sha256: str) -> Read:
    """Hash a case, and read its CT unless its results are in ``output``/NAME. Raises `InputError`."""
    start = time.perf_counter()
    request = _request(case, options)
    check_places(case.ct, output / case.name)
    key = key_of(request, bundle_sha256)
    ct = None if is_made(output / case.name, key) else read_case(request)
    return Read(key, ct, time.perf_counter() - start)


class Segmenter:
    """Segments cases in this process, with all its processors or as many ``threads``.

    Raises `SoarsError` when the bundle, its organs or the engine cannot be used.
    """

    def __init__(self, options: BatchOptions, threads: int | None = None) -> None:
        self.options, self._threads = options, threads
        self.bundle = load_bundle(options.bundle)
        system = system_of(self.bundle)
        problem = system.problem(wanted_organs(self.bundle, options.organs))
        if problem is not None:
            raise EngineError(problem)
        self.sha256 = system.sha256
        self._engines = OpenEngines()

    @property
    def takes_the_machine(self) -> bool:
        """Whether one case at a time is best: on a GPU, or by a system that spreads over the processors itself."""
        if self.bundle.system != CASCADE:
            return True
        branches = needed_branches(self.bundle, wanted_organs(self.bundle, self.options.organs))
        chosen = choose_engine(self.bundle, branches, engine=self.options.engine, device=self.options.device)
        return is_card(chosen.device)

    def segment(
        self,
        case: BatchCase,
        output: Path,
        read: Read,
        report: Reporter,
        more: Mapping[str, Writer] | None = None,
    ) -> None:
        """Write the results of a case that `look` gave a CT into ``output``/NAME; ``more`` files by their names.

        Raises `SoarsError`; nothing is left then.
        """
        start = time.perf_counter()
        names = (*FILES, *(more or {}))
        ready = AtHand(self.bundle, read.ct, read.seconds, self._engines, self._threads)
        overwrite = self.options.overwrite
        with staged_folder(output / case.name, names, overwrite=overwrite, ours=is_own_result) as staging:
            done = segment_case(_request(case, self.options), staging, report, ready)
            for name, write in (more or {}).items():
                write(done, staging / name)
            seconds = time.perf_counter() - start
            write_made(staging, done, Made(case.name, read.key, round(seconds, 3)))


def disk_is_full(error: SoarsError) -> bool:
    """Whether an error is that of a full disk, which no case is to blame for."""
    return isinstance(error.__cause__, OSError) and error.__cause__.errno in _DISK_FULL


def _request(case: BatchCase, options: BatchOptions) -> Request:
    return Request(case.ct, options.bundle, options.device, options.engine, options.organs, case.series)
