"""A table of results: shown in the report and written as CSV."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from soars.catalogue import CATALOGUE, STRATA
from soars.study.rows import write_table


@dataclass(frozen=True)
class Table:
    """``name`` is the file's, ``title`` and ``note`` are shown to people, ``published`` are the papers' rows to show
    beside ours, with the same columns."""

    name: str
    title: str
    columns: tuple[str, ...]
    rows: tuple[tuple[object, ...], ...]
    note: str = ""
    published: tuple[tuple[object, ...], ...] = ()

    def write(self, folder: Path) -> Path:
        """As ``NAME.csv`` into a folder."""
        path = folder / f"{self.name}.csv"
        write_table(path, self.columns, self.rows)
        return path

    def column(self, name: str) -> list[object]:
        """The values of a column, in the rows' order."""
        index = self.columns.index(name)
        return [row[index] for row in self.rows]


@dataclass(frozen=True)
class Spread:
    """Of finite values: how many, mean, standard deviation, median and quartiles; nan of none."""

    n: int
    mean: float
    sd: float
    median: float
    low: float
    high: float


def spread(values: Iterable[float]) -> Spread:
    """Values that are not finite count in none of the figures; ``n`` says how many were."""
    data = np.array([v for v in values if math.isfinite(v)], dtype=np.float64)
    if not len(data):
        nan = float("nan")
        return Spread(0, nan, nan, nan, nan, nan)
    sd = float(data.std(ddof=1)) if len(data) > 1 else float("nan")
    low, median, high = (float(v) for v in np.percentile(data, (25, 50, 75)))
    return Spread(len(data), float(data.mean()), sd, median, low, high)


def mean_of(values: Iterable[float]) -> float:
    """Mean of the finite values; nan of none."""
    return spread(values).mean


def in_catalogue_order(organs: Iterable[str]) -> list[str]:
    order = {name: place for place, name in enumerate(CATALOGUE)}
    return sorted(dict.fromkeys(organs), key=lambda name: (order.get(name, len(order)), name))


def strata_of(organs: Sequence[str]) -> list[tuple[str, list[str]]]:
    """The strata that these organs are of, in order, each with its organs."""
    out: list[tuple[str, list[str]]] = []
    for stratum in STRATA:
        own = [o for o in in_catalogue_order(organs) if o in CATALOGUE and CATALOGUE[o].stratum == stratum]
        if own:
            out.append((stratum, own))
    return out
