"""`soars-train calibrate`."""

from __future__ import annotations

import argparse
from pathlib import Path

from soars.errors import InputError
from soars.files import write_json
from soars_training.commands import arguments


def add(commands: argparse._SubParsersAction) -> None:
    parser = commands.add_parser(
        "calibrate", help="add expected DSC and what is usual in the cohort to a bundle"
    )
    parser.add_argument("bundle", help="bundle name or folder")
    parser.add_argument("output", type=Path, help="the bundle folder to write")
    arguments.add_measured(parser, "train")
    parser.add_argument(
        "--held-out",
        metavar="NAMES",
        help="calibrate on these cases, which the bundle has not learned from, comma-separated; default: all",
    )
    parser.add_argument(
        "--norms-only",
        action="store_true",
        help="no network runs: keep the bundle's calibration, if it has one",
    )
    parser.add_argument(
        "--samples", type=Path, metavar="FILE", help="also write what the curves were fitted to (JSON)"
    )
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> None:
    from dataclasses import asdict

    from soars.findings.review import ReviewTables, read_review
    from soars_training.release import review

    bundle = review.load_for_calibration(args.bundle)
    norms = review.fit_norms((case.structures, case.annotated) for case in arguments.measured_cases(args))
    calibration = read_review(bundle).calibration
    if not args.norms_only:
        held_out = arguments.named_cases(arguments.measured_cases(args), args.held_out, "--held-out")
        samples = list(review.collect_samples(bundle, held_out, args.engine, norms))
        if not samples:
            raise InputError(
                "no organ of the bundle is annotated in the cases: there is nothing to calibrate on"
            )
        calibration = review.fit_calibration(samples)
        if args.samples:
            write_json(args.samples, [asdict(sample) for sample in samples])
    made = review.add_review(bundle, ReviewTables(calibration, norms), args.output)
    curves = len(calibration.curves) if calibration is not None else 0
    print(f"{made.name}: {curves} curves, norms of {len(norms.volume)} organs -> {args.output}")
