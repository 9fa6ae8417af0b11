"""Ranking several methods by significance scores, as the HaN-Seg challenge does.

For every figure, methods are compared two by two with Wilcoxon's test of matched pairs, one-sided, over all cases
and organs; a method's score is the number of methods that it is significantly better than (p values corrected
after Bonferroni, for all ordered pairs), and its rank follows from the score, equal scores sharing a rank. The final
order is that of the mean rank over the figures; where that is equal, a method comes first that is better by the mean
of every figure, and methods of which neither is share a rank, as the challenge's third place was shared. Source:
han-seg2023.grand-challenge.org (rules); Podobnik et al., Radiother Oncol 2024; the scores are those of Wiesenfarth
et al., Sci Rep 2021;11:2369.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import permutations
from pathlib import Path

import numpy as np

from soars.cells import write_table
from soars.errors import InputError
from soars.metrics.evaluate import CaseScores
from soars.metrics.rules import han_seg_rule
from soars.metrics.scores import COMPARED, MISSING
from soars.study.statistics import adjust, wilcoxon_matched_pairs

LARGER_IS_BETTER = {"dsc": True, "surface_dsc": True, "hd_mm": False, "hd95_mm": False, "asd_mm": False}

WHERE = {"case": "that", "organ": "any"}
"""`soars.metrics.rules.READINGS` in words."""


@dataclass(frozen=True)
class FigureRank:
    """A method's place by one figure: its mean, how many methods it is significantly better than, and the rank by
    that."""

    figure: str
    mean: float
    significance_score: int
    rank: int


@dataclass(frozen=True)
class MethodRank:
    """A method's place over all figures: ``rank`` by ``mean_rank``, and its places by each figure."""

    method: str
    rank: int
    mean_rank: float
    figures: tuple[FigureRank, ...]


def rank_methods(
    methods: Mapping[str, Sequence[CaseScores]],
    figures: Sequence[str] = ("dsc", "hd95_mm"),
    alpha: float = 0.05,
    correction: str = "bonferroni",
    reading: str = "case",
) -> list[MethodRank]:
    """Rank methods, best first, from the scores of each over the same cases.

    Missing organs count by `soars.metrics.rules.han_seg_rule`, read as ``reading`` says. Only organs that the
    reference has and on which every method was scored count; `InputError` when there are none, or fewer than two
    methods.

    ``alpha`` is compared with p values after ``correction`` (one of `soars.study.statistics.CORRECTIONS`), for the n
    (n - 1) ordered pairs. The challenge's paper names Bonferroni, but neither alpha, nor sides, nor the number of
    comparisons.
    """
    if len(methods) < 2:
        raise InputError("a ranking needs at least two methods")
    unknown = [figure for figure in figures if figure not in LARGER_IS_BETTER]
    if unknown:
        raise InputError(f"cannot rank by {', '.join(unknown)}; by {', '.join(LARGER_IS_BETTER)}")
    filled = han_seg_rule(methods, reading)
    places = {figure: _by_figure(filled, figure, alpha, correction) for figure in figures}
    found = []
    for method in methods:
        mine = tuple(places[figure][method] for figure in figures)
        found.append(MethodRank(method, 0, float(np.mean([f.rank for f in mine])), mine))

    def order(method: MethodRank) -> tuple[float, ...]:
        return (method.mean_rank, *_worse(method))

    found.sort(key=order)
    return [replace(m, rank=1 + sum(_precedes(other, m) for other in found)) for m in found]


def _worse(method: MethodRank) -> tuple[float, ...]:
    """The mean of each figure, turned so that less is better."""
    return tuple(-f.mean if LARGER_IS_BETTER[f.figure] else f.mean for f in method.figures)


def _precedes(one: MethodRank, other: MethodRank) -> bool:
    """Whether a method has a better mean rank, or the same and better means of all figures."""
    if one.mean_rank != other.mean_rank:
        return one.mean_rank < other.mean_rank
    mine, theirs = _worse(one), _worse(other)
    return mine != theirs and all(a <= b for a, b in zip(mine, theirs, strict=True))


