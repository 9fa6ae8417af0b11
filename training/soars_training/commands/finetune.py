"""`soars-train finetune`."""

from __future__ import annotations

import argparse
from pathlib import Path

from soars.errors import InputError
from soars_training.commands import arguments


def add(commands: argparse._SubParsersAction) -> None:
    parser = commands.add_parser(
        "finetune", help="train the branches end to end, gradients through the anchors and heat maps"
    )
    parser.add_argument("cache", type=Path, help="folder written by soars-train prepare")
    parser.add_argument("anchor", type=Path, help="finished run of the anchor branch")
    parser.add_argument(
        "mid_level",
        type=Path,
        help="finished run of the mid-level branch; or the anchor's again, when that was trained for all organs",
    )
    parser.add_argument("output", type=Path, help="gets the runs anchor/, mid_level/ and so on")
    parser.add_argument("--detection", type=Path, metavar="RUN", help="finished run of the detection branch")
    parser.add_argument(
        "--small-hard",
        type=Path,
        metavar="RUN",
        help="finished run of the small and hard branch; needs both others",
    )
    parser.add_argument(
        "--vois", type=Path, metavar="CACHE", help="the cache that --small-hard was trained on"
    )
    parser.add_argument("--anchors", help="organs of the anchor branch (default: all of its run)")
    parser.add_argument("--organs", help="organs of the mid-level branch (default: all of its run)")
    parser.add_argument("--steps", type=int, default=2000, help="(default %(default)s)")
    parser.add_argument("--batch", type=int, default=1, help="(default %(default)s)")
    parser.add_argument("--learning-rate", type=float, default=3e-4, help="(default %(default)s)")
    arguments.add_run(parser)
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> None:
    from soars_training.fitting.finetune import SmallRuns, finetune
    from soars_training.fitting.options import FitOptions, FittedRun

    if (args.small_hard or args.vois) and not (args.detection and args.small_hard and args.vois):
        raise InputError("--small-hard needs --vois, its cache, and --detection, which says where to look")
    options = FitOptions(
        FittedRun.load(args.anchor).task(),
        steps=args.steps,
        batch=args.batch,
        learning_rate=args.learning_rate,
        balance=0.0,
        seed=args.seed,
        train_split=arguments.train_split(args.cache),
        held_out=args.held_out,
        validate_every=args.validate_every,
        checkpoint_every=args.checkpoint_every,
        device=args.device,
        threads=args.threads,
        workers=args.workers,
        deterministic=args.deterministic,
    )
    runs = finetune(
        args.cache,
        args.output,
        args.anchor,
        args.mid_level,
        options,
        anchors=arguments.organs(args.anchors) if args.anchors else None,
        organs=arguments.organs(args.organs) if args.organs else None,
        small=SmallRuns(args.detection, args.small_hard, args.vois) if args.detection else None,
        resume=args.resume,
        overwrite=args.overwrite,
    )
    for name, done in runs.items():
        print(f"{name}: {', '.join(done.classes)} -> {args.output / name}")
