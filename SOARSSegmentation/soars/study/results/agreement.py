"""Agreement of contour sets with the reference, with each other, and with the consensus of the others.

Every figure is `soars evaluate`'s, from the same code on the same files.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Callable, Mapping, Sequence, Set
from dataclasses import dataclass
from itertools import combinations

from soars.catalogue import STRATUM_TITLES
from soars.metrics.cases import CasePair
from soars.metrics.evaluate import EvaluateOptions, evaluate_cases
from soars.metrics.scores import BOTH_EMPTY, EXTRA, MISSING, NOT_ANNOTATED, OrganScore
from soars.progress import Reporter, ignore
from soars.study.comparisons import non_inferiority
from soars.study.load import Opened
from soars.study.plan.model import Margin
from soars.study.published import AGREEMENT_2022
from soars.study.results.minutes import BY_ORGAN, BY_READER
from soars.study.results.sets import PROPOSAL, RESULT, ContourSet, cts, human_pairs, pairs_of, references
from soars.study.results.table import Table, mean_of, spread, strata_of
from soars.study.statistics import adjust, wilcoxon_matched_pairs

REFERENCE = "reference"
CONSENSUS = "consensus of the others"
FIGURES = (
    ("DSC", "dsc"),
    ("HD mm", "hd_mm"),
    ("HD95 mm", "hd95_mm"),
    ("ASD mm", "asd_mm"),
    ("surface DSC", "surface_dsc"),
    ("APL mm", "apl_mm"),
)
LARGER_IS_BETTER = {"dsc": True, "surface_dsc": True}
_TESTED = ("dsc", "hd_mm", "asd_mm")
NAN = float("nan")
_Readings = dict[tuple[str, ...], list[OrganScore]]
"""By case, organ, and reader where arms are paired by that too."""


@dataclass(frozen=True)
class Scored:
    """One organ of one case of a set, judged by another set or by the reference."""

    case: str
    first: str
    second: str
    score: OrganScore

    @property
    def organ(self) -> str:
        return self.score.organ


def score_against_reference(
    opened: Opened, sets: Sequence[ContourSet], *, processes: int = 1, progress: Reporter = ignore
) -> list[Scored]:
    """Every set against the reference contours; empty if the study has none."""
    known = references(opened)
    work = [((one,), REFERENCE, pairs_of(one, known, cts(opened))) for one in sets]
    return _evaluated(opened, work, processes, progress)


def score_pairwise(
    opened: Opened, sets: Sequence[ContourSet], *, processes: int = 1, progress: Reporter = ignore
) -> list[Scored]:
    """Every two people's contours of the same case, the later in the study file as the reference."""
    work = [((a, b), b.name, pairs_of(a, b.paths, cts(opened))) for a, b in human_pairs(sets)]
    return _evaluated(opened, work, processes, progress)


def _evaluated(
    opened: Opened,
    work: Sequence[tuple[tuple[ContourSet, ...], str, list[CasePair]]],
    processes: int,
    progress: Reporter,
) -> list[Scored]:
    """Of every piece of work the first set against the second, or the reference; in organs that each was asked for."""
    organs = opened.plan.organs if opened.plan is not None else None
    flat = [(people, second, pair) for people, second, pairs in work for pair in pairs]
    found = evaluate_cases(
        [pair for _, _, pair in flat], EvaluateOptions(organs=organs), processes=processes, progress=progress
    )
    return [
        Scored(case.case, people[0].name, second, score)
        for (people, second, _), case in zip(flat, found, strict=True)
        for score in case.scores
        if all(one.asked_for(score.organ) for one in people)
    ]


def agreement_table(scored: Sequence[Scored], name: str, title: str) -> Table:
    """Per pair of sets: means over cases of every organ, stratum and all; missing organs count with DSC 0 and in no
    mean distance."""
    lines: list[tuple[object, ...]] = []
    for first, second in dict.fromkeys((s.first, s.second) for s in scored):
        mine = [s for s in scored if (s.first, s.second) == (first, second) and _says_something(s.score)]
        for stratum, organs in strata_of([s.organ for s in mine]):
            lines += [_mean_line(first, second, o, [s.score for s in mine if s.organ == o]) for o in organs]
            own = [s.score for s in mine if s.organ in organs]
            lines.append(_mean_line(first, second, f"all {STRATUM_TITLES[stratum]}", own))
        lines.append(_mean_line(first, second, "all", [s.score for s in mine]))
    columns = ["set", "against", "organ", "n", "missing"]
    for figure, _ in FIGURES:
        columns += [figure, f"sd {figure}"]
    published: tuple[tuple[object, ...], ...] = ()
    if any(s.second == REFERENCE for s in scored):
        published = tuple(
            (
                f"{who} (Ye et al. 2022)",
                "clinical",
                "13 OARs",
                390,
                NAN,
                dsc,
                NAN,
                hd,
                NAN,
                NAN,
                NAN,
                asd,
                *[NAN] * 5,
            )
            for who, (dsc, hd, asd) in AGREEMENT_2022.items()
        )
    note = (
        "Distances by the definition of google-deepmind/surface-distance; HD is the maximum. n: cases (for all: cases "
        "times organs) in which the second has the organ."
    )
    return Table(name, title, tuple(columns), tuple(lines), note, published)


