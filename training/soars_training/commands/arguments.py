"""Arguments that several commands share, and how their text is read."""

from __future__ import annotations

import argparse
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING

from soars import catalogue
from soars.commands.options import add_device_option, count_of
from soars.errors import InputError
from soars.networks.names import ENGINE_CHOICES, Branch
from soars.texts import read_json
from soars_training.cohorts.layouts import SHAPES
from soars_training.experiments.settings import PAPERS, organs_of_paper, stratum_of

if TYPE_CHECKING:
    from soars_training.cohorts.prepare import SourceCase
    from soars_training.cohorts.reading import LeftOut

OPENKBP_SPLITS = {"train": "train-pats", "validation": "validation-pats"}
Triple = tuple[float, float, float]


def add_source(parser: argparse.ArgumentParser) -> None:
    """Where cases come from: one of --openkbp, --list, --data, --phantoms."""
    source = parser.add_mutually_exclusive_group(required=True)
    source.add_argument(
        "--openkbp", type=Path, metavar="DIR", help="OpenKBP folder (cases.json, *_ct.nii.gz, *_oars.nii.gz)"
    )
    source.add_argument("--list", type=Path, metavar="FILE", help="JSON list of your own cases")
    source.add_argument(
        "--data", type=Path, metavar="DIR", help="a folder of cases in the layout of --layout"
    )
    source.add_argument("--phantoms", type=count_of("--phantoms"), metavar="N", help="make N phantoms")
    parser.add_argument(
        "--layout",
        choices=sorted(SHAPES),
        help="with --data: " + "; ".join(f"{name}: {shape}" for name, shape in SHAPES.items()),
    )
    parser.add_argument(
        "--first-seed", type=int, default=1000, help="seed of the first phantom (default 1000)"
    )


def add_run(parser: argparse.ArgumentParser) -> None:
    """Options for starting, validating, stopping and repeating a run."""
    parser.add_argument("--resume", action="store_true", help="go on from the folder's last checkpoint")
    parser.add_argument("--overwrite", action="store_true", help="replace the run that the folder holds")
    parser.add_argument(
        "--held-out", type=int, default=0, metavar="N", help="keep N patients for validation (default 0)"
    )
    parser.add_argument(
        "--validate-every", type=int, default=0, metavar="STEPS", help="0: at the end only (default)"
    )
    add_computer(parser)


def add_computer(parser: argparse.ArgumentParser) -> None:
    """Seed, checkpoints and what to run on."""
    parser.add_argument("--deterministic", action="store_true", help="the same bits on every repetition")
    parser.add_argument("--seed", type=int, default=1, help="of weights and windows (default 1)")
    parser.add_argument(
        "--checkpoint-every", type=int, default=250, metavar="STEPS", help="(default %(default)s)"
    )
    add_device_option(parser)
    parser.add_argument("--threads", type=int, help="CPU threads")
    parser.add_argument(
        "--workers", type=int, help="processes that draw windows (default: 1 on a CPU, up to 8 for a GPU)"
    )


def real_cases(args: argparse.Namespace, left_out: LeftOut) -> Iterator[SourceCase]:
    """The cases that --openkbp, --list or --data names; raises `InputError`."""
    from soars_training.cohorts import layouts, prepare, reading

    if args.openkbp:
        split = args.split or args.openkbp_split
        if split not in OPENKBP_SPLITS:
            raise InputError(f"--split {split}: OpenKBP has {' and '.join(OPENKBP_SPLITS)}")
        return prepare.openkbp_cases(args.openkbp, [OPENKBP_SPLITS[split]])
    if args.list:
        return prepare.listed_cases(args.list, args.split)
    if args.split:
        raise InputError("--split is for --openkbp and --list")
    return reading.read_cases(layouts.case_files(layout_of(args), args.data), left_out)


def layout_of(args: argparse.Namespace) -> str:
    """The layout of --data. Raises `InputError` when none is given."""
    if not args.layout:
        raise InputError(f"--data needs --layout, one of {', '.join(sorted(SHAPES))}")
    return str(args.layout)


def add_measured(parser: argparse.ArgumentParser, split: str) -> None:
    """Where the cases come from that a bundle is run on; `split`: the default part of OpenKBP."""
    add_source(parser)
    parser.add_argument(
        "--split",
        help=f"whose cases: with --openkbp {' or '.join(OPENKBP_SPLITS)} (default {split}), with --list one of its own",
    )
    parser.set_defaults(openkbp_split=split)
    parser.add_argument("--spacing", default="1,1,3", help="phantoms: CT spacing x,y,z in mm (default 1,1,3)")
    parser.add_argument("--engine", choices=ENGINE_CHOICES, default="auto")


