"""``soars catalogue``: list the organs, find one by any spelling, write Slicer's terminology and colours."""

from __future__ import annotations

import argparse
from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING

from soars.catalogue import STRATA

if TYPE_CHECKING:
    from soars.catalogue import Oar


def add_parser(subparsers: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    parser = subparsers.add_parser(
        "catalogue",
        help="list the organs, find one by any spelling, write Slicer's terminology and colours",
        description="The catalogue of organs at risk: the 42 of the SOARS study in three strata, and what the "
        "public data sets need.",
    )
    actions = parser.add_subparsers(dest="action", metavar="ACTION", required=True)
    listing = actions.add_parser("list", help="list the organs: name, stratum, SNOMED CT code, label")
    listing.add_argument("--stratum", choices=STRATA, help="only those of one stratum")
    listing.add_argument(
        "--set", metavar="SET", help="a data set's labels and the organs they mean (HaN-Seg, ...)"
    )
    look_up = actions.add_parser("resolve", help="which organ a name means")
    look_up.add_argument("names", nargs="+", metavar="NAME", help="a name in any spelling")
    write = actions.add_parser(
        "write-slicer", help="write SOARS.term.json and SOARS_ColorTable.csv for 3D Slicer into a folder"
    )
    write.add_argument("folder", type=Path, metavar="DIR", help="made if it does not exist")


def run(args: argparse.Namespace) -> int:
    """Run the chosen action; raises `UnknownOrganError` for a name that means no organ, and `InputError`."""
    if args.action == "write-slicer":
        from soars.catalogue.slicer_terms import write_resources

        for path in write_resources(args.folder):
            print(path)
    elif args.action == "resolve":
        _resolve(args.names)
    else:
        _list(args.stratum, args.set)
    return 0


def _resolve(names: Iterable[str]) -> None:
    from soars.catalogue import resolve

    for name, oar in [(name, resolve(name)) for name in names]:
        print(f"{name}: {oar.name} ({oar.label})")


def _list(stratum: str | None, set_name: str | None) -> None:
    from soars.catalogue import CATALOGUE, by_stratum, label_map

    organs = by_stratum(stratum) if stratum else tuple(CATALOGUE.values())
    if set_name is None:
        for oar in organs:
            print(_line(oar))
        return
    labels = label_map(set_name)
    wanted = {oar.name for oar in organs}
    for label, name in labels.items():
        if name in wanted:
            print(f"{label:<28}  {_line(CATALOGUE[name])}")


def _line(oar: Oar) -> str:
    code = oar.snomed_code + ("" if oar.snomed_verified else "?")
    return f"{oar.name:<16}  {oar.stratum:<10}  {code:<10}  {oar.label}".rstrip()
