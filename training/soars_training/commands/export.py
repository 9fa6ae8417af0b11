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
    parser.add_argument(
        "runs",
        type=Path,
        nargs="+",
        help="one run folder a branch; or a run of another system, or several of them, which then vote",
    )
    parser.add_argument(
        "--card", type=Path, help="the model card (Markdown); without it one is filled in from the runs"
    )
    parser.add_argument("--description", required=True, help="one sentence on what the bundle is")
    parser.add_argument("--licence", required=True, help="of the weights")
    parser.add_argument("--version", default="1.0.0", help="of the bundle (default: %(default)s)")
    parser.add_argument(
        "--stride",
        type=float,
        help="step between windows as a share of the window: 0.25 takes longer and steadies small organs (default: "
        "the core's, by the size of the network)",
    )
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> None:
    from soars_training.release.export import BundleFacts, export_bundle
    from soars_training.systems.export import export_system
    from soars_training.systems.interface import system_of_run

    systems = [system for run in args.runs if (system := system_of_run(run)) is not None]
    if args.stride is not None and (systems or not 0 < args.stride <= 1):
        raise InputError("--stride is a share of the cascade's windows, above 0 and at most 1")
    if systems and len(systems) < len(args.runs):
        raise InputError(f"a bundle holds runs of {systems[0]}, or one run a branch of the cascade, not both")
    facts = BundleFacts(
        args.bundle.name, args.version, args.description, args.licence, _card(args, bool(systems))
    )
    if systems:
        bundle = export_system(args.runs, args.bundle, facts)
    else:
        bundle = export_bundle(args.runs, args.bundle, facts, args.stride)
    size = f"{bundle.size_bytes / 1e6:.1f} MB"
    print(f"{bundle.name} {bundle.version}: {len(bundle.organs)} organs, {size} -> {args.bundle}")


def _card(args: argparse.Namespace, system: bool) -> str:
    """The card that was given, or one that is filled in from the runs."""
    from soars_training.fitting.options import FittedRun
    from soars_training.release.card import card_of
    from soars_training.systems.export import system_card
    from soars_training.systems.interface import SystemRun

    if args.card:
        try:
            return read_text(args.card, LARGEST_CARD)
        except (OSError, UnicodeDecodeError) as error:
            raise InputError(f"{args.card}: the model card cannot be read ({error})") from error
    if system:
        return system_card(
            args.bundle.name, args.description, args.licence, [SystemRun.load(r) for r in args.runs]
        )
    runs = [FittedRun.load(run) for run in args.runs]
    return card_of(args.bundle.name, args.description, args.licence, runs)
