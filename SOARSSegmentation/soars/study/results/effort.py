"""Revision effort per organ, stratum, reader and case: categories, times, amounts of edit, judgements."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence

from soars.catalogue import STRATUM_TITLES
from soars.effort.records import SCORES
from soars.effort.timing import CATEGORIES
from soars.study.comparisons import share_interval
from soars.study.published import CATEGORIES_2022
from soars.study.results.table import (
    Table,
    in_catalogue_order,
    mean_of,
    spread,
    strata_of,
)
from soars.study.rows import OrganRow

_AMOUNTS = (
    ("edited cc", "edited_cc"),
    ("DSC", "edit_dsc"),
    ("HD mm", "edit_hd_mm"),
    ("HD95 mm", "edit_hd95_mm"),
    ("ASD mm", "edit_asd_mm"),
    ("surface DSC", "edit_surface_dsc"),
    ("APL mm", "edit_apl_mm"),
)


def main_rows(rows: Iterable[OrganRow]) -> list[OrganRow]:
    """The rows that are analysed: finished first readings of the main phase."""
    return [row for row in readings(rows) if row.repeat == 1]


def readings(rows: Iterable[OrganRow]) -> list[OrganRow]:
    """Finished readings of the main phase, the first and any further ones."""
    return [row for row in rows if row.phase == "main" and row.finished and row.is_reading]


def arms_of(rows: Iterable[OrganRow]) -> list[str]:
    """The arms, those with a proposal first."""
    found = {row.arm: row.from_scratch for row in rows}
    return sorted(found, key=lambda arm: (found[arm], arm))


def effort_tables(rows: Sequence[OrganRow]) -> list[Table]:
    """All of this module's tables, over the rows given."""
    tables = [
        category_table(rows),
        by_table("categories_by_reader", "Categories of revision by reader", "reader", rows),
        by_table("categories_by_case", "Categories of revision by patient", "case", rows),
        time_table(rows),
        amount_table(rows),
    ]
    if any(row.score for row in rows) or any(row.reason for row in rows):
        tables.append(score_table(rows))
    return tables


def category_counts(rows: Iterable[OrganRow]) -> Counter[str]:
    """How many organs of each category; those without one (from scratch, never compared) count nowhere."""
    return Counter(row.category for row in rows if row.category)


def category_table(rows: Sequence[OrganRow]) -> Table:
    """Counts and shares per arm, for every organ, stratum and all (000, figure 4)."""
    lines: list[tuple[object, ...]] = []
    for arm in arms_of(rows):
        mine = [row for row in rows if row.arm == arm and row.category]
        if not mine:
            continue
        for stratum, organs in strata_of([row.organ for row in mine]):
            lines += [_counted(arm, o, stratum, [r for r in mine if r.organ == o]) for o in organs]
            own = [row for row in mine if row.organ in organs]
            lines.append(_counted(arm, f"all {STRATUM_TITLES[stratum]}", stratum, own))
        lines.append(_counted(arm, "all", "", mine))
    published = [
        ("Ye et al. 2022", "all", "", 1260, *_shares(Counter(CATEGORIES_2022), 1260)),
    ]
    return Table(
        "categories",
        "Categories of revision by organ",
        ("arm", "organ", "stratum", "n", *_category_columns()),
        tuple(lines),
        "None: no voxel differs from the proposal; minor: less than 60 s of active time; moderate: 60 to 180 s; major: "
        "more than 180 s. The interval is Wilson's, 95 %, of none and minor together.",
        tuple(published),
    )


def by_table(name: str, title: str, field: str, rows: Sequence[OrganRow]) -> Table:
    """Counts and shares by a field of the rows, per arm."""
    lines = []
    for arm in arms_of(rows):
        mine = [row for row in rows if row.arm == arm and row.category]
        for value in sorted({str(getattr(row, field)) for row in mine}):
            own = [row for row in mine if str(getattr(row, field)) == value]
            lines.append((arm, value, len(own), *_shares(category_counts(own), len(own))))
    return Table(name, title, ("arm", field, "n", *_category_columns()), tuple(lines))


