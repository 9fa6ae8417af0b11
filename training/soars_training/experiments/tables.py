"""An experiment's page: Markdown with its tables, the papers' figures beside them."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch

from soars.errors import InputError
from soars.files import write_text
from soars.networks.build import build
from soars_training.cohorts.cache import CacheIndex
from soars_training.experiments.ablation import CENTRES, RECIPE_FILE, SCORES, VOLUMES
from soars_training.experiments.cost import COSTS, Cost
from soars_training.experiments.published import (
    ABLATION,
    CENTRE_DISTANCE_2020,
    ORGAN_DSC_2022,
    SYSTEMS,
    TOP_DISTANCE_2020,
)
from soars_training.experiments.ranks import ranking
from soars_training.experiments.scores import CentreRow, OrganRow, read_rows
from soars_training.experiments.settings import SETTINGS, STRATA, STRATUM_LABELS
from soars_training.experiments.statistics import (
    ALL,
    Comparison,
    cell,
    compare,
    complete,
    of_stratum,
    write_summary,
)
from soars_training.fitting.options import RUN_FILE, FittedRun

PAGE, SUMMARY_FILE = "ablation.md", "ablation.csv"
LABELS = STRATUM_LABELS | {ALL: "all"}
MEASURE_NAMES = {
    "dsc": "DSC, %",
    "hd_mm": "Hausdorff distance, mm",
    "hd95_mm": "HD95, mm",
    "asd_mm": "average surface distance, mm",
    "surface_dsc": "surface DSC, %",
}
SHARES = ("dsc", "surface_dsc")
PLACES = {"dsc": 0, "hd_mm": 1, "asd_mm": 2}
"""Of each measure in the published triples."""


@dataclass(frozen=True)
class Training:
    """What a network took to learn, in the mean over seeds."""

    network: str
    steps: int
    seconds: float
    parameters: int


@dataclass(frozen=True)
class Results:
    """All that a folder holds so far; `patients`: whom each case is of."""

    recipe: Mapping[str, Any]
    rows: list[OrganRow]
    centres: list[CentreRow]
    trainings: list[Training]
    costs: Mapping[str, list[Cost]]
    patients: Mapping[str, str] = field(default_factory=dict)

    @property
    def settings(self) -> list[str]:
        there = {row.setting for row in self.rows}
        return [s for s in SETTINGS if s in there]

    @property
    def strata(self) -> list[str]:
        there = {row.stratum for row in self.rows}
        return [*(s for s in STRATA if s in there), ALL]


def read_results(folder: Path) -> Results:
    """The scores of an ablation's folder."""
    if not (folder / RECIPE_FILE).exists() or not list((folder / SCORES).glob("*.csv")):
        raise InputError(f"{folder}: no ablation has scored anything here yet; run soars-train ablate")
    recipe = json.loads((folder / RECIPE_FILE).read_text(encoding="utf-8"))
    rows = [r for path in sorted((folder / SCORES).glob("*.csv")) for r in read_rows(path, OrganRow)]
    centres = [r for path in sorted((folder / CENTRES).glob("*.csv")) for r in read_rows(path, CentreRow)]
    patients = CacheIndex.load(folder / VOLUMES).patients
    return Results(recipe, complete(rows), centres, _trainings(folder), _costs(folder), patients)


def write_page(folder: Path) -> Path:
    """Write `ablation.md` and `ablation.csv` of what is there; returns the page."""
    results = read_results(folder)
    write_summary(results.rows, folder / SUMMARY_FILE)
    write_text(folder / PAGE, page(results))
    return folder / PAGE


def page(results: Results) -> str:
    parts = [_facts(results)]
    for measure, name in MEASURE_NAMES.items():
        parts += [f"## {name}, by stratum", by_stratum(results, measure)]
    parts += ["## What others have published of these systems", published_systems(results)]
    for measure, name in MEASURE_NAMES.items():
        parts += [f"## {name}, by organ", by_organ(results, measure)]
    tests = compare(results.rows, results.patients)
    parts += ["## Are the differences real?", tests_table(tests)]
    parts += ["## Ranking", ranking(results.rows)]
    if results.centres:
        parts += ["## Detection", detection_table(results.centres)]
    parts += ["## What it took", _training_table(results.trainings), _cost_table(results)]
    return "\n\n".join(parts) + "\n"


