"""`soars catalogue`: look an organ up, list them, write Slicer's terminology and colour table."""

from __future__ import annotations

import argparse
from pathlib import Path


def add_parser(subparsers: argparse._SubParsersAction) -> None:
    parser = subparsers.add_parser("catalogue", help="the organs at risk: list, look up, write Slicer's files")
    actions = parser.add_subparsers(dest="action", required=True, metavar="ACTION")
    listing = actions.add_parser("list", help="all organs with stratum, label and SNOMED code")
    listing.add_argument("--stratum", choices=("anchor", "mid_level", "small_hard", "extra"))
    look_up = actions.add_parser("resolve", help="which organ a name means")
    look_up.add_argument("names", nargs="+", metavar="NAME")
    write = actions.add_parser("write-slicer", help="write Slicer's terminology JSON and colour table into a folder")
    write.add_argument("folder", type=Path)
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    from soars import oars, slicer_resources

    if args.action == "write-slicer":
        for path in slicer_resources.write_resources(args.folder):
            print(path)
    elif args.action == "resolve":
        for name in args.names:
            found = oars.resolve(name)
            print(f"{name}: {found.name} ({found.label})")
    else:
        chosen = oars.by_stratum(args.stratum) if args.stratum else tuple(oars.CATALOGUE.values())
        for oar in chosen:
            print(f"{oar.name:<16}  {oar.stratum:<10}  {oar.snomed_code:<10}  {oar.label}")
    return 0
