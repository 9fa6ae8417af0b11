"""``soars segment``: a CT in; contours, RTSTRUCT, report and run record out, all of them or none."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import TYPE_CHECKING

from soars.commands.options import (
    add_engine_options,
    add_organs_option,
    add_progress_option,
    add_series_option,
)
from soars.errors import InputError
from soars.progress import Progress, reporting

if TYPE_CHECKING:
    from soars.mr.registration import MisfitError

DEFAULT_BUNDLE = "starter"
REFUSED_MR = "-refused-mr.png"
"""Added to the output's name: the picture of an MR that does not fit."""


def add_parser(subparsers: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    parser = subparsers.add_parser(
        "segment",
        help="contour the organs at risk on a CT",
        description="Contour the organs at risk on a head-and-neck CT. Writes segmentation.seg.nrrd (editable in "
        "3D Slicer), rtstruct.dcm (when the CT is DICOM), report.html and run.json into one folder, all of them or "
        "none. For research; not a medical device; every contour must be reviewed.",
    )
    parser.add_argument(
        "ct", metavar="CT", type=Path, help="a DICOM folder, one of its files, or a NRRD, NIfTI or MHA file"
    )
    parser.add_argument("--output", metavar="DIR", type=Path, required=True, help="folder for the results")
    parser.add_argument(
        "--bundle", metavar="NAME|PATH", default=DEFAULT_BUNDLE, help="model bundle (default: %(default)s)"
    )
    add_engine_options(parser)
    add_organs_option(parser)
    add_series_option(parser)
    parser.add_argument(
        "--mr",
        metavar="MR",
        type=Path,
        help="a T1-weighted MR of the same patient (DICOM folder or image file), for bundles that use one",
    )
    parser.add_argument(
        "--mr-series",
        metavar="UID",
        help="which series, when the MR's folder holds several; UID/2 is the second echo or phase of one",
    )
    parser.add_argument(
        "--overwrite", action="store_true", help="replace the results of an earlier run in the output folder"
    )
    add_progress_option(parser)


def run(args: argparse.Namespace) -> int:
    """Segment one CT; errors are `soars.errors.SoarsError`."""
    if args.mr_series and args.mr is None:
        raise InputError("--mr-series chooses a series of the MR: give --mr as well")
    with reporting(args.progress) as report:
        from soars.files import staged_folder
        from soars.mr.registration import MisfitError
        from soars.report.outputs import OUTPUTS
        from soars.report.summary import organ_table, output_paths
        from soars.run.case import Request, check_places, is_own_result, segment_case

        request = Request(
            ct=args.ct,
            bundle=args.bundle,
            device=args.device,
            engine=args.engine,
            organs=args.organs,
            series=args.series,
            mr=args.mr,
            mr_series=args.mr_series,
        )
        check_places(args.ct, args.output)
        if args.mr is not None:
            check_places(args.mr, args.output)
        try:
            with staged_folder(args.output, OUTPUTS, overwrite=args.overwrite, ours=is_own_result) as folder:
                case = segment_case(request, folder, report)
        except MisfitError as error:
            if args.progress == "json":  # who started this keeps nothing but the results
                raise
            raise _shown(error, args.output) from error
        report(Progress("done", 1, 1, str(args.output)))
    if args.progress != "json":
        print(organ_table(case.record))
        print(f"\n{case.record.notice}\n")
        print(output_paths(args.output, case.record.outputs))
    return 0


def _shown(error: MisfitError, output: Path) -> InputError:
    """The error, naming a picture beside the output of how the MR was laid onto the CT."""
    from soars.files import replacing_file

    path = output.with_name(f"{output.name}{REFUSED_MR}")
    with replacing_file(path) as temporary:
        temporary.write_bytes(error.picture)
    return InputError(f"{error}; squares of CT and MR, as they were laid, are in {path}")
