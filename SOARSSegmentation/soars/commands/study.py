"""``soars study``: plan a study of reading times, collect it, and analyse it."""

from __future__ import annotations

import argparse
import logging
from pathlib import Path
from typing import TYPE_CHECKING, Any

from soars.commands.options import (
    add_device_option,
    add_overwrite_option,
    add_processes_option,
    add_progress_option,
    check_outputs,
    processes,
)
from soars.errors import InputError
from soars.progress import Progress, reporting

if TYPE_CHECKING:
    from soars.study.load import Opened

log = logging.getLogger(__name__)
_Actions = Any


def add_parser(subparsers: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    parser = subparsers.add_parser(
        "study",
        help="plan, collect and analyse a study of how long readers take",
        description="A multi-reader study of reading times, from its plan to its report; docs/studies.md walks through "
        "one. DIR is the lead's folder, which holds study.yaml.",
    )
    actions = parser.add_subparsers(dest="action", metavar="ACTION", required=True)
    _add_planning(actions)
    _add_collecting(actions)
    _add_simulating(actions)


def run(args: argparse.Namespace) -> int:
    """Run the chosen action; errors are `soars.errors.InputError`."""
    return _ACTIONS[args.action](args)


# --- planning ----------------------------------------------------------------------------------------------------


def _add_planning(actions: _Actions) -> None:
    new = actions.add_parser(
        "new",
        help="write a study file, study.yaml, to be edited",
        description="Write DIR/study.yaml with a pseudonym for every CT found. Edit it: arms, readers, organs, "
        "repeats; every field is explained in docs/studies.md.",
    )
    new.add_argument("folder", metavar="DIR", type=Path, help="the lead's folder; created if missing")
    new.add_argument(
        "--cts", metavar="DIR", type=Path, required=True, help="one folder or image file per patient"
    )
    new.add_argument(
        "--name", default="study", help="of the study: letters, digits and . _ - (default: %(default)s)"
    )
    new.add_argument("--references", metavar="DIR", type=Path, help="reference contours, named after the CTs")
    new.add_argument("--doses", metavar="DIR", type=Path, help="planned doses, named after the CTs")
    new.add_argument("--bundle", default="starter", help="the model of the first arm (default: %(default)s)")
    new.add_argument(
        "--readers", metavar="A,B", default="R1,R2", help="their pseudonyms (default: %(default)s)"
    )
    new.add_argument(
        "--scratch", metavar="N", type=int, help="cases that are also drawn from scratch (default: all)"
    )
    new.add_argument("--seed", type=int, default=1, help="of every random choice (default: %(default)s)")

    prepare = actions.add_parser(
        "prepare",
        help="make what readers are given: CTs without their headers, every arm's proposals, hashed",
        description="Segment or read the proposals of every arm for every case into DIR/share/cases, and write "
        "DIR/key.json, which says what code stands for which arm. Keep the key from readers.",
    )
    prepare.add_argument("folder", metavar="DIR", type=Path, help="the lead's folder")
    add_device_option(prepare)
    add_progress_option(prepare)

    worklist = actions.add_parser(
        "worklist",
        help="write every reader's worklist and the pre-registration sheet",
        description="Assign cases to readers, arms and places in the order (seeded and balanced), and write "
        "DIR/share/worklists and DIR/registration.md. Then give DIR/share, and nothing else, to the readers.",
    )
    worklist.add_argument("folder", metavar="DIR", type=Path, help="the lead's folder")


def _new(args: argparse.Namespace) -> int:
    from soars.study.plan.template import new_study

    plan = new_study(
        args.folder,
        args.name,
        args.cts,
        references=args.references,
        doses=args.doses,
        bundle=args.bundle,
        readers=[reader.strip() for reader in args.readers.split(",") if reader.strip()],
        scratch=args.scratch,
        seed=args.seed,
    )
    print(
        f"{args.folder / 'study.yaml'}: {len(plan.cases)} cases, {len(plan.readers)} readers; edit it, then"
    )
    print(f"soars study prepare {args.folder}")
    return 0


def _prepare(args: argparse.Namespace) -> int:
    from soars.study.plan.model import read_plan
    from soars.study.plan.prepare import prepare

    plan = read_plan(args.folder)
    with reporting(args.progress) as report:
        prepared = prepare(plan, args.folder, device=args.device, progress=report)
        report(Progress("done", 1, 1))
    if args.progress != "json":
        print(f"{len(prepared.cases)} cases and {len(prepared.proposals)} proposals are ready")
        for one in prepared.proposals.values():
            if one.absent:
                print(f"{one.case}, {one.arm}: without {', '.join(one.absent)}")
    return 0


def _worklist(args: argparse.Namespace) -> int:
    from soars.study.plan.assign import imbalance
    from soars.study.plan.issue import issue
    from soars.study.plan.model import read_plan

    found = issue(read_plan(args.folder), args.folder)
    for reader, sessions in found.items():
        print(
            f"{reader}: {len(sessions)} sessions, {imbalance(sessions)} between two arms at most in a period"
        )
    print(f"give readers {args.folder / 'share'}; keep the rest of {args.folder} to yourself")
    return 0


# --- collecting --------------------------------------------------------------------------------------------------


def _add_collecting(actions: _Actions) -> None:
    status = actions.add_parser(
        "status", help="how far along readers are, and what deviates from the protocol"
    )
    collect = actions.add_parser(
        "collect", help="write one row per session and organ, with everything known about it"
    )
    summarize = actions.add_parser(
        "summarize",
        help="tables, figures and a report",
        description="Analyse a study: categories of revision, minutes per patient and savings, amounts of edit, "
        "agreement with reference, readers and consensus, dose differences, statistics. Writes report.html, "
        "sessions.csv, tables/ and figures/ into OUT.",
    )
    for parser in (status, collect, summarize):
        parser.add_argument(
            "folder", metavar="DIR", type=Path, help="the lead's folder, or any folder of sessions"
        )
        parser.add_argument(
            "more", metavar="SITE", type=Path, nargs="*", help="other sites' folders of sessions"
        )
        parser.add_argument("--study", metavar="NAME", help="which study, where DIR has no study.yaml")
        add_processes_option(parser)
        add_progress_option(parser)
    collect.add_argument(
        "--csv", metavar="FILE", type=Path, required=True, help="the rows, one per session and organ"
    )
    add_overwrite_option(collect, "an earlier FILE")
    summarize.add_argument("--output", metavar="OUT", type=Path, required=True, help="folder for the results")
    add_overwrite_option(summarize, "earlier results there")
    summarize.add_argument(
        "--times-only",
        action="store_true",
        help="leave out the comparisons of contours and doses; a quick look",
    )
    summarize.add_argument(
        "--idle", metavar="S", type=float, help="another idle threshold than the plan's, in seconds"
    )


def _opened(args: argparse.Namespace) -> Opened:
    from soars.study.load import open_study

    for folder in (args.folder, *args.more):
        if not folder.is_dir():
            raise InputError(f"there is no folder {folder}")
    return open_study(args.folder, args.more, args.study)


def _status(args: argparse.Namespace) -> int:
    from soars.study.load import collect_study
    from soars.study.status import status_text

    opened = _opened(args)
    with reporting(args.progress) as report:
        collection = collect_study(opened, processes=processes(args.processes), progress=report)
        report(Progress("done", 1, 1))
    if args.progress != "json":
        print(status_text(opened, collection))
    return 0


def _collect(args: argparse.Namespace) -> int:
    from soars.files import begins_with
    from soars.study.load import collect_study
    from soars.study.rows import write_rows
    from soars.study.status import problem_lines, update_ledger

    opened = _opened(args)
    ours = begins_with("study,session,")
    check_outputs([(args.csv, ours)], inputs=[args.folder, *args.more], overwrite=args.overwrite)
    with reporting(args.progress) as report:
        collection = collect_study(opened, processes=processes(args.processes), progress=report)
        write_rows(collection.rows, args.csv, overwrite=args.overwrite)
        changed = update_ledger(args.folder, collection) if opened.plan is not None else []
        report(Progress("done", 1, 1))
    for problem in changed:
        log.warning("%s", problem)
    if args.progress != "json":
        print(f"{len(collection.sessions)} sessions, {len(collection.rows)} rows in {args.csv}")
        print("\n".join(problem_lines(collection)).lstrip("\n"))
    return 0


def _summarize(args: argparse.Namespace) -> int:
    from soars.files import check_output_folder
    from soars.study.results.summary import FOLDERS, OUTPUTS, PAGE, analyse_study, write_analysis

    if args.idle is not None and not args.idle >= 0:
        raise InputError(f"--idle must be 0 s or more, not {args.idle:g}")
    opened = _opened(args)
    check_output_folder(args.output, OUTPUTS, overwrite=args.overwrite, folders=FOLDERS)
    with reporting(args.progress) as report:
        analysis = analyse_study(
            opened,
            idle_s=args.idle,
            contours=not args.times_only,
            processes=processes(args.processes),
            progress=report,
        )
        figures = write_analysis(analysis, args.output, overwrite=args.overwrite, progress=report)
        report(Progress("done", 1, 1))
    if args.progress != "json":
        for one in analysis.comparisons:
            print(
                f"{one.first}: {one.first_mean:.1f} min per patient, {one.second}: {one.second_mean:.1f} min on "
                f"{one.n} common patients; {100 * one.saving:.1f} % saved"
            )
        print(f"{args.output / PAGE}: {len(analysis.tables)} tables, {len(figures)} figures")
    return 0


# --- simulating --------------------------------------------------------------------------------------------------


def _add_simulating(actions: _Actions) -> None:
    simulate = actions.add_parser(
        "simulate",
        help="a whole study with known results, on phantoms",
        description="Simulated readers with known speed and skill work through a study on phantoms and leave real logs "
        "and contours: to learn the commands, and to test the analysis. truth.json says what was built in.",
    )
    simulate.add_argument(
        "--output", metavar="DIR", type=Path, required=True, help="the lead's folder to make"
    )
    simulate.add_argument("--seed", type=int, default=1, help="of every random choice (default: %(default)s)")
    simulate.add_argument(
        "--cases", metavar="N", type=int, default=30, help="patients (default: %(default)s)"
    )
    simulate.add_argument(
        "--scratch", metavar="N", type=int, help="patients also drawn from scratch (default: a sixth of them)"
    )
    simulate.add_argument(
        "--readers", metavar="N", type=int, default=2, help="readers (default: %(default)s)"
    )
    simulate.add_argument(
        "--repeats", metavar="N", type=int, default=0, help="patients read twice (default: %(default)s)"
    )
    simulate.add_argument(
        "--reader-ratio",
        metavar="X",
        type=float,
        default=1.0,
        help="how many times as long as the first reader the last one takes (default: %(default)s)",
    )
    power = actions.add_parser(
        "power",
        help="how many patients a study needs, by simulation",
        description="Power of the primary comparison for numbers of patients: many simulated studies through the same "
        "analysis. Standard deviations are of log minutes; estimate them from a pilot's report.",
    )
    power.add_argument(
        "--saving", type=float, required=True, help="share of the time that is saved, e.g. 0.2"
    )
    power.add_argument(
        "--cases", metavar="N,N", default="5,10,15,20,30", help="patients (default: %(default)s)"
    )
    power.add_argument("--readers", metavar="N", type=int, default=2, help="readers (default: %(default)s)")
    power.add_argument("--repeats", metavar="N", type=int, default=1, help="readings (default: %(default)s)")
    for name, default in (("case", 0.2), ("reader", 0.2), ("interaction", 0.05), ("rest", 0.25)):
        power.add_argument(
            f"--{name}-sd", metavar="SD", type=float, default=default, help="(default: %(default)s)"
        )
    power.add_argument(
        "--test", default="wilcoxon", help="wilcoxon, paired t or mixed model (default: wilcoxon)"
    )
    power.add_argument(
        "--simulations",
        metavar="N",
        type=int,
        default=1000,
        help="per number of patients (default: %(default)s)",
    )
    power.add_argument("--seed", type=int, default=1, help="of the random numbers (default: %(default)s)")
    power.add_argument("--csv", metavar="FILE", type=Path, help="write the table")
    power.add_argument("--plot", metavar="FILE", type=Path, help="draw the curve (.png, .svg, .pdf)")
    add_overwrite_option(power, "earlier files")
    for parser in (simulate, power):
        add_processes_option(parser)
        add_progress_option(parser)


def _simulate(args: argparse.Namespace) -> int:
    from soars.study.simulation.make import SimulationOptions, simulate_study
    from soars.study.simulation.truth import Truth

    options = SimulationOptions(
        cases=args.cases,
        scratch=args.scratch if args.scratch is not None else max(1, args.cases // 6),
        readers=args.readers,
        repeats=args.repeats,
        seed=args.seed,
        truth=Truth(reader_ratio=args.reader_ratio),
    )
    with reporting(args.progress) as report:
        simulate_study(args.output, options, processes=processes(args.processes), progress=report)
        report(Progress("done", 1, 1))
    if args.progress != "json":
        print(f"{args.output}: a simulated study of {args.cases} patients and {args.readers} readers; next:")
        print(f"soars study summarize {args.output} --output {args.output / 'results'}")
    return 0


def _power(args: argparse.Namespace) -> int:
    from soars.figures import check_figure_path, is_own_figure, save_figure
    from soars.files import begins_with, replacing_files
    from soars.study.rows import write_table
    from soars.study.simulation.power import PowerOptions, power_figure, power_of, power_table

    check_outputs(
        [(args.csv, begins_with("patients,readers,")), (args.plot, is_own_figure)],
        inputs=[],
        overwrite=args.overwrite,
    )
    if args.plot:
        check_figure_path(args.plot)
    options = PowerOptions(
        saving=args.saving,
        cases=_numbers(args.cases),
        readers=args.readers,
        repeats=args.repeats,
        case_sd=args.case_sd,
        reader_sd=args.reader_sd,
        interaction_sd=args.interaction_sd,
        rest_sd=args.rest_sd,
        test=args.test,
        simulations=args.simulations,
        seed=args.seed,
    )
    with reporting(args.progress) as report:
        found = power_of(options, processes=processes(args.processes), progress=report)
        table = power_table(found, options)
        outputs = [path for path in (args.csv, args.plot) if path]
        with replacing_files(outputs, overwrite=args.overwrite) as temporary:
            if args.csv:
                write_table(temporary[args.csv], table.columns, table.rows)
            if args.plot:
                save_figure(power_figure(found, options), temporary[args.plot], 300)
        report(Progress("done", 1, 1))
    if args.progress != "json":
        print(table.note)
        for one in found:
            print(
                f"{one.cases:4d} patients: {100 * one.power:5.1f} % ({100 * one.low:.1f} to {100 * one.high:.1f})"
            )
    return 0


def _numbers(text: str) -> tuple[int, ...]:
    try:
        return tuple(int(part) for part in text.split(",") if part.strip())
    except ValueError:
        raise InputError(f"--cases must be whole numbers with commas between them, not {text}") from None


_ACTIONS = {
    "new": _new,
    "prepare": _prepare,
    "worklist": _worklist,
    "status": _status,
    "collect": _collect,
    "summarize": _summarize,
    "simulate": _simulate,
    "power": _power,
}
