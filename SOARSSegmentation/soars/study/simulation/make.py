"""A whole simulated study on phantoms: a lead's folder as `soars study` makes it, with all sessions completed."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from dataclasses import asdict, dataclass, field
from datetime import datetime, timedelta, timezone
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from soars.catalogue import SOARS42
from soars.errors import InputError
from soars.parallel import in_processes
from soars.progress import Progress, Reporter, ignore
from soars.study.desk import Item, Worklist, read_worklist
from soars.study.plan.issue import issue
from soars.study.plan.model import STUDY_FILE, Plan, read_plan
from soars.study.plan.places import share_of, worklist_path
from soars.study.plan.prepare import prepare, read_key
from soars.study.simulation.play import play_session, voxel_error
from soars.study.simulation.truth import SessionWork, Truth, draw_revising, draw_scratch, reader_speeds

if TYPE_CHECKING:
    from soars.structures import StructureSet

TRUTH_FILE = "truth.json"
REVISE, SCRATCH = "revise", "scratch"
SPACING_MM = (3.0, 3.0, 3.0)
_FIRST_DAY = datetime(2026, 1, 5, 8, 0, tzinfo=timezone.utc)
_Key = tuple[str, int, int]


@dataclass(frozen=True)
class SimulationOptions:
    """``cases`` patients, each a phantom of its own, ``scratch`` of them also drawn from scratch; ``readers``;
    ``repeats`` patients are revised a second time; organs are the 42 unless fewer are named; ``dose`` makes planned
    doses too."""

    cases: int = 30
    scratch: int = 5
    readers: int = 2
    repeats: int = 0
    seed: int = 1
    organs: tuple[str, ...] = SOARS42
    dose: bool = True
    truth: Truth = field(default_factory=Truth)


Patient = Callable[[int, Path, SimulationOptions], "tuple[Any, StructureSet, Any]"]


def phantom_case(number: int, _folder: Path, options: SimulationOptions) -> tuple[Any, StructureSet, Any]:
    """CT, reference contours and dose (None where none is wanted) of one patient: a phantom of its own."""
    from soars.phantom import make_phantom

    phantom = make_phantom(options.seed * 1000 + number, spacing_mm=SPACING_MM, noise=False, artefact=False)
    return phantom.ct, phantom.structures, phantom.dose if options.dose else None


def simulate_study(
    folder: Path,
    options: SimulationOptions,
    *,
    patient: Patient = phantom_case,
    processes: int = 1,
    progress: Reporter = ignore,
) -> Plan:
    """Write the study; ``truth.json`` says what was built in. ``patient`` makes a case's CT, contours and dose.
    `InputError` when the folder holds a study. When this raises, a folder that was made for it is gone again."""
    if (folder / STUDY_FILE).exists():
        raise InputError(f"{folder} holds a study already: choose another folder")
    if not 1 <= options.scratch <= options.cases or options.readers < 1 or options.repeats > options.cases:
        raise InputError(
            "a simulated study needs a reader, a case, and no more scratch cases and repeats than cases"
        )
    made = not folder.exists()
    try:
        return _simulate(folder, options, patient, processes, progress)
    except BaseException:
        if made:
            shutil.rmtree(folder, ignore_errors=True)
        raise


def _simulate(
    folder: Path, options: SimulationOptions, patient: Patient, processes: int, progress: Reporter
) -> Plan:
    numbers = range(1, options.cases + 1)
    work = partial(_make_case, folder=folder, options=options, patient=patient)
    for done, _ in enumerate(in_processes(work, list(numbers), processes), start=1):
        progress(Progress("phantoms", done, options.cases))
    (folder / STUDY_FILE).write_text(_study_file(options), encoding="utf-8")
    plan = read_plan(folder)
    prepare(plan, folder, progress=progress)
    issue(plan, folder)
    works = _draw(plan, folder, options)
    readers = [reader.name for reader in plan.readers]
    play = partial(_play_reader, folder=folder, options=options, works=works)
    for done, _ in enumerate(in_processes(play, readers, processes), start=1):
        progress(Progress("sessions", done, len(readers)))
    (folder / TRUTH_FILE).write_text(json.dumps(asdict(options), indent=1) + "\n", encoding="utf-8")
    return plan


def _make_case(number: int, folder: Path, options: SimulationOptions, patient: Patient) -> None:
    """A patient's CT, reference contours and dose, and a model's contours with errors, as files."""
    from soars.formats import write_seg_nrrd
    from soars.formats.imagefiles import write_image

    ct, structures, dose = patient(number, folder, options)
    name = case_name(number)
    for part in ("cts", "references", "model", "doses"):
        (folder / part).mkdir(parents=True, exist_ok=True)
    write_image(ct, folder / "cts" / f"{name}.nrrd")
    reference = structures.subset(options.organs)
    write_seg_nrrd(reference, folder / "references" / f"{name}.seg.nrrd")
    rng = np.random.default_rng([options.seed, 3, number])
    write_seg_nrrd(voxel_error(reference, options.organs, rng), folder / "model" / f"{name}.seg.nrrd")
    if dose is not None:
        write_image(dose, folder / "doses" / f"{name}.nrrd")


def case_name(number: int) -> str:
    return f"case-{number:03d}"


def _study_file(options: SimulationOptions) -> str:
    cases = []
    for number in range(1, options.cases + 1):
        name = case_name(number)
        dose = f", dose: doses/{name}.nrrd" if options.dose else ""
        cases.append(
            f"  - {{name: {name}, ct: cts/{name}.nrrd, reference: references/{name}.seg.nrrd{dose}}}"
        )
    repeats = f"repeats: {{cases: {options.repeats}, arms: [{REVISE}]}}\n" if options.repeats else ""
    readers = [f"  - {{name: R{n}}}" for n in range(1, options.readers + 1)]
    return "\n".join(
        [
            "schema: 1",
            "name: simulated",
            "title: A simulated study of revising contours",
            f"seed: {options.seed}",
            f"organs: [{', '.join(options.organs)}]",
            "balance: minimisation",
            "washout_days: 14",
            f"{repeats}arms:",
            f"  - {{name: {REVISE}, contours: model}}",
            f"  - {{name: {SCRATCH}, proposal: none, cases: {options.scratch}}}",
            "readers:",
            *readers,
            "cases:",
            *cases,
            "",
        ]
    )


def _draw(plan: Plan, folder: Path, options: SimulationOptions) -> dict[_Key, SessionWork]:
    """The work of every session: (arm and repeat, reader, case)."""
    arms = read_key(folder)
    speeds = reader_speeds(options.readers, options.truth.reader_ratio)
    names = [case.name for case in plan.cases]
    keys: dict[str, list[_Key]] = {REVISE: [], SCRATCH: []}
    for r, reader in enumerate(plan.readers):
        for item in read_worklist(share_of(folder) / worklist_path(reader.name)).items:
            keys[arms[item.arm]].append((_kind(arms[item.arm], item), r, names.index(item.case)))
    return {
        **draw_revising(options.truth, keys[REVISE], plan.organs, speeds, options.seed),
        **draw_scratch(options.truth, keys[SCRATCH], plan.organs, speeds, options.seed),
    }


def _kind(arm: str, item: Item) -> str:
    return f"{arm} {item.repeat}"


def _play_reader(
    reader: str, folder: Path, options: SimulationOptions, works: dict[_Key, SessionWork]
) -> None:
    worklist = read_worklist(share_of(folder) / worklist_path(reader))
    arms = read_key(folder)
    index = int(reader[1:]) - 1
    now, read = _FIRST_DAY, dict[str, datetime]()
    for item in worklist.items:
        if item.case in read:
            now = max(now, read[item.case] + timedelta(days=worklist.washout_days))
        work = works[_kind(arms[item.arm], item), index, _number(item.case) - 1]
        now = read[item.case] = _play(worklist, item, work, now, options, index)
        now = _later(now)


def _play(
    worklist: Worklist,
    item: Item,
    work: SessionWork,
    started: datetime,
    options: SimulationOptions,
    reader: int,
) -> datetime:
    from soars.formats import read_seg_nrrd

    reference = read_seg_nrrd(worklist.share.parent / "references" / f"{item.case}.seg.nrrd")
    proposal = None if item.proposal is None else read_seg_nrrd(worklist.share / item.proposal)
    return play_session(
        worklist,
        item,
        work,
        proposal,
        reference,
        started,
        skill=options.truth.skill,
        seed=options.seed * 100 + reader,
    )


def _number(case: str) -> int:
    return int(case.rsplit("-", 1)[1])


def _later(moment: datetime) -> datetime:
    """A quarter of an hour's rest; the next morning after four in the afternoon."""
    moment += timedelta(minutes=15)
    if moment.hour >= 16:
        moment = (moment + timedelta(days=1)).replace(hour=8, minute=0)
    return moment
