"""Agreement of contour sets with the reference, with each other, and with the consensus of the others.

Every figure is `soars evaluate`'s, from the same code on the same files.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from itertools import combinations

from soars.catalogue import STRATUM_TITLES
from soars.metrics.cases import CasePair
from soars.metrics.evaluate import EvaluateOptions, evaluate_cases
from soars.metrics.scores import BOTH_EMPTY, MISSING, NOT_ANNOTATED, OrganScore
from soars.progress import Reporter, ignore
from soars.study.comparisons import non_inferiority
from soars.study.load import Opened
from soars.study.plan.model import Margin
from soars.study.published import AGREEMENT_2022
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
    columns = ("figure", "arm", "against", "n", "difference", "low", "high", "margin", "p", "non-inferiority")
    note = (
        "Mean paired difference, arm minus the other, with its 95 % t interval; p is one-sided against the margin. A "
        "figure of agreement is the mean over organs and readers of a patient, against the reference."
    )
    return Table("non_inferiority", "Non-inferiority", columns, tuple(lines), note)


def _non_inferior(
    margin: Margin, scored: Sequence[Scored], sets: Sequence[ContourSet], first: str, second: str
) -> tuple[object, ...] | None:
    a, b = (_by_case(margin.figure, scored, sets, arm) for arm in (first, second))
    common = sorted(set(a) & set(b))
    if len(common) < 2:
        return None
    larger = LARGER_IS_BETTER.get(margin.figure, False)
    found = non_inferiority([a[c] for c in common], [b[c] for c in common], margin.margin, larger)
    d = found.difference
    ends = (d.value, d.low, d.high) if larger else (-d.value, -d.high, -d.low)
    shown = "shown" if found.shown else "not shown"
    return (margin.figure, first, second, found.n, *ends, margin.margin, found.p, shown)


def _by_case(figure: str, scored: Sequence[Scored], sets: Sequence[ContourSet], arm: str) -> dict[str, float]:
    names = {one.name for one in sets if one.kind == RESULT and one.arm == arm}
    found: dict[str, list[float]] = {}
    for s in scored:
        value = float(getattr(s.score, figure))
        if s.first in names and s.second == REFERENCE and math.isfinite(value):
            found.setdefault(s.case, []).append(value)
    return {case: mean_of(values) for case, values in found.items()}


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
