"""nnU-Net trained on the patients of an ablation, with its budget, and scored on the same held-out ones."""

from __future__ import annotations

import itertools
import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import SimpleITK as sitk

from soars.bundle.manifest import Bundle
from soars.cascade.preprocess import Grid
from soars.errors import InputError
from soars.files import write_json
from soars.formats.imagefiles import write_image
from soars.systems.nnunet.importing import ImportOptions, import_model
from soars.systems.nnunet.labels import by_name
from soars.systems.nnunet.model_folder import read_model_folder
from soars.texts import read_json
from soars_training.cohorts.cache import CachedCase, CacheIndex, IndexEntry, read_case
from soars_training.cohorts.regions import UsualRegions
from soars_training.experiments.ablation import LEARN, RECIPE_FILE, SCORES, TEST
from soars_training.experiments.cost import COSTS, NOT_KNOWN, Cost
from soars_training.experiments.nnunet.commands import NETWORK_OF, RECIPES, NnUNet, command_path
from soars_training.experiments.pictures.drawn import DRAWN, Drawn
from soars_training.experiments.scores import OrganRow, write_rows
from soars_training.experiments.systems import masks_rows

SETTING = "nnunet"
ENDING = ".nii.gz"


@dataclass(frozen=True)
class Baseline:
    """An ablation's folder, and nnU-Net's beside it."""

    folder: Path
    device: str
    memory_gb: float | None = None
    steps: int | None = None
    """As many as a setting of the ablation when None."""
    preset: str = "paper"
    """Of `RECIPES`."""
    threads: int | None = None
    """Of the training on a processor, as `NnUNet` has it."""

    @property
    def tool(self) -> NnUNet:
        home = self.folder / "nnunet"
        return NnUNet(
            home, 1, "Cohort", self.device, self.memory_gb, preset=self.preset, threads=self.threads
        )

    @property
    def organs(self) -> tuple[str, ...]:
        return tuple(self._recipe["organs"])

    @property
    def _recipe(self) -> dict:
        path = self.folder / RECIPE_FILE
        if not path.exists():
            raise InputError(f"{self.folder}: no ablation was begun here; run soars-train ablate first")
        return read_json(path)

    def run(self, seeds: Sequence[int]) -> None:
        """Train and score with every seed; the same call goes on after an interruption.

        Writes `scores/nnunet.SEED.csv` into the ablation's folder. Raises `InputError` where no ablation was begun or
        nnU-Net is not installed, `EngineError` when one of its commands fails.
        """
        recipe, tool = self._recipe, self.tool
        steps = self.steps or recipe["steps"]
        for command in ("nnUNetv2_plan_and_preprocess", "nnUNetv2_train", "nnUNetv2_predict"):
            command_path(command)
        for seed, preset in itertools.product(seeds, RECIPES.keys() - {self.preset}):
            if replace(tool, preset=preset).model(seed).exists():
                raise InputError(
                    f"{tool.home}: nnU-Net was trained here with the preset {preset}; take it again, or compare in "
                    "another folder"
                )
        index = CacheIndex.load(self.folder / "cache")
        write_raw(tool.raw, index.of_split(LEARN), index.of_split(TEST), self.organs, recipe["source"])
        tool.plan()
        for seed in seeds:
            path = self.folder / SCORES / f"{SETTING}.{seed}.csv"
            if path.exists():
                continue
            tool.train(steps, seed)
            tool.predict(tool.raw / "imagesTs", seed)
            drawn = Drawn.of(index.of_split(TEST))
            rows = [replace(r, setting=SETTING, seed=seed) for r in self._score(seed, drawn)]
            if seed == seeds[0]:
                drawn.save(self.folder / DRAWN / SETTING)
            training, parameters = tool.trained(seed)
            drawing = tool.predicted(seed)
            Cost(
                self.device,
                len(index.of_split(TEST)),
                drawing.seconds,
                drawing.memory_mb if self.device == "cpu" else NOT_KNOWN,
                steps,
                training.seconds,
                parameters,
            ).save(self.folder / COSTS / f"{SETTING}.{seed}.json")
            write_rows(rows, OrganRow, path)

    def bundle(self, name: str, seed: int, licence: str) -> Bundle:
        """The trained model as an installed bundle of that name, with nnU-Net's label names as organs."""
        model = read_model_folder(self.tool.model(seed), ["all"])
        spacing = CacheIndex.load(self.folder / "cache").spacing_mm
        options = ImportOptions(name, licence=licence, trainer=NETWORK_OF, spacing_mm=spacing)
        return import_model(model, by_name(model.labels), options)

    def _score(self, seed: int, drawn: Drawn) -> Iterator[OrganRow]:
        def draw(entry: IndexEntry, case: CachedCase) -> dict[str, np.ndarray]:
            labels = sitk.GetArrayFromImage(
                sitk.ReadImage(str(self.tool.predictions(seed) / f"{entry.name}{ENDING}"))
            )
            if labels.shape != case.ct_hu.shape:
                raise InputError(f"{entry.name}: nnU-Net's prediction is not on the CT's grid")
            return {organ: labels == 1 + k for k, organ in enumerate(self.organs)}

        return masks_rows(self.folder, self.organs, draw, drawn)


