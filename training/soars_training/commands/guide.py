"""`soars-train guide`."""

from __future__ import annotations

import argparse
from pathlib import Path

from soars.commands.options import add_device_option


def add(commands: argparse._SubParsersAction) -> None:
    parser = commands.add_parser(
        "guide", help="compute the frozen anchor branch's probabilities for every cached case"
    )
    parser.add_argument("cache", type=Path, help="folder written by soars-train prepare")
    parser.add_argument("anchor", type=Path, help="the anchor branch's run folder")
    parser.add_argument("output", type=Path, help="the folder to write, for --guide of the other branches")
    add_device_option(parser)
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> None:
    from soars_training.release.guide import write_guides

    write_guides(args.cache, args.anchor, args.output, args.device)
