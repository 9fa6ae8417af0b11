"""Whole systems trained on the patients of an ablation, with its budget, and scored on the same held-out ones."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import SimpleITK as sitk

from soars.cascade.preprocess import Grid
from soars.catalogue import CATALOGUE
from soars.errors import InputError
from soars.texts import read_json
from soars_training.cohorts.cache import CachedCase, CacheIndex, IndexEntry, read_case
from soars_training.experiments.ablation import LEARN, RECIPE_FILE, SCORES, TEST
from soars_training.experiments.cost import COSTS, Meter
from soars_training.experiments.pictures.drawn import DRAWN, Drawn
from soars_training.experiments.scores import OrganRow, organ_row, read_vois, voi_organs, write_rows
from soars_training.fitting.loop import training_device
from soars_training.fitting.options import LAST, RUN_FILE
from soars_training.systems.interface import Predict
from soars_training.systems.registry import training_system

Draw = Callable[[IndexEntry, CachedCase], Mapping[str, np.ndarray]]
"""Organ -> bool mask [z, y, x] on the case's grid; organs that were not found are left out."""


def score_system(
    folder: Path,
    name: str,
    preset: str,
    seeds: Sequence[int],
    device: str,
    steps: int | None = None,
    threads: int | None = None,
) -> None:
    """Train and score a system with every seed; the same call goes on after an interruption.

    Learns from the patients of the ablation in ``folder`` for ``steps``, as many as a setting has when None, with so
    many ``threads``, and writes `scores/NAME.SEED.csv` there. Raises `InputError` where no ablation was begun, and as
    the system's `fit` does.
    """
    path = folder / RECIPE_FILE
    if not path.exists():
        raise InputError(f"{folder}: no ablation was begun here; run soars-train ablate first")
    recipe = read_json(path)
    organs = tuple(recipe["organs"])
    system = training_system(name)
    if preset not in system.presets:
        raise InputError(f"--preset {preset}: {name} has {' and '.join(system.presets)}")
    test = CacheIndex.load(folder / "cache").of_split(TEST)
    for seed in seeds:
        scores = folder / SCORES / f"{name}.{seed}.csv"
        if scores.exists():
            continue
        options = replace(
            system.options(preset, organs),
            steps=steps or recipe["steps"],
            seed=seed,
            train_split=LEARN,
            device=device,
            threads=threads,
        )
        run = folder / f"seed_{seed}" / name
        if not (run / RUN_FILE).exists():
            system.fit(folder / "cache", run, options, resume=(run / LAST).exists())
        meter, drawn = Meter(training_device(device)), Drawn.of(test)
        draw = _metered(system.finished(run, options, meter.device), meter)
        rows = [replace(r, setting=name, seed=seed) for r in masks_rows(folder, organs, draw, drawn)]
        if seed == seeds[0]:
            drawn.save(folder / DRAWN / name)
        meter.cost(len(test)).save(folder / COSTS / f"{name}.{seed}.json")
        write_rows(rows, OrganRow, scores)


def _metered(predict: Predict, meter: Meter) -> Draw:
    def draw(_entry: IndexEntry, case: CachedCase) -> Mapping[str, np.ndarray]:
        with meter.running():
            return predict(case)

    return draw


def masks_rows(
    folder: Path, organs: Sequence[str], draw: Draw, drawn: Drawn | None = None
) -> Iterator[OrganRow]:
    """Every organ of an ablation's held-out patients, drawn on the working grid.

    The small and hard ones count on the fine grid of their volumes of interest, where the mask covers more than half of
    a voxel, as they do for the other settings. ``drawn`` keeps what is to be shown.
    """
    vois = folder / "voi_cache"
    index = CacheIndex.load(vois) if vois.is_dir() else None
    for entry in CacheIndex.load(folder / "cache").of_split(TEST):
        case = read_case(Path(entry.file))
        found = draw(entry, case)
        for organ in organs:
            if CATALOGUE[organ].stratum != "small_hard" and organ in case.annotated and organ in case.masks:
                mask = found.get(organ, np.zeros(case.ct_hu.shape, bool))
                if drawn is not None:
                    drawn.add(case, organ, mask)
                yield organ_row(case, organ, mask)
        for voi_entry, voi in read_vois(vois, entry.case, index) if index is not None else ():
            if set(case.masks) & set(voi.masks):
                for organ in voi_organs(voi_entry, voi):
                    if organ in organs:
                        yield organ_row(voi, organ, _on_voi(case, voi, found.get(organ)), entry.case)


def _on_voi(case: CachedCase, voi: CachedCase, mask: np.ndarray | None) -> np.ndarray:
    if mask is None:
        return np.zeros(voi.ct_hu.shape, bool)
    image = _grid(case).image(mask.astype(np.float32))
    grid = _grid(voi)
    fine = sitk.Resample(image, grid.size, sitk.Transform(), sitk.sitkLinear, grid.origin_mm, grid.spacing_mm)
    return sitk.GetArrayFromImage(fine) > 0.5


def _grid(case: CachedCase) -> Grid:
    return Grid.of(case.origin_mm, case.spacing_mm, case.ct_hu.shape[::-1])
