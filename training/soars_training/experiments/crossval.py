"""Cross-validation by patient: each is held out once, so that the pooled figures are of patients unseen in training
(SOARS, CVPR 2020, section 4: four folds)."""

from __future__ import annotations

import csv
from collections.abc import Iterable
from dataclasses import replace
from pathlib import Path

import numpy as np

from soars.cells import original, write_table
from soars.errors import InputError
from soars_training.experiments.runs import fitted
from soars_training.fitting.options import FitOptions
from soars_training.fitting.state import CASES_FILE
from soars_training.fitting.validate import CaseScore

POOLED_FILE = "crossval.csv"


def crossval(
    cache: Path, output: Path, options: FitOptions, folds: int, guide_folder: Path | None = None
) -> list[tuple[int, CaseScore]]:
    """Train `folds` networks, each without one part of the patients. Returns (fold, score) of every patient's organs,
    and writes them into `output`/crossval.csv.

    Fold k is a run in `output`/fold_k. A fold that is finished is not trained again, one that was interrupted goes on:
    the same call resumes. Raises as `fit` does, and for the detection and small_hard branches, whose cases have no DSC
    of a whole patient.
    """
    if not options.task.softmax:
        raise InputError(f"cross-validation is for anchor and mid_level, not for {options.task.branch}")
    pooled = []
    for k in range(1, folds + 1):
        folder = output / f"fold_{k}"
        fitted(cache, folder, replace(options, fold=(k, folds), held_out=0), guide_folder)
        pooled += [(k, score) for score in _read(folder / CASES_FILE)]
    _write(pooled, output / POOLED_FILE)
    return pooled


def pooled_table(pooled: Iterable[tuple[int, CaseScore]]) -> str:
    """Markdown: per organ the number of patients, mean and standard deviation over patients, lowest; then the mean of
    the organs."""
    values: dict[str, list[float]] = {}
    for _, score in pooled:
        values.setdefault(score.organ, []).append(score.dsc)
    lines = ["| organ | patients | mean DSC | sd | lowest |", "|---|---|---|---|---|"]
    for organ, found in values.items():
        sd = f"{np.std(found, ddof=1):.3f}" if len(found) > 1 else ""
        lines.append(f"| {organ} | {len(found)} | {np.mean(found):.3f} | {sd} | {min(found):.3f} |")
    mean = np.mean([np.mean(found) for found in values.values()])
    return "\n".join([*lines, f"| **mean of organs** | | **{mean:.3f}** | | |"])


def _read(path: Path) -> list[CaseScore]:
    with path.open(newline="") as stream:
        return [CaseScore(original(r["case"]), r["organ"], float(r["dsc"])) for r in csv.DictReader(stream)]


def _write(pooled: Iterable[tuple[int, CaseScore]], path: Path) -> None:
    rows = ((fold, s.case, s.organ, f"{s.dsc:.6g}") for fold, s in pooled)
    write_table(path, ("fold", "case", "organ", "dsc"), rows)
