"""Tolerances of the surface DSC: the catalogue's, each with its source, or a file's."""

from __future__ import annotations

import csv
import math
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from soars.catalogue import CATALOGUE, find
from soars.errors import InputError
from soars.texts import read_table

ANY = "*"
"""Stands for every organ that is not listed by name."""


@dataclass(frozen=True)
class Tolerance:
    """How far, in mm, a surface may lie from the other and still count as correct; ``source`` is where that is from."""

    mm: float
    source: str


def catalogue_tolerances() -> dict[str, Tolerance]:
    """The catalogue's, by organ; organs without a published tolerance are left out. The source of a tolerance says so
    if the value was recalled, not read from a file."""
    found = {}
    for oar in CATALOGUE.values():
        if oar.tolerance_mm is not None:
            unsure = "" if oar.tolerance_verified else " (not verified)"
            found[oar.name] = Tolerance(oar.tolerance_mm, f"{oar.tolerance_source or 'unknown'}{unsure}")
    return found


def one_tolerance(mm: float) -> dict[str, Tolerance]:
    """The same for every organ."""
    return {ANY: Tolerance(checked(mm, "the tolerance"), "chosen")}


def read_tolerances(path: Path | str) -> dict[str, Tolerance]:
    """From a CSV file with the columns ``organ,tolerance_mm`` and, if wanted, ``source``; the organ in any
    spelling of the catalogue, or any other name, or ``*`` for all that are not listed.

    The catalogue's tolerances are then not used. Raises `InputError`, with the line, for anything that is not one.
    """
    path = Path(path)
    try:
        rows = list(csv.DictReader(read_table(path)))
    except OSError as error:
        raise InputError(f"{path}: cannot be read ({error.strerror})") from error
    except (UnicodeDecodeError, csv.Error) as error:
        raise InputError(f"{path}: is not a CSV file of tolerances ({error})") from error
    found: dict[str, Tolerance] = {}
    for line, row in enumerate(rows, start=2):
        organ, value = (row.get("organ") or "").strip(), (row.get("tolerance_mm") or "").strip()
        if not organ or not value:
            raise InputError(f"{path}, line {line}: the columns organ and tolerance_mm are needed")
        try:
            mm = float(value)
        except ValueError:
            raise InputError(f"{path}, line {line}: {value!r} is not a tolerance in mm") from None
        name = _name(organ)
        if name in found:
            raise InputError(f"{path}, line {line}: {name} occurs twice")
        found[name] = Tolerance(
            checked(mm, f"{path}, line {line}: the tolerance"), (row.get("source") or "").strip() or path.name
        )
    if not found:
        raise InputError(f"{path}: holds no tolerance; the columns organ and tolerance_mm are needed")
    return found


def tolerance_of(organ: str, tolerances: Mapping[str, Tolerance]) -> Tolerance | None:
    """The organ's tolerance; None when there is none."""
    return tolerances.get(organ) or tolerances.get(ANY)


def checked(mm: float, what: str) -> float:
    """``mm``; `InputError` when it is not a length."""
    if not math.isfinite(mm) or mm < 0:
        raise InputError(f"{what} must be a length in mm, zero or more, not {mm:g}")
    return mm


def _name(text: str) -> str:
    oar = find(text)
    return text if oar is None else oar.name
