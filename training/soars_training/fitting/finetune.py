"""End-to-end fine-tuning of the branches (paper: the last of three training steps)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from soars.cascade.torch_engine import NetworkEngine
from soars.cascade.windows import Foreground
from soars.errors import InputError
from soars.networks.names import Branch
from soars_training.cohorts.cache import CacheIndex, IndexEntry
from soars_training.fitting import processes
from soars_training.fitting.begin import begin
from soars_training.fitting.fit import (
    describe,
    held_out_cases,
    live_spec,
    require_volumes,
    voi_shape,
    window_data,
)
from soars_training.fitting.loop import deterministic, train, training_precision
from soars_training.fitting.models import BranchModel, EndToEnd
from soars_training.fitting.options import FitOptions, FittedRun, averaged_weights, fingerprint
from soars_training.fitting.start import start_from
from soars_training.fitting.state import TrainingState
from soars_training.fitting.validate import CaseScore, dice_per_class
from soars_training.windows.dataset import WindowDataset
from soars_training.windows.loaded import LoadedCase
from soars_training.windows.staged import FineVolumes, StagedWindows
from soars_training.windows.task import BranchTask
from soars_training.windows.whole import whole_patient

JOINED: tuple[Branch, ...] = ("anchor", "mid_level")


@dataclass(frozen=True)
class SmallRuns:
    """Finished runs of the detection and, with the cache of their volumes of interest, the small and hard branch, to be
    trained with the others."""

    detection: Path
    small_hard: Path | None = None
    vois: Path | None = None


def finetune(
    cache: Path,
    output: Path,
    anchor_run: Path,
    mid_run: Path,
    options: FitOptions,
    *,
    anchors: Sequence[str] | None = None,
    organs: Sequence[str] | None = None,
    small: SmallRuns | None = None,
    resume: bool = False,
    overwrite: bool = False,
) -> dict[str, FittedRun]:
    """Train the branches together and write a finished run of each into `output`/anchor, `output`/mid_level and so on.

    `anchors` and `organs` choose the classes of the first two branches among those that the runs were trained for; all
    when None. So a single network that was trained for all organs can be given as both runs, and is split into two
    branches here. Task and networks in `options` are taken from the runs. Held-out patients are scored for the first
    two branches. Raises `InputError` when the runs do not fit together, and as `soars_training.fitting.fit.fit` does.
    """
    folders: dict[Branch, Path] = {"anchor": anchor_run, "mid_level": mid_run}
    runs: dict[Branch, FittedRun] = {name: FittedRun.load(folder) for name, folder in folders.items()}
    of_branch = _joined(options, runs["anchor"], runs["mid_level"], anchors, organs)
    if small is not None:
        folders |= _folders(small)
        runs |= {name: FittedRun.load(folder) for name, folder in folders.items() if name not in runs}
        of_branch |= _small_options(of_branch, runs)
    options = _whole(of_branch)
    start = begin(cache, output, options, resume=resume, overwrite=overwrite, few_shapes=small is None)
    device, index, held = start.device, start.index, start.held
    for name, run in runs.items():
        start.warn_if_learned(f"{folders[name]}: the run has", run.learned or ())
    fine = CacheIndex.load(small.vois) if small is not None and small.vois is not None else None
    for name, run in runs.items():
        if name == "small_hard" and fine is not None and small is not None and small.vois is not None:
            run.require_spacing(fine.spacing_mm, small.vois)
        else:
            run.require_spacing(index.spacing_mm, cache)
    data = _windows(cache, index, options, start.learn, of_branch, small, fine)
    data.check_taught()
    held_cases = held_out_cases(cache, held, data, None)
    models = {name: BranchModel(mine) for name, mine in of_branch.items()}
    if not resume:
        for name, model in models.items():
            start_from(model.network, folders[name], model.task)
            _take_heads(model, folders[name], runs[name])
    whole = EndToEnd(*models.values()).to(device)
    state = TrainingState.new(options, whole, sides=start.sides, spacing_mm=index.spacing_mm)
    if resume:
        state.resume(output)
    tasks: dict[str, BranchTask] = {name: mine.task for name, mine in of_branch.items()}
    specs = {name: live_spec(tasks[name], of_branch[name], index.spacing_mm) for name in JOINED}

    def validate() -> list[CaseScore]:
        precision = training_precision(device)
        engines: dict[str, NetworkEngine] = {
            name: NetworkEngine(getattr(state.averaged, name).network, specs[name], device, precision)
            for name in JOINED
        }
        return _cascade_dice(engines, tasks, held_cases)

    with deterministic(options.deterministic):
        train(state, data, output, device, validate)
    found: dict[str, FittedRun] = {}
    anchors_now = fingerprint(state.averaged.get_submodule("anchor.network"))
    for name, mine in of_branch.items():
        grid = fine if name == "small_hard" and fine is not None else index
        guided_by = anchors_now if "anchor" in mine.task.inputs else None
        run = describe(mine.task, mine, grid, state, len(data.cases), held, start.learned(*runs.values()))
        found[name] = replace(run, guided_by=guided_by)
        _write_run(state, name, found[name], output)
    return found


def _joined(
    options: FitOptions,
    anchor: FittedRun,
    mid: FittedRun,
    anchors: Sequence[str] | None,
    organs: Sequence[str] | None,
) -> dict[Branch, FitOptions]:
    """The options of the first two branches, each with its task and network."""
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
    return {
        "anchor": _like(options, anchor, BranchTask("anchor", first, ("ct",), (), anchor.windows_hu)),
        "mid_level": _like(
            options, mid, BranchTask("mid_level", second, ("ct", "anchor"), first, mid.windows_hu)
        ),
    }


def _like(options: FitOptions, run: FittedRun, task: BranchTask) -> FitOptions:
    """For a task, with the network, windows and loss of a run."""
    old, before = run.architecture, run.options
    return replace(
        options,
        task=task,
        network=old.network,
        order=old.order,
        features=old.features,
        blocks=old.blocks,
        patch=run.patch,
        voi_mm=run.voi_mm or None,
        supervised=int(before.get("supervised", options.supervised)),
        dice_only=bool(before.get("dice_only", options.dice_only)),
    )


def _folders(small: SmallRuns) -> dict[Branch, Path]:
    if (small.small_hard is None) != (small.vois is None):
        raise InputError(
            "the small and hard branch is trained on its volumes: give its run and their cache together"
        )
    found: dict[Branch, Path] = {"detection": small.detection}
    return found | ({"small_hard": small.small_hard} if small.small_hard is not None else {})


def _small_options(
    of_branch: dict[Branch, FitOptions], runs: Mapping[Branch, FittedRun]
) -> dict[Branch, FitOptions]:
    """The options of the detection and the small and hard branch, as far as they take part."""
    first = of_branch["anchor"]
    found: dict[Branch, FitOptions] = {}
    for name in (n for n in ("detection", "small_hard") if n in runs):
        run = runs[name]
        if run.branch != name:
            raise InputError(f"a run of the {name} branch is needed, and this one is of {run.branch}")
        if name == "detection" and (run.patch, run.windows_hu) != (first.patch, first.task.windows_hu):
            raise InputError(
                "the detection run differs in patch or CT windows; it cannot be trained with the others"
            )
        if "anchor" in run.inputs and run.anchors != first.task.classes:
            raise InputError(f"the {name} run was guided by other anchors than these")
        found[name] = _like(first, run, run.task())
    groups = {group for name in ("small_hard",) if name in found for group in runs[name].voi_mm}
    unseen = sorted(groups - set(runs["detection"].classes))
    if unseen:
        raise InputError(f"the detection run has no heat map of {unseen[0]}, which has a volume of interest")
    return found


def _whole(of_branch: dict[Branch, FitOptions]) -> FitOptions:
    """The options of the run: those of the anchors, with the classes of both softmax branches."""
    first, second = of_branch["anchor"], of_branch["mid_level"]
    names = first.task.classes + second.task.classes
    task = BranchTask("anchor", names, ("ct",), (), first.task.windows_hu, joined=len(first.task.classes))
    return replace(first, task=task)


def _windows(
    cache: Path,
    index: CacheIndex,
    options: FitOptions,
    learn: Sequence[IndexEntry],
    of_branch: dict[Branch, FitOptions],
    small: SmallRuns | None,
    fine: CacheIndex | None,
) -> WindowDataset:
    if "detection" not in of_branch:
        return window_data(cache, index, options, learn)
    volumes = None
    if "small_hard" in of_branch and small is not None and small.vois is not None and fine is not None:
        mine = of_branch["small_hard"]
        shapes = {
            group: voi_shape(extent, fine.spacing_mm, mine.architecture())
            for group, extent in (mine.voi_mm or {}).items()
        }
        learned = {entry.case for entry in learn}
        entries = [e for e in fine.cases if e.case in learned and e.group in shapes]
        if not entries:
            raise InputError(f"{small.vois}: holds no volume of interest of the patients to learn from")
        volumes = FineVolumes(small.vois, entries, mine.task, shapes)
    data = StagedWindows(
        cache,
        options.task,
        options.patch,
        learn,
        seed=options.seed,
        strength=options.strength,
        foreground=options.foreground,
        groups=of_branch["detection"].task.classes,
        fine=volumes,
    )
    if volumes is not None and fine is not None:
        require_volumes(
            volumes.folder, fine.spacing_mm, of_branch["small_hard"].voi_mm or {}, data.vois.values()
        )
    return data


def _take_heads(model: BranchModel, folder: Path, run: FittedRun) -> None:
    """Where the classes are the same, the heads of the coarser levels are those of the run as well."""
    theirs = averaged_weights(folder, "extra.")
    mine = model.extra.state_dict()
    same = run.classes == model.task.classes and mine.keys() == theirs.keys()
    if same and all(mine[name].shape == theirs[name].shape for name in mine):
        model.extra.load_state_dict(theirs)


def _write_run(state: TrainingState, name: Branch, run: FittedRun, output: Path) -> None:
    """A finished run of one branch, from the trained whole."""
    if processes.is_first():
        folder = output / name
        folder.mkdir(exist_ok=True)
        state.save_branch(folder, name)
        run.save(folder)


def _cascade_dice(
    engines: dict[str, NetworkEngine],
    tasks: Mapping[str, BranchTask],
    cases: Sequence[LoadedCase],
) -> list[CaseScore]:
    """DSC per organ of whole patients, the mid-level branch guided by the anchor branch's own output."""
    found = []
    specs = {name: engine.spec for name, engine in engines.items()}
    for case in cases:
        anchors = whole_patient(engines["anchor"], specs["anchor"], tasks["anchor"], case.data)
        guide = Foreground(anchors)
        guided = whole_patient(engines["mid_level"], specs["mid_level"], tasks["mid_level"], case.data, guide)
        for name, result in (("anchor", anchors), ("mid_level", guided)):
            truth = case.data.label_map(tasks[name].classes)
            for organ, value in dice_per_class(result.labels(), truth, tasks[name].classes).items():
                if organ in case.data.annotated and organ in case.data.masks:
                    found.append(CaseScore(case.data.name, organ, value))
    return found
