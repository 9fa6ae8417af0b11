"""`soars-train evaluate`."""

from __future__ import annotations

import argparse
from pathlib import Path

from soars_training.commands import arguments


def add(commands: argparse._SubParsersAction) -> None:
    parser = commands.add_parser("evaluate", help="DSC per organ of a bundle, through the whole cascade")
    parser.add_argument("bundle", help="bundle name or folder")
    arguments.add_source(parser)
    parser.add_argument("--spacing", default="1,1,3", help="phantoms: CT spacing x,y,z in mm (default 1,1,3)")
    parser.add_argument("--engine", choices=("auto", "torch", "onnxruntime"), default="auto")
    parser.add_argument(
        "--join", action="append", default=[], metavar="WHOLE=PART,PART", help="score parts as one"
    )
    parser.add_argument("--csv", type=Path, help="write case, organ, dsc, centre_error_mm")
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> None:
    from soars_training.cohorts import phantoms, prepare
    from soars_training.release.evaluate import evaluate_bundle, summary_table, write_csv

    if args.phantoms:
        seeds = range(args.first_seed, args.first_seed + args.phantoms)
        cases = phantoms.phantom_cases(seeds, arguments.spacing(args.spacing), "head_neck")
    elif args.openkbp:
        cases = prepare.openkbp_cases(args.openkbp, [arguments.OPENKBP_SPLITS["validation"]])
    else:
        cases = prepare.listed_cases(args.list)
    rows = evaluate_bundle(args.bundle, cases, engine=args.engine, joins=arguments.joins(args.join))
    if args.csv:
        write_csv(rows, args.csv)
    print(summary_table(rows))
