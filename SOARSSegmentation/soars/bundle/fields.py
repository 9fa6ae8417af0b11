"""Typed, bounded fields of a manifest; errors name the field by its path (``branches.anchor.patch``)."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from typing import Any

from soars.errors import BundleError

_LARGEST = 1e12
"""Every number in a manifest must be smaller; NaN fails this, too."""

LONGEST_TEXT = 2000
"""Characters of a name or a description in a manifest."""

_KINDS: dict[type, str] = {
    dict: "an object",
    list: "a list",
    str: "text",
    int: "a whole number",
    float: "a number",
    bool: "true or false",
}


def kind_of(value: object) -> str:
    """How a message names the type of a JSON value: "a list", "null"."""
    return "null" if value is None else _KINDS.get(type(value), type(value).__name__)


def path_of(where: str, key: str) -> str:
    """A field's path below the object at `where` ("" is the manifest itself)."""
    return f"{where}.{key}" if where else key


def _value(mapping: Mapping[str, Any], key: str, where: str) -> Any:
    if key not in mapping:
        raise BundleError(f"{path_of(where, key)} is missing")
    return mapping[key]


def get_field(mapping: Mapping[str, Any], key: str, kind: type, where: str) -> Any:
    """The value of a field, of exactly the type `kind`; raises `BundleError` when it is missing or of another type."""
    value = _value(mapping, key, where)
    if type(value) is not kind:
        raise BundleError(f"{path_of(where, key)} must be {_KINDS[kind]}, not {kind_of(value)}")
    return value


def check_keys(entry: Any, known: tuple[str, ...], where: str) -> None:
    """Raise `BundleError` unless `entry` is an object without keys other than `known`."""
    if not isinstance(entry, dict):
        raise BundleError(f"{where or 'the whole'} must be an object, not {kind_of(entry)}")
    for key in entry:
        if key not in known:
            raise BundleError(f"unknown key {brief(path_of(where, key))}; known here: {', '.join(known)}")


def get_text(mapping: Mapping[str, Any], key: str, where: str) -> str:
    """Text, which must not be empty and has at most `LONGEST_TEXT` characters."""
    value: str = get_field(mapping, key, str, where)
    if not value.strip():
        raise BundleError(f"{path_of(where, key)} is empty")
    _check_length(value, path_of(where, key))
    return value


def _check_length(text: str, where: str) -> None:
    if len(text) > LONGEST_TEXT:
        raise BundleError(f"{where} is longer than {LONGEST_TEXT} characters")


def get_numbers(mapping: Mapping[str, Any], key: str, count: int, where: str) -> tuple[float, ...]:
    """A list of `count` finite numbers of ordinary size."""
    value = get_field(mapping, key, list, where)
    if len(value) != count or any(type(v) not in (int, float) or not abs(v) < _LARGEST for v in value):
        raise BundleError(f"{path_of(where, key)} must be {count} numbers, got {brief(value)}")
    return tuple(float(v) for v in value)


def get_share(mapping: Mapping[str, Any], key: str, where: str) -> float:
    """A number above 0 and at most 1."""
    value = _value(mapping, key, where)
    if type(value) not in (int, float) or not 0 < value <= 1:
        raise BundleError(f"{path_of(where, key)} must be a number above 0 and at most 1, got {brief(value)}")
    return float(value)


def get_window(mapping: Mapping[str, Any], key: str, where: str) -> tuple[float, float]:
    """A window as [low, high], with low below high."""
    low, high = get_numbers(mapping, key, 2, where)
    if low >= high:
        raise BundleError(f"{path_of(where, key)}: lower limit {low:g} is not below upper limit {high:g}")
    return low, high


def get_windows(mapping: Mapping[str, Any], key: str, where: str) -> tuple[tuple[float, float], ...]:
    """A list of at least one window."""
    value = get_field(mapping, key, list, where)
    if not value:
        raise BundleError(f"{path_of(where, key)}: expected at least one window, as [low, high]")
    numbered = {f"{key}[{i}]": window for i, window in enumerate(value)}
    return tuple(get_window(numbered, name, where) for name in numbered)


def within(values: tuple[float, ...], limits: tuple[float, float], where: str) -> tuple[float, ...]:
    """The numbers unchanged; raises `BundleError` when one is outside the limits."""
    if min(values) <= 0:
        raise BundleError(f"{where} must be positive, got {values}")
    if min(values) < limits[0] or max(values) > limits[1]:
        raise BundleError(f"{where} must be from {limits[0]:g} to {limits[1]:g}, got {values}")
    return values


def brief(value: object) -> str:
    """A value as a message can show it."""
    text = repr(value)
    return text if len(text) <= 100 else text[:97] + "..."


def get_names(mapping: Mapping[str, Any], key: str, where: str) -> tuple[str, ...]:
    """A list of at least one name, without duplicates."""
    value = get_field(mapping, key, list, where)
    if not value or any(type(v) is not str for v in value):
        raise BundleError(
            f"{path_of(where, key)} must be a list of names with at least one, got {brief(value)}"
        )
    for name in value:
        _check_length(name, path_of(where, key))
    twice = sorted(v for v, count in Counter(value).items() if count > 1)
    if twice:
        raise BundleError(f"{path_of(where, key)} has {twice[0]!r} twice")
    return tuple(value)


def no_duplicates(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    """The object made of these pairs, for ``object_pairs_hook``; a duplicate key is refused."""
    twice = sorted(key for key, count in Counter(key for key, _ in pairs).items() if count > 1)
    if twice:
        raise BundleError(f"key {brief(twice[0])} occurs twice")
    return dict(pairs)


def no_constant(text: str) -> float:
    """Refuse NaN and Infinity, for ``parse_constant``."""
    raise BundleError(f"{text} is not a number that JSON allows")
