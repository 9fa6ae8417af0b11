"""`soars-train crossval`."""

from __future__ import annotations

import argparse

from soars_training.commands import arguments, fit


def add(commands: argparse._SubParsersAction) -> None:
    parser = commands.add_parser(
        "crossval", help="hold every patient out once; the same command goes on after an interruption"
    )
    fit.add_network(parser)
    parser.add_argument("--folds", type=int, default=4, help="(default %(default)s, as in the paper)")
    fit.add_blocks(parser)
    arguments.add_computer(parser)
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> None:
    from soars_training.experiments.crossval import POOLED_FILE, crossval, pooled_table

    pooled = crossval(args.cache, args.output, fit.options_of(args), args.folds, args.guide)
    print(pooled_table(pooled))
    print(f"every patient: {args.output / POOLED_FILE}")
