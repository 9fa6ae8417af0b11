"""`soars-train ablate`, and what goes into the same folder: `baseline`, `compare`."""

from __future__ import annotations

import argparse
from collections.abc import Callable
from dataclasses import replace
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING

from soars.errors import InputError
from soars_training.commands import arguments, fit

if TYPE_CHECKING:
    from soars_training.experiments.ablation import Recipe
    from soars_training.fitting.options import FitOptions
    from soars_training.windows.task import BranchTask


def add(commands: argparse._SubParsersAction) -> None:
    _add_ablate(commands)
    _add_baseline(commands)
    parser = commands.add_parser(
        "compare", help="write an ablation's tables of what it has scored so far, baselines beside it"
    )
    parser.add_argument("output", type=Path, help="folder of soars-train ablate")
    parser.set_defaults(run=write_tables)


def _add_ablate(commands: argparse._SubParsersAction) -> None:
    parser = commands.add_parser(
        "ablate",
        help="the papers' ablation on a cohort: one network for all, + strata, + anchors, + search, controls",
        description="Train and score every setting with every seed on one split, and write the tables, the papers' "
        "beside them. The same command goes on after an interruption; more settings and seeds can be added later.",
    )
    parser.add_argument("cache", type=Path, help="folder written by soars-train prepare")
    parser.add_argument("output", type=Path, help="gets the runs, scores, ablation.md, ablation.csv and .png")
    parser.add_argument(
        "--organs", help="comma-separated names; default: all of the papers' that the cache annotates"
    )
    arguments.add_strata(parser)
    parser.add_argument("--settings", help="comma-separated names; default: all that concern these organs")
    parser.add_argument("--seeds", type=int, default=3, help="(default %(default)s)")
    parser.add_argument(
        "--test", type=int, metavar="N", help="patients held out for the scores (default: a fifth)"
    )
    parser.add_argument(
        "--patients", type=int, metavar="N", help="take so many patients of the cache (default: all)"
    )
    parser.add_argument("--vois", type=Path, metavar="CACHE", help="cache of the small organs' VOIs")
    parser.add_argument("--voi", type=Path, metavar="FILE", help="JSON of the VOIs' extents")
    parser.add_argument(
        "--search-steps", type=int, help="of one search (default: as many as a network of the setting)"
    )
    parser.add_argument("--alpha-rate", type=float, default=3e-4, help="(default %(default)g)")
    fit.add_settings(parser)
    arguments.add_computer(parser)
    parser.set_defaults(run=run)


def _add_baseline(commands: argparse._SubParsersAction) -> None:
    parser = commands.add_parser(
        "baseline",
        help="nnU-Net, UaNet, DeepMind's U-Net or a network of CT and MR on an ablation's patients and budget; its row "
        "joins the tables",
        description="Train a system on the patients that an ablation learns from, for as many steps as a setting has; "
        "score it on the same held-out patients and write the tables with its row. nnU-Net plans, preprocesses, trains "
        "and predicts by its own commands (nnUNetv2_...). The same command goes on after an interruption.",
    )
    parser.add_argument("output", type=Path, help="folder of soars-train ablate")
    parser.add_argument("--system", choices=("nnunet", "uanet", "deepmind", "ct_mr"), default="nnunet")
    parser.add_argument(
        "--preset",
        choices=("laptop", "paper"),
        help="(default: laptop; of nnU-Net paper, as it configures itself: laptop has half of the channels, Adam, and "
        "a loss of Dice and the hardest voxels)",
    )
    parser.add_argument("--seeds", type=int, default=3, help="(default %(default)s)")
    parser.add_argument("--seed", type=int, default=1, help="the first one (default 1)")
    parser.add_argument(
        "--memory-gb", type=float, help="GPU memory that nnU-Net's planner may count on (default: its own)"
    )
    parser.add_argument(
        "--steps",
        type=int,
        help="of training (default: as many as a setting of the ablation; a step of one system may "
        "take many times as long as one of another)",
    )
    parser.add_argument("--bundle", metavar="NAME", help="also install the first seed's model as a bundle")
    parser.add_argument("--licence", default="not stated", help="of that bundle's weights")
    parser.add_argument("--device", choices=("auto", "cpu", "cuda"), default="auto")
    parser.add_argument("--threads", type=int, help="CPU threads of the training")
    parser.set_defaults(run=run_baseline)


