"""Means and paired tests of an ablation's scores."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from soars.cells import HarmlessWriter
from soars.files import replacing_file
from soars.study.statistics import adjust, wilcoxon_matched_pairs
from soars_training.experiments.scores import OrganRow
from soars_training.experiments.settings import COMPARISONS, SETTINGS, STRATA

ALL = "all"
MEASURES = ("dsc", "hd_mm", "hd95_mm", "asd_mm", "surface_dsc")
BUILT_ON_ANCHORS = ("heat_map", "true_anchors")
FEWEST_PATIENTS = 6
"""With fewer pairs no outcome of Wilcoxon's test can be significant at 0.05."""


@dataclass(frozen=True)
class Cell:
    """A figure of a setting: the mean over patients (and then organs), and the standard deviation of that mean over
    seeds, nan for a single one. `missed`: organs that were not found, of all seeds; they have no distance."""

    mean: float
    sd: float
    seeds: int
    missed: int


@dataclass(frozen=True)
class Comparison:
    """Wilcoxon's matched pairs: the DSC of `first` minus that of `second`, in the mean over patients and as p; `holm`
    is p corrected for all comparisons of the ablation."""

    first: str
    second: str
    stratum: str
    patients: int
    difference: float
    p: float
    holm: float


def cell(rows: Iterable[OrganRow], measure: str) -> Cell | None:
    """The mean over patients of every organ, then over organs, then over seeds; None without rows."""
    by_seed: dict[int, dict[str, list[float]]] = {}
    missed = 0
    for row in rows:
        value = float(getattr(row, measure))
        if np.isnan(value):
            continue
        missed += not np.isfinite(value)
        by_seed.setdefault(row.seed, {}).setdefault(row.organ, []).append(value)
    if not by_seed:
        return None
    means = []
    for organs in by_seed.values():
        finite = [[v for v in values if np.isfinite(v)] for values in organs.values()]
        found = [float(np.mean(values)) for values in finite if values]
        if found:
            means.append(float(np.mean(found)))
    if not means:
        return Cell(float("nan"), float("nan"), 0, missed)
    sd = float(np.std(means, ddof=1)) if len(means) > 1 else float("nan")
    return Cell(float(np.mean(means)), sd, len(means), missed)


def of_stratum(rows: Iterable[OrganRow], stratum: str) -> list[OrganRow]:
    return [row for row in rows if stratum in (ALL, row.stratum)]


def complete(rows: Sequence[OrganRow]) -> list[OrganRow]:
    """The rows, and for `BUILT_ON_ANCHORS` those of `anchors` in the strata of which they say nothing new."""
    there = {(row.setting, row.stratum) for row in rows}
    anchors = [row for row in rows if row.setting == "anchors"]
    filled = list(rows)
    for setting in {setting for setting, _ in there} & set(BUILT_ON_ANCHORS):
        filled += [replace(r, setting=setting) for r in anchors if (setting, r.stratum) not in there]
    return filled


def compare(rows: Sequence[OrganRow], patients: Mapping[str, str] | None = None) -> list[Comparison]:
    """Every pair of settings that is there, by stratum: a patient counts once, with the mean of the organs that both
    have, averaged over the seeds and over the patient's cases. Pairs that are one and the same network are left out.

    Args:
        patients: of each case whom it is of; one that is not there is a patient of its own.
    """
    found = []
    settings = {row.setting for row in rows}
    for first, second in COMPARISONS:
        for stratum in (*STRATA, ALL) if {first, second} <= settings else ():
            pairs = _pairs(of_stratum(rows, stratum), first, second, patients or {})
            if len(pairs) >= FEWEST_PATIENTS:
                a, b = np.array(pairs).T
                if not np.any(a - b):
                    continue
                test = wilcoxon_matched_pairs(a.tolist(), b.tolist())
                found.append((first, second, stratum, len(pairs), float((a - b).mean()), test.p))
    corrected = adjust([f[-1] for f in found]) if found else []
    return [Comparison(*f, holm) for f, holm in zip(found, corrected, strict=True)]


def _pairs(
    rows: Sequence[OrganRow], first: str, second: str, patients: Mapping[str, str]
) -> list[tuple[float, float]]:
    values: dict[str, dict[tuple[str, str], dict[int, float]]] = {first: {}, second: {}}
    for row in rows:
        if row.setting in values:
            values[row.setting].setdefault((row.case, row.organ), {})[row.seed] = row.dsc
    of_patient: dict[str, list[tuple[float, float]]] = {}
    for key in values[first].keys() & values[second].keys():
        a, b = values[first][key], values[second][key]
        seeds = a.keys() & b.keys()
        if seeds:
            pair = (float(np.mean([a[s] for s in seeds])), float(np.mean([b[s] for s in seeds])))
            of_patient.setdefault(patients.get(key[0], key[0]), []).append(pair)
    means = {patient: np.mean(pairs, axis=0) for patient, pairs in sorted(of_patient.items())}
    return [(float(a), float(b)) for a, b in means.values()]


def write_summary(rows: Sequence[OrganRow], path: Path) -> None:
    """CSV: setting, stratum, organ ("" for the stratum's mean), measure, mean, sd over seeds, seeds, missed."""
    with replacing_file(path) as temporary, temporary.open("w", newline="", encoding="utf-8") as stream:
        writer = HarmlessWriter(stream)
        writer.writerow(("setting", "stratum", "organ", "measure", "mean", "sd", "seeds", "missed"))
        for setting in (s for s in SETTINGS if any(row.setting == s for row in rows)):
            mine = [row for row in rows if row.setting == setting]
            groups = [((row.stratum, row.organ), row) for row in mine]
            keys = list(dict.fromkeys(key for key, _ in groups))
            keys += [(s, "") for s in (*STRATA, ALL) if of_stratum(mine, s)]
            for stratum, organ in keys:
                some = [r for r in of_stratum(mine, stratum) if organ in ("", r.organ)]
                for measure in MEASURES:
                    value = cell(some, measure)
                    if value is not None:
                        writer.writerow(
                            (setting, stratum, organ, measure, f"{value.mean:.6g}", f"{value.sd:.6g}")
                            + (value.seeds, value.missed)
                        )
