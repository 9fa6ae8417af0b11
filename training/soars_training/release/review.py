"""A bundle's tables for the reviewer: expected DSC by confidence, and what is usual in a cohort."""

from __future__ import annotations

import json
import shutil
from collections import Counter
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path

import numpy as np
from scipy.optimize import isotonic_regression, lsq_linear
from tqdm import tqdm

from soars.bundle.manifest import MANIFEST, Bundle
from soars.bundle.store import load_bundle, read_bundle, write_manifest
from soars.cascade.engine import OpenEngines
from soars.ct.images import CtScan
from soars.errors import InputError
from soars.files import staged_folder
from soars.findings.evidence import Evidence, evidence_of
from soars.findings.norms import LEAST_PATIENTS, Norms, Spread, pairs_of
from soars.findings.review import Calibration, Curve, ReviewTables, Score
from soars.metrics import dice
from soars.run.segment import SegmentOptions, segment
from soars.structures import StructureSet
from soars_training.cohorts.prepare import SourceCase

REVIEW = "review.json"
LEAST_SAMPLES = 4
"""An organ with fewer contours gets no curve. One suffices for all organs, so few need only be enough for an offset."""
POINTS = 8
"""A curve has at most this many points, each from the same number of contours."""
INTERVAL = (0.1, 0.9)
"""Quantiles of the DSC that contours reached, relative to the curve."""
PENALTIES = (1.0, 3.0, 10.0, 30.0, 100.0)
"""On the weights of evidence; the one that fits patients best whom the fit has not seen is taken."""
OFFSET_PENALTY = 3.0
"""On the organs' offsets: an organ with as many contours goes half of the way to its own mean."""
LEAST_DSC = 0.3
SPEAKS_FOR = {
    "confidence": True, "company": True, "size": True,
    "volume": False, "place": False, "asymmetry": False, "spill": False,
}  # fmt: skip
"""The kinds of evidence that are weighed: whether more of it speaks for a contour, or against it. A contour that is too
small loses more of its DSC than one that is too large by as much: its size counts with its sign, and without."""
MAD_TO_SD = 1.4826
"""Standard deviation of a normal distribution over its median absolute deviation."""


@dataclass(frozen=True)
class Sample:
    """What is known of a contour, and the DSC it reached against a reader's; `learned`: the bundle has learned from the
    case, and may draw it better than others; `patient`: whom the case is of, by default nobody else's."""

    case: str
    organ: str
    evidence: Evidence
    dsc: float
    learned: bool = False
    patient: str = ""

    def __post_init__(self) -> None:
        object.__setattr__(self, "patient", self.patient or self.case)


def collect_samples(
    bundle: Bundle,
    cases: Iterable[SourceCase],
    engine: str = "auto",
    norms: Norms | None = None,
    *,
    joins: Mapping[str, tuple[str, ...]] | None = None,
    learned: Collection[str] = (),
) -> Iterator[Sample]:
    """Segment cases, and compare the organs that were annotated in them.

    An organ that was not found has no confidence and is left out: its absence is said in other words. So is one that
    was contoured on some slices only.

    Args:
        joins: organs that readers drew as one (whole -> parts): where the cohort's preparation put the border between
            the parts is no fault of a contour, so each part has the DSC of the whole.
        learned: names of the cases that the bundle has learned from.
    """
    options = SegmentOptions(engine=engine, engines=OpenEngines())
    wholes = {part: parts for parts in (joins or {}).values() for part in parts}
    for case in tqdm(cases, desc=f"calibrate {bundle.name}", unit="case"):
        result = segment(CtScan(case.ct, Path(case.name), None, []), bundle, options)
        known = evidence_of(result.structures, result.confidence, norms, result.spill)
        for organ, evidence in known.items():
            if organ in case.annotated - case.sparse:
                parts = [part for part in wholes.get(organ, (organ,)) if part in case.annotated]
                found = result.structures.union(part for part in parts if part in result.structures)
                dsc = dice(found, case.structures.union(parts))
                yield Sample(case.name, organ, evidence, dsc, case.name in learned, case.patient)


def fit_calibration(samples: Iterable[Sample]) -> Calibration:
    """A score of all evidence, and the DSC that contours of a score reach.

    The score is a ridge regression of the DSC (`fit_score`). The curve is an isotonic regression of the DSC on the
    score that each patient gets from the fit to all others, by points of equal numbers of contours, with quantiles of
    what each contour reached beside the curve of the others. Organs with fewer than `LEAST_SAMPLES` contours have none.
    From the DSC of patients that the bundle has learned from, what they gain by that is taken off before.
    """
    rows = list(samples)
    counts = Counter(row.organ for row in rows)
    kept = [row for row in rows if counts[row.organ] >= LEAST_SAMPLES]
    patients = len({row.patient for row in rows})
    if not kept:
        return Calibration(patients, {})
    penalty = min(PENALTIES, key=lambda penalty: _misfit(kept, penalty))
    score, gain = fit_score(kept, penalty)
    reached = [max(row.dsc - gain, 0.0) if row.learned else row.dsc for row in kept]
    unseen = np.array([not row.learned for row in kept])
    curve = fit_curve(_held_out_scores(kept, penalty), np.array(reached), unseen)
    return Calibration(patients, {organ: curve for organ in score.organs}, score)


