"""Tolerances of the surface DSC from several observers' contours of the same scans.

A surface DSC asks which share of a contour's surface lies within a tolerance of another's; the tolerance should be as
far as people who know the organ differ (Nikolov et al., J Med Internet Res 2021;23(7):e26151, from three oncologists).
The statistic is not in that article's text. Here it is the percentile, 95 by default, of the distances between the
surfaces of every two observers, both ways, over all cases, each element of surface weighing by its area.
"""

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from itertools import combinations
from pathlib import Path

import numpy as np
import numpy.typing as npt

from soars.catalogue import CATALOGUE, resolve
from soars.catalogue.table import partner
from soars.cells import HarmlessWriter
from soars.errors import InputError, UnknownOrganError
from soars.formats.sources import structure_source
from soars.metrics.cases import CasePair, cases_in, read_pair, shared_names
from soars.metrics.distances import surface_distances
from soars.parallel import in_processes
from soars.progress import Progress, Reporter, ignore

log = logging.getLogger(__name__)

Floats = npt.NDArray[np.float64]
COLUMNS = (
    "organ", "tolerance_mm", "source", "cases", "comparisons", "lowest_mm", "highest_mm", "catalogue_mm",
    "catalogue_source",
)  # fmt: skip


@dataclass(frozen=True)
class ObservedTolerance:
    """How far observers differ on an organ; the two sides of a paired organ are taken together, and each gets a row.

    Attributes:
        organ: catalogue name, or the observers' own where the catalogue does not have it.
        mm: the percentile over all surfaces.
        cases, comparisons: scans, and pairs of contours in them, that it is from.
        lowest_mm, highest_mm: the smallest and largest value of any case alone.
        catalogue_mm, catalogue_source: the catalogue's tolerance beside it; None and "" where it has none.
    """

    organ: str
    mm: float
    cases: int
    comparisons: int
    lowest_mm: float
    highest_mm: float
    catalogue_mm: float | None
    catalogue_source: str


@dataclass(frozen=True, eq=False)
class _Between:
    """Distances between two observers' surfaces of an organ, both ways, and the area of each element."""

    case: str
    organ: str
    mm: Floats
    area: Floats


def observed_tolerances(
    observers: Sequence[Path],
    organs: Sequence[str] | None = None,
    percent: float = 95.0,
    *,
    processes: int = 1,
    progress: Reporter = ignore,
) -> list[ObservedTolerance]:
    """Tolerances per organ from folders of cases, one an observer; or of one scan, from a file or folder of masks each.

    Cases are matched by name, and not every observer need have every case. An organ counts in a case where two
    observers drew it; ``organs`` are catalogue names, all when None. Raises `InputError` for fewer than two observers,
    an observer given twice, a percentile outside 0 to 100, or when no case or organ was drawn by two.
    """
    if len(observers) < 2:
        raise InputError("tolerances need the contours of two observers or more")
    if len({path.resolve() for path in observers}) < len(observers):
        raise InputError("an observer is given twice; contours do not differ from themselves")
    if not 0 < percent <= 100:
        raise InputError(f"the percentile must be above 0 and at most 100, not {percent:g}")
    pairs = _pairs(observers)
    found: list[_Between] = []
    progress(Progress("compare", 0, len(pairs)))
    work = partial(_compare, organs=None if organs is None else frozenset(organs))
    for done, (index, (between, warnings)) in enumerate(in_processes(work, pairs, processes), start=1):
        found += between
        for warning in warnings:
            log.warning("%s: %s", pairs[index].case, warning)
        progress(Progress("compare", done, len(pairs)))
    if not found:
        raise InputError("no organ was drawn by two observers in any case")
    by_organ: dict[str, list[_Between]] = {}
    for one in found:
        by_organ.setdefault(_both_sides(one.organ), []).append(one)
    rows = [_row(name, parts, percent) for parts in by_organ.values() for name in _names(parts)]
    order = list(CATALOGUE)
    return sorted(rows, key=lambda r: (order.index(r.organ) if r.organ in CATALOGUE else len(order), r.organ))


def reached(distances: Floats, area: Floats, percent: float) -> float:
    """The smallest of the distances within which that percentage of the area lies (not interpolated)."""
    order = np.argsort(distances, kind="stable")
    share = np.cumsum(area[order]) / area.sum()
    at = int(np.searchsorted(share, percent / 100 - 1e-12))
    return float(distances[order][min(at, len(order) - 1)])


