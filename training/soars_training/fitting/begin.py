"""How every run begins: its folder, device, seed, and which patients it learns from."""

from __future__ import annotations

import logging
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch

from soars.errors import InputError
from soars_training.cohorts.cache import CacheIndex, IndexEntry
from soars_training.cohorts.splits import split
from soars_training.fitting import processes
from soars_training.fitting.loop import training_device
from soars_training.fitting.options import LAST, RUN_FILE, FittedRun, RunOptions
from soars_training.fitting.state import HELD_OUT, LEARNED

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Beginning:
    """What a run has before its model: the cases to learn from, and those of the patients held out."""

    device: torch.device
    index: CacheIndex
    learn: Sequence[IndexEntry]
    held: Sequence[IndexEntry]

    def learned(self, *before: FittedRun | None) -> tuple[str, ...]:
        """The patients that the run learns from, and those of the runs that it starts from, as far as these say."""
        theirs = (patient for run in before if run is not None for patient in run.learned or ())
        return tuple(sorted({*(e.patient for e in self.learn), *theirs}))

    def warn_if_learned(self, what: str, learned: Collection[str]) -> None:
        """Say that what the run starts from, or is guided by, knows patients held out here."""
        held = {e.patient for e in self.held}
        if told := held.intersection(learned):
            log.warning(
                "%s learned from %d of the %d patients held out here, so the DSC of these will be better than that of "
                "new patients; hold out the same ones in both runs",
                what,
                len(told),
                len(held),
            )

    @property
    def sides(self) -> dict[str, list[str]]:
        """Which cases are learned and which are held out, as a checkpoint remembers them."""
        return {LEARNED: sorted(e.name for e in self.learn), HELD_OUT: sorted(e.name for e in self.held)}


def begin(
    cache: Path, output: Path, options: RunOptions, *, resume: bool, overwrite: bool, few_shapes: bool = True
) -> Beginning:
    """Check what was asked for, and set threads and seed; changes nothing on the disk.

    `few_shapes`: whether what the network convolves has the same shapes again and again.

    Raises `InputError` for options that make no sense, a device or cache that is not there, too few patients, and a
    folder that holds a run, unless it is to be resumed or overwritten.
    """
    options.check()
    device = processes.join(training_device(options.device))
    _refuse_a_run(output, resume, overwrite)
    if options.threads:
        torch.set_num_threads(options.threads)
    # Of every shape cuDNN tries its ways to convolve once and keeps the fastest, which pays where there are few.
    torch.backends.cudnn.benchmark = few_shapes and not options.deterministic
    torch.manual_seed(options.seed)
    index = CacheIndex.load(cache)
    learn, held = split(index.of_split(options.train_split), options.held_out, options.fold)
    return Beginning(device, index, learn, held)


def _refuse_a_run(output: Path, resume: bool, overwrite: bool) -> None:
    if resume and (output / RUN_FILE).exists():
        raise InputError(f"{output}: this run is finished; to train on from it use another folder and --init")
    if not (resume or overwrite) and ((output / LAST).exists() or (output / RUN_FILE).exists()):
        raise InputError(
            f"{output} holds a run already; --resume goes on with it, --overwrite starts it anew"
        )
