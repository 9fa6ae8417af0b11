"""Dose constraints from a table, and whether contours meet them.

The table is a CSV file, one line for each constraint, comma or semicolon between::

    organ,figure,limit,endpoint,source
    Parotid_L,mean,<26,xerostomia,our protocol
    Larynx,V50,<27 %
    SpinalCord,D0.03cc,<=45 Gy

Endpoint and source may be left out. A limit without a sign is at most that. The shipped table, `SHIPPED`, holds QUANTEC
and consensus values with their sources; it is not a protocol: the planning site decides which limits apply.
"""

from __future__ import annotations

import csv
import io
import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from soars import catalogue
from soars.dose.cases import CaseDose
from soars.dose.dvh import Dvh
from soars.dose.figures import DvhFigure, parse_figure
from soars.errors import InputError, UnknownOrganError
from soars.texts import read_text

#: The name by which the shipped table is asked for.
SHIPPED = "head-neck"
REFERENCE = "reference"
_LIMIT = re.compile(r"(<=|>=|<|>|≤|≥)?\s*(\d+(?:\.\d+)?)\s*(gy|%|cc|cm3)?", re.IGNORECASE)
_SIGNS = {"≤": "<=", "≥": ">=", None: "<="}
_MOST_BYTES = 1 << 20
#: With up to this share of an organ beyond the dose grid, a few voxels of its end, the verdict stands.
NEGLIGIBLE_OUTSIDE = 0.01


@dataclass(frozen=True)
class Constraint:
    """One limit: ``sign`` is "<", "<=", ">" or ">=", ``limit`` in the figure's own unit."""

    organ: str
    figure: DvhFigure
    sign: str
    limit: float
    endpoint: str = ""
    source: str = ""

    def kept_by(self, value: float) -> bool:
        """Whether a value is within the limit."""
        return {
            "<": value < self.limit,
            "<=": value <= self.limit,
            ">": value > self.limit,
            ">=": value >= self.limit,
        }[self.sign]

    def describe(self) -> str:
        return f"{self.figure.name} {self.sign} {self.limit:g} {self.figure.unit}"


@dataclass(frozen=True)
class Verdict:
    """Whether one contour ("reference", or the substitute's name) of a case meets a constraint.

    ``value`` counts the share ``outside`` (0 to 1) of the organ, which lies beyond the dose grid, as 0 Gy. ``kept`` is
    None where the dose there, which is not known, decides: an upper limit that is exceeded already is exceeded, one
    that is kept may not be.
    """

    case: str
    contour: str
    constraint: Constraint
    value: float
    kept: bool | None
    outside: float = 0.0


def read_constraints(path: Path | str) -> tuple[Constraint, ...]:
    """The table of a file, or the shipped one for the name `SHIPPED`. Raises `InputError`, with the line."""
    named = str(path) == SHIPPED
    path = Path(__file__).with_name("constraints.csv") if named else Path(path)
    try:
        text = read_text(path, _MOST_BYTES)
    except OSError as error:
        raise InputError(f"cannot read the constraints {path}: {error.strerror or error}") from error
    except UnicodeDecodeError as error:
        raise InputError(f"{path} is not UTF-8 text; save the constraints as CSV UTF-8") from error
    first = text.partition("\n")[0]
    rows = csv.reader(
        io.StringIO(text, newline=""), delimiter=";" if first.count(";") > first.count(",") else ","
    )
    found = []
    try:
        for number, row in enumerate(rows, start=1):
            cells = [cell.strip() for cell in row]
            if any(cells) and not (number == 1 and cells[0].lower() == "organ"):
                found.append(_constraint(cells, f"{path}, line {number}"))
    except csv.Error as error:
        raise InputError(f"{path} is not a table of constraints: {error}") from error
    if not found:
        raise InputError(
            f"{path} holds no constraints; a line is organ,figure,limit such as Parotid_L,mean,<26"
        )
    return tuple(found)


def judge(cases: Sequence[CaseDose], constraints: Sequence[Constraint]) -> list[Verdict]:
    """Every constraint against the reference's contour and every substitute's, where the organ has voxels."""
    verdicts: list[Verdict] = []
    for case in cases:
        for constraint in constraints:
            mine = [d for d in case.differences if d.organ == constraint.organ]
            contours = [(REFERENCE, d.reference_dvh) for d in mine[:1]]
            contours += [(d.substitute, d.substitute_dvh) for d in mine]
            for contour, dvh in contours:
                value = constraint.figure.of(dvh)
                if np.isfinite(value):
                    kept = _kept(constraint, dvh, value)
                    verdicts.append(Verdict(case.case, contour, constraint, value, kept, dvh.outside))
    return verdicts


def _kept(constraint: Constraint, dvh: Dvh, value: float) -> bool | None:
    """Whether the limit is kept, whatever the dose beyond the grid; None where that decides. Every figure grows with
    each sample's dose, so the two extremes tell."""
    kept = constraint.kept_by(value)
    if dvh.outside <= NEGLIGIBLE_OUTSIDE:
        return kept
    return kept if constraint.kept_by(constraint.figure.of(dvh.unbounded())) is kept else None


def _constraint(cells: list[str], where: str) -> Constraint:
    if not 3 <= len(cells) <= 5 or not all(cells[:3]):
        raise InputError(
            f"{where}: organ, figure and limit are needed (and, if you like, endpoint and source)"
        )
    try:
        figure = parse_figure(cells[1])
    except InputError as error:
        raise InputError(f"{where}: {error}") from None
    limit = _LIMIT.fullmatch(cells[2])
    if limit is None:
        raise InputError(f"{where}: the limit {cells[2]!r} is not a number, such as <26 or >= 95")
    unit = {"gy": "Gy", "cm3": "cc"}.get((limit[3] or "").lower(), limit[3] or figure.unit)
    if unit.lower() != figure.unit.lower():
        raise InputError(f"{where}: the limit of {figure.name} is in {figure.unit}, not in {limit[3]}")
    endpoint, source = ([*cells[3:], "", ""])[:2]
    sign = _SIGNS.get(limit[1], limit[1])
    return Constraint(_organ(cells[0]), figure, sign, float(limit[2]), endpoint, source)


def _organ(text: str) -> str:
    try:
        return catalogue.resolve(text).name
    except UnknownOrganError:
        return text
