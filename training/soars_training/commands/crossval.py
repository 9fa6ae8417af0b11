"""`soars-train crossval`."""

from __future__ import annotations

import argparse
from pathlib import Path

from soars.errors import InputError
from soars_training.commands import arguments, fit


def add(commands: argparse._SubParsersAction) -> None:
    parser = commands.add_parser(
        "crossval", help="hold every patient out once; the same command goes on after an interruption"
    )
    fit.add_network(parser)
    parser.add_argument("--folds", type=int, default=4, help="(default %(default)s, as in the paper)")
    parser.add_argument(
        "--anchors",
        type=Path,
        metavar="OUT",
        help="mid_level: guided by the anchors of this cross-validation of the anchor branch, fold by fold",
    )
    fit.add_blocks(parser)
    arguments.add_computer(parser)
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> None:
    from soars_training.cohorts.cache import CacheIndex
    from soars_training.experiments.crossval import POOLED_FILE, crossval, guided_by, pooled_table

    if args.guide:
        raise InputError(
            "--guide: its anchors may have been learned from the patients that a fold holds out; cross-validate the "
            "anchor branch first, and name its folder by --anchors"
        )
    if args.anchors and args.branch == "anchor":
        raise InputError("--anchors is for the branches that the anchors guide")
    options = fit.options_of(args)
    options = guided_by(options, args.anchors) if args.anchors else options
    pooled = crossval(args.cache, args.output, options, args.folds, args.anchors)
    print(pooled_table(pooled, CacheIndex.load(args.cache).patients))
    print(f"every patient: {args.output / POOLED_FILE}")
