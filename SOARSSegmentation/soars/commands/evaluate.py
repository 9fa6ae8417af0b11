"""``soars evaluate``: how good contours are, against a reference."""

from __future__ import annotations

import argparse
import logging
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
    from soars.metrics.cases import CasePair, Pairing
    from soars.metrics.evaluate import CaseScores, EvaluateOptions
    from soars.metrics.summary import GroupSummary
    from soars.study.ranking import MethodRank

log = logging.getLogger(__name__)

READINGS = {"han-seg": "case", "han-seg-organ": "organ"}
"""Values of ``--missing`` that apply HaN-Seg's rule for missing organs -> the reading of it they stand for
(`soars.metrics.rules.READINGS`)."""


def add_parser(subparsers: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    parser = subparsers.add_parser(
        "evaluate",
        help="compare contours with a reference: DSC, distances, surface DSC, added path length",
        description="Compare contours with a reference, organ by organ. PREDICTION and REFERENCE are two files "
        "(RTSTRUCT, .seg.nrrd, or a label map with its names), two folders of masks named after organs, or two "
        "folders of cases, each a file or folder of such a kind named after the case. Organs are matched by name, in "
        "any spelling of the catalogue. What each number means is in docs/metrics.md.",
    )
    parser.add_argument("prediction", metavar="PREDICTION", type=Path, help="the contours to assess")
    parser.add_argument("reference", metavar="REFERENCE", type=Path, help="the contours to compare them with")
    parser.add_argument("--csv", metavar="FILE", type=Path, help="write every figure of every case and organ")
    parser.add_argument(
        "--summary",
        metavar="FILE",
        type=Path,
        help="write mean, standard deviation, median and quartiles per organ, stratum and over all, as CSV",
    )
    parser.add_argument(
        "--plot", metavar="FILE", type=Path, help="draw box plots per organ (.png, .svg, .pdf)"
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
        help="the CT, for RTSTRUCTs that have no grid of their own; for several cases a folder of CTs named after them",
    )
    add_series_option(parser)
    add_organs_option(parser)
    tolerance = parser.add_mutually_exclusive_group()
    tolerance.add_argument(
        "--tolerance", metavar="MM", type=float, help="tolerance of the surface DSC for every organ"
    )
    tolerance.add_argument(
        "--tolerances",
        metavar="FILE",
        type=Path,
        help="tolerances as CSV with the columns organ,tolerance_mm,source (default: the catalogue's)",
    )
    parser.add_argument(
        "--definition",
        choices=("surface-distance", "monai", "medpy"),
        default="surface-distance",
        help="whose definition of surface distances: published tables differ (default: %(default)s)",
    )
    parser.add_argument(
        "--missing",
        choices=("as-is", *READINGS),
        default="as-is",
        help="as-is: a missing organ has DSC 0 and infinite distances; han-seg: its HD95 is the worst that PREDICTION "
        "and the methods of --rank have for that organ in that case; han-seg-organ: in any case, as the challenge's "
        "text can be read, too. A ranking takes as-is for han-seg (default: %(default)s)",
    )
    parser.add_argument(
        "--rank",
        metavar="PREDICTION",
        type=Path,
        action="append",
        default=[],
        help="another method's contours, to be ranked with PREDICTION as in the HaN-Seg challenge (DSC and HD95, "
        "Wilcoxon's matched pairs after Bonferroni); may be given several times; methods are named after their folders",
    )
    parser.add_argument("--ranking", metavar="FILE", type=Path, help="write the ranking as CSV (with --rank)")
    add_where_option(parser)
    add_empty_option(parser)
    add_leave_out_option(parser)
    add_processes_option(parser)
    add_overwrite_option(parser, "tables and pictures of an earlier run")
    add_progress_option(parser)


def run(args: argparse.Namespace) -> int:
    """Compare and write; errors are `soars.errors.InputError`, and nothing is written then."""
    from soars.metrics.rules import han_seg_rule
    from soars.metrics.summary import summarise
    from soars.metrics.tables import summary_text
    from soars.study.ranking import method_names, rank_methods, ranking_text

    _check_outputs(args)
    titles = method_names([args.prediction, *args.rank])
    options = _options(args)
    reading = READINGS.get(args.missing, "case")
    with reporting(args.progress) as report:
        progress = with_time_left(report)
        left_out: dict[str, str] = {}
        cases = _scores_of(args.prediction, args, options, left_out, progress)
        tried = len(cases) + len(left_out)
        if not any(case.scores for case in cases):
            complain_of(left_out, tried)
            raise InputError("none of the requested organs is on either side")
        methods = {titles[0]: cases}
        of_ranked: dict[str, str] = {}
        for title, path in zip(titles[1:], args.rank, strict=True):
            missed: dict[str, str] = {}
            methods[title] = _scores_of(path, args, options, missed, progress, ranked=title)
            tried += len(methods[title]) + len(missed)
            of_ranked |= {f"{case} of {title}": why for case, why in missed.items()}
        ranks = rank_methods(methods, reading=reading) if args.rank else []
        if args.missing in READINGS:
            cases = han_seg_rule(methods, reading)[titles[0]]
        summary = summarise(cases)
        _write(args, cases, summary, ranks, left_out, report)
        _warn_of_other_sides(cases)
        report(Progress("done", 1, 1))
    if args.progress != "json":
        print(summary_text(summary, args.definition))
        if ranks:
            print("\n" + ranking_text(ranks, reading))
    complain_of({**left_out, **of_ranked}, tried)
    return 0


def _check_outputs(args: argparse.Namespace) -> None:
    """Raise `InputError`, before the work, for an output that cannot be written or would stay empty."""
    from soars.figures import check_figure_path, is_own_figure
    from soars.files import begins_with
    from soars.service.comparison import is_own_page

    check_outputs(
        [
            (args.csv, begins_with("case,organ,")),
            (args.summary, begins_with("group,name,")),
            (args.plot, is_own_figure),
            (args.page, is_own_page),
            (args.ranking, begins_with("method,rank,")),
        ],
        inputs=[args.prediction, args.reference, *args.rank, *filter(None, (args.ct, args.tolerances))],
        overwrite=args.overwrite,
    )
    if args.plot:
        check_figure_path(args.plot)
    if args.ranking and not args.rank:
        raise InputError("--ranking needs methods to rank: --rank PREDICTION")


def _options(args: argparse.Namespace) -> EvaluateOptions:
    from soars.metrics.evaluate import EvaluateOptions
    from soars.metrics.tolerances import one_tolerance, read_tolerances

    tolerances = None
    if args.tolerance is not None:
        tolerances = one_tolerance(args.tolerance)
    elif args.tolerances is not None:
        tolerances = read_tolerances(args.tolerances)
    return EvaluateOptions(organ_names(args.organs), tolerances, args.definition, args.empty == "absent")


def _scores_of(
    prediction: Path,
    args: argparse.Namespace,
    options: EvaluateOptions,
    left_out: dict[str, str],
    progress: Reporter,
    ranked: str | None = None,
) -> list[CaseScores]:
    """The scores of one method against the reference. With ``--leave-out``, ``left_out`` gets the cases that have none,
    and why. ``ranked``: the method's name, if it is one of ``--rank``."""
    from soars.metrics.cases import find_pairs
    from soars.metrics.evaluate import evaluate_cases

    pairing = find_pairs(prediction, args.reference, args.ct, series=args.series)
    if not args.where:
        _warn_of_single_sides(pairing, ranked)
    return evaluate_cases(
        chosen_cases(pairing.pairs, _scan, args.where),
        options,
        processes=processes(args.processes),
        progress=progress,
        left_out=left_out if args.leave_out else None,
    )


def _warn_of_single_sides(pairing: Pairing, ranked: str | None) -> None:
    """Name the cases that only one side has."""
    if ranked is not None:
        if pairing.without_prediction:
            missing = ", ".join(pairing.without_prediction)
            log.warning(
                "%s has no contours of %s, which the ranking leaves out for all methods", ranked, missing
            )
        return
    for side, names in (
        ("prediction", pairing.without_prediction),
        ("reference", pairing.without_reference),
    ):
        if names:
            log.warning("without a %s, left out: %s", side, ", ".join(names))


def _write(
    args: argparse.Namespace,
    cases: list[CaseScores],
    summary: list[GroupSummary],
    ranks: list[MethodRank],
    left_out: dict[str, str],
    report: Reporter,
) -> None:
    """Write the requested files, all of them or none."""
    from soars.metrics.tables import write_scores, write_summary
    from soars.service.comparison import write_scores_page
    from soars.study.ranking import write_ranking

    def plot(path: Path) -> None:
        from soars.metrics.plots import plot_scores

        report(Progress("plot", 0, 1, args.plot.name))
        plot_scores(cases, path, args.definition)

    write_outputs(
        [
            (args.csv, lambda path: write_scores(cases, path)),
            (args.summary, lambda path: write_summary(summary, path)),
            (args.page, lambda path: write_scores_page(cases, left_out, args.definition, path)),
            (args.plot, plot),
            (args.ranking, lambda path: write_ranking(ranks, path)),
        ],
        overwrite=args.overwrite,
    )


def _warn_of_other_sides(cases: list[CaseScores]) -> None:
    for case in cases:
        for score in case.scores:
            if score.other_side:
                log.warning("%s: %s lies on the other side than the reference's", case.case, score.organ)


def _scan(pair: CasePair) -> tuple[str, Path | None, str | None]:
    return pair.case, pair.ct, pair.series