def _says_something(score: OrganScore) -> bool:
    return score.state not in (NOT_ANNOTATED, BOTH_EMPTY)


def _mean_line(first: str, second: str, organ: str, scores: Sequence[OrganScore]) -> tuple[object, ...]:
    figures: list[float] = []
    for _, field in FIGURES:
        s = spread(getattr(score, field) for score in scores)
        figures += [s.mean, s.sd]
    return (first, second, organ, len(scores), sum(s.state == MISSING for s in scores), *figures)


def agreement_tests(scored: Sequence[Scored], sets: Sequence[ContourSet]) -> Table:
    """Sets compared two by two in their agreement with the reference: Wilcoxon's matched pairs over cases per organ,
    and over cases and organs for all. Pairs in which a side has no finite figure are left out and counted."""
    lines: list[tuple[object, ...]] = []
    names = [one.name for one in sets]
    index = {(s.first, s.case, s.organ): s.score for s in scored if _says_something(s.score)}
    for figure in _TESTED:
        new = []
        for first, second in combinations(names, 2):
            keys = [(c, o) for (n, c, o) in index if n == first and (second, c, o) in index]
            organs = [*dict.fromkeys(o for s, own in strata_of([o for _, o in keys]) for o in own), "all"]
            for organ in organs if keys else []:
                own = [key for key in keys if organ in (key[1], "all")]
                line = _tested(index, figure, first, second, organ, own)
                if line is not None:
                    new.append(line)
        holm = adjust([float(line[-1]) for line in new])
        lines += [(*line, corrected) for line, corrected in zip(new, holm, strict=True)]
    columns = (
        "figure",
        "set",
        "against",
        "organ",
        "n",
        "left out",
        "mean",
        "against mean",
        "median difference",
        "p",
        "p Holm",
    )
    note = "Wilcoxon's matched pairs, two-sided, of agreement with the reference; Holm over all lines of a figure."
    return Table("agreement_tests", "Contour sets compared", columns, tuple(lines), note)


def _tested(
    index: Mapping[tuple[str, str, str], OrganScore],
    figure: str,
    first: str,
    second: str,
    organ: str,
    keys: Sequence[tuple[str, str]],
) -> tuple[str, str, str, str, int, int, float, float, float, float] | None:
    values = [[getattr(index[(name, *key)], figure) for key in keys] for name in (first, second)]
    pairs = [(a, b) for a, b in zip(*values, strict=True) if math.isfinite(a) and math.isfinite(b)]
    if len(pairs) < 2:
        return None
    a, b = ([pair[side] for pair in pairs] for side in (0, 1))
    found = wilcoxon_matched_pairs(a, b)
    out = len(keys) - len(pairs)
    return (
        figure,
        first,
        second,
        organ,
        len(pairs),
        out,
        mean_of(a),
        mean_of(b),
        found.median_difference,
        found.p,
    )


def non_inferiority_table(
    margin: Margin | None,
    scored: Sequence[Scored],
    sets: Sequence[ContourSet],
    of_minutes: Callable[[str, str, float], tuple[object, ...] | None],
) -> Table | None:
    """Results of every arm against those of every other, in the plan's figure and margin; None without a margin."""
    if margin is None:
        return None
    arms = list(dict.fromkeys(one.arm for one in sets if one.kind == RESULT))
    lines = []
    for first in arms:
        for second in arms:
            if first == second:
                continue
            if margin.figure == "minutes":
                line = of_minutes(first, second, margin.margin)
            else:
                line = _non_inferior(margin, scored, sets, first, second)
            if line is not None:
                lines.append(line)
    if not lines:
        return None
    columns = (
        "figure", "arm", "against", "n", "paired by", "left out", "difference", "low", "high", "margin", "p",
        "non-inferiority",
    )  # fmt: skip
    note = (
        "Mean paired difference, arm minus the other, with its 95 % t interval; p is one-sided against the margin. A "
        "figure of agreement is the mean over organs and readers of a patient, against the reference, of what has a "
        "finite figure in both arms; the rest of these patients is left out. What only the first arm misses, or draws "
        "where the reference has nothing, has no distance that could be averaged: nothing is shown then, and there is "
        "no p."
    )
    return Table("non_inferiority", "Non-inferiority", columns, tuple(lines), note)


