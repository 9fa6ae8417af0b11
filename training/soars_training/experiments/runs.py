"""One run of many: trained when it is not there yet, gone on with when it was interrupted."""

from __future__ import annotations

import shutil
from pathlib import Path

from soars.errors import InputError
from soars_training.cohorts.cache import CacheIndex
from soars_training.fitting.fit import fit
from soars_training.fitting.options import LAST, RUN_FILE, FitOptions, FittedRun
from soars_training.fitting.state import other_settings
from soars_training.release.guide import write_guides
from soars_training.search.search import SEARCH_FILE, read_blocks, search


def fitted(cache: Path, folder: Path, options: FitOptions, guide: Path | None = None) -> FittedRun:
    """The finished run in `folder`. Raises as `fit` does, and `InputError` for one of other settings or voxels."""
    if (folder / RUN_FILE).exists():
        run = FittedRun.load(folder)
        run.require_spacing(CacheIndex.load(cache).spacing_mm, cache)
        other = other_settings(options, run.options)
        if other:
            raise InputError(
                f"{folder}: was trained with other settings ({', '.join(sorted(other))}); use the same, or another "
                "folder"
            )
        return run
    return fit(cache, folder, options, guide, resume=(folder / LAST).exists())


def searched(
    cache: Path, folder: Path, options: FitOptions, alpha_rate: float, guide: Path | None = None
) -> tuple[str, ...]:
    """The kernels that the search in `folder` has chosen. Raises as `search` does."""
    if (folder / SEARCH_FILE).exists():
        return read_blocks(str(folder), len(options.features))
    resume = (folder / LAST).exists()
    return search(cache, folder, options, guide, alpha_rate=alpha_rate, resume=resume)


def guided(cache: Path, anchor_run: Path, folder: Path, device: str) -> Path:
    """The folder with the anchor run's probabilities of every case: there whole or not at all."""
    if not folder.exists():
        unfinished = folder.with_name(folder.name + ".part")
        shutil.rmtree(unfinished, ignore_errors=True)
        write_guides(cache, anchor_run, unfinished, device)
        unfinished.rename(folder)
    return folder
