"""Which geometric figure best predicts how long a revision takes: rank correlation, and regression tested on other
patients.

Figures of the edit (proposal against result) can only be known afterwards; figures of the proposal against the
reference could be known before. Times are taken as log(1 + s), distances, lengths and volumes as log(1 + x). The
regression's R2 is of predictions for patients that it was not fitted on: 1 is perfect, 0 as good as the mean, below
0 worse than that.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import astuple, dataclass

import numpy as np

from soars.metrics.scores import OrganScore
from soars.study.comparisons import spearman
from soars.study.results.agreement import REFERENCE, Scored
from soars.study.results.sets import PROPOSAL, ContourSet
from soars.study.results.table import Table
from soars.study.rows import OrganRow
from soars.study.statistics import adjust

FOLDS = 5
LEAST = 20
"""A figure must be known for this many organs."""
_EDIT = (
    "edited_cc",
    "edit_dsc",
    "edit_hd_mm",
    "edit_hd95_mm",
    "edit_asd_mm",
    "edit_surface_dsc",
    "edit_apl_mm",
)
_BEFORE = ("dsc", "hd_mm", "hd95_mm", "asd_mm", "surface_dsc", "apl_mm")
_SHARES = {"edit_dsc", "edit_surface_dsc", "dsc", "surface_dsc"}


@dataclass(frozen=True)
class Predictor:
    """How well ``figure`` predicts active time over ``n`` organs: Spearman's rho with interval and p (nan for several
    figures together), and R2 on other patients."""

    kind: str
    figure: str
    n: int
    rho: float
    low: float
    high: float
    p: float
    r2: float


def predictors(
    rows: Sequence[OrganRow], scored: Sequence[Scored], sets: Sequence[ContourSet]
) -> list[Predictor]:
    """Every figure that is known of enough organs, and all of a kind together; best first within a kind."""
    revised = [row for row in rows if row.category]
    known = {
        (one.arm, s.case, s.organ): s.score
        for one in sets
        if one.kind == PROPOSAL
        for s in scored
        if s.first == one.name and s.second == REFERENCE
    }
    found: list[Predictor] = []
    for kind, names in (("edit", _EDIT), ("proposal against reference", _BEFORE)):
        columns = {name: _column(kind, name, revised, known) for name in names}
        columns = {n: c for n, c in columns.items() if np.isfinite(c).sum() >= LEAST and np.nanstd(c) > 0}
        own = [_predictor(kind, name, revised, [column]) for name, column in columns.items()]
        if len(columns) > 1:
            own.append(_predictor(kind, "all together", revised, list(columns.values())))
        found += sorted(own, key=lambda one: -one.r2)
    return found


def prediction_table(found: Sequence[Predictor]) -> Table | None:
    """One line a predictor; None without any."""
    if not found:
        return None
    tested = [one for one in found if not math.isnan(one.p)]
    holm = {one: p for one, p in zip(tested, adjust([one.p for one in tested]), strict=True)}
    lines = tuple((*astuple(one), holm.get(one, math.nan)) for one in found)
    columns = ("kind", "figure", "organs", "rho", "low", "high", "p", "R2 on other patients", "p Holm")
    note = (
        "Spearman's rank correlation of a figure with active time over organs, patients and readers (its p takes them "
        "as independent), and R2 of log(1 + s) predicted for patients left out of the fit, "
        f"{FOLDS} folds by patient."
    )
    return Table("prediction", "What predicts the time of a revision", columns, lines, note)


def _column(
    kind: str, name: str, rows: Sequence[OrganRow], known: Mapping[tuple[str, str, str], OrganScore]
) -> np.ndarray:
    if kind == "edit":
        values = [float(getattr(row, name)) for row in rows]
    else:
        scores = [known.get((row.arm, row.case, row.organ)) for row in rows]
        values = [math.nan if score is None else float(getattr(score, name)) for score in scores]
    column = np.array(values, dtype=np.float64)
    column[~np.isfinite(column)] = np.nan
    return column if name in _SHARES else np.log1p(column)


def _predictor(kind: str, name: str, rows: Sequence[OrganRow], columns: Sequence[np.ndarray]) -> Predictor:
    table = np.stack(columns, axis=1)
    keep = np.isfinite(table).all(axis=1)
    times = np.array([row.active_s for row in rows])[keep]
    cases = [row.case for row, kept in zip(rows, keep, strict=True) if kept]
    r2 = cross_validated_r2(table[keep], np.log1p(times), cases)
    if len(columns) > 1:
        return Predictor(kind, name, int(keep.sum()), math.nan, math.nan, math.nan, math.nan, r2)
    effect, p = spearman(table[keep, 0], times)
    return Predictor(kind, name, int(keep.sum()), effect.value, effect.low, effect.high, p, r2)


def cross_validated_r2(table: np.ndarray, values: np.ndarray, groups: Sequence[str]) -> float:
    """R2 of a linear regression on the columns of ``table``, shape (n, figures), where every value is predicted by a
    fit without its group's fold. nan with fewer than two groups."""
    names = sorted(set(groups))
    folds = min(FOLDS, len(names))
    if folds < 2:
        return math.nan
    fold = {name: index % folds for index, name in enumerate(names)}
    place = np.array([fold[group] for group in groups])
    predicted = np.empty(len(values))
    means = np.empty(len(values))
    for one in range(folds):
        test, train = place == one, place != one
        design = np.column_stack([np.ones(train.sum()), table[train]])
        weights = np.linalg.lstsq(design, values[train], rcond=None)[0]
        predicted[test] = np.column_stack([np.ones(test.sum()), table[test]]) @ weights
        means[test] = values[train].mean()
    return float(1 - ((values - predicted) ** 2).sum() / ((values - means) ** 2).sum())
