"""``soars demo``: the whole program on a synthetic patient, so that anybody can try it without patient data."""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import TYPE_CHECKING

from soars.commands.options import add_engine_options, add_progress_option
from soars.errors import InputError
from soars.progress import Progress, Reporter, reporting

if TYPE_CHECKING:
    from soars.run.case import Case, Request
    from soars.structures import StructureSet

CT, RECORD = "ct", "demo.json"
BUNDLE = "phantom"
DEFAULT_SEED = 7
"""A patient that the phantom bundle has not been trained on: training takes seeds from 1000 on."""

NOTICE = (
    "This patient is synthetic, and the phantom bundle was trained on such patients only: it is for this demo, "
    "not for real CTs. Use `soars segment CT --output DIR` for those."
)


def add_parser(subparsers: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    parser = subparsers.add_parser(
        "demo",
        help="make a synthetic patient and segment it",
        description="Make a synthetic head-and-neck CT (a DICOM series), contour all 42 organs at risk on it with the "
        "phantom bundle, compare them with the truth, and write what `soars segment` writes. An earlier demo in the "
        "same folder is replaced.",
    )
    parser.add_argument(
        "--output", metavar="DIR", type=Path, default=Path("soars-demo"), help="folder (default: %(default)s)"
    )
    parser.add_argument(
        "--seed", metavar="N", type=int, default=DEFAULT_SEED, help="which patient (default: %(default)s)"
    )
    add_engine_options(parser)
    parser.add_argument(
        "--overwrite", action="store_true", help="replace results of `soars segment` in the folder, too"
    )
    add_progress_option(parser)


def run(args: argparse.Namespace) -> int:
    """Make, segment and compare; errors are `soars.errors.SoarsError`."""
    if args.seed < 0:
        raise InputError(f"--seed must be zero or more, not {args.seed}")
    overwrite = _may_replace(args.output, args.overwrite)
    with reporting(args.progress) as report:
        from soars.files import staged_folder
        from soars.report.outputs import OUTPUTS
        from soars.report.summary import organ_table, output_paths
        from soars.run.case import Request

        names = (*OUTPUTS, CT, RECORD)
        with staged_folder(args.output, names, overwrite=overwrite, folders=(CT,), ours=_ours) as folder:
            truth = make_patient(args.seed, folder / CT, report)
            request = Request(ct=folder / CT, bundle=BUNDLE, device=args.device, engine=args.engine)
            case, dice = segment_and_compare(request, folder, truth, report)
            text = json.dumps({"soars_demo": 1, "seed": args.seed, "dice": dice}, indent=2)
            (folder / RECORD).write_text(text + "\n", encoding="utf-8")
        report(Progress("done", 1, 1, str(args.output)))
    if args.progress != "json":
        print(organ_table(case.record, dice))
        if dice:
            print(f"mean DSC against the truth of this phantom: {sum(dice.values()) / len(dice):.2f}")
        print(f"\n{NOTICE}\n{case.record.notice}\n")
        print(output_paths(args.output, (*case.record.outputs, RECORD)))
        print(f"{args.output / CT}  the synthetic CT (DICOM)")
    return 0


def make_patient(seed: int, folder: Path, report: Reporter) -> StructureSet:
    """Write the CT of the synthetic patient `seed` as a DICOM series; returns its organs as ground truth."""
    from soars.dicom.write import write_ct_series
    from soars.phantom import make_phantom

    report(Progress("phantom", message="making the patient"))
    phantom = make_phantom(seed)
    write_ct_series(
        phantom.ct,
        folder,
        patient_id=f"PHANTOM-{seed}",
        patient_name=f"Phantom^{seed}",
        series_description=f"SOARS phantom {seed}",
        study_description="Synthetic, not a patient",
        seed=seed,
    )
    return phantom.structures


def segment_and_compare(
    request: Request, folder: Path, truth: StructureSet, report: Reporter
) -> tuple[Case, dict[str, float]]:
    """Segment the case; DSC of the organs that the scan holds according to the ground truth (0 for one not found)."""
    from soars.run.case import segment_case
    from soars.structures.mask import EMPTY_MASK, dice

    case = segment_case(request, folder, report)
    if not truth.geometry.same_as(case.structures.geometry):
        truth = truth.resample(case.structures.geometry)
    there = [name for name in truth if not truth.is_empty(name)]
    found = case.structures
    return case, {
        name: round(dice(truth.crop(name), found.crop(name) if name in found else EMPTY_MASK), 4)
        for name in there
    }


def _may_replace(folder: Path, overwrite: bool) -> bool:
    """Whether what is in `folder` under the demo's names may be replaced. A CT that no demo made never is."""
    demo = _is_demo(folder)
    if not demo and (folder / CT).exists():
        raise InputError(
            f"{folder / CT} is there already and was not made by a demo; choose another --output"
        )
    return demo or overwrite


def _ours(folder: Path) -> bool:
    from soars.run.case import is_own_result

    return _is_demo(folder) or is_own_result(folder)


def _is_demo(folder: Path) -> bool:
    from soars.texts import read_json

    try:
        return "soars_demo" in read_json(folder / RECORD)
    except (OSError, ValueError, TypeError, InputError):
        return False
