"""The papers' ablation on any cohort (SOARS, CVPR 2020, table 1; study of 2022, table 2): one network for all organs,
then stratification, anchors, heat map and search added one by one, on one split and one budget, for several seeds."""

from __future__ import annotations

import json
import logging
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any

import torch

from soars.errors import InputError
from soars.files import write_json
from soars.networks.names import Input
from soars_training.cohorts.cache import CacheIndex, IndexEntry, group_of
from soars_training.cohorts.splits import hold_out
from soars_training.experiments.cost import COSTS, Meter
from soars_training.experiments.pictures.drawn import DRAWN, Drawn
from soars_training.experiments.runs import fitted, guided, searched
from soars_training.experiments.scores import (
    CentreRow,
    OrganRow,
    Trained,
    centres_of,
    joint_voi_rows,
    read_vois,
    voi_rows,
    whole_patient_rows,
    write_rows,
)
from soars_training.experiments.settings import (
    JOINT,
    Network,
    Prediction,
    answers,
    organs_of_paper,
    strata_of,
)
from soars_training.fitting import processes
from soars_training.fitting.loop import training_device
from soars_training.fitting.options import FitOptions, FittedRun
from soars_training.search.search import read_blocks
from soars_training.windows.task import BranchTask

log = logging.getLogger(__name__)

RECIPE_FILE = "ablation.json"
SCORES, CENTRES, VOLUMES = "scores", "centres", "cache"
LEARN, TEST = "train", "test"

_SAME = tuple(
    "network order features patch batch learning_rate optimiser weight_decay schedule strength foreground balance "
    "dice_only supervised ema".split()
)
"""Of `FitOptions`: what the runs of a folder have in common."""

Options = Callable[[BranchTask], FitOptions]
"""How a task is to be learned, without steps and seed."""


@dataclass(frozen=True)
class Recipe:
    """What an ablation is asked to do.

    Attributes:
        settings, seeds: which, and for which seeds.
        organs: all of the cohort that take part.
        steps: optimiser steps of a setting, which its segmentation networks share evenly; a detector has as many as one
            of these. search_steps: of a search, whose network is then trained from scratch as every other.
        test: so many patients are held out for the scores; patients: so many take part, all when None.
        voi_cache, voi_mm: the small organs' volumes of interest; without them they are left to the other settings'
            networks, so none of them may be among the organs.
    """

    settings: tuple[str, ...]
    seeds: tuple[int, ...]
    organs: tuple[str, ...]
    steps: int
    search_steps: int
    alpha_rate: float
    test: int
    patients: int | None = None
    voi_cache: Path | None = None
    voi_mm: dict[str, tuple[float, float, float]] | None = None


def ablate(cache: Path, output: Path, recipe: Recipe, options: Options) -> None:
    """Train and score every setting with every seed; the same call goes on after an interruption.

    Writes `scores/SETTING.SEED.csv`, what drawing has cost, some of what was drawn, and, of the detectors,
    `centres/SETTING.SEED.csv`. More settings and seeds may be
    asked for later; anything else that differs from what the folder was begun with is refused. Raises as `fit` does.
    """
    processes.alone("an ablation")
    lab = Laboratory(cache, output, recipe, options)
    lab.begin()
    for seed in recipe.seeds:
        for setting in recipe.settings:
            path = output / SCORES / f"{setting}.{seed}.csv"
            if not path.exists():
                log.info("%s, seed %d", setting, seed)
                meter, drawn = Meter(lab.device), Drawn.of(lab.test)
                rows = lab.score(setting, seed, meter, drawn)
                if seed == min(recipe.seeds):
                    drawn.save(output / DRAWN / setting)
                meter.cost(len(lab.test)).save(output / COSTS / f"{setting}.{seed}.json")
                write_rows([replace(row, setting=setting, seed=seed) for row in rows], OrganRow, path)


def organs_to_compare(cache: Path, wanted: Sequence[str] | None, paper: str = "2022") -> tuple[str, ...]:
    """The organs of a paper's three strata that a cache annotates, or those that are wanted, of whichever paper. Raises
    `InputError` for one that no case annotates."""
    there = CacheIndex.load(cache).annotated
    missing = sorted(set(wanted or ()) - there)
    if missing:
        raise InputError(f"{cache}: no case annotates {missing[0]}")
    strata = strata_of(wanted or there.intersection(organs_of_paper(paper)))
    if not strata:
        raise InputError(f"{cache}: none of its organs belongs to a stratum of the papers")
    return tuple(organ for names in strata.values() for organ in names)