def measured_cases(args: argparse.Namespace) -> Iterator[SourceCase]:
    """The cases that the options of `add_measured` name; raises `InputError`."""
    from soars_training.cohorts import phantoms
    from soars_training.cohorts.reading import LeftOut

    if args.phantoms:
        seeds = range(args.first_seed, args.first_seed + args.phantoms)
        return iter(phantoms.phantom_cases(seeds, spacing(args.spacing), "head_neck"))
    return real_cases(args, LeftOut())


def named_cases(cases: Iterable[SourceCase], names: str | None, option: str) -> Iterator[SourceCase]:
    """The cases named in a comma-separated list, or all without one; `InputError` when one is not there."""
    wanted = {name.strip() for name in names.split(",")} if names else None
    found = set()
    for case in cases:
        if wanted is None or case.name in wanted:
            found.add(case.name)
            yield case
        if wanted == found:
            return
    if wanted is not None and wanted - found:
        raise InputError(f"{option}: there are no cases {', '.join(sorted(wanted - found))}")


def organs(text: str) -> tuple[str, ...]:
    """Catalogue names from a list of any spelling."""
    return tuple(catalogue.resolve(name).name for name in text.split(","))


def add_strata(parser: argparse.ArgumentParser) -> None:
    """Whose strata the organs come from by default."""
    parser.add_argument(
        "--strata",
        choices=PAPERS,
        default="2022",
        help="whose organs are the default: the study's of 2022, or the first paper's of 2020, which has the larynx "
        "core for the larynx, the hippocampi besides, and no lenses (default %(default)s)",
    )


def organs_of(branch: Branch, paper: str = "2022") -> tuple[str, ...]:
    """Catalogue names of all organs of a branch's stratum."""
    stratum = "small_hard" if branch == "detection" else branch
    return tuple(o for o in organs_of_paper(paper) if stratum_of(o) == stratum)


def train_split(cache: Path) -> str:
    """The name that a cache gives the cases to learn from."""
    from soars_training.cohorts.cache import CacheIndex

    splits = {case.split for case in CacheIndex.load(cache).cases}
    return next((s for s in ("train", OPENKBP_SPLITS["train"]) if s in splits), "train")


def read_vois(path: Path | None) -> dict[str, Triple]:
    """VOI extents (x, y, z) in mm per heat-map group; raises `InputError`."""
    if path is None:
        return {}
    try:
        return {str(k): (float(x), float(y), float(z)) for k, (x, y, z) in read_json(path).items()}
    except (OSError, ValueError, AttributeError, TypeError) as error:
        raise InputError(f"{path}: not a JSON of VOI extents, group -> [x, y, z] in mm ({error})") from error


def numbers(text: str, option: str) -> tuple[int, ...]:
    """Whole numbers separated by commas."""
    try:
        return tuple(int(v) for v in text.split(","))
    except ValueError as error:
        raise InputError(f"{option}: expected whole numbers separated by commas, got {text!r}") from error


def patch(text: str) -> tuple[int, int, int]:
    """A window's three sides."""
    sides = numbers(text, "--patch")
    if len(sides) != 3:
        raise InputError(f"--patch: expected three numbers z,y,x, got {text!r}")
    return sides[0], sides[1], sides[2]


def windows_hu(text: str) -> tuple[tuple[float, float], ...]:
    """CT windows from low:high,low:high."""
    windows = []
    for part in text.split(","):
        try:
            low, high = (float(v) for v in part.split(":"))
        except ValueError as error:
            raise InputError(f"--windows: expected low:high in HU, got {part!r}") from error
        if not low < high:
            raise InputError(f"--windows: {part}: the lower end is not below the upper one")
        windows.append((low, high))
    return tuple(windows)


def spacing(text: str) -> Triple:
    """One number, or three as x,y,z, in mm and positive."""
    try:
        values = [float(v) for v in text.split(",")]
        x, y, z = values * 3 if len(values) == 1 else values
    except ValueError as error:
        raise InputError(f"--spacing: expected a number, or three as x,y,z, got {text!r}") from error
    if not min(x, y, z) > 0:
        raise InputError(f"--spacing: must be positive, got {text!r}")
    return x, y, z


def joins(texts: Iterable[str]) -> dict[str, tuple[str, ...]]:
    """Organs to be scored as one, from WHOLE=PART,PART."""
    found = {}
    for text in texts:
        whole, _, parts = text.partition("=")
        if not parts:
            raise InputError(f"--join: expected WHOLE=PART,PART, got {text!r}")
        found[catalogue.resolve(whole).name] = tuple(catalogue.resolve(p).name for p in parts.split(","))
    return found
