"""What `phantom_cohort.py` makes of the scores of a bundle."""

from __future__ import annotations

import csv
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from soars.catalogue import CATALOGUE, SOARS42


@dataclass(frozen=True)
class Figures:
    """The rows of `soars-train evaluate` for one bundle."""

    rows: list[dict[str, str]]

    @staticmethod
    def read(folder: Path) -> Figures:
        """All tables of a folder."""
        rows = []
        for path in sorted(folder.glob("*.csv")):
            with path.open(newline="", encoding="utf-8") as stream:
                rows += list(csv.DictReader(stream))
        return Figures(rows)

    def of(self, organ: str) -> float:
        return float(np.nanmean([float(r["dsc"]) for r in self.rows if r["organ"] == organ] or [np.nan]))

    def mean(self, organs: Sequence[str]) -> float:
        """Over the organs that the bundle has."""
        return float(np.nanmean([self.of(o) for o in organs]))

    def centre_error(self) -> float:
        """Mean over the heat maps."""
        errors: dict[str, list[float]] = {}
        for row in self.rows:
            errors.setdefault(CATALOGUE[row["organ"]].detection_group, []).append(
                float(row["centre_error_mm"])
            )
        means = [np.nanmean(found) for group, found in errors.items() if group and np.isfinite(found).any()]
        return float(np.mean(means))

    def line(self, what: str) -> str:
        there = [o for o in SOARS42 if any(r["organ"] == o for r in self.rows)]
        parts = [f"mean {self.mean(there):.3f} ({len(there)} organs)"]
        for stratum in ("anchor", "mid_level", "small_hard"):
            organs = [o for o in there if CATALOGUE[o].stratum == stratum]
            parts += [f"{stratum.replace('_', ' ')} {self.mean(organs):.3f}"] if organs else []
        return f"- {what}: {', '.join(parts)}"