def write_raw(
    folder: Path,
    learn: Sequence[IndexEntry],
    test: Sequence[IndexEntry],
    organs: Sequence[str],
    source: str,
) -> None:
    """The cases in nnU-Net's layout; what is there already is kept.

    Where a training case does not annotate an organ, the organ's usual region (all of the scan, where none is known)
    becomes nnU-Net's ignored label, so that it is not taught as background either.
    """
    if (folder / "dataset.json").exists():
        return
    for part in ("imagesTr", "labelsTr", "imagesTs"):
        (folder / part).mkdir(parents=True, exist_ok=True)
    read = {entry.name: read_case(Path(entry.file)) for entry in learn}
    regions = UsualRegions.learn(read.values())
    ignored = False
    for entry in learn:
        case = read[entry.name]
        labels = training_labels(case, organs, regions)
        ignored = ignored or bool((labels == len(organs) + 1).any())
        _write(case, case.ct_hu, folder / "imagesTr" / f"{entry.name}_0000{ENDING}")
        _write(case, labels, folder / "labelsTr" / f"{entry.name}{ENDING}")
    for entry in test:
        case = read_case(Path(entry.file))
        _write(case, case.ct_hu, folder / "imagesTs" / f"{entry.name}_0000{ENDING}")
    names = {"background": 0, **{organ: 1 + k for k, organ in enumerate(organs)}}
    description = {
        "channel_names": {"0": "CT"},
        "labels": names | ({"ignore": len(organs) + 1} if ignored else {}),
        "numTraining": len(learn),
        "file_ending": ENDING,
        "description": source,
    }
    write_json(folder / "dataset.json", json.loads(json.dumps(description)))


def training_labels(case: CachedCase, organs: Sequence[str], regions: UsualRegions) -> np.ndarray:
    """uint8 [z, y, x]: 1 + the organ's position, and one more than the last where an organ that nobody drew may be."""
    labels = case.label_map(organs)
    unknown = np.zeros(labels.shape, bool)
    for organ in organs:
        if organ not in case.annotated:
            box = regions.box(case, organ)
            if box is None:
                unknown[:] = True
            else:
                low = np.clip(np.floor(box[0]).astype(int), 0, labels.shape)
                high = np.clip(np.ceil(box[1]).astype(int), 0, labels.shape)
                unknown[tuple(slice(a, b) for a, b in zip(low, high, strict=True))] = True
    labels[unknown & (labels == 0)] = len(organs) + 1
    return labels


def _write(case: CachedCase, values: np.ndarray, path: Path) -> None:
    grid = Grid.of(case.origin_mm, case.spacing_mm, case.ct_hu.shape[::-1])
    write_image(grid.image(values), path)
