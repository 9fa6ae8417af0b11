"""`soars-train distil`."""

from __future__ import annotations

import argparse
from pathlib import Path

from soars.commands.options import add_device_option, add_organs_option

HELP = "let a bundle label a site's own CTs: a partly labelled cohort for prepare"


def add(commands: argparse._SubParsersAction) -> None:
    parser = commands.add_parser("distil", help=HELP, description=HELP.capitalize() + ".")
    parser.add_argument(
        "cts", type=Path, help="a folder of patients, or a CSV list, as of `soars segment-all`"
    )
    parser.add_argument(
        "cohort", type=Path, help="the folder to write; the same command goes on after a stop"
    )
    parser.add_argument("--bundle", required=True, metavar="NAME|PATH", help="the teacher, e.g. monday")
    parser.add_argument(
        "--at-least", type=float, default=0.8, metavar="BOUND",
        help="leave out contours whose expected DSC, or confidence where the teacher is not calibrated, is lower "
        "(default %(default)s)",
    )  # fmt: skip
    parser.add_argument(
        "--known-only", action="store_true", help="also leave out contours of models that give neither figure"
    )
    parser.add_argument(
        "--overwrite",
        action="store_true",
        help="replace the teacher's results of another bundle or other CTs",
    )
    add_organs_option(parser)
    add_device_option(parser)
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> None:
    from soars.commands.options import organ_names
    from soars.progress import reporting
    from soars.run.case import check_places
    from soars.service.batch import run_batch, summary_line
    from soars.service.cases import find_cases
    from soars.service.segmenter import BatchOptions
    from soars_training.cohorts.distil import CASES, TABLE, TEACHER, Rule, write_cohort

    rule = Rule(args.at_least, args.known_only)
    check_places(args.cts, args.cohort)
    cases = find_cases(args.cts).cases
    options = BatchOptions(
        args.bundle, args.device, organs=organ_names(args.organs), overwrite=args.overwrite
    )
    with reporting("auto") as report:
        outcomes = run_batch(cases, args.cohort / TEACHER, options, report)
    print(summary_line(outcomes))
    rows = write_cohort(cases, outcomes, args.cohort, rule)
    used = [row for row in rows if row.used == "yes"]
    print(
        f"{len(used)} contours of {len({row.case for row in used})} cases are used, see {args.cohort / TABLE}\n"
        f"next: soars-train prepare CACHE --data {args.cohort / CASES} --layout folders"
    )
