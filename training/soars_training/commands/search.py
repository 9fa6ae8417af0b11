"""`soars-train search`."""

from __future__ import annotations

import argparse

from soars_training.commands import arguments, fit


def add(commands: argparse._SubParsersAction) -> None:
    parser = commands.add_parser(
        "search", help="choose the kernel of each block; train the network afterwards with fit --blocks"
    )
    fit.add_network(parser)
    parser.add_argument(
        "--alpha-rate", type=float, default=3e-4, help="learning rate of the choice (default %(default)g)"
    )
    arguments.add_run(parser)
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> None:
    from soars_training.search.search import search

    options = fit.options_of(args)
    blocks = search(
        args.cache,
        args.output,
        options,
        args.guide,
        alpha_rate=args.alpha_rate,
        resume=args.resume,
        overwrite=args.overwrite,
    )
    from soars_training.search.figure import draw_if_possible

    draw_if_possible(args.output)
    print(f"{options.task.branch}: {', '.join(blocks)} -> {args.output}")
