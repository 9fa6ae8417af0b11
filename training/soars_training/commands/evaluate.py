"""`soars-train evaluate`."""

from __future__ import annotations

import argparse
from pathlib import Path

from soars.errors import InputError
from soars_training.commands import arguments


def add(commands: argparse._SubParsersAction) -> None:
    parser = commands.add_parser("evaluate", help="DSC per organ of a bundle, through the whole cascade")
    parser.add_argument("bundle", help="bundle name or folder")
    arguments.add_measured(parser, "validation")
    parser.add_argument(
        "--only",
        metavar="CASE,CASE",
        help="these cases (those that a run held out, with --split train; its run.json names them)",
    )
    parser.add_argument(
        "--join", action="append", default=[], metavar="WHOLE=PART,PART", help="score parts as one"
    )
    parser.add_argument(
        "--without",
        metavar="CASE,CASE",
        help="print a second table without these cases (defective references, say)",
    )
    parser.add_argument("--csv", type=Path, help="write every case and organ")
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> None:
    from soars_training.release.evaluate import (
        evaluate_bundle,
        expectation_summary,
        summary_table,
        write_csv,
    )

    _refuse_a_mixture(args)
    cases = arguments.named_cases(arguments.measured_cases(args), args.only, "--only")
    rows = evaluate_bundle(args.bundle, cases, engine=args.engine, joins=arguments.joins(args.join))
    if not rows:
        raise InputError("no organ of the bundle is annotated in the cases: there is nothing to evaluate")
    if args.csv:
        write_csv(rows, args.csv)
    print(summary_table(rows))
    expectation = expectation_summary(rows)
    if expectation is not None:
        print(f"\n{expectation}")
    if args.without:
        left = {name.strip() for name in args.without.split(",")}
        unknown = left - {row.case for row in rows}
        if unknown:
            raise InputError(f"--without: no case is called {', '.join(sorted(unknown))}")
        print(f"\nwithout {', '.join(sorted(left))}:\n")
        kept = [row for row in rows if row.case not in left]
        print(summary_table(kept))
        expectation = expectation_summary(kept)
        if expectation is not None:
            print(f"\n{expectation}")


def _refuse_a_mixture(args: argparse.Namespace) -> None:
    """Raise `InputError` for a list with several splits of which none is named: cases that the bundle has learned from
    are drawn better than new ones."""
    from soars_training.cohorts.listing import read_listing

    splits = {case.split for case in read_listing(args.list)} if args.list else set()
    if len(splits) > 1 and not (args.split or args.only):
        raise InputError(
            f"{args.list}: has the splits {', '.join(sorted(splits))}; say by --split which to evaluate"
        )