def _facts(results: Results) -> str:
    recipe = results.recipe
    seeds = sorted({row.seed for row in results.rows})
    settings = [f"- `{name}`: {SETTINGS[name]}" for name in results.settings]
    return "\n".join(
        [
            "# Ablation",
            "",
            f"{len(recipe['test'])} patients of {recipe['source']} that no network has seen, the same for every "
            f"setting; seeds {', '.join(map(str, seeds))}; {recipe['steps']} steps of {recipe['batch']} windows a "
            "setting, shared evenly by the networks of its strata (a detector has as many as one of these, and a "
            f"search {recipe['search_steps']} steps besides). Channels {'-'.join(map(str, recipe['features']))}, "
            f"windows of {' x '.join(map(str, recipe['patch']))} voxels.",
            "",
            "Figures are means over patients, then organs, then seeds; ± is the standard deviation over seeds. An "
            "organ that was not found has DSC 0 and no distance; how many there were is in brackets.",
            "",
            "**The published figures were measured on other patients, other organs, by other readers and with budgets "
            "hundreds of times larger. They are context: only differences within one column mean something.**",
            "",
            *settings,
        ]
    )


def by_stratum(results: Results, measure: str) -> str:
    """A row a setting, a column a stratum, and a column a stratum of each paper that has one."""
    papers = [
        (paper, s) for paper in ABLATION for s in results.strata if measure in PLACES and _published(paper, s)
    ]
    header = ["setting", *(LABELS[s] for s in results.strata), *(f"{LABELS[s]} ({p})" for p, s in papers)]
    lines = [_row(header), _row(["---"] * len(header))]
    for setting in results.settings:
        mine = [row for row in results.rows if row.setting == setting]
        cells = [f"`{setting}`", *(_shown(of_stratum(mine, s), measure) for s in results.strata)]
        for paper, stratum in papers:
            figures = ABLATION[paper].get((setting, stratum))
            cells.append(f"{figures[PLACES[measure]]:g}" if figures else "")
        lines.append(_row(cells))
    return "\n".join(lines)


def published_systems(results: Results) -> str:
    """A row a paper and setting, a column a stratum; a sentence where no paper has any of the settings."""
    header = ["measured by others on other patients", "setting", *(LABELS[s] for s in results.strata)]
    lines = [_row(header), _row(["---"] * len(header))]
    for paper, figures in SYSTEMS.items():
        for setting in dict.fromkeys(name for name, _ in figures):
            if setting in results.settings:
                triples = [figures.get((setting, s)) for s in results.strata]
                cells = [" / ".join(f"{v:g}" for v in t) if t else "" for t in triples]
                lines.append(_row([paper, f"`{setting}`", *cells]))
    if len(lines) == 2:
        return "Nothing of those above."
    return "\n".join(
        [
            "DSC in % / Hausdorff distance / average surface distance in mm, of up to 326 patients of one hospital, 42 "
            "organs, and training on graphics processors for days. The organs of a stratum are not those above.",
            "",
            *lines,
        ]
    )


def by_organ(results: Results, measure: str) -> str:
    """A row an organ, a column a setting; of DSC also what the study of 2022 has."""
    header = ["organ", "stratum", "patients", *(f"`{s}`" for s in results.settings)]
    if measure == "dsc":
        header += ["UaNet (study 2022, table 3)", "SOARS (study 2022, table 3)"]
    lines = [_row(header), _row(["---"] * len(header))]
    organs = {(row.organ, row.stratum) for row in results.rows}
    for organ, stratum in sorted(organs, key=lambda key: (STRATA.index(key[1]), key[0])):
        mine = [row for row in results.rows if row.organ == organ]
        cells = [organ, LABELS[stratum], str(len({row.case for row in mine}))]
        cells += [_shown([r for r in mine if r.setting == s], measure) for s in results.settings]
        if measure == "dsc":
            cells += [f"{value:g}" for value in ORGAN_DSC_2022.get(organ, ())] or ["", ""]
        lines.append(_row(cells))
    return "\n".join(lines)


def tests_table(tests: Sequence[Comparison]) -> str:
    """Markdown; a sentence where there is nothing to test."""
    if not tests:
        return "Too few patients, or too few settings, for a test."
    lines = [
        "Wilcoxon's matched pairs of DSC: a patient is one pair, the mean of its organs and seeds; p corrected after "
        "Holm for all rows.",
        "",
        "| first | against | stratum | patients | difference, points | p | p, corrected |",
        "|---|---|---|---|---|---|---|",
    ]
    lines += [
        _row(
            [
                f"`{t.first}`",
                f"`{t.second}`",
                LABELS[t.stratum],
                str(t.patients),
                f"{100 * t.difference:+.1f}",
            ]
            + [f"{t.p:.2g}", f"{t.holm:.2g}"]
        )
        for t in tests
    ]
    return "\n".join(lines)


