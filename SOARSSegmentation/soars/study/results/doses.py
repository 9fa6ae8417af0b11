"""Dose differences of contour sets against the reference's: equations 6 and 7 of Ye et al. 2022, as computed by `soars
dose`."""

from __future__ import annotations

import logging
import math
from collections.abc import Sequence
from dataclasses import replace
from itertools import combinations

from soars.dose.cases import CaseDose, DoseCase, DoseOptions, compare_cases
from soars.dose.compare import NOTED_PERCENT, DoseDifference
from soars.progress import Reporter, ignore
from soars.study.load import Opened
from soars.study.published import DOSE_OVER_10_PERCENT_2022, DOSE_OVER_30_PERCENT_2022
from soars.study.results.sets import ContourSet, cts, pairs_of, references
from soars.study.results.table import Table, in_catalogue_order, mean_of, spread
from soars.study.statistics import adjust, wilcoxon_matched_pairs

log = logging.getLogger(__name__)

NAN = float("nan")


def compare_doses(
    opened: Opened, sets: Sequence[ContourSet], *, processes: int = 1, progress: Reporter = ignore
) -> list[CaseDose]:
    """The doses of every case that has a dose and reference contours, with every set that drew it. What is odd about
    them is in their ``warnings``, and in the log."""
    known, plan = references(opened), opened.plan
    work = []
    for case in plan.main_cases if plan is not None else ():
        if case.dose is None or case.name not in known:
            continue
        pairs = tuple(
            (one.name, pair)
            for one in sets
            for pair in pairs_of(one, known, cts(opened))
            if pair.case == case.name
        )
        if pairs:
            work.append(DoseCase(case.name, case.dose, pairs))
    if not work or plan is None:
        return []
    by_name = {one.name: one for one in sets}
    found = compare_cases(work, DoseOptions(plan.organs), processes=processes, progress=progress)
    for one in found:
        for warning in one.warnings:
            log.warning("%s: %s", one.case, warning)
    return [
        replace(
            case,
            differences=tuple(d for d in case.differences if by_name[d.substitute].asked_for(d.organ)),
        )
        for case in found
    ]


def dose_table(cases: Sequence[CaseDose]) -> Table:
    """Per set and organ: mean and standard deviation of the absolute differences in percent, how many organs exceed the
    noted limits, and the signed mean."""
    lines: list[tuple[object, ...]] = []
    found = [d for case in cases for d in case.differences]
    for name in dict.fromkeys(d.substitute for d in found):
        mine = [d for d in found if d.substitute == name]
        for organ in [*in_catalogue_order(d.organ for d in mine), "all"]:
            lines.append(_dose_line(name, organ, [d for d in mine if organ in (d.organ, "all")]))
    over = [f"mean over {limit:g} %" for limit in NOTED_PERCENT] + [
        f"max over {limit:g} %" for limit in NOTED_PERCENT
    ]
    columns = (
        "set",
        "organ",
        "n",
        "missing",
        "|mean| %",
        "sd |mean| %",
        "|max| %",
        "sd |max| %",
        "mean %",
        "max %",
        *over,
    )
    published = tuple(
        (
            f"{who} (Ye et al. 2022)",
            "13 OARs",
            n,
            NAN,
            *[NAN] * 6,
            ten,
            DOSE_OVER_30_PERCENT_2022[who][0],
            NAN,
            NAN,
        )
        for who, (ten, n) in DOSE_OVER_10_PERCENT_2022.items()
    )
    note = (
        "Difference of the organ's mean (equation 6) and maximum dose (equation 7) in percent of the reference "
        "contour's; the dose stays as planned. Organs without dose in the reference contour are left out."
    )
    return Table("dose", "Dose differences", columns, tuple(lines), note, published)


def _dose_line(name: str, organ: str, found: Sequence[DoseDifference]) -> tuple[object, ...]:
    mean = [d.mean_percent for d in found if math.isfinite(d.mean_percent)]
    most = [d.max_percent for d in found if math.isfinite(d.max_percent)]
    absolute = [spread(abs(v) for v in values) for values in (mean, most)]
    over = [sum(abs(v) > limit for v in values) for values in (mean, most) for limit in NOTED_PERCENT]
    figures = (
        absolute[0].mean,
        absolute[0].sd,
        absolute[1].mean,
        absolute[1].sd,
        mean_of(mean),
        mean_of(most),
    )
    return (name, organ, len(mean), sum(d.state == "missing" for d in found), *figures, *over)


def dose_tests(cases: Sequence[CaseDose]) -> Table:
    """Sets compared two by two in their absolute dose differences, over cases and organs: Wilcoxon's matched pairs."""
    found = {
        (d.substitute, case.case, d.organ): d
        for case in cases
        for d in case.differences
        if math.isfinite(d.mean_percent)
    }
    names = list(dict.fromkeys(name for name, _, _ in found))
    lines: list[tuple[object, ...]] = []
    for title, field in (("mean", "mean_percent"), ("max", "max_percent")):
        new = []
        for first, second in combinations(names, 2):
            keys = [(c, o) for (n, c, o) in found if n == first and (second, c, o) in found]
            a, b = ([abs(float(getattr(found[(n, *k)], field))) for k in keys] for n in (first, second))
            if len(keys) >= 2:
                new.append(
                    (title, first, second, len(keys), mean_of(a), mean_of(b), wilcoxon_matched_pairs(a, b).p)
                )
        holm = adjust([line[-1] for line in new])
        lines += [(*line, p) for line, p in zip(new, holm, strict=True)]
    columns = ("dose", "set", "against", "n", "|%|", "against |%|", "p", "p Holm")
    return Table(
        "dose_tests",
        "Dose differences compared",
        columns,
        tuple(lines),
        "Wilcoxon's matched pairs, two-sided.",
    )
