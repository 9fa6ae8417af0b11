"""`soars-train prepare`."""

from __future__ import annotations

import argparse
from pathlib import Path

from soars.errors import InputError
from soars_training.commands import arguments

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
        help="with --data: read so many cases at a time, each in the memory of its own process (default 1)",
    )
    parser.add_argument(
        "--mr", action="store_true", help="phantoms: with a synthetic MR, for the system ct_mr"
    )
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> None:
    from soars_training.cohorts import distil, layouts, many, phantoms, prepare
    from soars_training.cohorts.reading import LeftOut

    spacing = arguments.spacing(args.spacing)
    vois = arguments.read_vois(args.voi)
    if args.phantoms:
        seeds = range(args.first_seed, args.first_seed + args.phantoms)
        if args.voi:
            phantoms.write_phantom_vois(seeds, args.cache, spacing, vois)
        else:
            cases = phantoms.phantom_cases(seeds, spacing, mr=args.mr)
            prepare.write_volume_cache(cases, args.cache, spacing, "phantom", len(seeds))
        return
    if args.processes < 1:
        raise InputError("--processes must be at least 1")
    left_out = LeftOut()
    cases = arguments.real_cases(args, "train", left_out)
    source = "OpenKBP" if args.openkbp else (args.list or args.data).stem
    if args.data and (teacher := distil.labelled_by(args.data)):
        source = f"{args.data.resolve().parent.name}, {teacher}"
    if args.voi:
        prepare.write_voi_cache(cases, args.cache, spacing, vois, source)
    elif args.data:
        files = layouts.case_files(args.layout, args.data)
        many.prepare_files(files, args.cache, spacing, source, left_out, args.processes)
    else:
        prepare.write_volume_cache(cases, args.cache, spacing, source)
    left_out.write(args.cache / LEFT_OUT)
    if left_out.rows:
        print(f"{len(left_out.rows)} structures or cases were left out: see {args.cache / LEFT_OUT}")
