"""``soars observers``: how far observers differ, as tolerances for the surface DSC."""

from __future__ import annotations

import argparse
from pathlib import Path

from soars.commands.options import (
    add_organs_option,
    add_overwrite_option,
    add_processes_option,
    add_progress_option,
    check_outputs,
    organ_names,
    processes,
    write_outputs,
)
from soars.progress import Progress, reporting


def add_parser(subparsers: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    parser = subparsers.add_parser(
        "observers",
        help="tolerances of the surface DSC from several observers' contours of the same scans",
        description="Compare the contours of every two observers and print, for each organ, the distance within which "
        "95 percent of their surfaces lie from each other: the tolerance that a surface DSC of this organ should have. "
        "Each OBSERVER is a folder of cases, as for soars evaluate.",
    )
    parser.add_argument(
        "observers",
        metavar="OBSERVER",
        type=Path,
        nargs="+",
        help="the contours of one person, two or more of them",
    )
    parser.add_argument("--csv", metavar="FILE", type=Path, help="write them for soars evaluate --tolerances")
    parser.add_argument(
        "--percent", metavar="P", type=float, default=95.0, help="of the surfaces (default: %(default)g)"
    )
    add_organs_option(parser)
    add_processes_option(parser)
    add_overwrite_option(parser, "a table of an earlier run")
    add_progress_option(parser)


def run(args: argparse.Namespace) -> int:
    """Compare and write; errors are `soars.errors.InputError`, and nothing is written then."""
    from soars.files import begins_with
    from soars.study.tolerances import COLUMNS, observed_tolerances, tolerances_text, write_tolerances

    check_outputs(
        [(args.csv, begins_with(",".join(COLUMNS[:4])))], inputs=args.observers, overwrite=args.overwrite
    )
    with reporting(args.progress) as report:
        rows = observed_tolerances(
            args.observers,
            organ_names(args.organs),
            args.percent,
            processes=processes(args.processes),
            progress=report,
        )
        write_outputs(
            [(args.csv, lambda path: write_tolerances(rows, path, len(args.observers), args.percent))],
            overwrite=args.overwrite,
        )
        report(Progress("done", 1, 1))
    if args.progress != "json":
        print(tolerances_text(rows))
    return 0
