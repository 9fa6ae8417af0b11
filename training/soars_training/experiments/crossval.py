"""Cross-validation by patient: each is held out once, so that the pooled figures are of patients unseen in training
(SOARS, CVPR 2020, section 4: four folds)."""

from __future__ import annotations

import csv
from collections.abc import Iterable, Mapping
from dataclasses import replace
from pathlib import Path

import numpy as np

from soars.cells import original, write_table
from soars.errors import InputError
from soars_training.cohorts.cache import CacheIndex
from soars_training.cohorts.splits import one_fold
from soars_training.experiments.runs import fitted, guided
from soars_training.fitting import processes
from soars_training.fitting.options import FitOptions, FittedRun
from soars_training.fitting.state import CASES_FILE
from soars_training.fitting.validate import CaseScore

POOLED_FILE = "crossval.csv"


def guided_by(options: FitOptions, anchors: Path) -> FitOptions:
    """The options of a branch that sees the anchors of a cross-validation of the anchor branch."""
    classes = FittedRun.load(anchors / "fold_1").classes
    return replace(options, task=replace(options.task, inputs=("ct", "anchor"), anchors=classes))


def crossval(
    cache: Path, output: Path, options: FitOptions, folds: int, anchors: Path | None = None
) -> list[tuple[int, CaseScore]]:
    """Train `folds` networks, each without one part of the patients. Returns (fold, score) of every patient's organs,
    and writes them into `output`/crossval.csv.

    Fold k is a run in `output`/fold_k. A fold that is finished is not trained again, one that was interrupted goes on:
    the same call resumes. A branch that sees the anchors is guided, in each fold, by the network of the same fold of
    `anchors`, a cross-validation of the anchor branch: one that had learned from the patients held out would tell where
    their organs are. Raises as `fit` does, for runs of another cohort, and for the detection and small_hard branches,
    whose cases have no DSC of a whole patient.
    """
    processes.alone("a cross-validation")
    if not options.task.softmax:
        raise InputError(f"cross-validation is for anchor and mid_level, not for {options.task.branch}")
    entries = CacheIndex.load(cache).of_split(options.train_split)
    pooled = []
    for k in range(1, folds + 1):
        folder, held = output / f"fold_{k}", {e.patient for e in one_fold(entries, k, folds)[1]}
        guide = None
        if anchors is not None:
            _check_held_out(anchors / f"fold_{k}", FittedRun.load(anchors / f"fold_{k}"), held)
            guide = guided(cache, anchors / f"fold_{k}", output / f"guide_{k}", options.device)
        run = fitted(cache, folder, replace(options, fold=(k, folds), held_out=0), guide)
        _check_held_out(folder, run, held)
        pooled += [(k, score) for score in _read(folder / CASES_FILE)]
    _write(pooled, output / POOLED_FILE)
    return pooled


def pooled_table(pooled: Iterable[tuple[int, CaseScore]], patients: Mapping[str, str] | None = None) -> str:
    """Markdown: per organ the number of patients, mean and standard deviation over patients, lowest; then the mean of
    the organs.

    Args:
        patients: of each case whom it is of, where several are of one; a patient counts once, with the mean of them.
    """
    whose = patients or {}
    of_patient: dict[str, dict[str, list[float]]] = {}
    for _, score in pooled:
        mine = of_patient.setdefault(score.organ, {})
        mine.setdefault(whose.get(score.case, score.case), []).append(score.dsc)
    values = {
        organ: [float(np.mean(cases)) for cases in found.values()] for organ, found in of_patient.items()
    }
    lines = ["| organ | patients | mean DSC | sd | lowest |", "|---|---|---|---|---|"]
    for organ, found in values.items():
        sd = f"{np.std(found, ddof=1):.3f}" if len(found) > 1 else ""
        lines.append(f"| {organ} | {len(found)} | {np.mean(found):.3f} | {sd} | {min(found):.3f} |")
    mean = np.mean([np.mean(found) for found in values.values()])
    return "\n".join([*lines, f"| **mean of organs** | | **{mean:.3f}** | | |"])


def _check_held_out(folder: Path, run: FittedRun, held: set[str]) -> None:
    if set(run.held_out) != held:
        raise InputError(
            f"{folder}: held out other patients than this fold does; it is of another cohort or number of folds"
        )


def _read(path: Path) -> list[CaseScore]:
    with path.open(newline="") as stream:
        return [CaseScore(original(r["case"]), r["organ"], float(r["dsc"])) for r in csv.DictReader(stream)]


def _write(pooled: Iterable[tuple[int, CaseScore]], path: Path) -> None:
    rows = ((fold, s.case, s.organ, f"{s.dsc:.6g}") for fold, s in pooled)
    write_table(path, ("fold", "case", "organ", "dsc"), rows)