def fit_score(samples: Sequence[Sample], penalty: float) -> tuple[Score, float]:
    """Ridge regression of the DSC on the evidence, with an offset for each organ, and one for patients that the bundle
    has learned from; returns the score of other patients, and that last offset.

    More confidence never makes a contour worse, and nothing unusual makes it better: weights have the sign that they
    must have, or are zero, so that few patients do not teach nonsense. A DSC below `LEAST_DSC` counts as that much: a
    reference that lies elsewhere than its CT says nothing about the contour.
    """
    organs = sorted({sample.organ for sample in samples})
    values = np.array([[getattr(sample.evidence, kind) for kind in SPEAKS_FOR] for sample in samples])
    learned = np.array([[sample.learned] for sample in samples], float)
    dsc = np.maximum([sample.dsc for sample in samples], LEAST_DSC)
    middle, scale = values.mean(axis=0), np.maximum(values.std(axis=0), 1e-3)
    offsets = np.array([[sample.organ == organ for organ in organs] for sample in samples], float)
    design = np.hstack([(values - middle) / scale, offsets, learned])
    penalties = np.array([penalty] * len(SPEAKS_FOR) + [OFFSET_PENALTY] * (len(organs) + 1))
    upwards = np.array([*SPEAKS_FOR.values()])
    free = np.full(len(organs), np.inf)
    fit = lsq_linear(
        np.vstack([design, np.diag(np.sqrt(penalties))]),
        np.concatenate([dsc - dsc.mean(), np.zeros(len(penalties))]),
        (np.r_[np.where(upwards, 0, -np.inf), -free, 0], np.r_[np.where(upwards, np.inf, 0), free, np.inf]),
        method="bvls",
    ).x
    weights = fit[: len(SPEAKS_FOR)] / scale
    base = float(dsc.mean() - weights @ middle)
    score = Score(
        {
            organ: base + float(offset)
            for organ, offset in zip(organs, fit[len(SPEAKS_FOR) : -1], strict=True)
        },
        {kind: float(weight) for kind, weight in zip(SPEAKS_FOR, weights, strict=True) if abs(weight) > 1e-6},
    )
    return score, float(fit[-1])


def _held_out_scores(samples: Sequence[Sample], penalty: float) -> np.ndarray:
    """The score of each sample by the fit to all other patients; [n]."""
    scores = np.empty(len(samples))
    for patient in {sample.patient for sample in samples}:
        others = [sample for sample in samples if sample.patient != patient] or list(samples)
        score, _ = fit_score(others, penalty)
        mean = float(np.mean(list(score.organs.values())))
        for number, sample in enumerate(samples):
            if sample.patient == patient:
                known = Score({sample.organ: score.organs.get(sample.organ, mean)}, score.weights)
                scores[number] = known.of(sample.organ, sample.evidence)
    return scores


def _misfit(samples: Sequence[Sample], penalty: float) -> float:
    dsc = np.maximum([sample.dsc for sample in samples], LEAST_DSC)
    return float(np.mean((_held_out_scores(samples, penalty) - dsc) ** 2))


def fit_curve(confidence: np.ndarray, dsc: np.ndarray, unseen: np.ndarray | None = None) -> Curve:
    """`confidence` and `dsc`: [n], any order; `unseen`, bool [n]: the contours that the interval is to hold, when the
    others are of patients that the bundle has learned from and vary less.

    Beyond its first and last point the curve goes on by the slope of all samples, so that the contours that are least
    and most sure are told apart too.
    """
    at, value = _isotonic_points(confidence, dsc)
    others = np.arange(len(dsc))
    residuals = []
    for left_out in others if unseen is None or not unseen.any() else others[unseen]:
        x, y = _isotonic_points(confidence[others != left_out], dsc[others != left_out])
        residuals.append(dsc[left_out] - np.interp(confidence[left_out], x, y))
    below, above = np.quantile(residuals, INTERVAL)
    at, value = _extended(at, value, confidence, dsc)
    low = np.clip(value + min(below, 0.0), 0, 1)
    high = np.clip(value + max(above, 0.0), 0, 1)
    return Curve(*(tuple(float(v) for v in values) for values in (at, value, low, high)))


