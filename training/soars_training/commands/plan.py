"""`soars-train plan`."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from soars_training.cohorts.plan import Plan


def add(commands: argparse._SubParsersAction) -> None:
    parser = commands.add_parser(
        "plan", help="look at a cache: organs, volumes, odd cases; computes the volumes of interest"
    )
    parser.add_argument(
        "cache", type=Path, help="folder written by soars-train prepare; gets plan.json, voi.json"
    )
    parser.add_argument(
        "--memory-gb", type=float, help="what training may use (default: half of this computer's memory)"
    )
    parser.set_defaults(run=run)


def window_lines(plan: Plan, memory_gb: float) -> list[str]:
    """A line a preset: the windows that fit, and what they need."""
    from soars.errors import InputError
    from soars.networks.architecture import Architecture
    from soars_training.cohorts.proposals import propose_window
    from soars_training.commands.fit import PRESETS
    from soars_training.fitting.presets import preset

    lines = []
    for name in PRESETS:
        settings = preset(name, "anchor")
        inputs, outputs = len(settings.windows_hu), 1 + len(plan.organs)
        architecture = Architecture.plain(
            inputs, outputs, settings.features, settings.network, settings.order
        )
        try:
            window = propose_window(plan.median_size, architecture, memory_gb - plan.cases_gb)
        except InputError as error:
            lines.append(f"preset {name}: {error}")
            continue
        patch = ",".join(map(str, window.patch))
        lines.append(
            f"preset {name}: --patch {patch} --batch {window.batch} fits into {memory_gb:.1f} GB (about "
            f"{window.memory_gb:.1f} GB beside the cases); a checkpoint takes {window.checkpoint_mb:.0f} MB"
        )
    return lines


def run(args: argparse.Namespace) -> None:
    from soars_training.cohorts.plan import PLAN_FILE, VOI_FILE, make_plan, plan_table
    from soars_training.cohorts.proposals import physical_memory_gb

    plan = make_plan(args.cache)
    plan.save(args.cache)
    z, y, x = plan.median_size
    print(f"{plan.cases} cases, {z} x {y} x {x} voxels (z, y, x) in the median\n")
    print(plan_table(plan))
    print(f"\nall cases in memory: about {plan.cases_gb:.1f} GB")
    for line in window_lines(plan, args.memory_gb or physical_memory_gb() / 2):
        print(line)
    print(f"\n-> {args.cache / PLAN_FILE}, {args.cache / VOI_FILE}")