@dataclass
class Laboratory:
    """The folder of an ablation: its split, and networks that are trained when somebody asks for them."""

    cache: Path
    output: Path
    recipe: Recipe
    options: Options

    @cached_property
    def strata(self) -> dict[str, tuple[str, ...]]:
        return strata_of(self.recipe.organs)

    @cached_property
    def steps(self) -> int:
        """Of one network of a stratum."""
        return max(1, self.recipe.steps // len(self.strata))

    @property
    def volumes(self) -> Path:
        return self.output / VOLUMES

    @property
    def vois(self) -> Path:
        return self.output / "voi_cache"

    @cached_property
    def index(self) -> CacheIndex:
        return CacheIndex.load(self.volumes)

    @property
    def device(self) -> torch.device:
        return training_device(self.options(self._task(JOINT)).device)

    @cached_property
    def test(self) -> list[IndexEntry]:
        return self.index.of_split(TEST)

    def begin(self) -> None:
        """Settle the split and the settings, or check that they are those that the folder was begun with."""
        if "small_hard" in self.strata and self.recipe.voi_cache is None:
            raise InputError(
                "the small and hard organs need --vois and --voi (soars-train plan, then prepare --voi); or name "
                "organs without them by --organs"
            )
        learn, test = self._split()
        told = self._told(test)
        path = self.output / RECIPE_FILE
        if path.exists():
            before = json.loads(path.read_text(encoding="utf-8"))
            other = sorted(k for k in told if told[k] != before.get(k))
            other += ["spacing"] if CacheIndex.load(self.cache).spacing_mm != self.index.spacing_mm else []
            if other:
                raise InputError(
                    f"{self.output}: was begun with other settings ({', '.join(other)}); go on with the same, or "
                    "ablate into another folder"
                )
            return
        for folder in (self.volumes, self.output / SCORES, self.output / CENTRES):
            folder.mkdir(parents=True, exist_ok=True)
        people = (({e.case for e in learn}, LEARN), ({e.case for e in test}, TEST))
        _view(self.cache, self.volumes, people)
        if self.recipe.voi_cache is not None:
            self.vois.mkdir(exist_ok=True)
            _view(self.recipe.voi_cache, self.vois, people)
        write_json(path, told)

    def score(self, setting: str, seed: int, meter: Meter, drawn: Drawn) -> list[OrganRow]:
        """Every organ of the held-out patients; what the setting says nothing new of is left out. ``meter`` and
        ``drawn`` are told of what is drawn."""
        rows: list[OrganRow] = []
        for stratum, answer in answers(setting, self.strata).items():
            if stratum == "small_hard":
                rows += self._small_rows(setting, answer, seed, meter)
            else:
                trained = self._trained(answer.network, seed, meter)
                maps = trained.maps(
                    self.volumes, self.test, self._guide(answer.network, seed), answer.true_guide
                )
                rows += whole_patient_rows(maps, trained.run.classes, self.strata[stratum], drawn)
        return rows

    def _small_rows(self, setting: str, answer: Prediction, seed: int, meter: Meter) -> list[OrganRow]:
        trained = self._trained(answer.network, seed, meter)
        index = CacheIndex.load(self.vois)
        rows: list[OrganRow] = []
        if answer.network == JOINT:
            for case, found in trained.maps(self.volumes, self.test, None):
                vois = self._vois_in_scan(case.data.name, set(case.data.masks), index)
                rows += joint_voi_rows(found, trained.run.classes, vois)
            return rows
        assert answer.detector is not None
        detector = self._trained(answer.detector, seed, meter)
        maps = detector.maps(self.volumes, self.test, self._guide(answer.detector, seed), answer.true_guide)
        centres, located = centres_of(maps, detector.spec)
        centre_rows = [replace(row, setting=setting, seed=seed) for row in located]
        write_rows(centre_rows, CentreRow, self.output / CENTRES / f"{setting}.{seed}.csv")
        for entry in self.test:
            rows += voi_rows(trained, read_vois(self.vois, entry.case, index), centres)
        return rows

    def _vois_in_scan(self, case: str, there: set[str], index: CacheIndex) -> list[Any]:
        """Those of a case's VOIs whose organs the whole scan shows."""
        return [(e, c) for e, c in read_vois(self.vois, case, index) if there & set(c.masks)]

    def _trained(self, network: Network, seed: int, meter: Meter) -> Trained:
        folder = self._folder(network, seed)
        self._run(network, seed)
        return Trained.load(folder, self.options(self._task(network)).device, meter)

    def _run(self, network: Network, seed: int) -> FittedRun:
        """The network's finished run; its guide and its kernels are made first."""
        task = self._task(network)
        guide = self._guide(network, seed)
        steps = self.recipe.steps if network == JOINT else self.steps
        options = replace(
            self.options(task), steps=steps, seed=seed, train_split=LEARN, voi_mm=self.recipe.voi_mm
        )
        cache = self.vois if network.branch == "small_hard" else self.volumes
        if network.kernels == "searched":
            folder = self._folder(network, seed).with_suffix(".search")
            look = replace(options, steps=self.recipe.search_steps)
            options = replace(options, blocks=searched(cache, folder, look, self.recipe.alpha_rate, guide))
        elif network.kernels == "random":
            options = replace(options, blocks=_random_blocks(options, seed))
        return fitted(cache, self._folder(network, seed), options, guide)

    def _guide(self, network: Network, seed: int) -> Path | None:
        if network.guide is None:
            return None
        anchor = Network("anchor", network.guide)
        self._run(anchor, seed)
        device = self.options(self._task(anchor)).device
        folder = self.output / f"seed_{seed}" / f"{anchor.name}.guide"
        return guided(self.volumes, self._folder(anchor, seed), folder, device)

    def _task(self, network: Network) -> BranchTask:
        if network.branch == "joint":
            return BranchTask("anchor", self.recipe.organs, ("ct",))
        classes = self.strata.get("small_hard" if network.branch == "detection" else network.branch, ())
        if network.branch == "detection":
            classes = tuple(dict.fromkeys(map(group_of, classes)))
        inputs: list[Input] = ["ct"]
        if network.guide:
            inputs.append("anchor")
        if network.heatmap:
            inputs.append("heatmap")
        anchors = self.strata["anchor"] if network.guide else ()
        return BranchTask(network.branch, classes, tuple(inputs), anchors)

    def _folder(self, network: Network, seed: int) -> Path:
        return self.output / f"seed_{seed}" / network.name

    def _split(self) -> tuple[list[IndexEntry], list[IndexEntry]]:
        """(to learn from, to be scored on), by patient, alike in what is annotated; both of the cases that the cache
        has for learning: those of its other splits are not to be looked at yet."""
        split = self.options(self._task(JOINT)).train_split
        entries = CacheIndex.load(self.cache).of_split(split)
        entries = [e for e in entries if set(e.annotated) & set(self.recipe.organs)]
        there = len({e.patient for e in entries})
        wanted = self.recipe.patients or there
        if wanted > there:
            raise InputError(f"--patients {wanted}: {self.cache} has {there} patients with any of the organs")
        if wanted < there:
            _, entries = hold_out(entries, wanted)
        return hold_out(entries, self.recipe.test)

    def _told(self, test: Sequence[IndexEntry]) -> dict[str, Any]:
        """What must stay the same for the scores of a folder to belong together."""
        options = self.options(self._task(JOINT)).to_dict()
        return {
            "organs": list(self.recipe.organs),
            "steps": self.recipe.steps,
            "search_steps": self.recipe.search_steps,
            "alpha_rate": self.recipe.alpha_rate,
            "patients": self.recipe.patients,
            "test": sorted({e.patient for e in test}),
            "windows_hu": options["task"]["windows_hu"],
            "source": CacheIndex.load(self.cache).source,
        } | {name: options[name] for name in _SAME}


def _random_blocks(options: FitOptions, seed: int) -> tuple[str, ...]:
    return read_blocks(f"random:{seed}", len(options.features), options.network)


def _view(cache: Path, folder: Path, people: Sequence[tuple[set[str], str]]) -> None:
    """An index of some of a cache's cases, with other splits; the files stay where they are."""
    index = CacheIndex.load(cache)
    cases = [
        replace(entry, split=split, file=str((cache / entry.file).resolve()))
        for names, split in people
        for entry in index.cases
        if entry.case in names
    ]
    CacheIndex(index.spacing_mm, index.source, cases).save(folder)
