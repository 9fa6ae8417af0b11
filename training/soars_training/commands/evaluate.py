"""`soars-train evaluate`."""

from __future__ import annotations

import argparse
from pathlib import Path

from soars.errors import InputError
from soars.networks.names import ENGINE_CHOICES
from soars_training.commands import arguments


def add(commands: argparse._SubParsersAction) -> None:
    parser = commands.add_parser("evaluate", help="DSC per organ of a bundle, through the whole cascade")
    parser.add_argument("bundle", help="bundle name or folder")
    arguments.add_source(parser)
    parser.add_argument("--spacing", default="1,1,3", help="phantoms: CT spacing x,y,z in mm (default 1,1,3)")
    parser.add_argument("--engine", choices=ENGINE_CHOICES, default="auto")
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
    from soars_training.cohorts import phantoms
    from soars_training.cohorts.reading import LeftOut
    from soars_training.release.evaluate import evaluate_bundle, summary_table, write_csv

    if args.phantoms:
        seeds = range(args.first_seed, args.first_seed + args.phantoms)
        cases = phantoms.phantom_cases(seeds, arguments.spacing(args.spacing), "head_neck")
    else:
        cases = arguments.real_cases(args, "validation", LeftOut())
    rows = evaluate_bundle(args.bundle, cases, engine=args.engine, joins=arguments.joins(args.join))
    if args.csv:
        write_csv(rows, args.csv)
    print(summary_table(rows))
    if args.without:
        left = set(args.without.split(","))
        unknown = left - {row.case for row in rows}
        if unknown:
            raise InputError(f"--without: no case is called {', '.join(sorted(unknown))}")
        print(f"\nwithout {', '.join(sorted(left))}:\n")
        print(summary_table(row for row in rows if row.case not in left))
