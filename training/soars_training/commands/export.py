"""`soars-train export`."""

from __future__ import annotations

import argparse
from pathlib import Path

from soars.bundle.store import LARGEST_CARD
from soars.errors import InputError
from soars.texts import read_text


def add(commands: argparse._SubParsersAction) -> None:
    parser = commands.add_parser("export", help="make a model bundle of finished runs")
    parser.add_argument("bundle", type=Path, help="the bundle folder to write; its name is the bundle's name")
    parser.add_argument("runs", type=Path, nargs="+", help="one run folder a branch")
    parser.add_argument(
        "--card", type=Path, help="the model card (Markdown); without it one is filled in from the runs"
    )
    parser.add_argument("--description", required=True)
    parser.add_argument("--licence", required=True)
    parser.add_argument("--version", default="1.0.0")
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> None:
    from soars_training.fitting.options import FittedRun
    from soars_training.release.card import card_of
    from soars_training.release.export import BundleFacts, export_bundle

    if args.card:
        try:
            card = read_text(args.card, LARGEST_CARD)
        except (OSError, UnicodeDecodeError) as error:
            raise InputError(f"{args.card}: the model card cannot be read ({error})") from error
    else:
        runs = [FittedRun.load(run) for run in args.runs]
        card = card_of(args.bundle.name, args.description, args.licence, runs)
    facts = BundleFacts(args.bundle.name, args.version, args.description, args.licence, card)
    bundle = export_bundle(args.runs, args.bundle, facts)
    size = f"{bundle.size_bytes / 1e6:.1f} MB"
    print(f"{bundle.name} {bundle.version}: {len(bundle.organs)} organs, {size} -> {args.bundle}")
