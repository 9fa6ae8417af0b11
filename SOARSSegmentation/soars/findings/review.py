"""A bundle's tables for whoever reviews its contours: what DSC to expect, and what is usual.

They are one JSON file that the manifest names under ``review``. Both parts may be null: a bundle without them works,
and says less about its contours::

    {
      "schema_version": 1,
      "calibration": {"patients": 40, "curves": {"Parotid_L": {"confidence": [0.8, 0.9], "dsc": [0.6, 0.8],
                                                               "low": [0.4, 0.7], "high": [0.7, 0.9]}, ...}},
      "norms": {...}                       see `soars.findings.norms.Norms.to_dict`
    }

The calibration may hold a score, whose values take the place of the confidences on the curves then::

    "score": {"organs": {"Parotid_L": 0.31, ...}, "weights": {"confidence": 0.4, "volume": -0.02, ...}}
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from soars.bundle.integrity import read_checked
from soars.bundle.manifest import Bundle
from soars.catalogue import CATALOGUE
from soars.errors import BundleError
from soars.findings.evidence import KINDS, Evidence
from soars.findings.finding import ExpectedDsc
from soars.findings.norms import Norms

SCHEMA_VERSION = 1


@dataclass(frozen=True)
class Curve:
    """Confidence to DSC: between its points linear, beyond them as at the ends. `confidence` rises; the others are as
    long: the DSC in the mean, and what nine in ten, and one in ten, of the held-out contours exceeded."""

    confidence: tuple[float, ...]
    dsc: tuple[float, ...]
    low: tuple[float, ...]
    high: tuple[float, ...]

    def expected(self, confidence: float) -> ExpectedDsc:
        value, low, high = (
            float(np.interp(confidence, self.confidence, values))
            for values in (self.dsc, self.low, self.high)
        )
        return ExpectedDsc(round(value, 3), round(low, 3), round(high, 3))


@dataclass(frozen=True)
class Score:
    """Confidence that draws on all evidence: an organ's own number, and each kind of evidence times its weight."""

    organs: Mapping[str, float]
    weights: Mapping[str, float]

    def of(self, organ: str, evidence: Evidence) -> float:
        """The score of an organ that is among `organs`, 0 to 1."""
        total = self.organs[organ] + sum(w * getattr(evidence, kind) for kind, w in self.weights.items())
        return float(np.clip(total, 0, 1))


@dataclass(frozen=True)
class Calibration:
    """One curve per organ (TG-263 name), from so many ``patients``: of the score, or without one of the
    soft Dice confidence."""

    patients: int
    curves: Mapping[str, Curve]
    score: Score | None = None

    def expected(self, organ: str, evidence: Evidence) -> ExpectedDsc | None:
        """None for an organ without a curve."""
        curve = self.curves.get(organ)
        if curve is None:
            return None
        return curve.expected(self.score.of(organ, evidence) if self.score else evidence.confidence)


@dataclass(frozen=True)
class ReviewTables:
    """What a bundle holds; None for what it lacks."""

    calibration: Calibration | None = None
    norms: Norms | None = None

    def to_json(self) -> str:
        """The file's text."""
        calibration: dict[str, Any] | None = None
        if self.calibration is not None:
            curves = {
                name: {key: [round(v, 4) for v in values] for key, values in vars(curve).items()}
                for name, curve in self.calibration.curves.items()
            }
            calibration = {"patients": self.calibration.patients, "curves": curves}
            if self.calibration.score is not None:
                calibration["score"] = {
                    part: {name: round(v, 4) for name, v in values.items()}
                    for part, values in vars(self.calibration.score).items()
                }
        norms = self.norms.to_dict() if self.norms is not None else None
        data = {"schema_version": SCHEMA_VERSION, "calibration": calibration, "norms": norms}
        return json.dumps(data, allow_nan=False) + "\n"


def read_review(bundle: Bundle) -> ReviewTables:
    """The bundle's tables, empty when it has none; raises `BundleError` when the file is not what it should be."""
    if bundle.review is None:
        return ReviewTables()
    data = read_checked(bundle, bundle.review)
    try:
        return parse_review(data)
    except (KeyError, TypeError, ValueError, RecursionError) as error:
        raise BundleError(
            f"bundle {bundle.name}: {bundle.review} is not a table for reviewing ({error!r}); get the bundle again"
        ) from error


def parse_review(data: bytes) -> ReviewTables:
    """The tables in a file's bytes; raises `KeyError`, `TypeError` or `ValueError`."""
    table = json.loads(data)
    if table["schema_version"] != SCHEMA_VERSION:
        raise ValueError(f"version {table['schema_version']!r}, this soars reads {SCHEMA_VERSION}")
    calibration = table["calibration"]
    norms = table["norms"]
    return ReviewTables(
        None if calibration is None else _calibration(calibration),
        None if norms is None else Norms.from_dict(norms),
    )


def _calibration(data: Mapping[str, Any]) -> Calibration:
    unknown = sorted(set(data["curves"]) - set(CATALOGUE))
    if unknown:
        raise ValueError(f"unknown organ {unknown[0]!r}")
    curves = {name: _curve(row) for name, row in data["curves"].items()}
    score = _score(data["score"], set(curves)) if "score" in data else None
    return Calibration(int(data["patients"]), curves, score)


def _score(data: Mapping[str, Any], organs: set[str]) -> Score:
    score = Score(
        {name: float(v) for name, v in data["organs"].items()},
        {kind: float(v) for kind, v in data["weights"].items()},
    )
    if set(score.organs) != organs or not set(score.weights) <= set(KINDS):
        raise ValueError(f"a score has the curves' organs, and weights of {', '.join(KINDS)}")
    if not np.isfinite([*score.organs.values(), *score.weights.values()]).all():
        raise ValueError("a score's numbers are finite")
    return score


def _curve(row: Mapping[str, Any]) -> Curve:
    confidence, dsc, low, high = (
        tuple(float(v) for v in row[key]) for key in ("confidence", "dsc", "low", "high")
    )
    values = np.array([confidence, dsc, low, high])
    if not values.size or not ((values >= 0) & (values <= 1)).all() or (np.diff(values[0]) <= 0).any():
        raise ValueError("a curve has confidences that rise, and values from 0 to 1")
    if not ((values[2] <= values[1]) & (values[1] <= values[3])).all():
        raise ValueError("a curve's DSC lies between its low and its high")
    return Curve(confidence, dsc, low, high)
