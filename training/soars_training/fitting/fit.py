"""Fit one branch of the cascade: anchor first, then mid-level, detection, and small and hard."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np

from soars.bundle.manifest import BranchSpec
from soars.cascade.preprocess import Grid
from soars.cascade.torch_engine import NetworkEngine
from soars.errors import InputError
from soars.networks.architecture import Architecture
from soars_training.cohorts.cache import CacheIndex, IndexEntry, group_of, read_case
from soars_training.cohorts.prepare import with_margin
from soars_training.fitting import processes
from soars_training.fitting.begin import begin
from soars_training.fitting.loop import deterministic, train, training_precision
from soars_training.fitting.models import BranchModel
from soars_training.fitting.options import FitOptions, FittedRun
from soars_training.fitting.start import start_from
from soars_training.fitting.state import TrainingState
from soars_training.fitting.validate import CaseScore, whole_patient_dice
from soars_training.windows.dataset import WindowDataset
from soars_training.windows.loaded import LoadedCase, guide_learned, guide_network, load
from soars_training.windows.task import BranchTask


def fit(
    cache: Path,
    output: Path,
    options: FitOptions,
    guide_folder: Path | None = None,
    *,
    resume: bool = False,
    overwrite: bool = False,
) -> FittedRun:
    """Train one branch from a cache and write checkpoints, tables and `run.json` into `output`.

    Runs in bf16 where the processor or GPU computes in it. Raises `InputError` when the cases to learn from do not
    annotate every class, the guide is missing, a GPU was asked for and is not there, or `output` holds a run already
    and neither `resume` nor `overwrite` is set; `CancelledError` after SIGTERM or SIGINT, with a checkpoint written.
    """
    start = begin(cache, output, options, resume=resume, overwrite=overwrite, few_shapes=options.one_shape)
    device, index, held = start.device, start.index, start.held
    before = FittedRun.load(options.init) if options.init is not None else None
    if guide_folder is not None:
        start.warn_if_learned(f"{guide_folder}: its anchors have", guide_learned(guide_folder))
    if before is not None:
        start.warn_if_learned(f"{options.init}: the run has", before.learned or ())
    data = window_data(cache, index, options, start.learn, guide_folder)
    data.check_taught()
    held_cases = held_out_cases(cache, held, data, guide_folder)
    model = BranchModel(options)
    if options.init is not None and not resume:
        start_from(model.network, options.init, options.task)
    state = TrainingState.new(options, model.to(device), sides=start.sides, spacing_mm=index.spacing_mm)
    if resume:
        state.resume(output)
    spec = live_spec(options.task, options, index.spacing_mm)

    def validate() -> list[CaseScore]:
        if not options.task.softmax:
            return []
        averaged = state.averaged
        assert isinstance(averaged, BranchModel)
        engine = NetworkEngine(averaged.network, spec, device, training_precision(device))
        return whole_patient_dice(engine, spec, options.task, held_cases)

    with deterministic(options.deterministic):
        train(state, data, output, device, validate)
    run = describe(options.task, options, index, state, len(data.cases), held, start.learned(before))
    if guide_folder is not None and "anchor" in options.task.inputs:
        run = replace(run, guided_by=guide_network(guide_folder))
    if processes.is_first():
        run.save(output)
    return run


def window_data(
    cache: Path,
    index: CacheIndex,
    options: FitOptions,
    entries: Sequence[IndexEntry],
    guide_folder: Path | None = None,
) -> WindowDataset:
    """The training windows of a run. Raises `InputError` for a cache of volumes where whole scans are needed, or the
    reverse, and as `require_volumes` does."""
    small, voi_mm = options.task.branch == "small_hard", options.voi_mm or {}
    if any((entry.group is not None) != small for entry in entries):
        needed, there = ("volumes of interest", "whole scans") if small else ("whole scans", "volumes")
        raise InputError(
            f"{cache}: {options.task.branch} learns from {needed}, and this cache holds {there}; prepare one "
            f"{'with' if small else 'without'} --voi"
        )
    data = WindowDataset(
        cache,
        options.task,
        options.patch,
        entries,
        seed=options.seed,
        strength=options.strength,
        voi_shapes={
            group: voi_shape(extent, index.spacing_mm, options.architecture())
            for group, extent in voi_mm.items()
        },
        guide_folder=guide_folder,
        foreground=options.foreground,
    )
    if small:
        require_volumes(cache, index.spacing_mm, voi_mm, data.cases)
    return data


def require_volumes(
    cache: Path,
    spacing_mm: tuple[float, float, float],
    voi_mm: Mapping[str, tuple[float, float, float]],
    cases: Iterable[LoadedCase],
) -> None:
    """Raise `InputError` where no extent is known of a cached volume of interest, or one that is larger than what was
    cached: there would be air instead of the patient."""
    for group, shape in {str(case.group): case.data.ct_hu.shape for case in cases}.items():
        if group not in voi_mm:
            raise InputError(f"{cache}: holds volumes of {group}, and --voi has no extent of that")
        wanted = Grid.around(np.zeros(3), with_margin(voi_mm[group]), spacing_mm).shape
        if any(has < needs for has, needs in zip(shape, wanted, strict=True)):
            raise InputError(
                f"{cache}: its volumes of {group} are smaller than --voi says; take the file that it was prepared with"
            )


def held_out_cases(
    cache: Path, entries: Sequence[IndexEntry], data: WindowDataset, guide_folder: Path | None
) -> list[LoadedCase]:
    """The cases of the validation patients, without those that annotate none of the run's organs."""
    usable = [e for e in entries if set(data.task.members) & set(e.annotated)]
    cohort = data.index.annotated
    return [load(read_case(cache / e.file), e, data.task, data.regions, guide_folder, cohort) for e in usable]


