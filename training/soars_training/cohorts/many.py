"""A cohort of any size into a cache: each process has one case in memory, and an interruption costs no finished one."""

from __future__ import annotations

import json
import logging
import multiprocessing
import os
import shutil
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, replace
from functools import partial
from pathlib import Path

from tqdm import tqdm

from soars.cascade.preprocess import find_body
from soars.catalogue import CATALOGUE
from soars.errors import InputError
from soars.files import staged_folder, write_json
from soars.parallel import in_processes
from soars.texts import read_json
from soars_training.cohorts.cache import INDEX_FILE, CachedCase, CacheIndex, IndexEntry, entry_of, write_case
from soars_training.cohorts.disk import require_disk
from soars_training.cohorts.layouts import CaseFiles
from soars_training.cohorts.listing import ListedCase, read_listing
from soars_training.cohorts.prepare import (
    OpenKbpCase,
    SourceCase,
    Spacing,
    cut_vois,
    openkbp_case,
    openkbp_listing,
    read_listed,
    whole_scan,
)
from soars_training.cohorts.reading import LeftOut, read_cases, unusable

log = logging.getLogger(__name__)

RECIPE_FILE = "recipe.json"
DONE = ".done.json"


@dataclass(frozen=True)
class Made:
    """A volume for the cache, in the split and of the patient of its case; `group` names the VOI, None for a whole
    scan."""

    split: str
    group: str | None
    volume: CachedCase
    patient: str = ""


@dataclass(frozen=True)
class Job:
    """A case to be prepared, in whatever process: `make` must be picklable. It notes what it leaves out. `source` says
    which files it is made of, and how."""

    name: str
    make: Callable[[Spacing, LeftOut], Iterator[Made]]
    source: str = ""


def file_jobs(files: Sequence[CaseFiles], vois: Mapping[str, Spacing] | None = None) -> list[Job]:
    """The cases of a data set; with `vois` (mm per heat-map group) their volumes of interest."""
    return [Job(entry.name, partial(_from_files, entry, vois), _source(entry)) for entry in files]


def listed_jobs(listing: Path, vois: Mapping[str, Spacing] | None = None) -> list[Job]:
    """The cases of the user's list, which is checked whole at once. Raises as `read_listing` does."""
    return [Job(case.name, partial(_from_list, case, vois), _source(case)) for case in read_listing(listing)]


def openkbp_jobs(folder: Path, splits: Sequence[str], vois: Mapping[str, Spacing] | None = None) -> list[Job]:
    """The cases of an OpenKBP folder. Raises as `openkbp_listing` does."""
    wanted = [case for case in openkbp_listing(folder) if case.split in splits]
    return [Job(case.patient, partial(_from_openkbp, case, vois), _source(case)) for case in wanted]


def prepare_files(
    files: Sequence[CaseFiles],
    folder: Path,
    spacing_mm: Spacing,
    source: str,
    left_out: LeftOut,
    processes: int = 1,
) -> CacheIndex:
    """Preprocess the whole scans of a data set; see `prepare_jobs`."""
    return prepare_jobs(file_jobs(files), folder, spacing_mm, source, left_out, processes)


