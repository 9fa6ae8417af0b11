"""Who reads which case, in which arm, in which order: seeded, balanced and reproducible.

Training cases come first. The main sessions then run in *periods*: a reader sees each case at most once a period, and
between two sessions on one case lie the study's wash-out days. Within a period the cases come in random order.

**Latin square.** The arms, in a random order, make the rows of a cyclic square; reader *r* reads the *c*-th case (in
random order) in the order of row r + c. Every reader reads each arm equally often in each period, and over the readers
every case is read in each arm equally often in each period (each as nearly as the numbers allow).

**Minimisation** (Pocock and Simon, Biometrics 1975;31:103-115) for arms with subsets of the cases, where a square
cannot be balanced: pairs of reader and case are taken in random order, and each gets that order of its arms that makes
the counts of arm by period, over all, for the reader and for the case, most even; chance decides among equals.
"""

from __future__ import annotations

import zlib
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import permutations

import numpy as np

from soars.study.plan.model import Plan

_Order = tuple[str, ...]


@dataclass(frozen=True)
class Assignment:
    """One session to come: ``number`` in the reader's worklist from 1; ``repeat`` 1 is the first reading of this
    case in this arm; ``period`` 0 is training."""

    reader: str
    number: int
    case: str
    arm: str
    phase: str
    repeat: int
    period: int


def assign(plan: Plan) -> dict[str, tuple[Assignment, ...]]:
    """Every reader's sessions in their order."""
    subsets = _subsets(plan)
    orders = _orders(plan, subsets)
    repeated = set(_drawn(plan, "repeats", plan.repeat_cases))
    found = {}
    for reader in plan.readers:
        sessions = _training(plan, reader.name)
        mine = {case: order for (name, case), order in orders.items() if name == reader.name}
        periods = max((len(order) for order in mine.values()), default=0)
        for period in range(periods):
            sessions += _period(plan, reader.name, period + 1, _arms_at(mine, period))
        again = {case: [a for a in mine[case] if a in plan.repeat_arms] for case in repeated}
        for more in range(max((len(arms) for arms in again.values()), default=0)):
            now = {case: arms[more] for case, arms in again.items() if more < len(arms)}
            sessions += _period(plan, reader.name, periods + more + 1, now, repeat=2)
        found[reader.name] = tuple(replace(s, number=n) for n, s in enumerate(sessions, start=1))
    return found


def imbalance(orders: Sequence[Assignment]) -> int:
    """The largest difference, over readers and periods, between how often two arms are read; of main sessions."""
    counts = Counter((a.reader, a.period, a.arm) for a in orders if a.phase == "main" and a.repeat == 1)
    arms = {arm for _, _, arm in counts}
    places = {(reader, period) for reader, period, _ in counts}
    spread = [[counts[(*place, arm)] for arm in arms] for place in places]
    return max((max(row) - min(row) for row in spread), default=0)


def random_of(plan: Plan, *purpose: str) -> np.random.Generator:
    """Random numbers for one purpose, independent of what else is drawn."""
    return np.random.default_rng([plan.seed, *(zlib.crc32(word.encode()) for word in purpose)])


def _drawn(plan: Plan, purpose: str, count: int) -> tuple[str, ...]:
    names = [case.name for case in plan.main_cases]
    chosen = random_of(plan, "subset", purpose).permutation(len(names))[:count]
    return tuple(names[i] for i in sorted(chosen))


def _subsets(plan: Plan) -> dict[str, frozenset[str]]:
    """The cases of each arm; the same for every reader, so that readers are compared on common patients."""
    everything = [case.name for case in plan.main_cases]
    return {
        arm.name: frozenset(everything if arm.cases is None else _drawn(plan, arm.name, arm.cases))
        for arm in plan.arms
    }


def _orders(plan: Plan, subsets: dict[str, frozenset[str]]) -> dict[tuple[str, str], _Order]:
    """(reader, case) -> its arms, first period first."""
    rng = random_of(plan, "orders")
    arms = [plan.arms[i].name for i in rng.permutation(len(plan.arms))]
    cases = [plan.main_cases[i].name for i in rng.permutation(len(plan.main_cases))]
    readers = [reader.name for reader in plan.readers]
    if plan.balance == "latin square":
        orders = {}
        for r, reader in enumerate(readers):
            for c, case in enumerate(cases):
                row = [arms[(r + c + k) % len(arms)] for k in range(len(arms))]
                orders[reader, case] = tuple(arm for arm in row if case in subsets[arm])
        if plan.assignment == "one arm":
            orders = {key: order[:1] for key, order in orders.items()}
        return orders
    return _minimised(plan, subsets, [(r, c) for r in readers for c in cases])


def _minimised(
    plan: Plan, subsets: dict[str, frozenset[str]], pairs: list[tuple[str, str]]
) -> dict[tuple[str, str], _Order]:
    rng = random_of(plan, "minimisation")
    counts: Counter[tuple[str, str, str, int]] = Counter()
    orders = {}
    for index in rng.permutation(len(pairs)):
        reader, case = pairs[index]
        possible = [arm.name for arm in plan.arms if case in subsets[arm.name]]
        length = 1 if plan.assignment == "one arm" else len(possible)
        choices = list(permutations(possible, min(length, len(possible))))
        costs = [_cost(counts, reader, case, order) for order in choices]
        best = [order for order, cost in zip(choices, costs, strict=True) if cost == min(costs)]
        order = best[int(rng.integers(len(best)))]
        orders[reader, case] = order
        for place, arm in enumerate(order):
            for factor, value in (("all", ""), ("reader", reader), ("case", case)):
                counts[factor, value, arm, place] += 1
    return orders


def _cost(counts: Counter[tuple[str, str, str, int]], reader: str, case: str, order: _Order) -> int:
    """How often these arms already have these places, overall, for the reader and for the case."""
    factors = (("all", ""), ("reader", reader), ("case", case))
    return sum(
        counts[factor, value, arm, place] for place, arm in enumerate(order) for factor, value in factors
    )


def _training(plan: Plan, reader: str) -> list[Assignment]:
    arms = [plan.arms[i].name for i in random_of(plan, "training", reader).permutation(len(plan.arms))]
    return [
        Assignment(reader, 0, case.name, arms[i % len(arms)], "training", 1, 0)
        for i, case in enumerate(plan.training_cases)
    ]


def _arms_at(orders: dict[str, _Order], period: int) -> dict[str, str]:
    return {case: order[period] for case, order in orders.items() if period < len(order)}


def _period(plan: Plan, reader: str, period: int, arms: dict[str, str], repeat: int = 1) -> list[Assignment]:
    cases = sorted(arms)
    shuffled = random_of(plan, "sequence", reader, str(period)).permutation(len(cases))
    return [Assignment(reader, 0, cases[i], arms[cases[i]], "main", repeat, period) for i in shuffled]
