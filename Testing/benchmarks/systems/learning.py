"""Do the other systems learn? UaNet, DeepMind's U-Net and nnU-Net on phantoms, each with minutes of one processor core.

    python Testing/benchmarks/systems/learning.py WORK [--systems uanet,deepmind,nnunet] [--overfit] [--steps N]
                                                       [--device cuda] [--workers N]

Thirty-two phantoms on voxels of 2 x 2 x 3 mm, five of them held out (on 4 mm a lens is a voxel or two, which nobody can
learn). UaNet and DeepMind's U-Net learn those of the 42 organs that their articles cover (a mandible or
thyroid as two halves), nnU-Net all 42. Each should reach a mean DSC of 0.75 on the held-out phantoms, scored on those
voxels. `--overfit` trains the two on a single phantom instead, which they must learn by heart (0.9): what does not has
a fault. The same command goes on wherever it was stopped. Steps are small and many on purpose: the figures say that a
system learns, not how good it is. Of one core that multiplies in bfloat16 a step takes about 0.6 s (UaNet, nnU-Net) and
0.4 s (DeepMind); nnU-Net's is its preset for a laptop, and its environment needs timm, as its own installation brings
it. A finished nnU-Net goes on to `--steps`. With `--device cuda` UaNet is its authors' network on crops that hold most
of a head and neck, and nnU-Net as it configures itself.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import SimpleITK as sitk
import torch

from soars.catalogue import CATALOGUE, SOARS42, label_map
from soars_training.cli import main as soars_train
from soars_training.cohorts.cache import CacheIndex, read_case
from soars_training.cohorts.splits import hold_out
from soars_training.experiments.nnunet.baseline import ENDING, write_raw
from soars_training.experiments.nnunet.commands import NnUNet
from soars_training.fitting.options import LAST, MOST_WORKERS, RUN_FILE
from soars_training.fitting.validate import CaseScore
from soars_training.systems.interface import SystemRun
from soars_training.systems.loop_system import score_case
from soars_training.systems.registry import training_system

PHANTOMS, FIRST_SEED, HELD_OUT, SPACING_MM = 32, 100, 5, "2,2,3"
PROMISE, BY_HEART = 0.75, 0.9
SETS = {"uanet": "UaNet", "deepmind": "DeepMind"}
SETTINGS: dict[str, dict[str, Any]] = {
    "uanet": {
        "crop": (64, 80, 80),
        "bases": (5.0, 9.0, 15.0, 26.0),
        "shapes": ((1.0, 1.5, 1.5), (1.0, 1.5, 3.0), (1.0, 3.0, 1.5)),
        "margin": (4.0, 8.0, 8.0),
        "drawn": 8,
    },
    "deepmind": {},
}
"""What differs from the preset `laptop`, which is for voxels of 3 mm."""
ON_A_GPU: dict[str, dict[str, Any]] = {
    "uanet": {
        "crop": (96, 112, 112),
        "widths": (24, 32, 64, 64, 64),
        "fused": 128,
        "hidden": 64,
        "pooled": 6,
        "dense": (512, 256),
        "mask": 64,
        "drawn": 0,
    }
}
"""What a GPU has the time for besides: the authors' channels, and every organ of a crop drawn in every step."""
STEPS = {"uanet": 4000, "deepmind": 5000, "nnunet": 6000}
NNUNET_GB = 0.5


def main() -> int:
    args = parse()
    cache = args.work / "cache"
    if not (cache / "index.json").exists():
        command = ["prepare", str(cache), "--phantoms", str(PHANTOMS), "--first-seed", str(FIRST_SEED)]
        if soars_train([*command, "--spacing", SPACING_MM]):
            return 1
    missed, computer = 0, Computer(args.device, args.workers)
    for name in args.systems.split(","):
        if args.overfit:
            dsc = by_heart(args.work, cache, name, args.steps, computer)
            missed += dsc < BY_HEART
            continue
        scores = (
            nnunet(args.work, cache, args.steps, computer)
            if name == "nnunet"
            else system(args.work, cache, name, args.steps, computer)
        )
        organs = sorted({s.organ for s in scores}, key=list(CATALOGUE).index)
        means = {o: float(np.mean([s.dsc for s in scores if s.organ == o])) for o in organs}
        mean = float(np.mean(list(means.values())))
        missed += mean < PROMISE
        print(
            f"{name}: mean DSC {mean:.3f} over {len(organs)} organs ({'' if mean >= PROMISE else 'below '}{PROMISE})"
        )
        hit = [s.dsc for s in scores if s.dsc > 0]
        print(
            f"  {len(hit)} of {len(scores)} organs found where they are, these with a mean DSC of {np.mean(hit):.3f}"
        )
        print("  " + ", ".join(f"{organ} {value:.2f}" for organ, value in means.items()), flush=True)
    return 1 if missed else 0


@dataclass(frozen=True)
class Computer:
    """What to train on, and how many processes draw the windows: as `RunOptions` has it when None."""

    device: str
    workers: int | None


