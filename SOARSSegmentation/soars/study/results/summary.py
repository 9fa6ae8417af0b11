"""The whole analysis: a study's sessions in, tables, figures and one page out."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import combinations
from pathlib import Path
from typing import TYPE_CHECKING

from soars.dose.cases import CaseDose
from soars.dose.plots import plot_dvhs
from soars.errors import InputError
from soars.figures import save_figure
from soars.files import staged_folder
from soars.progress import Progress, Reporter, ignore
from soars.study.load import Opened, collect_study
from soars.study.results import contour_figures as contours
from soars.study.results import figures
from soars.study.results.agreement import (
    REFERENCE,
    Scored,
    agreement_table,
    agreement_tests,
    model_against_people,
    non_inferiority_table,
    score_against_reference,
    score_pairwise,
)
from soars.study.results.arms import (
    ArmComparison,
    compare_arms,
    comparison_table,
    effect_table,
    non_inferiority_of_minutes,
    unpaired_table,
)
from soars.study.results.consensus import score_against_consensus
from soars.study.results.doses import compare_doses, dose_table, dose_tests
from soars.study.results.effort import arms_of, effort_tables, main_rows, readings
from soars.study.results.minutes import minutes_table, threshold_table
from soars.study.results.page import write_page
from soars.study.results.prediction import prediction_table, predictors
from soars.study.results.readers import learning_table, reader_tables, repeat_table
from soars.study.results.sets import ContourSet, contour_sets
from soars.study.results.table import Table
from soars.study.rows import OrganRow, write_rows
from soars.study.sessions import Collection

if TYPE_CHECKING:
    from matplotlib.figure import Figure

PAGE = "report.html"
ROWS = "sessions.csv"
TABLES = "tables"
FIGURES = "figures"
OUTPUTS = (PAGE, ROWS, TABLES, FIGURES)
FOLDERS = (TABLES, FIGURES)
MOST_READERS_IN_PAIRS = 4
"""With more readers, their agreement is only in the tables: a figure for every pair would be too many."""
_DPI = 300


@dataclass(frozen=True)
class Contours:
    """All comparisons of contours and doses."""

    sets: Sequence[ContourSet]
    reference: Sequence[Scored]
    pairwise: Sequence[Scored]
    consensus: Sequence[Scored]
    doses: Sequence[CaseDose]


@dataclass(frozen=True)
class Analysis:
    """The results of a study: its sessions, the rows that count, comparisons of contours and of arms, and the
    tables."""

    opened: Opened
    collection: Collection
    rows: Sequence[OrganRow]
    contours: Contours
    comparisons: tuple[ArmComparison, ...]
    tables: tuple[Table, ...]

    def table(self, name: str) -> Table:
        """A table by its name; `InputError` when this study has none of it."""
        found = next((table for table in self.tables if table.name == name), None)
        if found is None:
            raise InputError(
                f"the study has no table {name}; it has {', '.join(t.name for t in self.tables)}"
            )
        return found


def analyse_study(
    opened: Opened,
    *,
    idle_s: float | None = None,
    contours: bool = True,
    processes: int = 1,
    progress: Reporter = ignore,
) -> Analysis:
    """Read and analyse a study; ``contours`` False leaves out what compares contours and doses and takes the longest.

    `InputError` when there is neither a finished main session nor contours to compare.
    """
    collection = collect_study(opened, idle_s=idle_s, processes=processes, progress=progress)
    rows = main_rows(collection.rows)
    sets = contour_sets(opened, collection) if contours else []
    if not rows and not sets:
        raise InputError("there is no finished session of the main phase yet: see `soars study status`")
    found = _compare(opened, sets, processes, progress)
    comparisons = _comparisons(rows)
    tables = [*_time_tables(rows, collection.rows, comparisons), *_contour_tables(opened, rows, found)]
    return Analysis(opened, collection, rows, found, tuple(comparisons), tuple(tables))


def write_analysis(
    analysis: Analysis, output: Path, *, overwrite: bool = False, progress: Reporter = ignore
) -> list[str]:
    """Write ``report.html``, ``sessions.csv``, ``tables/`` and ``figures/`` into ``output``, all or nothing; returns
    the figures' names. `InputError` when the output cannot be written."""
    with staged_folder(output, OUTPUTS, overwrite=overwrite, folders=FOLDERS) as folder:
        progress(Progress("write", 0, 1, "tables and figures"))
        (folder / TABLES).mkdir()
        for table in analysis.tables:
            table.write(folder / TABLES)
        write_rows(analysis.collection.rows, folder / ROWS)
        names = _write_figures(folder / FIGURES, analysis.rows, analysis.collection, analysis.contours)
        write_page(folder / PAGE, analysis, names, folder / FIGURES)
    return names