def detection_table(rows: Sequence[CentreRow]) -> str:
    """A row a heat map: distance of its peak from the centre, and of the largest voxels of the maps."""
    settings = [s for s in SETTINGS if any(row.setting == s for row in rows) and s in DETECTORS]
    header = ["heat map", *(f"{DETECTORS[s]}: centre mm" for s in settings)]
    header += [f"{DETECTORS[s]}: HD mm" for s in settings]
    lines = [_row(header), _row(["---"] * len(header))]
    for group in [*dict.fromkeys(row.group for row in rows), None]:
        mine = [row for row in rows if group in (None, row.group)]
        cells = ["**all**" if group is None else group]
        for measure in ("distance_mm", "top_hd_mm"):
            cells += [_spread([getattr(r, measure) for r in mine if r.setting == s]) for s in settings]
        lines.append(_row(cells))
    paper = ["CVPR 2020, tables 2 and 7"]
    distances = [CENTRE_DISTANCE_2020.get(s) for s in settings]
    paper += [f"{d[0]:g} ± {d[1]:g}" if d else "" for d in distances]
    paper += [f"{TOP_DISTANCE_2020[s]:g}" if s in TOP_DISTANCE_2020 else "" for s in settings]
    lines.append(_row(paper))
    return "\n".join(
        ["± is the standard deviation over patients and seeds. HD: of the 1000 largest voxels.", "", *lines]
    )


DETECTORS = {
    "stratification": "CT alone",
    "anchors": "CT and anchors",
    "true_anchors": "CT and true anchors",
}


def _published(paper: str, stratum: str) -> bool:
    return any(s == stratum for _, s in ABLATION[paper])


def _shown(rows: Sequence[OrganRow], measure: str) -> str:
    found = cell(rows, measure)
    if found is None or not np.isfinite(found.mean):
        return f"- ({found.missed})" if found else ""
    factor = 100 if measure in SHARES else 1
    sd = f" ± {found.sd * factor:.1f}" if np.isfinite(found.sd) else ""
    missed = f" ({found.missed})" if found.missed else ""
    return f"{found.mean * factor:.1f}{sd}{missed}"


def _spread(values: Sequence[float]) -> str:
    finite = [v for v in values if np.isfinite(v)]
    if not finite:
        return ""
    sd = f" ± {np.std(finite, ddof=1):.1f}" if len(finite) > 1 else ""
    return f"{np.mean(finite):.1f}{sd}"


def _costs(folder: Path) -> dict[str, list[Cost]]:
    """Setting -> what it cost, a seed each."""
    found: dict[str, list[Cost]] = {}
    for path in sorted((folder / COSTS).glob("*.json")):
        found.setdefault(path.name.split(".")[0], []).append(Cost.load(path))
    return found


def _trainings(folder: Path) -> list[Training]:
    found: dict[str, list[tuple[int, float, int]]] = {}
    for path in sorted(folder.glob(f"seed_*/*/{RUN_FILE}")):
        run = json.loads(path.read_text(encoding="utf-8"))
        size = run["parameters"] if "system" in run else _parameters(path.parent)
        found.setdefault(path.parent.name, []).append((run["options"]["steps"], run["seconds"], size))
    for setting, costs in _costs(folder).items():
        if costs[0].steps:  # a system that its own program has trained
            found[setting] = [(c.steps, c.training_s, c.parameters) for c in costs]
    return [
        Training(name, runs[0][0], float(np.mean([s for _, s, _ in runs])), runs[0][2])
        for name, runs in found.items()
    ]


def _parameters(run: Path) -> int:
    """Of a branch's network, counted without making it."""
    with torch.device("meta"):
        return sum(p.numel() for p in build(FittedRun.load(run).architecture).parameters())


def _training_table(trainings: Sequence[Training]) -> str:
    lines = ["| network | parameters | steps | minutes |", "|---|---|---|---|"]
    cells = [
        [t.network, f"{t.parameters:,}" if t.parameters else "", str(t.steps), f"{t.seconds / 60:.1f}"]
        for t in trainings
    ]
    return "\n".join(lines + [_row(row) for row in cells])


def _cost_table(results: Results) -> str:
    """What drawing a held-out patient took, in the mean over seeds; a sentence where nobody measured it."""
    settings = [s for s in results.settings if s in results.costs]
    if not settings:
        return "What drawing takes was not measured: the scores are of an earlier version."
    lines = ["| drawing a patient | on | seconds | largest memory, MB |", "|---|---|---|---|"]
    for setting in settings:
        costs = results.costs[setting]
        seconds = float(np.mean([c.seconds / max(c.patients, 1) for c in costs]))
        memory = max(c.memory_mb for c in costs)
        shown = "" if np.isnan(memory) else f"{memory:.0f}"
        lines.append(_row([f"`{setting}`", costs[0].device, f"{seconds:.1f}", shown]))
    lines += [
        "",
        "Memory is the process's on a processor, libraries included, and that of tensors on a GPU. nnU-Net is timed as "
        "a program of its own, starting up and reading files included.",
    ]
    return "\n".join(lines)


def _row(cells: Sequence[str]) -> str:
    return f"| {' | '.join(cells)} |"
