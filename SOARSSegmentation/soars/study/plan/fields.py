"""Reading fields of a decoded YAML or JSON file, each checked, with messages that say where in the file."""

from __future__ import annotations

import difflib
import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any, TypeVar

from soars.effort.records import safe_name
from soars.errors import InputError

Result = TypeVar("Result")


class Fields:
    """One mapping of a file. ``where`` names it in messages: "study.yaml: readers[1]".

    Every field is read once; `end` refuses fields that were not read.
    """

    def __init__(self, value: object, where: str) -> None:
        if not isinstance(value, Mapping):
            raise InputError(f"{where} must be a list of names and values, not {_kind(value)}")
        self._values: dict[str, Any] = {str(key): item for key, item in value.items()}
        self._asked: set[str] = set()
        self.where = where

    def has(self, name: str) -> bool:
        return self._values.get(name) is not None

    def text(self, name: str, default: str | None = None) -> str:
        value = self._get(name, default)
        if not isinstance(value, str):
            raise self._wrong(name, "a text", value)
        return value

    def safe(self, name: str) -> str:
        """A pseudonym that can be in a file name."""
        value = self._get(name, None)
        if isinstance(value, int) and not isinstance(value, bool):
            value = str(value)
        if not isinstance(value, str):
            raise self._wrong(
                name, "a text (in quotation marks where YAML takes it for something else)", value
            )
        return safe_name(value, f"{name} in {self.where}")

    def whole(self, name: str, default: int | None = None, least: int = 0) -> int:
        value = self._get(name, default)
        if not isinstance(value, int) or isinstance(value, bool) or value < least:
            raise self._wrong(name, f"a whole number of {least} or more", value)
        return value

    def number(self, name: str, default: float | None = None, least: float = 0.0) -> float:
        value = self._get(name, default)
        if not isinstance(value, (int, float)) or isinstance(value, bool) or not math.isfinite(value):
            raise self._wrong(name, "a number", value)
        if value < least:
            raise self._wrong(name, f"a number of {least:g} or more", value)
        return float(value)

    def yes(self, name: str, default: bool) -> bool:
        value = self._get(name, default)
        if not isinstance(value, bool):
            raise self._wrong(name, "true or false", value)
        return value

    def choice(self, name: str, choices: Sequence[str], default: str | None = None) -> str:
        value = self.text(name, default)
        if value not in choices:
            raise self._wrong(name, f"one of {', '.join(choices)}", value)
        return value

    def each(self, name: str, read: Callable[[Fields], Result], least: int = 0) -> tuple[Result, ...]:
        """A list of mappings, each read by ``read``."""
        values = self._get(name, [])
        if not isinstance(values, list) or len(values) < least:
            raise self._wrong(name, f"a list of {least} or more", values)
        found = []
        for index, value in enumerate(values):
            fields = Fields(value, f"{self.where}: {name}[{index}]")
            found.append(read(fields))
            fields.end()
        return tuple(found)

    def part(self, name: str) -> Fields | None:
        """A nested mapping; None when it is absent. The caller calls its `end`."""
        value = self._get(name, {})
        return Fields(value, f"{self.where}: {name}") if self.has(name) else None

    def texts(self, name: str) -> tuple[str, ...] | None:
        """A list of texts, or one text for a list of one; None when absent."""
        value = self._get(name, ())
        if not self.has(name):
            return None
        values = [value] if isinstance(value, str) else value
        if not isinstance(values, list) or not all(isinstance(v, str) for v in values):
            raise self._wrong(name, "a list of texts", value)
        return tuple(values)

    def end(self) -> None:
        """Refuse fields that were not read."""
        unknown = sorted(set(self._values) - self._asked)
        if unknown:
            near = difflib.get_close_matches(unknown[0], self._asked, 1)
            hint = f"did you mean {near[0]}?" if near else f"known are {', '.join(sorted(self._asked))}"
            raise InputError(f"{self.where}: {unknown[0]!r} is not known; {hint}")

    def _get(self, name: str, default: Any) -> Any:
        self._asked.add(name)
        value = self._values.get(name)
        if value is not None:
            return value
        if default is None:
            raise InputError(f"{self.where}: {name} is missing")
        return default

    def _wrong(self, name: str, wanted: str, value: object) -> InputError:
        return InputError(f"{self.where}: {name} must be {wanted}, not {value!r}"[:300])


def _kind(value: object) -> str:
    return "nothing" if value is None else f"{type(value).__name__} {str(value)[:40]!r}"
