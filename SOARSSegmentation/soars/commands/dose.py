"""``soars dose``: how other contours change the doses reported for organs."""

from __future__ import annotations

import argparse
import logging
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from soars.commands.options import (
    add_empty_option,
    add_leave_out_option,
    add_organs_option,
    add_overwrite_option,
    add_processes_option,
    add_progress_option,
    add_series_option,
    add_where_option,
    check_outputs,
    chosen_cases,
    complain_of,
    organ_names,
    processes,
    write_outputs,
)
from soars.errors import InputError
from soars.progress import Progress, Reporter, reporting, with_time_left

if TYPE_CHECKING:
    from soars.dose.cases import CaseDose
    from soars.dose.constraints import Verdict
    from soars.dose.figures import DvhFigure

log = logging.getLogger(__name__)


def add_parser(subparsers: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    parser = subparsers.add_parser(
        "dose",
        help="DVHs, and how much the dose of organs changes with their contours",
        description="Read a planned dose in the organs of a reference and of one or more substitutes, and report mean, "
        "maximum and D0.03cc with the differences in percent of the reference's. Structures are files (RTSTRUCT, "
        ".seg.nrrd, label map with names) or folders of masks; for several cases, all arguments are folders whose "
        "files or folders are named after the cases. What each number means is in docs/metrics.md.",
    )
    parser.add_argument(
        "--dose",
        metavar="RTDOSE",
        type=Path,
        required=True,
        help="the dose: an RTDOSE, or a NRRD, NIfTI or MHA file in Gy",
    )
    parser.add_argument(
        "--sum",
        action="store_true",
        help="add all RTDOSEs in the folder that --dose names: of the beams of one plan, or of several plans",
    )
    parser.add_argument(
        "--dose-unit",
        choices=("Gy", "cGy"),
        help="what the dose is in, where its file does not say (images: Gy) or says it wrongly",
    )
    parser.add_argument("--reference", metavar="S", type=Path, required=True, help="the reference contours")
    parser.add_argument(
        "--substitute",
        metavar="S",
        type=Path,
        required=True,
        action="extend",
        nargs="+",
        help="the contours to assess; may be given more than once",
    )
    parser.add_argument("--csv", metavar="FILE", type=Path, help="write every figure of every case and organ")
    parser.add_argument(
        "--dvh", metavar="FILE", type=Path, help="write the cumulative DVHs in steps of 0.1 Gy, as CSV"
    )
    parser.add_argument(
        "--report",
        metavar="A,B",
        help="figures of the DVH to report beside these, such as V20,V30,D2%%,D1cc,V20cc,median: V in percent of the "
        "organ (or cc), D in Gy; they are printed, and get columns in the CSV",
    )
    parser.add_argument(
        "--constraints",
        metavar="FILE",
        help="check contours against dose constraints: pass, fail, or not judged where the dose beyond the dose grid "
        "decides; a CSV file (organ,figure,limit,endpoint,source, such as Parotid_L,mean,<26), or head-neck for the "
        "shipped table of QUANTEC and consensus values",
    )
    parser.add_argument(
        "--verdicts", metavar="FILE", type=Path, help="write the verdict on every constraint as CSV"
    )
    parser.add_argument(
        "--volume-axis",
        choices=("percent", "cc"),
        default="percent",
        help="what the volume of DVHs is drawn in (default: %(default)s)",
    )
    parser.add_argument(
        "--plot",
        metavar="FILE",
        type=Path,
        help="draw the DVHs of a case, or box plots of the differences of several (.png, .svg, .pdf)",
    )
    parser.add_argument(
        "--page",
        metavar="FILE",
        type=Path,
        help="write a page (.html) over the cases, to be sorted by any column",
    )
    parser.add_argument(
        "--ct",
        metavar="DIR",
        type=Path,
        help="the CT: needed for RTSTRUCTs, and to check the dose against it; for several cases a folder of CTs",
    )
    add_series_option(parser)
    add_organs_option(parser)
    parser.add_argument(
        "--sampling",
        choices=("ct", "oversampled", "interpolated"),
        default="ct",
        help="ct: the dose at CT voxel centres, interpolated; oversampled: eight samples a voxel; interpolated: shapes "
        "interpolated between slices, as Eclipse does (default: %(default)s)",
    )
    add_where_option(parser)
    add_empty_option(parser)
    add_leave_out_option(parser)
    add_processes_option(parser)
    add_overwrite_option(parser, "tables and pictures of an earlier run")
    add_progress_option(parser)


def run(args: argparse.Namespace) -> int:
    """Compare and write; errors are `soars.errors.InputError`, and nothing is written then."""
    from soars.dose.cases import DoseOptions, compare_cases, find_dose_cases
    from soars.dose.constraints import judge, read_constraints
    from soars.dose.figures import parse_figures

    _check_outputs(args)
    figures = parse_figures((args.report or "").split(","))
    if args.report is not None and not figures:
        raise InputError("--report names no figure, such as V20,D2%")
    constraints = read_constraints(args.constraints) if args.constraints else ()
    if args.verdicts and not constraints:
        raise InputError("--verdicts needs --constraints: a file, or head-neck for the shipped table")
    options = DoseOptions(
        organ_names(args.organs),
        args.sampling,
        args.dose_unit,
        args.empty == "absent",
        keep_dvhs=bool(figures or constraints or args.dvh or args.plot),
    )
    found = find_dose_cases(
        args.dose, args.reference, args.substitute, args.ct, series=args.series, add=args.sum
    )
    found = chosen_cases(found, lambda case: (case.case, case.pairs[0][1].ct, args.series), args.where)
    with reporting(args.progress) as report:
        left_out: dict[str, str] = {}
        cases = compare_cases(
            found,
            options,
            processes=processes(args.processes),
            progress=with_time_left(report),
            left_out=left_out if args.leave_out else None,
        )
        if not any(case.differences for case in cases):
            complain_of(left_out, len(found))
            raise InputError("none of the requested organs is in the reference")
        for case in cases:
            for warning in case.warnings:
                log.warning("%s: %s", case.case, warning)
        results = _Results(cases, figures, judge(cases, constraints) if constraints else None, left_out)
        _write(args, results, report)
        report(Progress("done", 1, 1))
    if args.progress != "json":
        print(_text(results))
    complain_of(left_out, len(found))
    return 0


def _check_outputs(args: argparse.Namespace) -> None:
    """Raise `InputError`, before the work, for an output that cannot be written."""
    from soars.figures import check_figure_path, is_own_figure
    from soars.files import begins_with
    from soars.service.comparison import is_own_page

    check_outputs(
        [
            (args.csv, begins_with("case,organ,")),
            (args.dvh, begins_with("case,organ,contour,")),
            (args.verdicts, begins_with("case,organ,contour,figure,")),
            (args.plot, is_own_figure),
            (args.page, is_own_page),
        ],
        inputs=[args.dose, args.reference, *args.substitute, *filter(None, (args.ct,))],
        overwrite=args.overwrite,
    )
    if args.plot:
        check_figure_path(args.plot)


@dataclass(frozen=True)
class _Results:
    """What is written and printed: ``figures`` are those of ``--report``, ``verdicts`` None without ``--constraints``,
    ``left_out`` the cases that could not be used, and why."""

    cases: list[CaseDose]
    figures: tuple[DvhFigure, ...]
    verdicts: list[Verdict] | None
    left_out: dict[str, str]


def _write(args: argparse.Namespace, results: _Results, report: Reporter) -> None:
    """Write the requested files, all of them or none."""
    from soars.dose.tables import write_differences, write_dvhs, write_verdicts
    from soars.service.comparison import write_doses_page

    cases = results.cases

    def plot(path: Path) -> None:
        from soars.dose.plots import plot_doses

        report(Progress("plot", 0, 1, args.plot.name))
        plot_doses(cases, path, args.volume_axis)

    write_outputs(
        [
            (args.csv, lambda path: write_differences(cases, path, results.figures)),
            (args.dvh, lambda path: write_dvhs(cases, path)),
            (args.verdicts, lambda path: write_verdicts(results.verdicts or (), path)),
            (args.page, lambda path: write_doses_page(cases, results.left_out, path)),
            (args.plot, plot),
        ],
        overwrite=args.overwrite,
    )


def _text(results: _Results) -> str:
    """The tables for people."""
    from soars.dose.tables import differences_text, figures_text, verdicts_text

    parts = [differences_text(results.cases)]
    if results.figures:
        parts.append(figures_text(results.cases, results.figures))
    if results.verdicts is not None:
        parts.append(
            verdicts_text(results.verdicts) if results.verdicts else "None of the organs has a constraint."
        )
    return "\n\n".join(parts)
