"""`soars-train prepare`."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import TYPE_CHECKING

from soars.errors import InputError
from soars_training.commands import arguments

if TYPE_CHECKING:
    from soars_training.cohorts.many import Job

LEFT_OUT = "left_out.csv"


def add(commands: argparse._SubParsersAction) -> None:
    parser = commands.add_parser("prepare", help="preprocess cases into a training cache")
    parser.add_argument("cache", type=Path, help="the cache folder to write")
    arguments.add_source(parser)
    parser.add_argument("--spacing", default="3", help="voxel size in mm, one number or x,y,z (default 3)")
    parser.add_argument(
        "--voi", type=Path, metavar="FILE", help="JSON, heat-map group -> [x, y, z] mm: cache these VOIs"
    )
    parser.add_argument(
        "--processes",
        type=int,
        default=1,
        metavar="N",
        help="prepare so many cases at a time, each in the memory of its own process (default 1)",
    )
    parser.add_argument(
        "--mr", action="store_true", help="phantoms: with a synthetic MR, for the system ct_mr"
    )
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> None:
    from soars_training.cohorts import many
    from soars_training.cohorts.reading import LeftOut

    spacing = arguments.spacing(args.spacing)
    if args.processes < 1:
        raise InputError("--processes must be at least 1")
    vois = arguments.read_vois(args.voi) if args.voi else None
    left_out = LeftOut()
    jobs, source = _jobs(args, vois)
    many.prepare_jobs(jobs, args.cache, spacing, source, left_out, args.processes, vois)
    left_out.write(args.cache / LEFT_OUT)
    if left_out.rows:
        print(f"{len(left_out.rows)} structures or cases were left out: see {args.cache / LEFT_OUT}")


def _jobs(args: argparse.Namespace, vois: dict[str, arguments.Triple] | None) -> tuple[list[Job], str]:
    """The cases to prepare, and what the cache says of where they come from."""
    from soars_training.cohorts import distil, layouts, many, phantoms

    if args.phantoms:
        seeds = range(args.first_seed, args.first_seed + args.phantoms)
        if vois:
            return phantoms.phantom_voi_jobs(seeds, vois), "phantom"
        return phantoms.phantom_jobs(seeds, mr=args.mr), "phantom"
    if args.openkbp:
        return many.openkbp_jobs(args.openkbp, [arguments.OPENKBP_SPLITS["train"]], vois), "OpenKBP"
    if args.list:
        return many.listed_jobs(args.list, vois), args.list.stem
    files = layouts.case_files(arguments.layout_of(args), args.data)
    teacher = distil.labelled_by(args.data)
    source = f"{args.data.resolve().parent.name}, {teacher}" if teacher else args.data.stem
    return many.file_jobs(files, vois), source
