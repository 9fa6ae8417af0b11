"""A cohort of any size into a cache: each process has one case in memory, and an interruption costs no finished one."""

from __future__ import annotations

import os
import shutil
from collections.abc import Sequence
from functools import partial
from pathlib import Path

from tqdm import tqdm

from soars.cascade.preprocess import find_body
from soars.errors import InputError
from soars.files import staged_folder, write_json
from soars.parallel import in_processes
from soars.texts import read_json
from soars_training.cohorts.cache import INDEX_FILE, CacheIndex, IndexEntry, write_case
from soars_training.cohorts.layouts import CaseFiles
from soars_training.cohorts.prepare import entry_of, whole_scan
from soars_training.cohorts.reading import LeftOut, read_cases

RECIPE_FILE = "recipe.json"
DONE = ".done.json"

Spacing = tuple[float, float, float]


def prepare_files(
    files: Sequence[CaseFiles],
    folder: Path,
    spacing_mm: Spacing,
    source: str,
    left_out: LeftOut,
    processes: int = 1,
) -> CacheIndex:
    """Preprocess the whole scans of a data set, so many at a time.

    Finished cases wait in `FOLDER.part`, from where the same call goes on after an interruption; the cache appears when
    all are there. Raises `InputError` when what waits there was begun with another spacing or source, and as
    `soars.parallel.in_processes` does.
    """
    work = folder.with_name(folder.name + ".part")
    _begin(work, {"spacing_mm": list(spacing_mm), "source": source})
    todo = [entry for entry in files if not (work / (entry.name + DONE)).exists()]
    with tqdm(total=len(files), initial=len(files) - len(todo), desc=f"prepare {source}", unit="case") as bar:
        for _ in in_processes(partial(_prepare_one, work, spacing_mm), todo, processes):
            bar.update()
    index, names = CacheIndex(spacing_mm, source), [INDEX_FILE]
    with staged_folder(folder, names, overwrite=True) as staging:
        for entry in files:
            told = read_json(work / (entry.name + DONE))
            for row in told["left_out"]:
                left_out.add(*row)
            for made in told["entries"]:
                index.cases.append(IndexEntry.from_dict(made))
                names.append(made["file"])
                _link_or_copy(work / made["file"], staging / made["file"])
        index.save(staging)
    shutil.rmtree(work)
    return index


def _link_or_copy(file: Path, place: Path) -> None:
    """Some file systems know no hard links."""
    try:
        os.link(file, place)
    except OSError:
        shutil.copyfile(file, place)


def _begin(work: Path, recipe: dict[str, object]) -> None:
    path = work / RECIPE_FILE
    if not path.exists():
        work.mkdir(parents=True, exist_ok=True)
        write_json(path, recipe)
    elif read_json(path) != recipe:
        raise InputError(
            f"{work} holds cases that were prepared with another --spacing or from other data; remove it, or prepare "
            "as before"
        )


def _prepare_one(work: Path, spacing_mm: Spacing, files: CaseFiles) -> None:
    """Write the case, if it can be used, and then what became of it."""
    left_out = LeftOut()
    entries = []
    for case in read_cases([files], left_out):
        for group, cached in whole_scan(case, find_body(case.ct), spacing_mm):
            file = f"{cached.name}.npz"
            write_case(work / file, cached)
            entries.append(entry_of(cached, file, case.split, group).to_dict())
    told = {"entries": entries, "left_out": [list(row) for row in left_out.rows]}
    write_json(work / (files.name + DONE), told)