def _non_inferior(
    margin: Margin, scored: Sequence[Scored], sets: Sequence[ContourSet], first: str, second: str
) -> tuple[object, ...] | None:
    """A line on two arms' results, over organs that have the figure in both; None where no two patients are in both."""
    by = BY_READER
    a, b = (_readings(scored, sets, arm, by) for arm in (first, second))
    if not set(a) & set(b):
        by = BY_ORGAN
        a, b = (_readings(scored, sets, arm, by) for arm in (first, second))
    patients = {key[0] for key in a} & {key[0] for key in b}
    if len(patients) < 2:
        return None
    values, out, failed = _compared(margin.figure, a, b, patients)
    worse = ", ".join(f"{failed[state]} {state}" for state in (MISSING, EXTRA) if failed[state])
    ends, p, shown = (NAN, NAN, NAN), NAN, "not shown"
    if len(values) >= 2:
        larger = LARGER_IS_BETTER.get(margin.figure, False)
        ours, theirs = ([mean_of(sides[side]) for sides in values.values()] for side in (0, 1))
        found = non_inferiority(ours, theirs, margin.margin, larger)
        d = found.difference
        ends = (d.value, d.low, d.high) if larger else (0 - d.value, 0 - d.high, 0 - d.low)
        p, shown = found.p, "shown" if found.shown else "not shown"
    if worse:
        p, shown = NAN, f"not shown: {worse}"
    return (margin.figure, first, second, len(values), by, out, *ends, margin.margin, p, shown)


def _compared(
    figure: str, a: _Readings, b: _Readings, patients: Set[str]
) -> tuple[dict[str, tuple[list[float], list[float]]], int, Counter[str]]:
    """Of these patients: case -> both arms' figures of the organs that have one in both; how many organs are left out;
    and how many of those the first arm alone misses (`MISSING`) or draws where there is nothing (`EXTRA`)."""
    keys = [key for key in dict.fromkeys((*a, *b)) if key[0] in patients]
    values: dict[str, tuple[list[float], list[float]]] = {}
    out, failed = 0, Counter[str]()
    for key in keys:
        if not any(map(_says_something, (*a.get(key, ()), *b.get(key, ())))):
            continue
        sides = [[float(getattr(s, figure)) for s in found.get(key, ())] for found in (a, b)]
        if all(side and all(map(math.isfinite, side)) for side in sides):
            for mine, side in zip(values.setdefault(key[0], ([], [])), sides, strict=True):
                mine.append(mean_of(side))
            continue
        out += 1
        defined = any(not math.isnan(value) for side in sides for value in side)
        if defined and key in a and key in b and _failures(a[key]) > _failures(b[key]):
            failed[MISSING if any(s.state == MISSING for s in a[key]) else EXTRA] += 1
    return values, out, failed


def _readings(scored: Sequence[Scored], sets: Sequence[ContourSet], arm: str, by: str) -> _Readings:
    """Scores against the reference of an arm's results, by case, organ, and reader if paired by that too."""
    readers = {one.name: one.reader for one in sets if one.kind == RESULT and one.arm == arm}
    found: _Readings = {}
    for s in scored:
        if s.first in readers and s.second == REFERENCE:
            key = (s.case, s.organ, readers[s.first]) if by == BY_READER else (s.case, s.organ)
            found.setdefault(key, []).append(s.score)
    return found


def _failures(scores: Sequence[OrganScore]) -> float:
    """The share that is missing, or drawn where the reference has nothing."""
    return sum(score.state in (MISSING, EXTRA) for score in scores) / len(scores)


def model_against_people(
    scored: Sequence[Scored], sets: Sequence[ContourSet], figure: str = "surface_dsc"
) -> dict[str, list[float]]:
    """Organ -> differences over cases: a proposal's agreement with the reference minus the mean of the people's
    (readers from scratch and observers), as DeepMind compares model and radiographers (003), with its band of 5
    points."""
    proposals = {one.name for one in sets if one.kind == PROPOSAL}
    people = {one.name for one in sets if one.kind == "observer"} or {
        one.name
        for one in sets
        if one.kind == RESULT and not any(p.arm == one.arm for p in sets if p.kind == PROPOSAL)
    }
    values: dict[tuple[str, str], tuple[list[float], list[float]]] = {}
    for s in scored:
        value = float(getattr(s.score, figure))
        if s.second != REFERENCE or not math.isfinite(value):
            continue
        side = 0 if s.first in proposals else 1 if s.first in people else None
        if side is not None:
            values.setdefault((s.organ, s.case), ([], []))[side].append(value)
    out: dict[str, list[float]] = {}
    for (organ, _), (model, human) in values.items():
        if model and human:
            out.setdefault(organ, []).append(mean_of(model) - mean_of(human))
    return out