def _extended(
    at: np.ndarray, value: np.ndarray, confidence: np.ndarray, dsc: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """The points, and one at either end: as far as confidence and DSC stay within 0 and 1."""
    spread = float(np.var(confidence))
    slope = float(np.cov(confidence, dsc, bias=True)[0, 1]) / spread if spread > 1e-8 else 0.0
    if slope <= 0:
        return at, value
    down, up = min(at[0], value[0] / slope), min(1 - at[-1], (1 - value[-1]) / slope)
    ends_at = np.r_[at[0] - down, at, at[-1] + up]
    ends = np.clip(np.r_[value[0] - slope * down, value, value[-1] + slope * up], 0, 1)
    kept = np.r_[down > 1e-4, np.full(len(at), True), up > 1e-4]
    return ends_at[kept], ends[kept]


def fit_norms(structures: Iterable[tuple[StructureSet, frozenset[str]]]) -> Norms:
    """Medians and robust spreads (`MAD_TO_SD` times the median absolute deviation) of volumes and places.

    Args:
        structures: contours of readers, and which organs were annotated; what touches the edge of the scan is left out.
    """
    volumes: dict[str, list[float]] = {}
    places: dict[tuple[str, str], list[np.ndarray]] = {}
    for masks, annotated in structures:
        names = [name for name in masks.names if name in annotated and _whole(masks, name)]
        for name in names:
            volumes.setdefault(name, []).append(float(np.log(masks.volume_cc(name))))
        for first, second in pairs_of(names):
            apart = np.asarray(masks.centre_of_mass(first)) - np.asarray(masks.centre_of_mass(second))
            places.setdefault((first, second), []).append(apart)
    return Norms(
        {name: _spread(np.array(v)[:, None]) for name, v in volumes.items() if len(v) >= LEAST_PATIENTS},
        {pair: _spread(np.array(v)) for pair, v in places.items() if len(v) >= LEAST_PATIENTS},
    )


def add_review(bundle: Bundle, tables: ReviewTables, output: Path) -> Bundle:
    """Write a copy of the bundle with the tables, replacing any that it had. `InputError` when `output` exists."""
    if output.exists():
        raise InputError(f"{output} exists already; choose another folder or remove it")
    with staged_folder(output.parent, [output.name], folders=[output.name]) as staging:
        work = staging / output.name
        work.mkdir()
        for name in bundle.files:
            shutil.copyfile(bundle.folder / name, work / name)
        (work / REVIEW).write_text(tables.to_json(), encoding="utf-8")
        if bundle.review not in (None, REVIEW):
            (work / str(bundle.review)).unlink()
        fields = json.loads((bundle.folder / MANIFEST).read_text(encoding="utf-8"))
        kept = {k: v for k, v in fields.items() if k not in ("format_version", "card", "files")}
        write_manifest(work, {**kept, "review": REVIEW})
    return read_bundle(output)


def load_for_calibration(name: str) -> Bundle:
    """A bundle, by name or folder; a .zip cannot be added to."""
    bundle = load_bundle(name)
    if Path(name).is_file():
        raise InputError(f"{name}: import the bundle first (soars bundle import), then name it")
    return bundle


def _isotonic_points(confidence: np.ndarray, dsc: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Means of confidence and DSC over groups of neighbours, then centred isotonic regression.

    Groups whose DSC does not rise become one point in their middle, so that the line between the points rises, and
    contours of different confidence are told apart (A. P. Oron and N. Flournoy, Statistics in Biopharmaceutical
    Research 9, 2017).
    """
    order = np.argsort(confidence, kind="stable")
    groups = np.array_split(order, min(POINTS, max(1, len(order) // 3)))
    at = np.array([confidence[g].mean() for g in groups])
    value = np.array([dsc[g].mean() for g in groups])
    weights = np.array([len(g) for g in groups], float)
    blocks = isotonic_regression(value, weights=weights).blocks
    within = [slice(a, b) for a, b in pairwise(blocks)]
    at, value = (np.array([np.average(v[s], weights=weights[s]) for s in within]) for v in (at, value))
    distinct = np.concatenate([[True], np.diff(at) > 1e-4])
    return at[distinct], np.clip(value[distinct], 0, 1)


def _spread(values: np.ndarray) -> Spread:
    """Of values [patient, number]."""
    middle = np.median(values, axis=0)
    sd = MAD_TO_SD * np.median(np.abs(values - middle), axis=0)
    return Spread(tuple(map(float, middle)), tuple(map(float, sd)), len(values))


def _whole(structures: StructureSet, name: str) -> bool:
    """Whether an organ has voxels, none of them at the scan's edge."""
    mask, shape = structures.crop(name), structures.geometry.shape
    return not mask.is_empty and all(
        a > 0 and b < n for a, b, n in zip(mask.start, mask.stop, shape, strict=True)
    )