def time_table(rows: Sequence[OrganRow]) -> Table:
    """Active and wall seconds per arm and organ, stratum and all."""
    lines: list[tuple[object, ...]] = []
    for arm in arms_of(rows):
        mine = [row for row in rows if row.arm == arm]
        for stratum, organs in strata_of([row.organ for row in mine]):
            lines += [_timed(arm, o, stratum, [r for r in mine if r.organ == o]) for o in organs]
            own = [row for row in mine if row.organ in organs]
            lines.append(_timed(arm, f"all {STRATUM_TITLES[stratum]}", stratum, own))
        lines.append(_timed(arm, "all", "", mine))
    columns = (
        "arm",
        "organ",
        "stratum",
        "n",
        "mean s",
        "sd s",
        "median s",
        "q1 s",
        "q3 s",
        "mean wall s",
        "edits",
    )
    return Table("times", "Active time by organ", columns, tuple(lines), "Seconds per organ and session.")


def amount_table(rows: Sequence[OrganRow]) -> Table:
    """How much was edited: means over the organs that were revised at all, proposal against result."""
    lines: list[tuple[object, ...]] = []
    for arm in arms_of(rows):
        mine = [row for row in rows if row.arm == arm and row.category]
        for organ in [*in_catalogue_order(row.organ for row in mine), "all"] if mine else []:
            own = [row for row in mine if organ in (row.organ, "all")]
            revised = [row for row in own if row.category != "none"]
            amounts = [mean_of(getattr(row, field) for row in revised) for _, field in _AMOUNTS]
            lines.append((arm, organ, len(own), len(revised), *amounts))
    return Table(
        "amount_of_edit",
        "Amount of edit by organ",
        ("arm", "organ", "n", "revised", *(title for title, _ in _AMOUNTS)),
        tuple(lines),
        "Means over the revised organs of the difference between proposal and result. Distances by the definition of "
        "google-deepmind/surface-distance; infinite ones (an organ added or removed as a whole) are left out.",
    )


def score_table(rows: Sequence[OrganRow]) -> Table:
    """The readers' judgements of the contours."""
    lines = []
    for arm in arms_of(rows):
        mine = [row for row in rows if row.arm == arm]
        for organ in [*in_catalogue_order(row.organ for row in mine), "all"]:
            own = [row for row in mine if organ in (row.organ, "all")]
            counts = Counter(row.score for row in own)
            scored = [float(row.score) for row in own if row.score]
            cannot = sum(bool(row.reason) for row in own)
            values = spread(scored)
            lines.append(
                (
                    arm,
                    organ,
                    values.n,
                    *(counts[score] for score in SCORES),
                    values.mean,
                    values.median,
                    cannot,
                )
            )
    columns = ("arm", "organ", "n", *(str(score) for score in SCORES), "mean", "median", "cannot judge")
    note = (
        "1 unusable, 2 major corrections, 3 minor corrections that matter, 4 minor corrections of style, "
        "5 use as it is."
    )
    return Table("scores", "Acceptability", columns, tuple(lines), note)


def _category_columns() -> tuple[str, ...]:
    return (*CATEGORIES, *(f"{name} %" for name in CATEGORIES), "none or minor %", "low %", "high %")


def _shares(counts: Counter[str], n: int) -> tuple[object, ...]:
    little = counts["none"] + counts["minor"]
    low, high = share_interval(little, n)
    shares = tuple(100 * counts[name] / n if n else float("nan") for name in CATEGORIES)
    together = 100 * little / n if n else float("nan")
    return (*(counts[name] for name in CATEGORIES), *shares, together, 100 * low, 100 * high)


def _counted(arm: str, organ: str, stratum: str, rows: Sequence[OrganRow]) -> tuple[object, ...]:
    return (arm, organ, stratum, len(rows), *_shares(category_counts(rows), len(rows)))


def _timed(arm: str, organ: str, stratum: str, rows: Sequence[OrganRow]) -> tuple[object, ...]:
    s = spread(row.active_s for row in rows)
    wall, edits = mean_of(row.wall_s for row in rows), mean_of(float(row.edits) for row in rows)
    return (arm, organ, stratum, s.n, s.mean, s.sd, s.median, s.low, s.high, wall, edits)
