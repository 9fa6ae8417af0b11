"""`soars-train fit-system`."""

from __future__ import annotations

import argparse
import json
from dataclasses import asdict, fields, is_dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from soars.catalogue import CATALOGUE
from soars.errors import InputError
from soars_training.commands import arguments

if TYPE_CHECKING:
    from soars_training.systems.interface import SystemOptions, TrainingSystem


def add(commands: argparse._SubParsersAction) -> None:
    parser = commands.add_parser("fit-system", help="train a system other than the cascade")
    parser.add_argument("system", help="uanet, deepmind or ct_mr")
    parser.add_argument("cache", type=Path, help="folder written by soars-train prepare")
    parser.add_argument("output", type=Path, help="folder for checkpoints, run.json and the tables")
    parser.add_argument(
        "--organs",
        help="comma-separated names; default: all that the cache annotates, parts rather than the whole",
    )
    parser.add_argument("--preset", default="laptop", help="laptop (default) or paper")
    parser.add_argument("--steps", type=int, help="of training (default: the preset's)")
    parser.add_argument("--batch", type=int, help="samples in a step (default: the preset's)")
    parser.add_argument("--learning-rate", type=float, help="the highest (default: the preset's)")
    parser.add_argument("--optimiser", choices=("adam", "adamw", "radam"), help="(default: the preset's)")
    parser.add_argument(
        "--set",
        action="append",
        default=[],
        metavar="NAME=VALUE",
        help="any other setting of the system, the value as JSON, e.g. --set channels=[8,16,32]; run.json has them all",
    )
    arguments.add_run(parser)
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> None:
    from soars_training.systems.registry import training_system

    system = training_system(args.system)
    options = options_of(args, system)
    done = system.fit(args.cache, args.output, options, resume=args.resume, overwrite=args.overwrite)
    minutes = done.seconds / 60
    print(
        f"{done.system}: {done.cases} cases, {len(done.organs)} organs, {options.steps} steps in {minutes:.1f} min "
        f"-> {args.output}"
    )


def options_of(args: argparse.Namespace, system: TrainingSystem) -> SystemOptions:
    """The preset's settings, but for those given; raises `InputError` for settings that the system does not have."""
    if args.preset not in system.presets:
        raise InputError(f"--preset {args.preset}: {system.name} has {' and '.join(system.presets)}")
    organs = arguments.organs(args.organs) if args.organs else _annotated(args.cache)
    options = system.options(args.preset, organs)
    given: dict[str, Any] = {
        "train_split": arguments.train_split(args.cache),
        "held_out": args.held_out,
        "validate_every": args.validate_every,
        "seed": args.seed,
        "checkpoint_every": args.checkpoint_every,
        "device": args.device,
        "threads": args.threads,
        "workers": args.workers,
        "deterministic": args.deterministic,
    }
    for name in ("steps", "batch", "learning_rate", "optimiser"):
        if getattr(args, name) is not None:
            given[name] = getattr(args, name)
    known = {f.name for f in fields(options)} - {"organs"}
    for text in args.set:
        name, _, value = text.partition("=")
        if name not in known:
            raise InputError(
                f"--set {name}: {system.name} has no such setting; it has {', '.join(sorted(known))}"
            )
        given[name] = _like(getattr(options, name), value, text)
    return replace(options, **given)


def _annotated(cache: Path) -> tuple[str, ...]:
    """The organs that any case of the cache annotates, in the catalogue's order; of one that is there whole and in
    parts, the parts: most systems give a voxel to one organ alone."""
    from soars_training.cohorts.cache import CacheIndex

    there = {organ for case in CacheIndex.load(cache).cases for organ in (*case.annotated, *case.sparse)}
    in_parts = {name for name in there if CATALOGUE[name].parts and there.issuperset(CATALOGUE[name].parts)}
    return tuple(name for name in CATALOGUE if name in there - in_parts)


def _like(present: object, value: str, text: str) -> object:
    """A setting's new value from JSON, of the kind of the present one; raises `InputError`."""
    try:
        new = json.loads(value)
    except ValueError:
        new = value
    if is_dataclass(present) and not isinstance(present, type) and isinstance(new, dict):
        inner = {f.name for f in fields(present)}
        if not set(new) <= inner:
            raise InputError(f"--set {text}: it has {', '.join(sorted(inner))}")
        return replace(
            present, **{k: _like(getattr(present, k), json.dumps(v), text) for k, v in new.items()}
        )
    if isinstance(present, float) and type(new) is int:
        new = float(new)
    new = _tuples(new)
    if present is not None and type(new) is not type(present):
        like = asdict(present) if is_dataclass(present) and not isinstance(present, type) else present
        raise InputError(f"--set {text}: expected a value like {json.dumps(like)}")
    return new


def _tuples(value: object) -> object:
    return tuple(_tuples(v) for v in value) if isinstance(value, list) else value
