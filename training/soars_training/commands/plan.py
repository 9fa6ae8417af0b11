"""`soars-train plan`."""

from __future__ import annotations

import argparse
from pathlib import Path


def add(commands: argparse._SubParsersAction) -> None:
    parser = commands.add_parser(
        "plan", help="look at a cache: organs, volumes, odd cases; computes the volumes of interest"
    )
    parser.add_argument(
        "cache", type=Path, help="folder written by soars-train prepare; gets plan.json, voi.json"
    )
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> None:
    from soars_training.cohorts.plan import PLAN_FILE, VOI_FILE, make_plan, plan_table

    plan = make_plan(args.cache)
    plan.save(args.cache)
    z, y, x = plan.median_size
    print(f"{plan.cases} cases, {z} x {y} x {x} voxels (z, y, x) in the median\n")
    print(plan_table(plan))
    print(f"\n-> {args.cache / PLAN_FILE}, {args.cache / VOI_FILE}")
