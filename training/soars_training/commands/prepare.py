"""`soars-train prepare`."""

from __future__ import annotations

import argparse
from pathlib import Path

from soars_training.commands import arguments


def add(commands: argparse._SubParsersAction) -> None:
    parser = commands.add_parser("prepare", help="preprocess cases into a training cache")
    parser.add_argument("cache", type=Path, help="the cache folder to write")
    arguments.add_source(parser)
    parser.add_argument("--spacing", default="3", help="voxel size in mm, one number or x,y,z (default 3)")
    parser.add_argument(
        "--voi", type=Path, metavar="FILE", help="JSON, heat-map group -> [x, y, z] mm: cache these VOIs"
    )
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> None:
    from soars_training.cohorts import phantoms, prepare

    spacing = arguments.spacing(args.spacing)
    vois = arguments.read_vois(args.voi)
    if args.phantoms:
        seeds = range(args.first_seed, args.first_seed + args.phantoms)
        if args.voi:
            phantoms.write_phantom_vois(seeds, args.cache, spacing, vois)
        else:
            cases = phantoms.phantom_cases(seeds, spacing)
            prepare.write_volume_cache(cases, args.cache, spacing, "phantom", len(seeds))
        return
    cases = (
        prepare.openkbp_cases(args.openkbp, [arguments.OPENKBP_SPLITS["train"]])
        if args.openkbp
        else prepare.listed_cases(args.list)
    )
    source = "OpenKBP" if args.openkbp else args.list.stem
    if args.voi:
        prepare.write_voi_cache(cases, args.cache, spacing, vois, source)
    else:
        prepare.write_volume_cache(cases, args.cache, spacing, source)
