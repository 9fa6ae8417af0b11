"""``soars challenge``: what a container for the HaN-Seg challenge runs."""

from __future__ import annotations

import argparse
from pathlib import Path

from soars.commands.options import add_engine_options, add_progress_option
from soars.progress import reporting


def add_parser(subparsers: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    parser = subparsers.add_parser(
        "challenge",
        help="contour CTs with their MRs as the HaN-Seg challenge wants it",
        description="The container interface of the HaN-Seg challenge: reads IN/images/ct and IN/images/t1-mri, and "
        "writes for each pair one label map with the challenge's values 1 to 30 on the CT's grid into "
        "OUT/images/head_neck_oar, and OUT/results.json. An MR that cannot be used leaves the CT to be contoured "
        "alone, which results.json says.",
    )
    parser.add_argument(
        "--input", metavar="IN", type=Path, default=Path("/input"), help="(default: %(default)s)"
    )
    parser.add_argument(
        "--output", metavar="OUT", type=Path, default=Path("/output"), help="(default: %(default)s)"
    )
    parser.add_argument("--bundle", metavar="NAME|PATH", required=True, help="model bundle")
    add_engine_options(parser)
    parser.add_argument("--overwrite", action="store_true", help="replace label maps of an earlier run")
    add_progress_option(parser)


def run(args: argparse.Namespace) -> int:
    """Contour all pairs; errors are `soars.errors.SoarsError`."""
    with reporting(args.progress) as report:
        from soars.bundle.store import load_bundle
        from soars.catalogue import CATALOGUE
        from soars.run.challenge import VALUES, covered, run_challenge
        from soars.run.segment import SegmentOptions

        bundle = load_bundle(args.bundle)
        options = SegmentOptions(device=args.device, engine=args.engine)
        results = run_challenge(args.input, args.output, bundle, options, report, overwrite=args.overwrite)
    if args.progress != "json":
        values = covered(bundle.organs)
        for one in results:
            messages = "".join(f"; {text}" for text in one["error_messages"])
            print(f"{one['inputs'][0]['filename']} -> {one['outputs'][0]['filename']}{messages}")
        missing = [CATALOGUE[name].label for value, name in sorted(VALUES.items()) if value not in values]
        print(
            f"{len(values)} of {len(VALUES)} organs" + (f"; without {', '.join(missing)}" if missing else "")
        )
    return 0
