"""The DSC of whole patients that a run is not trained on."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np

from soars.bundle.manifest import BranchSpec
from soars.cascade.torch_engine import NetworkEngine
from soars.cascade.windows import ProbabilityMap
from soars_training.windows.loaded import LoadedCase
from soars_training.windows.task import BranchTask
from soars_training.windows.whole import whole_patient


@dataclass(frozen=True)
class CaseScore:
    """The DSC of one organ in one held-out case."""

    case: str
    organ: str
    dsc: float


def mean_per_organ(scores: Iterable[CaseScore]) -> dict[str, float]:
    """Mean DSC of every organ over its cases."""
    values: dict[str, list[float]] = {}
    for score in scores:
        values.setdefault(score.organ, []).append(score.dsc)
    return {organ: float(np.mean(found)) for organ, found in values.items()}


@dataclass(frozen=True)
class Channels:
    """Input channels [C, z, y, x] that are at hand as an array."""

    values: np.ndarray
    outside: float = 0.0

    def window(self, box: tuple[slice, slice, slice]) -> np.ndarray:
        return self.values[(slice(None), *box)].astype(np.float32)


def whole_patient_dice(
    engine: NetworkEngine, spec: BranchSpec, task: BranchTask, cases: Iterable[LoadedCase]
) -> list[CaseScore]:
    """DSC of every class in every patient that has it, on the working grid, by the windows of inference.

    For softmax branches.
    """
    found = []
    for case, probabilities in whole_patient_maps(engine, spec, task, cases):
        for organ, value in dice_per_class(probabilities.labels(), case.target[0], task.classes).items():
            if organ in case.data.annotated and organ in case.data.masks:
                found.append(CaseScore(case.data.name, organ, value))
    return found


def whole_patient_maps(
    engine: NetworkEngine, spec: BranchSpec, task: BranchTask, cases: Iterable[LoadedCase]
) -> Iterator[tuple[LoadedCase, ProbabilityMap]]:
    """The probabilities or heat maps of whole patients on the working grid, by the windows of inference."""
    for case in cases:
        guide = Channels(case.guide / np.float32(255)) if "anchor" in task.inputs else None
        yield case, whole_patient(engine, spec, task, case.data, guide)


def dice_per_class(labels: np.ndarray, truth: np.ndarray, classes: Sequence[str]) -> dict[str, float]:
    """2 |A and B| / (|A| + |B|) of each class of two label maps; classes that neither holds are left out."""
    n = len(classes) + 1
    mine, theirs = np.bincount(labels.ravel(), minlength=n), np.bincount(truth.ravel(), minlength=n)
    both = np.bincount(labels[labels == truth], minlength=n)
    return {
        organ: float(2 * both[k] / (mine[k] + theirs[k]))
        for k, organ in enumerate(classes, start=1)
        if mine[k] + theirs[k]
    }