def _compare(opened: Opened, sets: Sequence[ContourSet], processes: int, progress: Reporter) -> Contours:
    options = {"processes": processes, "progress": progress}
    return Contours(
        sets,
        score_against_reference(opened, sets, **options),  # type: ignore[arg-type]
        score_pairwise(opened, sets, **options),  # type: ignore[arg-type]
        score_against_consensus(opened, sets, **options),  # type: ignore[arg-type]
        compare_doses(opened, sets, **options),  # type: ignore[arg-type]
    )


def _comparisons(rows: Sequence[OrganRow]) -> list[ArmComparison]:
    found = [compare_arms(rows, first, second) for first, second in combinations(arms_of(rows), 2)]
    return [one for one in found if one is not None]


def _time_tables(
    rows: Sequence[OrganRow], everything: Sequence[OrganRow], comparisons: Sequence[ArmComparison]
) -> list[Table]:
    if not rows:
        return []
    tables: list[Table | None] = [minutes_table(rows)]
    if comparisons:
        tables += [comparison_table(comparisons), effect_table(comparisons)]
    repeated = readings(everything)
    tables += [unpaired_table(rows), *effort_tables(rows), threshold_table(rows), *reader_tables(rows)]
    tables += [repeat_table(repeated), learning_table(rows)]
    return [table for table in tables if table is not None]


def _contour_tables(opened: Opened, rows: Sequence[OrganRow], found: Contours) -> list[Table]:
    tables: list[Table | None] = []
    if found.reference:
        tables.append(agreement_table(found.reference, "agreement", "Agreement with the reference"))
        tables.append(agreement_tests(found.reference, found.sets))
    if found.pairwise:
        tables.append(agreement_table(found.pairwise, "pairwise", "Agreement of people with each other"))
    if found.consensus:
        tables.append(
            agreement_table(found.consensus, "consensus", "Agreement with the consensus of the others")
        )
    margin = opened.plan.non_inferiority if opened.plan is not None else None
    tables.append(
        non_inferiority_table(
            margin, found.reference, found.sets, lambda a, b, m: non_inferiority_of_minutes(rows, a, b, m)
        )
    )
    if found.doses:
        tables += [dose_table(found.doses), dose_tests(found.doses)]
    tables.append(prediction_table(predictors(rows, found.reference, found.sets)))
    return [table for table in tables if table is not None]


def _write_figures(
    folder: Path, rows: Sequence[OrganRow], collection: Collection, found: Contours
) -> list[str]:
    folder.mkdir()
    makers = [*_time_figures(rows, collection), *_contour_figures(found)]
    names = []
    for name, make in makers:
        figure = make()
        if figure is None:
            continue
        for ending in (".png", ".svg"):
            save_figure(figure, folder / f"{name}{ending}", _DPI)
        names.append(name)
    if found.doses:
        for ending in (".png", ".svg"):
            plot_dvhs(found.doses[0], folder / f"dvh_{found.doses[0].case}{ending}")
        names.append(f"dvh_{found.doses[0].case}")
    return names


_Maker = tuple[str, Callable[[], "Figure | None"]]


def _time_figures(rows: Sequence[OrganRow], collection: Collection) -> list[_Maker]:
    if not rows:
        return []
    makers: list[_Maker] = []
    for arm in arms_of(rows):
        if any(row.arm == arm and row.category for row in rows):
            makers.append((f"effort_{arm}", lambda arm=arm: figures.revision_effort(rows, arm)))  # type: ignore[misc]
    makers.append(("minutes", lambda: figures.minutes_by_arm(rows)))
    for arm in arms_of(rows):
        makers.append((f"times_{arm}", lambda arm=arm: figures.times_by_organ(rows, arm)))  # type: ignore[misc]
        readers = sorted({row.reader for row in rows})
        for first, second in combinations(readers, 2) if len(readers) <= MOST_READERS_IN_PAIRS else ():
            makers.append(
                (
                    f"readers_{arm}_{first}_{second}",
                    lambda arm=arm, a=first, b=second: figures.reader_agreement(rows, arm, a, b),  # type: ignore[misc]
                )
            )
    makers.append(("thresholds", lambda: figures.threshold_sensitivity(rows)))
    makers.append(("learning", lambda: figures.learning(rows)))
    makers.append(("calendar", lambda: figures.calendar(collection.sessions)))
    return makers


def _contour_figures(found: Contours) -> list[_Maker]:
    makers: list[_Maker] = []
    if any(s.second == REFERENCE for s in found.reference):
        makers.append(("agreement", lambda: contours.agreement_by_set(found.reference)))
        differences = model_against_people(found.reference, found.sets)
        if differences:
            makers.append(("model_against_people", lambda: contours.model_against_people_figure(differences)))
    if found.doses:
        makers.append(("dose", lambda: contours.dose_scatter(found.doses)))
        makers.append(("accuracy_dose", lambda: contours.accuracy_against_dose(found.reference, found.doses)))
    return makers
