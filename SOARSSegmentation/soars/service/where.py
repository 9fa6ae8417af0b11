"""``--where``: which of many CTs are meant, by what their DICOM headers or the columns of a list say."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Any

from pydicom.datadict import tag_for_keyword

from soars.ct.dicom_files import is_dicom, read_dataset
from soars.errors import InputError

CASE = "case"
"""The key for a case's name, known of every case."""

_CONDITION = re.compile(r"\s*([^\s=!<>]+)\s*(!=|<=|>=|=|<|>)(.*)", re.DOTALL)


@dataclass(frozen=True)
class Condition:
    """``key operator value``: = and != compare text (any case; * and ? stand for what they do in file names), the
    others numbers."""

    key: str
    operator: str
    value: str

    def holds(self, value: str) -> bool:
        """Whether a CT with this value is meant; a missing value is "", which no number is."""
        if self.operator in ("=", "!="):
            wanted = self.value.casefold().replace("[", "[[]")  # a bracket stands for itself
            same = fnmatchcase(value.strip().casefold(), wanted)
            return same == (self.operator == "=")
        try:
            left, right = float(value), float(self.value)
        except ValueError:
            return False
        return {"<": left < right, "<=": left <= right, ">": left > right, ">=": left >= right}[self.operator]


def parse_condition(text: str) -> Condition:
    """``SliceThickness<=3``. Raises `InputError` for what is no condition, or compares with no number."""
    found = _CONDITION.fullmatch(text)
    if found is None:
        raise InputError(f"--where {text}: write KEY=VALUE, KEY!=VALUE, or KEY<VALUE with <, <=, > or >=")
    condition = Condition(found[1], found[2], found[3].strip())
    if condition.operator not in ("=", "!="):
        try:
            float(condition.value)
        except ValueError:
            raise InputError(f"--where {text}: {condition.value!r} is not a number") from None
    return condition


def check_keys(conditions: Iterable[Condition], columns: Sequence[str]) -> None:
    """Raise `InputError` for a key that is neither ``case``, a column of the list, nor a keyword of DICOM: misspelt, it
    would leave out every case."""
    for condition in conditions:
        known = condition.key in (CASE, *columns) or tag_for_keyword(condition.key) is not None
        if not known:
            choices = ", ".join(dict.fromkeys((CASE, *columns)))
            raise InputError(
                f"--where {condition.key}: is neither {choices} nor a DICOM keyword such as SeriesDescription"
            )


def all_hold(conditions: Sequence[Condition], known: Mapping[str, str], ct: Path, series: str | None) -> bool:
    """Whether a CT meets all conditions; ``known`` goes before its DICOM header, which is read only when needed."""
    asked = sorted({condition.key for condition in conditions} - known.keys())
    values = {**(_header(ct, series, asked) if asked else {}), **known}
    return all(condition.holds(values.get(condition.key, "")) for condition in conditions)


def _header(ct: Path, series: str | None, keywords: Sequence[str]) -> dict[str, str]:
    """Values of the first slice, "" where there is none; nothing of a CT that is not DICOM."""
    uid = series.partition("/")[0] if series else ""
    files = sorted(p for p in ct.rglob("*") if p.is_file()) if ct.is_dir() else [ct]
    for path in files:
        try:
            if path.name.startswith(".") or not is_dicom(path):
                continue
            tags: list[Any] = ["SpecificCharacterSet", "SeriesInstanceUID", "Modality", *keywords]
            data = read_dataset(path, stop_before_pixels=True, specific_tags=tags)
        except Exception:  # a damaged slice is reported when its series is read
            continue
        if data.get("Modality", "CT") == "CT" and uid in ("", str(data.get("SeriesInstanceUID", ""))):
            return {keyword: _text(data.get(keyword)) for keyword in keywords}
    return {}


def _text(value: Any) -> str:
    if value is None:
        return ""
    if isinstance(value, str) or not isinstance(value, Iterable):
        return str(value)
    return "\\".join(map(str, value))
