"""`soars-train fit`."""

from __future__ import annotations

import argparse
import logging
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING

from soars.errors import InputError
from soars.networks.names import BRANCHES, LAYER_ORDERS, NETWORK_KINDS
from soars_training.commands import arguments

if TYPE_CHECKING:
    from soars_training.fitting.options import FitOptions
    from soars_training.fitting.presets import Preset
    from soars_training.windows.task import BranchTask

log = logging.getLogger(__name__)

PRESETS = ("laptop", "gpu", "paper")
PHNN_LEVELS = 4
"""So many blocks has the papers' P-HNN."""


def add(commands: argparse._SubParsersAction) -> None:
    parser = commands.add_parser("fit", help="train one branch")
    add_network(parser)
    add_blocks(parser)
    parser.add_argument(
        "--init", type=Path, metavar="RUN", help="start from a finished run of a network with the same layers"
    )
    arguments.add_run(parser)
    parser.set_defaults(run=run)


def add_blocks(parser: argparse.ArgumentParser) -> None:
    """The kernel choices."""
    parser.add_argument(
        "--blocks",
        help="kernel choice per block (2d_k3 2d_k5 3d_k3 3d_k5 p3d_k3 p3d_k5), the encoder's from fine to coarse, then "
        "the decoder's from coarse to fine, with commas between; or the folder of a soars-train search; or "
        "random:SEED; default 3d_k3 everywhere",
    )


def add_network(parser: argparse.ArgumentParser) -> None:
    """What to train and how; shared with `soars-train search` and `crossval`."""
    parser.add_argument("cache", type=Path, help="folder written by soars-train prepare")
    parser.add_argument("output", type=Path, help="folder for checkpoints, run.json and the tables")
    parser.add_argument("--branch", required=True, choices=BRANCHES, help="which part of the cascade")
    parser.add_argument(
        "--organs", help="comma-separated names; default: those of the branch's stratum that are annotated"
    )
    arguments.add_strata(parser)
    parser.add_argument(
        "--guide", type=Path, help="folder written by soars-train guide (anchor probabilities as input)"
    )
    parser.add_argument("--voi", type=Path, metavar="FILE", help="JSON of VOI extents (small_hard)")
    parser.add_argument(
        "--heatmap", action="store_true", help="small_hard: also see the heat map's crop (CVPR 2020)"
    )
    add_settings(parser)


def add_settings(parser: argparse.ArgumentParser) -> None:
    """How to train, whatever it is."""
    parser.add_argument(
        "--preset",
        choices=PRESETS,
        default="laptop",
        help="where the defaults below come from (default laptop)",
    )
    parser.add_argument(
        "--windows", help="CT windows in HU, an input channel each, the widest first, as low:high,low:high"
    )
    parser.add_argument(
        "--network",
        choices=NETWORK_KINDS,
        help="unet (default), or phnn, the network of SOARS' first paper: four levels whose side outputs are added up",
    )
    parser.add_argument(
        "--order",
        choices=LAYER_ORDERS,
        help="norm and activation after each convolution (default), or before it, with batch norm (preset paper)",
    )
    parser.add_argument("--features", help="channels per level, finest first")
    parser.add_argument("--patch", help="training and inference window z,y,x in voxels")
    parser.add_argument("--steps", type=int, help="of training (default: the preset's)")
    parser.add_argument("--batch", type=int, help="samples in a step (default: the preset's)")
    parser.add_argument("--learning-rate", type=float, help="the highest (default: the preset's)")
    parser.add_argument("--optimiser", choices=("adamw", "radam"), help="(default: the preset's)")
    parser.add_argument(
        "--augmentation", type=float, default=1.0, help="times the preset's strengths; 0 for none (default 1)"
    )
    parser.add_argument(
        "--balance",
        type=float,
        default=0.5,
        help="power of rarity that classes weigh by at the start; of small_hard the share of the loss that an organ's "
        "voxels have; falls to 0 over the first half (default 0.5)",
    )
    parser.add_argument(
        "--foreground", type=float, default=0.7, help="share of windows drawn about an organ (default 0.7)"
    )


def run(args: argparse.Namespace) -> None:
    from soars_training.fitting.fit import fit
    from soars_training.fitting.processes import is_first

    options = options_of(args)
    done = fit(args.cache, args.output, options, args.guide, resume=args.resume, overwrite=args.overwrite)
    minutes = done.seconds / 60
    if is_first():
        draw_report(args)
    print(f"{done.branch}: {done.cases} cases, {options.steps} steps in {minutes:.1f} min -> {args.output}")


