"""End-to-end fine-tuning of the anchor and mid-level branches (paper: the last of three training steps)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from soars.cascade.preprocess import Grid
from soars.cascade.torch_engine import NetworkEngine
from soars.cascade.windows import CtChannel, Foreground, Source, slide
from soars.errors import InputError
from soars.networks.names import Branch
from soars_training.cohorts.cache import CacheIndex
from soars_training.fitting import processes
from soars_training.fitting.begin import begin
from soars_training.fitting.fit import describe, held_out_cases, live_spec, window_data
from soars_training.fitting.loop import deterministic, train, training_precision
from soars_training.fitting.models import BranchModel, EndToEnd
from soars_training.fitting.options import FitOptions, FittedRun
from soars_training.fitting.start import start_from
from soars_training.fitting.state import TrainingState
from soars_training.fitting.validate import CaseScore, dice_per_class
from soars_training.windows.loaded import LoadedCase
from soars_training.windows.task import BranchTask, scaled_ct

JOINED: tuple[Branch, ...] = ("anchor", "mid_level")


def finetune(
    cache: Path,
    output: Path,
    anchor_run: Path,
    mid_run: Path,
    options: FitOptions,
    *,
    anchors: Sequence[str] | None = None,
    organs: Sequence[str] | None = None,
    resume: bool = False,
    overwrite: bool = False,
) -> dict[str, FittedRun]:
    """Train both branches together and write a finished run of each into `output`/anchor and `output`/mid_level.

    `anchors` and `organs` choose the classes of the two branches among those that the runs were trained for; all when
    None. So a single network that was trained for all organs can be given as both runs, and is split into two
    branches here. The task and the architecture in `options` are taken from the runs. Raises `InputError` when the
    two runs do not fit together, and as `soars_training.fitting.fit.fit` does.
    """
    options, tasks = _joined(options, FittedRun.load(anchor_run), FittedRun.load(mid_run), anchors, organs)
    start = begin(cache, output, options, resume=resume, overwrite=overwrite)
    device, index, held = start.device, start.index, start.held
    data = window_data(cache, index, options, start.learn)
    held_cases = held_out_cases(cache, held, data, None)
    models = {name: BranchModel(options, tasks[name]) for name in JOINED}
    if not resume:
        for name, folder in zip(JOINED, (anchor_run, mid_run), strict=True):
            start_from(models[name].network, folder, tasks[name])
    state = TrainingState.new(options, EndToEnd(models["anchor"], models["mid_level"]).to(device))
    if resume:
        state.resume(output)
    specs = {name: live_spec(task, options, index.spacing_mm) for name, task in tasks.items()}

    def validate() -> list[CaseScore]:
        precision = training_precision(device)
        engines: dict[str, NetworkEngine] = {
            name: NetworkEngine(getattr(state.averaged, name).network, specs[name], device, precision)
            for name in JOINED
        }
        return _cascade_dice(engines, tasks, options, held_cases)

    with deterministic(options.deterministic):
        train(state, data, output, device, validate)
    return _split(state, tasks, options, index, len(data.cases), held, output)


def _joined(
    options: FitOptions,
    anchor: FittedRun,
    mid: FittedRun,
    anchors: Sequence[str] | None,
    organs: Sequence[str] | None,
) -> tuple[FitOptions, dict[str, BranchTask]]:
    """The options with the task of both, and the task of each."""
    if (anchor.spacing_mm, anchor.patch, anchor.windows_hu) != (mid.spacing_mm, mid.patch, mid.windows_hu):
        raise InputError("the two runs differ in spacing, patch or CT windows; they cannot be trained as one")
    first, second = tuple(anchors or anchor.classes), tuple(organs or mid.classes)
    for names, run in ((first, anchor), (second, mid)):
        strange = [n for n in names if n not in run.classes]
        if strange:
            raise InputError(f"the {run.branch} run was not trained for {', '.join(strange)}")
    both = [n for n in first if n in second]
    if both:
        raise InputError(f"{both[0]} is among the organs of both branches; name each branch's organs")
    tasks = {
        "anchor": BranchTask("anchor", first, ("ct",), (), anchor.windows_hu),
        "mid_level": BranchTask("mid_level", second, ("ct", "anchor"), first, mid.windows_hu),
    }
    whole = BranchTask("anchor", first + second, ("ct",), (), anchor.windows_hu)
    old = anchor.architecture
    return (
        replace(
            options,
            task=whole,
            network=old.network,
            order=old.order,
            features=old.features,
            blocks=old.blocks,
            patch=anchor.patch,
        ),
        tasks,
    )


def _cascade_dice(
    engines: dict[str, NetworkEngine],
    tasks: dict[str, BranchTask],
    options: FitOptions,
    cases: Sequence[LoadedCase],
) -> list[CaseScore]:
    """DSC per organ of whole patients, the mid-level branch guided by the anchor branch's own output."""
    found = []
    specs = {name: engine.spec for name, engine in engines.items()}
    for case in cases:
        z, y, x = case.data.ct_hu.shape
        grid = Grid(case.data.origin_mm, case.data.spacing_mm, (x, y, z))
        ct: list[Source] = [CtChannel(scaled_ct(case.data.ct_hu, w)) for w in options.task.windows_hu]
        anchors = slide(engines["anchor"], specs["anchor"], grid, ct, _quiet)
        guided = slide(engines["mid_level"], specs["mid_level"], grid, [*ct, Foreground(anchors)], _quiet)
        for name, result in (("anchor", anchors), ("mid_level", guided)):
            truth = case.data.label_map(tasks[name].classes)
            for organ, value in dice_per_class(result.labels(), truth, tasks[name].classes).items():
                if organ in case.data.annotated and organ in case.data.masks:
                    found.append(CaseScore(case.data.name, organ, value))
    return found


def _split(
    state: TrainingState,
    tasks: dict[str, BranchTask],
    options: FitOptions,
    index: CacheIndex,
    cases: int,
    held: Sequence[object],
    output: Path,
) -> dict[str, FittedRun]:
    """A finished run of each branch, from the trained whole."""
    runs: dict[str, FittedRun] = {}
    for name in JOINED:
        runs[name] = describe(tasks[name], options, index, state, cases, held)  # type: ignore[arg-type]
        if processes.is_first():
            folder = output / name
            folder.mkdir(exist_ok=True)
            state.save_branch(folder, name)
            runs[name].save(folder)
    return runs


def _quiet(_done: int, _of: int) -> None:
    pass