def write_tolerances(rows: Sequence[ObservedTolerance], path: Path, observers: int, percent: float) -> None:
    """As CSV; `soars evaluate --tolerances` reads it."""
    source = f"{percent:g}th percentile of the distances between {observers} observers"
    with path.open("w", encoding="utf-8", newline="") as stream:
        writer = HarmlessWriter(stream)
        writer.writerow(COLUMNS)
        for r in rows:
            published = "" if r.catalogue_mm is None else f"{r.catalogue_mm:g}"
            writer.writerow(
                (r.organ, f"{r.mm:.4f}", source, r.cases, r.comparisons, f"{r.lowest_mm:.4f}", f"{r.highest_mm:.4f}",
                 published, r.catalogue_source)
            )  # fmt: skip


def tolerances_text(rows: Sequence[ObservedTolerance]) -> str:
    """The table for a terminal."""
    lines = [f"{'organ':<18}{'mm':>7}{'cases':>7}{'lowest':>9}{'highest':>9}{'catalogue':>11}"]
    for r in rows:
        published = "" if r.catalogue_mm is None else f"{r.catalogue_mm:.2f}"
        lines.append(
            f"{r.organ:<18}{r.mm:>7.2f}{r.cases:>7}{r.lowest_mm:>9.2f}{r.highest_mm:>9.2f}{published:>11}"
        )
    return "\n".join(lines)


def _pairs(observers: Sequence[Path]) -> list[CasePair]:
    """The contours of every two observers of the same case."""
    for path in observers:
        if not path.exists():
            raise InputError(f"there is no file or folder {path}")
    names = next((found for found in map(shared_names, observers) if found is not None), None)
    if all(structure_source(path, names) == path for path in observers):
        scan = observers[0].name
        return [CasePair(scan, a, b, names=names) for a, b in combinations(observers, 2)]
    cases = []
    for path in observers:
        if not path.is_dir():
            raise InputError(f"{path} is one case, but other observers are folders of cases")
        cases.append(cases_in(path, names))
    drawn = Counter(case for found in cases for case in found)
    alone = sorted(case for case, count in drawn.items() if count == 1)
    if len(alone) == len(drawn):
        listed = ", ".join(alone[:6]) + (" ..." if len(alone) > 6 else "")
        raise InputError(f"no case has the same name in two observers' folders ({listed})")
    if alone:
        log.warning("only one observer has these cases, left out: %s", ", ".join(alone))
    return [
        CasePair(case, a[case], b[case], names=names)
        for a, b in combinations(cases, 2)
        for case in sorted(set(a) & set(b))
    ]


def _compare(pair: CasePair, organs: frozenset[str] | None) -> tuple[list[_Between], tuple[str, ...]]:
    first, second = read_pair(pair)
    z, y, x = first.geometry.spacing[::-1]
    found = []
    for organ in first.names:
        if organ not in second or (organs is not None and organ not in organs):
            continue
        mine, theirs = first.crop(organ), second.crop(organ)
        if mine.is_empty or theirs.is_empty:
            continue
        d = surface_distances(mine, theirs, (z, y, x))
        mm = np.concatenate((d.to_reference_mm, d.to_prediction_mm))
        area = np.concatenate((d.weight_of_prediction, d.weight_of_reference))
        found.append(_Between(pair.case, organ, mm, area))
    return found, (*first.warnings, *second.warnings)


def _row(organ: str, parts: Sequence[_Between], percent: float) -> ObservedTolerance:
    cases = sorted({p.case for p in parts})
    alone = [_pooled([p for p in parts if p.case == case], percent) for case in cases]
    known = CATALOGUE.get(organ)
    unsure = "" if known is None or known.tolerance_verified else " (not verified)"
    has = known is not None and known.tolerance_mm is not None
    return ObservedTolerance(
        organ,
        _pooled(parts, percent),
        len(cases),
        len(parts),
        min(alone),
        max(alone),
        known.tolerance_mm if known is not None else None,
        f"{known.tolerance_source}{unsure}" if has and known is not None else "",
    )


def _pooled(parts: Sequence[_Between], percent: float) -> float:
    return reached(np.concatenate([p.mm for p in parts]), np.concatenate([p.area for p in parts]), percent)


def _names(parts: Sequence[_Between]) -> Iterator[str]:
    yield from sorted({p.organ for p in parts})


def _both_sides(organ: str) -> str:
    """One name for an organ and its mirror image."""
    try:
        name = resolve(organ).name
    except UnknownOrganError:
        return organ
    other = partner(name)
    return name if other is None else min(name, other)
