"""How many patients and readers a study needs: its own analysis, run on many simulated studies.

Minutes of a session are log-normal: the arm's mean, an effect of the patient and of the reader, one of the reader with
the arm (some gain more than others), and a rest. Every simulated study goes through `soars.study.results.arms`, as a
real one does.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, fields
from functools import partial
from typing import TYPE_CHECKING

import numpy as np

from soars.errors import InputError
from soars.figures import new_figure
from soars.parallel import in_processes
from soars.progress import Progress, Reporter, ignore
from soars.study.comparisons import share_interval
from soars.study.plan.model import TESTS
from soars.study.results.arms import primary_p
from soars.study.results.figures import COLOURS, SMALL, quiet
from soars.study.results.table import Table
from soars.study.rows import OrganRow

if TYPE_CHECKING:
    from matplotlib.figure import Figure

ALPHA = 0.05
NEW, OLD = "new", "old"


@dataclass(frozen=True)
class PowerOptions:
    """``saving`` is the share of time that the new arm saves against the old (0: none); ``case_sd``, ``reader_sd``,
    ``interaction_sd`` and ``rest_sd`` are standard deviations of log minutes: of patients, readers, readers'
    differences in gain, and between readings; ``repeats`` readings of every patient in every arm by every reader."""

    saving: float
    cases: tuple[int, ...] = (5, 10, 15, 20, 30)
    readers: int = 2
    repeats: int = 1
    case_sd: float = 0.2
    reader_sd: float = 0.2
    interaction_sd: float = 0.05
    rest_sd: float = 0.25
    test: str = "wilcoxon"
    simulations: int = 1000
    seed: int = 1

    def __post_init__(self) -> None:
        if not -1 < self.saving < 1:
            raise InputError("the saving is a share of the time, between -1 and 1: 0.2 for 20 %")
        if not self.cases or min(self.cases) < 2 or min(self.readers, self.repeats, self.simulations) < 1:
            raise InputError("a study has at least 2 patients, 1 reader and 1 reading")
        if min(self.case_sd, self.reader_sd, self.interaction_sd, self.rest_sd) < 0:
            raise InputError("standard deviations are 0 or more")
        if self.test not in TESTS:
            raise InputError(f"the test is one of {', '.join(TESTS)}")


@dataclass(frozen=True)
class Power:
    """Share of ``simulations`` studies with ``cases`` patients in which the test was significant at 5 %, with
    Wilson's 95 % interval."""

    cases: int
    power: float
    low: float
    high: float
    simulations: int


def power_of(options: PowerOptions, *, processes: int = 1, progress: Reporter = ignore) -> list[Power]:
    """The power for every number of patients."""
    found: dict[int, Power] = {}
    work = partial(_power, options=options)
    for done, (index, one) in enumerate(in_processes(work, options.cases, processes), start=1):
        found[index] = one
        progress(Progress("simulate", done, len(options.cases), f"{one.cases} patients"))
    return [found[index] for index in range(len(options.cases))]


def simulated_rows(options: PowerOptions, cases: int, rng: np.random.Generator) -> list[OrganRow]:
    """One study's sessions, a row each."""
    case_effect = rng.normal(0, options.case_sd, cases)
    reader_effect = rng.normal(0, options.reader_sd, options.readers)
    gain = rng.normal(0, options.interaction_sd, options.readers)
    rows = []
    for arm in (NEW, OLD):
        effect = math.log(1 - options.saving) if arm == NEW else 0.0
        rest = rng.normal(0, options.rest_sd, (options.readers, cases, options.repeats))
        for r in range(options.readers):
            for c in range(cases):
                own = effect + (gain[r] if arm == NEW else 0.0) + case_effect[c] + reader_effect[r]
                for n in range(options.repeats):
                    minutes = 30 * math.exp(own + rest[r, c, n])
                    rows.append(_row(f"R{r + 1}", f"case-{c + 1:03d}", arm, n + 1, minutes))
    return rows


def power_table(found: Sequence[Power], options: PowerOptions) -> Table:
    """One line a number of patients."""
    lines = tuple(
        (p.cases, options.readers, options.repeats, 100 * p.power, 100 * p.low, 100 * p.high) for p in found
    )
    note = (
        f"Share of {options.simulations} simulated studies in which {options.test} was significant at 5 %, for a "
        f"saving of {100 * options.saving:g} %."
    )
    columns = ("patients", "readers", "readings", "power %", "low %", "high %")
    return Table("power", "Power", columns, lines, note)


def power_figure(found: Sequence[Power], options: PowerOptions) -> Figure:
    """Power over the number of patients, with its interval; dotted: 80 and 90 %."""
    figure = new_figure(3.3, 2.6)
    axis = figure.subplots()
    cases = [p.cases for p in found]
    axis.plot(cases, [100 * p.power for p in found], "o-", color=COLOURS[0], markersize=4)
    axis.fill_between(
        cases,
        [100 * p.low for p in found],
        [100 * p.high for p in found],
        color=COLOURS[0],
        alpha=0.2,
        linewidth=0,
    )
    for line in (80, 90):
        axis.axhline(line, color="black", linewidth=0.6, linestyle=":")
    axis.set_ylim(0, 101)
    axis.set_xticks(cases)
    axis.set_xlabel("patients", fontsize=SMALL + 1)
    axis.set_ylabel("power (%)", fontsize=SMALL + 1)
    axis.set_title(
        f"saving {100 * options.saving:g} %, {options.readers} readers, {options.test}", fontsize=SMALL + 1
    )
    quiet(axis)
    return figure


def _power(cases: int, options: PowerOptions) -> Power:
    rng = np.random.default_rng([options.seed, cases])
    significant = sum(
        primary_p(simulated_rows(options, cases, rng), NEW, OLD, options.test) < ALPHA
        for _ in range(options.simulations)
    )
    low, high = share_interval(significant, options.simulations)
    return Power(cases, significant / options.simulations, low, high, options.simulations)


_EMPTY = {"str": "", "bool": True, "int": 0, "float": math.nan}


def _row(reader: str, case: str, arm: str, repeat: int, minutes: float) -> OrganRow:
    values: dict[str, object] = {field.name: _EMPTY[str(field.type)] for field in fields(OrganRow)}
    values.update(
        session=f"{case} {arm} {repeat}", reader=reader, case=case, arm=arm, repeat=repeat, phase="main", organ="all",
        from_scratch=False, active_s=60 * minutes,
    )  # fmt: skip
    return OrganRow(**values)  # type: ignore[arg-type]
