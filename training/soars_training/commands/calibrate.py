"""`soars-train calibrate`."""

from __future__ import annotations

import argparse
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

from soars.errors import InputError
from soars.files import write_json
from soars.networks.names import ENGINE_CHOICES
from soars_training.commands import arguments

if TYPE_CHECKING:
    from soars_training.cohorts.prepare import SourceCase


def add(commands: argparse._SubParsersAction) -> None:
    parser = commands.add_parser(
        "calibrate", help="add expected DSC and what is usual in the cohort to a bundle"
    )
    parser.add_argument("bundle", help="bundle name or folder")
    parser.add_argument("output", type=Path, help="the bundle folder to write")
    arguments.add_source(parser)
    parser.add_argument("--split", choices=tuple(arguments.OPENKBP_SPLITS), default="train")
    parser.add_argument("--spacing", default="1,1,3", help="phantoms: CT spacing x,y,z in mm (default 1,1,3)")
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
    parser.add_argument("--engine", choices=ENGINE_CHOICES, default="auto")
    parser.add_argument(
        "--samples", type=Path, metavar="FILE", help="also write what the curves were fitted to (JSON)"
    )
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> None:
    from dataclasses import asdict

    from soars.findings.review import ReviewTables, read_review
    from soars_training.release import review

    bundle = review.load_for_calibration(args.bundle)
    norms = review.fit_norms((case.structures, case.annotated) for case in _cases(args))
    calibration = read_review(bundle).calibration
    if not args.norms_only:
        samples = list(review.collect_samples(bundle, _held_out(args), args.engine, norms))
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


def _cases(args: argparse.Namespace) -> Iterator[SourceCase]:
    from soars_training.cohorts import phantoms
    from soars_training.cohorts.reading import LeftOut

    if args.phantoms:
        seeds = range(args.first_seed, args.first_seed + args.phantoms)
        return iter(phantoms.phantom_cases(seeds, arguments.spacing(args.spacing), "head_neck"))
    return arguments.real_cases(args, args.split, LeftOut())


def _held_out(args: argparse.Namespace) -> Iterator[SourceCase]:
    """The cases to calibrate on; `InputError` when one that was named is not there."""
    names = {name.strip() for name in args.held_out.split(",")} if args.held_out else None
    found = set()
    for case in _cases(args):
        if names is None or case.name in names:
            found.add(case.name)
            yield case
    if names is not None and names - found:
        raise InputError(f"--held-out: there are no cases {', '.join(sorted(names - found))}")