def covered(name: str) -> tuple[str, ...]:
    """Those of the 42 organs that a system's article has, whole or as parts of one that it has."""
    theirs = set(label_map(SETS[name]).values())
    theirs |= {part for organ in theirs for part in CATALOGUE[organ].parts}
    return tuple(organ for organ in SOARS42 if organ in theirs)


def settings(name: str, device: str) -> dict[str, Any]:
    """What differs from the preset `laptop` on a device."""
    return SETTINGS[name] | (ON_A_GPU.get(name, {}) if device != "cpu" else {})


def system(work: Path, cache: Path, name: str, steps: int | None, computer: Computer) -> list[CaseScore]:
    ready = training_system(name)
    options = replace(
        ready.options("laptop", covered(name)),
        steps=steps or STEPS[name],
        held_out=HELD_OUT,
        threads=1,
        workers=computer.workers,
        device=computer.device,
        **settings(name, computer.device),
    )
    folder = work / name
    if not (folder / RUN_FILE).exists():
        ready.fit(cache, folder, options, resume=(folder / LAST).exists())
    run = SystemRun.load(folder)
    print(
        f"{name}: {run.cases} phantoms, {options.steps} steps, {run.seconds / 60:.1f} min, "
        f"{run.parameters:,} parameters"
    )
    predict = ready.finished(folder, options, torch.device(computer.device))
    cases = [read_case(cache / e.file) for e in CacheIndex.load(cache).cases if e.patient in run.held_out]
    return [score for case in cases for score in score_case(case, predict(case), options.organs)]


def by_heart(work: Path, cache: Path, name: str, steps: int | None, computer: Computer) -> float:
    index = CacheIndex.load(cache)
    cases = {entry.name: read_case(cache / entry.file) for entry in index.cases}
    best = max(index.cases, key=lambda entry: len(cases[entry.name].masks))
    one = work / "one"
    one.mkdir(exist_ok=True)
    CacheIndex(index.spacing_mm, index.source, [replace(best, file=str((cache / best.file).resolve()))]).save(
        one
    )
    ready = training_system(name)
    options = ready.options("laptop", tuple(o for o in covered(name) if o in cases[best.name].masks))
    still = type(options.plane).none() if name == "deepmind" else type(options.strength).none()
    options = replace(
        options,
        steps=steps or 200,
        learning_rate=3e-3,
        ema=0.9,
        threads=1,
        workers=computer.workers,
        device=computer.device,
        **(settings(name, computer.device) | {"plane" if name == "deepmind" else "strength": still}),
    )
    folder = work / f"{name}.by_heart"
    if not (folder / RUN_FILE).exists():
        ready.fit(one, folder, options, resume=(folder / LAST).exists())
    case = cases[best.name]
    rows = score_case(
        case, ready.finished(folder, options, torch.device(computer.device))(case), options.organs
    )
    mean = float(np.mean([row.dsc for row in rows]))
    minutes = SystemRun.load(folder).seconds / 60
    print(
        f"{name}: {best.name} by heart, mean DSC {mean:.3f} of {len(rows)} organs in {minutes:.1f} min",
        flush=True,
    )
    print("  " + ", ".join(f"{row.organ} {row.dsc:.2f}" for row in rows), flush=True)
    return mean


def nnunet(work: Path, cache: Path, steps: int | None, computer: Computer) -> list[CaseScore]:
    index = CacheIndex.load(cache)
    absolute = [replace(e, file=str((cache / e.file).resolve())) for e in index.cases]
    learn, test = hold_out(absolute, HELD_OUT)
    # Beside a GPU nnU-Net's own processes draw the windows, as it is meant to run.
    on_cpu = computer.device == "cpu"
    workers, preset = (0, "laptop") if on_cpu else (computer.workers or MOST_WORKERS, "paper")
    tool = NnUNet(work / "nnunet", 1, "Phantoms", computer.device, NNUNET_GB, workers, preset, threads=1)
    write_raw(tool.raw, learn, test, SOARS42, index.source)
    tool.plan()
    tool.train(steps or STEPS["nnunet"], 1)
    tool.predict(tool.raw / "imagesTs", 1)
    used, parameters = tool.trained(1)
    print(f"nnunet: {len(learn)} phantoms, {used.seconds / 60:.1f} min, {parameters:,} parameters")
    scores: list[CaseScore] = []
    for entry in test:
        labels = sitk.GetArrayFromImage(sitk.ReadImage(str(tool.predictions(1) / f"{entry.name}{ENDING}")))
        found = {organ: labels == value for value, organ in enumerate(SOARS42, start=1)}
        scores += score_case(read_case(Path(entry.file)), found, SOARS42)
    return scores


def parse(argv: Sequence[str] | None = None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("work", type=Path, help="folder for caches and runs")
    parser.add_argument("--systems", default="uanet,deepmind,nnunet")
    parser.add_argument("--overfit", action="store_true")
    parser.add_argument("--steps", type=int)
    parser.add_argument("--device", choices=("cpu", "cuda"), default="cpu")
    parser.add_argument("--workers", type=int, help="processes that draw windows for a training")
    return parser.parse_args(argv)


if __name__ == "__main__":
    sys.exit(main())