def prepare_jobs(
    jobs: Sequence[Job],
    folder: Path,
    spacing_mm: Spacing,
    source: str,
    left_out: LeftOut,
    processes: int = 1,
    vois: Mapping[str, Spacing] | None = None,
) -> CacheIndex:
    """Preprocess cases, so many at a time. `vois` are those that the jobs cut, None for whole scans.

    Finished cases wait in `FOLDER.part`, from where the same call goes on after an interruption; those whose entry or
    files are others by then are prepared anew. The cache appears when all are there. Raises `InputError` when what
    waits there was begun with another spacing, source or VOIs, when no case can be used, when by the size of the
    finished cases the disk has no room for the others, and as `soars.parallel.in_processes` does.
    """
    work = folder.with_name(folder.name + ".part")
    recipe: dict[str, object] = {"spacing_mm": list(spacing_mm), "source": source}
    _begin(work, recipe | ({"voi_mm": {g: list(mm) for g, mm in vois.items()}} if vois else {}))
    todo = [job for job in jobs if not _is_done(work, job)]
    with tqdm(total=len(jobs), initial=len(jobs) - len(todo), desc=f"prepare {source}", unit="case") as bar:
        written = 0
        work_on = partial(_prepare_one, work, spacing_mm)
        for done, (_, (warnings, size)) in enumerate(in_processes(work_on, todo, processes), start=1):
            for warning in warnings:
                log.warning("%s", warning)
            bar.update()
            written += size
            require_disk(work, written * (len(todo) - done) // done, "the cases still to prepare")
    index, names = CacheIndex(spacing_mm, source), [INDEX_FILE]
    told = [read_json(work / (job.name + DONE)) for job in jobs]
    left_out.rows += [(name, organ, why) for case in told for name, organ, why in case["left_out"]]
    index.cases += [IndexEntry.from_dict(made) for case in told for made in case["entries"]]
    if not index.cases:
        raise InputError(
            f"{folder}: none of the {len(jobs)} cases can be used; the warnings say why. Mend them, remove {work} and "
            "prepare again"
        )
    with staged_folder(folder, names, overwrite=True) as staging:
        for entry in index.cases:
            names.append(entry.file)
            _link_or_copy(work / entry.file, staging / entry.file)
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


def _prepare_one(work: Path, spacing_mm: Spacing, job: Job) -> tuple[list[str], int]:
    """Write the volumes of the case, if it can be used, and then what became of it. Returns warnings, and bytes."""
    left_out = LeftOut(quiet=True)
    entries, size = [], 0
    with _overheard(job.name, left_out):
        for made in job.make(spacing_mm, left_out):
            file = f"{made.volume.name}.npz"
            write_case(work / file, made.volume)
            size += (work / file).stat().st_size
            entries.append(entry_of(made.volume, file, made.split, made.group, made.patient).to_dict())
    told = {"source": job.source, "entries": entries, "left_out": [list(row) for row in left_out.rows]}
    write_json(work / (job.name + DONE), told)
    return left_out.unsaid, size


class _Listener(logging.Handler):
    """Keeps the warnings that are logged about a case, to be said where they are shown."""

    def __init__(self, case: str, left_out: LeftOut) -> None:
        super().__init__(logging.WARNING)
        self.case, self.left_out = case, left_out

    def emit(self, record: logging.LogRecord) -> None:
        words, start = record.getMessage(), f"{self.case}: "
        self.left_out.say(words if words.startswith(start) else start + words)


@contextmanager
def _overheard(case: str, left_out: LeftOut) -> Iterator[None]:
    """What the reading of a case logs is kept in `left_out.unsaid` where nobody would see it: in another process."""
    if multiprocessing.parent_process() is None:
        yield
        return
    listener = _Listener(case, left_out)
    loggers = [logging.getLogger(name) for name in ("soars", "soars_training")]
    for logger in loggers:
        logger.addHandler(listener)
    try:
        yield
    finally:
        for logger in loggers:
            logger.removeHandler(listener)


def _is_done(work: Path, job: Job) -> bool:
    path = work / (job.name + DONE)
    return path.exists() and read_json(path).get("source") == job.source


def _source(case: CaseFiles | ListedCase | OpenKbpCase) -> str:
    """Where a case's files are and what is said of them."""
    return json.dumps(asdict(case), default=lambda v: sorted(v) if isinstance(v, frozenset) else str(v))


def _from_files(
    files: CaseFiles, vois: Mapping[str, Spacing] | None, spacing_mm: Spacing, left_out: LeftOut
) -> Iterator[Made]:
    for case in read_cases([files], left_out):
        yield from _volumes(case, vois, spacing_mm, left_out)


def _from_list(
    listed: ListedCase, vois: Mapping[str, Spacing] | None, spacing_mm: Spacing, left_out: LeftOut
) -> Iterator[Made]:
    try:
        case, notes = read_listed(listed)
    except InputError as error:
        left_out.add(listed.name, "", f"{listed.place}: {error}")
        return
    for note in notes:
        left_out.note(listed.name, note)
    case = _possible(case, listed.annotated or frozenset(), left_out)
    yield from _volumes(case, vois, spacing_mm, left_out)


def _from_openkbp(
    case: OpenKbpCase, vois: Mapping[str, Spacing] | None, spacing_mm: Spacing, left_out: LeftOut
) -> Iterator[Made]:
    try:
        read = openkbp_case(case)
    except InputError as error:
        left_out.add(case.patient, "", str(error))
        return
    yield from _volumes(_possible(read, frozenset(), left_out), vois, spacing_mm, left_out)


def _possible(case: SourceCase, vouched: frozenset[str], left_out: LeftOut) -> SourceCase:
    """The case without organs of an impossible volume, which nobody vouched for: those are unknown in it. Of an organ
    that was drawn on some slices only the volume says nothing."""
    wrong = []
    for organ in (o for o in case.structures.names if o not in vouched | case.sparse):
        why = unusable(case.structures.volume_cc(organ), CATALOGUE[organ])
        if why:
            left_out.add(case.name, organ, why)
            wrong.append(organ)
    kept = case.structures.subset([o for o in case.structures.names if o not in wrong])
    return replace(case, structures=kept, annotated=case.annotated.difference(wrong))


def _volumes(
    case: SourceCase, vois: Mapping[str, Spacing] | None, spacing_mm: Spacing, left_out: LeftOut
) -> Iterator[Made]:
    """`volumes_of` a case; one in which no patient is found, say, costs itself and not the cohort."""
    try:
        yield from volumes_of(case, vois, spacing_mm)
    except InputError as error:
        left_out.add(case.name, "", str(error))


def volumes_of(case: SourceCase, vois: Mapping[str, Spacing] | None, spacing_mm: Spacing) -> Iterator[Made]:
    """What the cache holds of a case: the whole scan, or its volumes of interest."""
    cut = whole_scan if vois is None else partial(cut_vois, vois)
    for group, volume in cut(case, find_body(case.ct), spacing_mm):
        yield Made(case.split, group, volume, case.patient)
