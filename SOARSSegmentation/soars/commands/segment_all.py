"""``soars segment-all``: many CTs in; a result folder for each, and tables over all of them."""

from __future__ import annotations

import argparse
import logging
import time
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from soars.commands.options import add_engine_options, add_organs_option, add_progress_option, count_of
from soars.errors import InputError
from soars.progress import Progress, reporting

if TYPE_CHECKING:
    from soars.service.batch import Outcome

log = logging.getLogger(__name__)

NAME = "segment-all"
DEFAULT_BUNDLE = "starter"
TABLES_EVERY_S = 300.0
"""The tables are written that often meanwhile, for those who look; each time every finished case is read again."""


def add_parser(subparsers: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    parser = subparsers.add_parser(
        NAME,
        help="contour many CTs, and go on where an earlier run stopped",
        description="Contour the organs at risk on many CTs. Writes into OUT/CASE what `soars segment` writes, and "
        "into OUT cases.csv, organs.csv and index.html. Cases whose results are there, from the same CT, bundle, "
        "options and version, are skipped. A case that cannot be segmented is reported and left out; the exit code is "
        "2 then. For research; not a medical device; every contour is to be reviewed.",
    )
    parser.add_argument(
        "source",
        metavar="IN",
        type=Path,
        help="a folder with a folder (or an image file) for each patient, or a CSV list with the columns case, ct and, "
        "where a folder holds several, series",
    )
    parser.add_argument("output", metavar="OUT", type=Path, help="folder for the results")
    parser.add_argument(
        "--bundle", metavar="NAME|PATH", default=DEFAULT_BUNDLE, help="model bundle (default: %(default)s)"
    )
    add_engine_options(parser)
    add_organs_option(parser)
    parser.add_argument(
        "--where",
        metavar="CONDITION",
        action="append",
        default=[],
        help="only CTs for which it holds; may be repeated, and then all must hold. KEY=VALUE (with * and ?), "
        "KEY!=VALUE, KEY<NUMBER, <=, >, >=, where KEY is case, a column of the list or a DICOM keyword: "
        "'SeriesDescription=*planning*', 'SliceThickness<=3'",
    )
    parser.add_argument(
        "--overwrite",
        action="store_true",
        help="replace results that come from other inputs or options; without it such a case fails",
    )
    parser.add_argument(
        "--at-once",
        metavar="N",
        type=count_of("--at-once"),
        help="cases at the same time, each in a process with its share of the processors (default: one with a GPU "
        "or a system other than the cascade, else up to 4, as processors, free memory and the number of cases allow)",
    )
    cluster = parser.add_argument_group("on several machines or GPUs", "by Ray (the extra `ray`)")
    cluster.add_argument(
        "--ray",
        metavar="ADDRESS",
        help="spread the cases over the workers of a Ray cluster, e.g. ray://head:10001, or over this machine (local); "
        "all machines must see IN, OUT and the bundle under the same paths",
    )
    cluster.add_argument(
        "--ray-workers",
        metavar="N",
        type=count_of("--ray-workers"),
        help="at most this many (default: as many as fit)",
    )
    cluster.add_argument(
        "--ray-cores",
        metavar="N",
        type=count_of("--ray-cores"),
        help="processors of each worker (default: 4, or fewer where there are not as many; one beside a GPU)",
    )
    add_progress_option(parser)


def run(args: argparse.Namespace) -> int:
    """Segment all cases; errors are `soars.errors.SoarsError`."""
    if args.ray is None and (args.ray_workers or args.ray_cores):
        raise InputError("--ray-workers and --ray-cores belong to --ray")
    if args.ray is not None and args.at_once:
        raise InputError("--at-once is for this machine alone; with --ray, say --ray-workers")
    with reporting(args.progress) as report:
        from soars.files import refuse_inputs
        from soars.run.case import check_places
        from soars.service.batch import error_of, run_batch, summary_line
        from soars.service.cases import find_cases
        from soars.service.segmenter import BatchOptions
        from soars.service.tables import CASES, INDEX, ORGANS, check_tables, write_tables
        from soars.service.where import parse_condition
        from soars.service.workers import how_many_at_once, run_at_once

        report(Progress("look", message="looking for cases"))
        check_places(args.source, args.output)
        found = find_cases(args.source, [parse_condition(text) for text in args.where])
        check_tables(args.output, [case.name for case in found.cases])
        refuse_inputs([args.output / name for name in (CASES, ORGANS, INDEX)], [args.source])
        options = BatchOptions(args.bundle, args.device, args.engine, args.organs, args.overwrite)
        now_and_then = _NowAndThen(args.output)
        if args.ray is None:
            usable = sum(not case.problem for case in found.cases)
            at_once = args.at_once or how_many_at_once(options, usable)
            if at_once == 1:
                outcomes = run_batch(found.cases, args.output, options, report, now_and_then)
            else:
                outcomes = run_at_once(found.cases, args.output, options, at_once, report, now_and_then)
        else:
            from soars.service.cluster import Cluster, run_on_ray

            cluster = Cluster(args.ray, args.ray_workers, args.ray_cores)
            found = found.resolved()
            outcomes = run_on_ray(found.cases, args.output.resolve(), options, cluster, report, now_and_then)
        write_tables(outcomes, args.output)
        report(Progress("done", len(outcomes), len(outcomes), str(args.output)))
    if args.progress != "json":
        out_of = f", {found.left_out} left out by --where" if found.left_out else ""
        print(f"{summary_line(outcomes)}{out_of}\n{args.output / INDEX}")
    faults = [outcome.case for outcome in outcomes if outcome.fault]
    if faults:
        log.error("an error of the program, not of the CT, stopped %s; please report it", ", ".join(faults))
        return 1
    failure = error_of(outcomes, args.output)
    if failure is not None:
        raise failure
    return 0


class _NowAndThen:
    """Writes the tables when they are due."""

    def __init__(self, output: Path) -> None:
        self._output = output
        self._written = time.monotonic()

    def __call__(self, outcomes: Sequence[Outcome]) -> None:
        from soars.service.tables import write_tables

        if time.monotonic() - self._written >= TABLES_EVERY_S:
            write_tables(outcomes, self._output)
            self._written = time.monotonic()
