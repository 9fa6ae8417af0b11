"""A cohort of six cases with two organs that are boxes in water, and how runs on it are asked for."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from soars_training.cohorts.cache import CachedCase, CacheIndex, IndexEntry, write_case
from soars_training.fitting.options import FitOptions
from soars_training.windows.task import BranchTask

ORGANS = ("Brainstem", "SpinalCord")
TASK = BranchTask("anchor", ORGANS, ("ct",))


def write_two_boxes(folder: Path) -> Path:
    """Write the cohort's cache, at 3 mm; returns the folder."""
    entries = []
    for n in range(6):
        rng = np.random.default_rng(n)
        hu = rng.normal(0, 20, (16, 16, 16))
        masks = {}
        for k, organ in enumerate(ORGANS):
            start = (int(rng.integers(2, 8)), int(rng.integers(2, 8)), 1 + 8 * k)
            hu[tuple(slice(s, s + 5) for s in start)] = 300 + 300 * k
            masks[organ] = (start, np.ones((5, 5, 5), bool))
        case = CachedCase(f"c{n}", hu.astype(np.int16), (0, 0, 0), (3, 3, 3), masks, frozenset(ORGANS))
        write_case(folder / f"c{n}.npz", case)
        entries.append(IndexEntry(f"c{n}", f"c{n}.npz", "train", ORGANS))
    CacheIndex((3, 3, 3), "boxes", entries).save(folder)
    return folder


def two_boxes_options(**changes: object) -> FitOptions:
    """A short run of the anchor branch on it, the same on every repetition."""
    settings: dict[str, object] = {
        "features": (4, 8), "patch": (8, 8, 8), "steps": 60, "batch": 2, "device": "cpu", "threads": 1,
        "deterministic": True, "checkpoint_every": 10, "held_out": 2, "learning_rate": 1e-2, "supervised": 2,
    }  # fmt: skip
    return FitOptions(TASK, **(settings | changes))  # type: ignore[arg-type]