def describe(
    task: BranchTask,
    options: FitOptions,
    index: CacheIndex,
    state: TrainingState,
    cases: int,
    held: Sequence[IndexEntry],
    learned: tuple[str, ...],
) -> FittedRun:
    """The contents of `run.json` for a trained branch; of the volumes of interest those of its own organs."""
    drawn = {group_of(organ) for organ in task.classes} if task.branch == "small_hard" else set()
    return FittedRun(
        branch=task.branch,
        classes=task.classes,
        inputs=task.inputs,
        anchors=task.anchors,
        spacing_mm=index.spacing_mm,
        patch=options.patch,
        windows_hu=task.windows_hu,
        voi_mm={group: mm for group, mm in (options.voi_mm or {}).items() if group in drawn},
        architecture=options.architecture_of(task),
        source=index.source,
        cases=cases,
        held_out=tuple(sorted({e.patient for e in held})),
        validation={o: dsc for step, o, dsc in state.scores if step == state.step and o in task.classes},
        options=options.to_dict(),
        seconds=round(state.seconds, 1),
        learned=learned,
    )


def live_spec(task: BranchTask, options: FitOptions, spacing_mm: tuple[float, float, float]) -> BranchSpec:
    """The branch's specification as inference needs it, for a network in memory."""
    return BranchSpec(
        name=task.branch,
        inputs=task.inputs,
        classes=task.classes,
        activation=task.activation,
        spacing_mm=spacing_mm,
        patch=options.patch,
        architecture=options.architecture_of(task),
        files={},
        windows_hu=task.windows_hu,
        mirror=task.mirrors(options.strength.mirror),
    )


def voi_shape(
    extent_mm: tuple[float, float, float],
    spacing_mm: tuple[float, float, float],
    architecture: Architecture,
) -> tuple[int, int, int]:
    """Shape (z, y, x) of a VOI, rounded up to what the network can halve; the same rule as at inference."""
    return Grid.around(np.zeros(3), extent_mm, spacing_mm, architecture.divisor).shape
