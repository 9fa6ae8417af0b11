"""`soars-train calibrate`."""

from __future__ import annotations

import argparse
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING

from soars.errors import InputError
from soars.files import write_json
from soars_training.commands import arguments

if TYPE_CHECKING:
    from soars_training.cohorts.prepare import SourceCase


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
        "--learned",
        type=int,
        default=0,
        metavar="N",
        help="also take N of the other cases, which the bundle has learned from; what they gain by that is "
        "estimated and taken off (default 0)",
    )
    parser.add_argument(
        "--join",
        action="append",
        default=[],
        metavar="WHOLE=PART,PART",
        help="parts that readers drew as one: each has the DSC of the whole",
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
    if args.learned and not args.held_out:
        raise InputError("--learned: name the cases that the bundle has not learned from with --held-out")
    patients: dict[str, str] = {}
    norms = review.fit_norms(
        (case.structures, case.annotated - case.sparse)
        for case in _noted(arguments.measured_cases(args), patients)
    )
    calibration = read_review(bundle).calibration
    if not args.norms_only:
        learned = _drawn(patients, args.held_out, args.learned)
        wanted = ",".join([args.held_out, *learned]) if args.held_out else None
        cases = arguments.named_cases(arguments.measured_cases(args), wanted, "--held-out")
        joins = arguments.joins(args.join)
        samples = list(
            review.collect_samples(bundle, cases, args.engine, norms, joins=joins, learned=learned)
        )
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


def _noted(cases: Iterable[SourceCase], patients: dict[str, str]) -> Iterator[SourceCase]:
    """The cases; whom each is of goes by its name into ``patients``."""
    for case in cases:
        patients[case.name] = case.patient or case.name
        yield case


def _drawn(patients: Mapping[str, str], held_out: str | None, count: int) -> list[str]:
    """So many of the cases that are of no patient held out, drawn at random, the same every time. `InputError` when
    there are fewer."""
    import numpy as np

    held = {name.strip() for name in held_out.split(",")} if held_out else set()
    unknown = {patients[name] for name in held if name in patients}
    others = [name for name, patient in patients.items() if patient not in unknown]
    if not 0 <= count <= len(others):
        raise InputError(
            f"--learned {count}: {len(others)} cases are of patients not held out; give 0 to {len(others)}"
        )
    np.random.default_rng(0).shuffle(others)
    return others[:count]