def run(args: argparse.Namespace) -> None:
    from soars_training.experiments.ablation import ablate

    require_statistics()
    ablate(args.cache, args.output, recipe_of(args), options_of(args))
    write_tables(args)


def run_baseline(args: argparse.Namespace) -> None:
    from soars_training.experiments.nnunet.baseline import Baseline
    from soars_training.experiments.systems import score_system
    from soars_training.fitting.loop import training_device

    if any(n is not None and n < 1 for n in (args.seeds, args.steps, args.threads)):
        raise InputError("--seeds, --steps and --threads must be at least 1")
    require_statistics()
    device = training_device(args.device).type
    seeds = range(args.seed, args.seed + args.seeds)
    if args.system != "nnunet":
        if args.bundle or args.memory_gb:
            raise InputError(
                "--bundle and --memory-gb are nnU-Net's; a bundle of another system is made by soars-train export"
            )
        score_system(
            args.output, args.system, args.preset or "laptop", seeds, device, args.steps, args.threads
        )
        write_tables(args)
        return
    baseline = Baseline(args.output, device, args.memory_gb, args.steps, args.preset or "paper", args.threads)
    baseline.run(seeds)
    if args.bundle:
        bundle = baseline.bundle(args.bundle, args.seed, args.licence)
        print(f"installed {bundle.name} ({len(bundle.organs)} organs) into {bundle.folder}")
    write_tables(args)


def write_tables(args: argparse.Namespace) -> None:
    from soars_training.experiments.tables import write_page

    require_statistics()
    page = write_page(args.output)
    print(page.read_text(encoding="utf-8"))
    draw_figure(args.output)
    print(f"-> {page}")


def require_statistics() -> None:
    """Raise `InputError` now rather than after a night of training."""
    if find_spec("statsmodels") is None:
        raise InputError("the tables need statsmodels: pip install 'soars-segmentation[study]'")


def draw_figure(folder: Path) -> None:
    """The pictures beside the tables, where matplotlib is installed: means, boxes, and contours on the same slices."""
    from soars_training.experiments.figure import draw
    from soars_training.experiments.pictures.boxes import draw_boxes
    from soars_training.experiments.pictures.drawn import draw_contours
    from soars_training.experiments.tables import read_results

    if find_spec("matplotlib") is None:
        print("no picture: matplotlib is not installed (pip install 'soars-segmentation[study]')")
    else:
        results = read_results(folder)
        draw(results, folder / "ablation.png")
        draw_boxes(results, folder / "boxes.png")
        if not draw_contours(folder, results.settings, folder / "contours.png"):
            print("no picture of contours: none were kept, or the cache is not there any more")


def options_of(args: argparse.Namespace) -> Callable[[BranchTask], FitOptions]:
    """How the arguments want any task of the experiment to be learned."""
    from soars_training.fitting.presets import preset

    split = arguments.train_split(args.cache)

    def options(task: BranchTask) -> FitOptions:
        windows = fit.windows_of(args, preset(args.preset, task.branch))
        return fit.settings_of(args, replace(task, windows_hu=windows), split)

    return options


def recipe_of(args: argparse.Namespace) -> Recipe:
    from soars_training.cohorts.cache import CacheIndex
    from soars_training.experiments.ablation import Recipe, organs_to_compare
    from soars_training.experiments.settings import chosen_settings, strata_of
    from soars_training.windows.task import BranchTask

    if (args.vois is None) != (args.voi is None):
        raise InputError("--vois and --voi belong together: the cache and the extents that it was made with")
    if args.seeds < 1:
        raise InputError("--seeds must be at least 1")
    wanted = arguments.organs(args.organs) if args.organs else None
    organs = organs_to_compare(args.cache, wanted, args.strata)
    strata = strata_of(organs)
    names = [name.strip() for name in args.settings.split(",")] if args.settings else None
    there = CacheIndex.load(args.cache).of_split(arguments.train_split(args.cache))
    patients = args.patients or len({e.patient for e in there})
    steps = options_of(args)(BranchTask("anchor", organs, ("ct",))).steps
    return Recipe(
        settings=chosen_settings(names, strata),
        seeds=tuple(range(args.seed, args.seed + args.seeds)),
        organs=organs,
        steps=steps,
        search_steps=args.search_steps or max(1, steps // len(strata)),
        alpha_rate=args.alpha_rate,
        test=args.test or max(1, round(patients / 5)),
        patients=args.patients,
        voi_cache=args.vois,
        voi_mm=arguments.read_vois(args.voi) if args.voi else None,
    )
