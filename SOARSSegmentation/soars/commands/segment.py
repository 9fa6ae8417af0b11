"""``soars segment``: a CT in; contours, RTSTRUCT, report and run record out, all of them or none."""

from __future__ import annotations

import argparse
from pathlib import Path

from soars.errors import InputError
from soars.progress import Progress, add_progress_option, reporting

DEFAULT_BUNDLE = "starter"


def add_parser(subparsers: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    parser = subparsers.add_parser(
        "segment",
        help="contour the organs at risk on a CT",
        description="Contour the organs at risk on a head-and-neck CT. Writes segmentation.seg.nrrd (editable in "
        "3D Slicer), rtstruct.dcm (when the CT is DICOM), report.html and run.json into one folder, all of them or "
        "none. For research; not a medical device; every contour is to be reviewed.",
    )
    parser.add_argument(
        "ct", metavar="CT", type=Path, help="a DICOM folder, one of its files, or a NRRD, NIfTI or MHA file"
    )
    parser.add_argument("--output", metavar="DIR", type=Path, required=True, help="folder for the results")
    parser.add_argument(
        "--bundle", metavar="NAME|PATH", default=DEFAULT_BUNDLE, help="model bundle (default: %(default)s)"
    )
    add_engine_options(parser)
    parser.add_argument(
        "--organs", metavar="A,B", type=_names, help="only these organs, in any spelling the catalogue knows"
    )
    parser.add_argument(
        "--series", metavar="UID", help="which series, when the DICOM folder holds several CTs"
    )
    parser.add_argument(
        "--overwrite", action="store_true", help="replace the results of an earlier run in the output folder"
    )
    add_progress_option(parser)


def add_engine_options(parser: argparse.ArgumentParser) -> None:
    """Where and with what the networks run."""
    parser.add_argument(
        "--device",
        choices=("auto", "cpu", "cuda"),
        default="auto",
        help="auto takes a GPU when there is a usable one; cuda fails when there is none (default: %(default)s)",
    )
    parser.add_argument(
        "--engine",
        choices=("auto", "torch", "onnxruntime"),
        default="auto",
        help="what runs the networks (default: %(default)s)",
    )


def run(args: argparse.Namespace) -> int:
    """Segment one CT; errors are `soars.errors.SoarsError`."""
    with reporting(args.progress) as report:
        from soars.files import staged_folder
        from soars.report.summary import organ_table, output_paths
        from soars.run.case import OUTPUTS, Request, check_places, segment_case

        request = Request(
            ct=args.ct,
            bundle=args.bundle,
            device=args.device,
            engine=args.engine,
            organs=args.organs,
            series=args.series,
        )
        check_places(args.ct, args.output)
        with staged_folder(args.output, OUTPUTS, overwrite=args.overwrite) as folder:
            case = segment_case(request, folder, report)
        report(Progress("done", 1, 1, str(args.output)))
    if args.progress != "json":
        print(organ_table(case.record))
        print(f"\n{case.record.notice}\n")
        print(output_paths(args.output, case.record.outputs))
    return 0


def _names(text: str) -> tuple[str, ...]:
    names = tuple(name.strip() for name in text.split(",") if name.strip())
    if not names:
        raise InputError("--organs: no organ is named; leave it out for all that the bundle covers")
    return names