def draw_report(args: argparse.Namespace) -> None:
    """The run's picture and page, where matplotlib is installed."""
    if find_spec("matplotlib") is None:
        print("no report: matplotlib is not installed (pip install 'soars-segmentation[study]')")
        return
    from soars_training.experiments.report import write_report
    from soars_training.experiments.run_page import write_page

    picture = write_report(args.cache, args.output, args.guide, args.device)
    print(f"report -> {write_page(args.output, picture)}")


def options_of(args: argparse.Namespace) -> FitOptions:
    """The run that the arguments ask for: the preset's settings, overridden by those given."""
    from soars_training.cohorts.cache import group_of
    from soars_training.fitting.presets import preset
    from soars_training.release.guide import guide_anchors
    from soars_training.windows.task import BranchTask

    if args.branch == "small_hard" and not args.voi:
        raise InputError("small_hard needs --voi, the same file the cache was prepared with")
    if args.branch != "small_hard" and (args.voi or args.heatmap):
        raise InputError(
            f"--voi and --heatmap are for small_hard: the {args.branch} branch sees whole windows"
        )
    if args.branch == "anchor" and args.guide:
        raise InputError(
            "--guide is for the branches that the anchors guide, not for the anchor branch itself"
        )
    organs = arguments.organs(args.organs) if args.organs else _organs_there(args)
    groups = tuple(dict.fromkeys(map(group_of, organs)))
    task = BranchTask(
        branch=args.branch,
        classes=groups if args.branch == "detection" else organs,
        inputs=("ct", *(("anchor",) if args.guide else ()), *(("heatmap",) if args.heatmap else ())),
        anchors=guide_anchors(args.guide) if args.guide else (),
        windows_hu=windows_of(args, preset(args.preset, args.branch)),
    )
    vois = arguments.read_vois(args.voi) if args.voi else None
    return settings_of(args, task, arguments.train_split(args.cache), vois)


def _organs_there(args: argparse.Namespace) -> tuple[str, ...]:
    """The organs of the branch's stratum that the cache annotates. Raises `InputError` when it annotates none."""
    from soars_training.cohorts.cache import CacheIndex

    stratum, there = arguments.organs_of(args.branch, args.strata), CacheIndex.load(args.cache).annotated
    missing = [organ for organ in stratum if organ not in there]
    if len(missing) == len(stratum):
        raise InputError(f"{args.cache}: annotates none of the branch's organs, {', '.join(stratum)}")
    if missing:
        log.warning("not learned, since no case annotates them: %s", ", ".join(missing))
    return tuple(organ for organ in stratum if organ in there)


def windows_of(args: argparse.Namespace, default: Preset) -> tuple[tuple[float, float], ...]:
    """The CT's windows that the arguments ask for."""
    return arguments.windows_hu(args.windows) if args.windows else default.windows_hu


def settings_of(
    args: argparse.Namespace,
    task: BranchTask,
    split: str,
    voi_mm: dict[str, arguments.Triple] | None = None,
) -> FitOptions:
    """How the arguments of `add_settings` want a task to be learned."""
    from soars_training.cohorts.cache import CacheIndex
    from soars_training.fitting.options import FitOptions
    from soars_training.fitting.presets import paper_steps, preset
    from soars_training.search.search import read_blocks

    default = preset(args.preset, task.branch)
    network = args.network or default.network
    usual = default.features[:PHNN_LEVELS] if network == "phnn" else default.features
    features = arguments.numbers(args.features, "--features") if args.features else usual
    blocks = getattr(args, "blocks", None)
    batch = default.batch if args.batch is None else args.batch
    steps = default.steps if args.steps is None else args.steps
    if steps is None:
        cases = len(CacheIndex.load(args.cache).of_split(split))
        steps = paper_steps(cases, len(task.classes), max(1, batch))  # a smaller batch is refused later
    return FitOptions(
        task,
        network=network,
        order=args.order or default.order,
        features=features,
        blocks=read_blocks(blocks, len(features), network) if blocks else None,
        patch=arguments.patch(args.patch) if args.patch else default.patch,
        voi_mm=voi_mm,
        steps=steps,
        batch=batch,
        learning_rate=default.learning_rate if args.learning_rate is None else args.learning_rate,
        optimiser=args.optimiser or default.optimiser,
        weight_decay=default.weight_decay,
        schedule=default.schedule,
        seed=args.seed,
        train_split=split,
        held_out=getattr(args, "held_out", 0),
        validate_every=getattr(args, "validate_every", 0),
        device=args.device,
        threads=args.threads,
        workers=args.workers,
        deterministic=args.deterministic,
        init=getattr(args, "init", None),
        strength=default.strength.times(args.augmentation),
        foreground=args.foreground,
        balance=args.balance,
        dice_only=default.dice_only,
        supervised=default.supervised,
        ema=default.ema,
        checkpoint_every=args.checkpoint_every,
    )