def method_names(paths: Sequence[Path]) -> list[str]:
    """A name for each method from its file or folder; `InputError` when two of several would have the same."""
    names = [path.resolve().name for path in paths]
    if len(set(names)) < len(names):
        names = ["/".join(path.resolve().parts[-2:]) for path in paths]
    if len(set(names)) < len(names):
        raise InputError(f"two methods would have the same name ({', '.join(names)}); rename a folder")
    return names


def write_ranking(ranks: Sequence[MethodRank], path: Path) -> None:
    """CSV, a row per method and figure: method, rank, mean_rank, figure, mean, significance_score, figure_rank."""
    head = ("method", "rank", "mean_rank", "figure", "mean", "significance_score", "figure_rank")
    rows = [
        (m.method, m.rank, f"{m.mean_rank:g}", f.figure, f"{f.mean:.6g}", f.significance_score, f.rank)
        for m in ranks
        for f in m.figures
    ]
    write_table(path, head, rows)


def ranking_text(ranks: Sequence[MethodRank], reading: str = "case") -> str:
    """The ranking as a table for people, best first; ``reading`` as for `rank_methods`."""
    figures = [f.figure for f in ranks[0].figures]
    titles = [f"{name} {what}" for name in figures for what in ("mean", "better than", "rank")]
    rows = [["rank", "method", "mean rank", *titles]]
    for m in ranks:
        cells = [[f"{f.mean:.3f}", str(f.significance_score), str(f.rank)] for f in m.figures]
        rows.append([str(m.rank), m.method, f"{m.mean_rank:g}", *(cell for one in cells for cell in one)])
    widths = [max(len(row[column]) for row in rows) for column in range(len(rows[0]))]
    lines = [
        "  ".join(
            cell.ljust(w) if n == 1 else cell.rjust(w)
            for n, (cell, w) in enumerate(zip(row, widths, strict=True))
        )
        for row in rows
    ]
    lines.append("")
    lines.append(
        "Better than: so many methods, by Wilcoxon's matched pairs over all cases and organs, one-sided, 5 % after "
        f"Bonferroni. A missing organ has DSC 0 and the worst HD95 of that organ in {WHERE[reading]} case."
    )
    return "\n".join(line.rstrip() for line in lines)


def _by_figure(
    methods: Mapping[str, Sequence[CaseScores]], figure: str, alpha: float, correction: str
) -> dict[str, FigureRank]:
    values = {name: _values(cases, figure) for name, cases in methods.items()}
    common = sorted(set.intersection(*(set(found) for found in values.values())))
    if not common:
        raise InputError(f"the methods have no case and organ in common for {figure}")
    table = {name: [found[key] for key in common] for name, found in values.items()}
    better = "greater" if LARGER_IS_BETTER[figure] else "less"
    pairs = list(permutations(methods, 2))
    p = adjust([wilcoxon_matched_pairs(table[a], table[b], better).p for a, b in pairs], correction)
    score = dict.fromkeys(methods, 0)
    for (a, _), value in zip(pairs, p, strict=True):
        score[a] += value < alpha
    ranks = dict(zip(methods, _ranks([-score[name] for name in methods]), strict=True))
    return {
        name: FigureRank(figure, float(np.mean(table[name])), score[name], ranks[name]) for name in methods
    }


def _values(cases: Sequence[CaseScores], figure: str) -> dict[tuple[str, str], float]:
    return {
        (case.case, score.organ): getattr(score, figure)
        for case in cases
        for score in case.scores
        if score.state in (COMPARED, MISSING) and np.isfinite(getattr(score, figure))
    }


def _ranks(values: Sequence[float]) -> list[int]:
    """Ranks, 1 for the smallest; equal values share the best of their ranks."""
    return [1 + sum(other < value for other in values) for value in values]
