"""Readers compared: with each other, with themselves on a second reading, and over the course of the study."""

from __future__ import annotations

import math
from collections.abc import Sequence
from itertools import combinations

import numpy as np

from soars.study.comparisons import bland_altman
from soars.study.mixed import MixedFit
from soars.study.results.effort import arms_of
from soars.study.results.minutes import SessionTime, log_minutes_model, session_times
from soars.study.results.table import Table
from soars.study.rows import OrganRow
from soars.study.statistics import adjust, icc

AGREEMENT_COLUMNS = (
    "what",
    "first",
    "second",
    "arm",
    "n",
    "ICC(A,1)",
    "low",
    "high",
    "bias min",
    "lower min",
    "upper min",
)
"""Columns of tables that compare two sets of times."""


def reader_model(times: Sequence[SessionTime]) -> MixedFit | None:
    """log minutes by reader and arm (fixed), case random: do these readers differ?"""
    fixed: dict[str, list[object]] = {"reader": [s.reader for s in times]}
    if len({s.arm for s in times}) > 1:
        fixed["arm"] = [s.arm for s in times]
    return log_minutes_model(times, fixed, ("case",))


def learning_model(times: Sequence[SessionTime]) -> MixedFit | None:
    """log minutes by the session's number in the worklist, arm as well; reader and case random."""
    fixed: dict[str, list[object]] = {"sequence": [float(s.sequence) for s in times]}
    if len({s.arm for s in times}) > 1:
        fixed["arm"] = [s.arm for s in times]
    return log_minutes_model(times, fixed, ("reader", "case"))


def reader_tables(rows: Sequence[OrganRow]) -> list[Table]:
    """How readers differ: the mixed model's coefficients, and agreement of their times on common patients."""
    model = reader_model(session_times(rows)) if _same_organs(rows) else None
    tables = []
    if model is not None and model.converged:
        effects = [one for one in model.fixed if one.name.startswith("reader: ")]
        holm = adjust([one.p for one in effects])
        lines = [
            (one.name[8:], model.n, *(math.exp(v) for v in (one.value, one.low, one.high)), one.p, corrected)
            for one, corrected in zip(effects, holm, strict=True)
        ]
        reference = min(row.reader for row in rows)
        tables.append(
            Table(
                "readers",
                f"Readers against {reference}",
                ("reader", "n", "time ratio", "low", "high", "p", "p Holm"),
                tuple(lines),
                "Mixed model of log minutes: reader and arm fixed, case random, REML, t test.",
            )
        )
    agreement = _agreement_lines(rows)
    if agreement:
        note = "Minutes per session on common patients: ICC of absolute agreement, Bland-Altman bias and limits (95 %)."
        tables.append(
            Table(
                "reader_agreement", "Agreement of readers' times", AGREEMENT_COLUMNS, tuple(agreement), note
            )
        )
    return tables


def _same_organs(rows: Sequence[OrganRow]) -> bool:
    """Readers' times can be compared only where they read the same organs."""
    return (
        len({frozenset(row.organ for row in rows if row.reader == r) for r in {row.reader for row in rows}})
        == 1
    )


def _agreement_lines(rows: Sequence[OrganRow]) -> list[tuple[object, ...]]:
    lines = []
    times = session_times([row for row in rows if row.repeat == 1])
    readers = sorted({s.reader for s in times}) if _same_organs(rows) else []
    for arm in arms_of(rows):
        for first, second in combinations(readers, 2):
            a, b = (
                {s.case: s.minutes for s in times if s.reader == r and s.arm == arm} for r in (first, second)
            )
            lines += _agree("between readers", first, second, arm, a, b)
    return lines


def repeat_table(rows: Sequence[OrganRow]) -> Table | None:
    """Intra-reader variation: first against second reading of the same patient in the same arm."""
    times, lines = session_times(rows), []
    for arm in arms_of(rows):
        for reader in sorted({s.reader for s in times}):
            a, b = (
                {s.case: s.minutes for s in times if (s.reader, s.arm, s.repeat) == (reader, arm, n)}
                for n in (1, 2)
            )
            lines += _agree("within a reader", f"{reader}, first", f"{reader}, second", arm, a, b)
    if not lines:
        return None
    return Table("repeats", "Intra-reader variation of times", AGREEMENT_COLUMNS, tuple(lines))


def _agree(
    what: str, first: str, second: str, arm: str, a: dict[str, float], b: dict[str, float]
) -> list[tuple[object, ...]]:
    common = sorted(set(a) & set(b))
    if len(common) < 3:
        return []
    x, y = [a[case] for case in common], [b[case] for case in common]
    found, limits = icc(np.stack([x, y], axis=1)), bland_altman(x, y)
    return [
        (
            what, first, second, arm, len(common), found.value, found.low, found.high, limits.bias.value,
            limits.lower.value, limits.upper.value,
        )
    ]  # fmt: skip


def learning_table(rows: Sequence[OrganRow]) -> Table | None:
    """Change of time per session of the worklist; None where no model can be fitted."""
    model = learning_model(session_times(rows))
    if model is None or not model.converged:
        return None
    one = model.effect("sequence")
    value, low, high = (100 * (math.exp(v) - 1) for v in (one.value, one.low, one.high))
    note = "Mixed model of log minutes: number in the worklist and arm fixed, reader and case random, REML, t test."
    columns = ("sessions", "change % a session", "low %", "high %", "p")
    return Table(
        "learning", "Learning over the sessions", columns, ((model.n, value, low, high, one.p),), note
    )
