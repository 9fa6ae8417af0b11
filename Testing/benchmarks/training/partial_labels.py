"""Cases that each lack half of the organs: how much is lost, and what becomes of a network that takes "not drawn" for
"not there".

    python Testing/benchmarks/training/partial_labels.py WORK [--seeds 3] [--steps 3000] [--threads 1]

Phantoms at 5 mm with twelve organs. The same network learns three times: from all contours; from cases of which each
lacks a random half of the organs, as cohorts that were put together do; and from the same cases with what nobody drew
taught as background. Scored on eight phantoms with all contours. Partly labelled cases should reach full labels within
3 points of DSC. The same command goes on after an interruption.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Iterator
from dataclasses import replace
from functools import partial
from pathlib import Path

import numpy as np

from soars_training.cohorts.cache import CacheIndex, entry_of, read_case, write_case
from soars_training.cohorts.many import Job, Made, prepare_jobs, volumes_of
from soars_training.cohorts.phantoms import phantom_case
from soars_training.cohorts.prepare import Spacing
from soars_training.cohorts.reading import LeftOut
from soars_training.experiments.runs import fitted
from soars_training.experiments.scores import Trained, whole_patient_rows
from soars_training.fitting.options import FitOptions
from soars_training.windows.task import BranchTask

ORGANS = (
    "Brainstem Cerebellum Eye_L Eye_R Bone_Mandible_L Bone_Mandible_R Parotid_L Parotid_R Cavity_Oral "
    "Lobe_Temporal_L Lobe_Temporal_R Larynx"
).split()
TRAINING, TEST = range(1000, 1024), range(1, 9)
SPACING_MM: Spacing = (5.0, 5.0, 5.0)
ARMS = {
    "full": "all contours",
    "partial": "half of the organs unknown in each case",
    "naive": "the same, with what nobody drew as background",
}
MOST_LOST = 0.03


def main() -> int:
    args = parse()
    if not (args.work / "full").exists():
        jobs = [Job(f"phantom{s}", partial(_phantom, s, "train")) for s in TRAINING]
        jobs += [Job(f"phantom{s}", partial(_phantom, s, "test")) for s in TEST]
        prepare_jobs(jobs, args.work / "full", SPACING_MM, "phantoms", LeftOut())
    for arm in ("partial", "naive"):
        _without_half(args.work / "full", args.work / arm, known=arm == "naive")
    task = BranchTask("anchor", tuple(ORGANS), ("ct",), (), ((-500.0, 1000.0), (-160.0, 240.0)))
    found: dict[str, list[dict[str, float]]] = {arm: [] for arm in ARMS}
    for seed in range(1, args.seeds + 1):
        for arm in ARMS:
            options = FitOptions(
                task,
                features=(8, 16, 32, 64),
                patch=(32, 32, 32),
                steps=args.steps,
                batch=2,
                learning_rate=2e-3,
                seed=seed,
                device="cpu",
                threads=args.threads,
            )
            folder = args.work / f"{arm}.{seed}"
            run = fitted(args.work / arm, folder, options)
            found[arm].append(_score(args.work / "full", folder))
            mean = np.mean(list(found[arm][-1].values()))
            print(f"seed {seed}, {arm}: mean DSC {mean:.3f} ({run.seconds:.0f} s)", flush=True)
    return _report(found)


def _phantom(seed: int, split: str, spacing_mm: Spacing, _left_out: LeftOut) -> Iterator[Made]:
    case = phantom_case(seed, spacing_mm, "head_neck")
    yield from volumes_of(replace(case, split=split), None, spacing_mm)


def _without_half(full: Path, folder: Path, *, known: bool) -> None:
    """A copy of a cache in which each training case lacks half of the organs, always the same; `known`: as if they were
    known to be absent."""
    if (folder / "index.json").exists():
        return
    folder.mkdir(exist_ok=True)
    index = CacheIndex.load(full)
    entries = []
    for entry in index.of_split("train"):
        case = read_case(full / entry.file)
        rng = np.random.default_rng(int(entry.name.removeprefix("phantom")))
        drawn = set(rng.permutation(ORGANS)[: len(ORGANS) // 2].tolist())
        less = replace(
            case,
            masks={organ: mask for organ, mask in case.masks.items() if organ in drawn},
            annotated=frozenset(ORGANS) if known else frozenset(drawn),
        )
        write_case(folder / entry.file, less)
        entries.append(entry_of(less, entry.file, "train"))
    CacheIndex(index.spacing_mm, index.source, entries).save(folder)


def _score(full: Path, folder: Path) -> dict[str, float]:
    """Mean DSC of every organ over the test patients."""
    trained = Trained.load(folder, "cpu")
    maps = trained.maps(full, CacheIndex.load(full).of_split("test"), None)
    values: dict[str, list[float]] = {organ: [] for organ in ORGANS}
    for row in whole_patient_rows(maps, trained.run.classes, ORGANS):
        values[row.organ].append(row.dsc)
    return {organ: float(np.mean(dsc)) for organ, dsc in values.items()}


def _report(found: dict[str, list[dict[str, float]]]) -> int:
    means = {arm: np.array([np.mean(list(seed.values())) for seed in seeds]) for arm, seeds in found.items()}
    print("\n| labels | mean DSC | sd over seeds |\n|---|---|---|")
    for arm, what in ARMS.items():
        sd = f"{means[arm].std(ddof=1):.3f}" if len(means[arm]) > 1 else ""
        print(f"| {what} | {means[arm].mean():.3f} | {sd} |")
    print("\n| organ | " + " | ".join(ARMS) + " |\n|---|---|---|---|")
    for organ in ORGANS:
        cells = [f"{np.mean([seed[organ] for seed in found[arm]]):.3f}" for arm in ARMS]
        print(f"| {organ} | {' | '.join(cells)} |")
    lost = means["full"].mean() - means["partial"].mean()
    holds = lost <= MOST_LOST
    print(
        f"\n{'holds' if holds else 'DOES NOT HOLD'}: half of the contours lost {100 * lost:.1f} points of DSC"
    )
    return 0 if holds else 1


def parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("work", type=Path, help="gets caches and runs")
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--steps", type=int, default=3000)
    parser.add_argument("--threads", type=int, default=1)
    return parser.parse_args()


if __name__ == "__main__":
    sys.exit(main())
