"""Settings in YAML as dataclasses: unknown keys, missing keys and wrong types are told by where they are.

The dataclasses are the schema. `json_schema` writes it down for editors that check YAML while it is typed.
"""

from __future__ import annotations

import dataclasses
import types
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal, Union, get_args, get_origin, get_type_hints

from soars.errors import InputError

_PLAIN: dict[type, tuple[str, str]] = {
    str: ("text", "string"),
    int: ("a whole number", "integer"),
    float: ("a number", "number"),
    bool: ("true or false", "boolean"),
    Path: ("a path", "string"),
}
"""What to call a type, for people and in JSON Schema."""
_MOST = 1e9
"""Of any number: as seconds, thirty years, which timers can still count."""
_SHOWN = 80
"""Characters of a wrong value."""


def build(kind: Any, value: Any, where: str = "") -> Any:
    """The value as ``kind``: a dataclass, a plain type, an optional, a closed set of words, a tuple or a mapping.

    Raises `InputError` that begins with ``where`` the value is, such as ``rules[1].bundle``.
    """
    origin, arguments = get_origin(kind), get_args(kind)
    if dataclasses.is_dataclass(kind):
        return _record(kind, value, where)
    if origin in (Union, types.UnionType):
        (inner,) = [each for each in arguments if each is not type(None)]
        return None if value is None else build(inner, value, where)
    if origin is Literal:
        if value not in arguments:
            raise _wrong(where, f"one of {', '.join(map(str, arguments))}", value)
        return value
    if origin is tuple:
        items = value if isinstance(value, list) else [value]
        return tuple(build(arguments[0], item, f"{where}[{n}]") for n, item in enumerate(items))
    if origin is Mapping:
        if not isinstance(value, dict):
            raise _wrong(where, "a table of names", value)
        return {
            build(str, key, f"{where}, a name"): build(arguments[1], item, f"{where}.{key}")
            for key, item in value.items()
        }
    return _plain(kind, value, where)


def json_schema(kind: Any) -> dict[str, Any]:
    """The same as JSON Schema."""
    origin, arguments = get_origin(kind), get_args(kind)
    if dataclasses.is_dataclass(kind):
        hints = get_type_hints(kind)
        fields = dataclasses.fields(kind)
        return {
            "type": "object",
            "additionalProperties": False,
            "required": [field.name for field in fields if _is_required(field)],
            "properties": {field.name: json_schema(hints[field.name]) for field in fields},
        }
    if origin in (Union, types.UnionType):
        return {
            "anyOf": [json_schema(each) for each in arguments if each is not type(None)] + [{"type": "null"}]
        }
    if origin is Literal:
        return {"enum": list(arguments)}
    if origin is tuple:
        item = json_schema(arguments[0])
        return {"anyOf": [item, {"type": "array", "items": item}]}
    if origin is Mapping:
        return {"type": "object", "additionalProperties": json_schema(arguments[1])}
    return {"type": _PLAIN[kind][1]}


def _record(kind: Any, value: Any, where: str) -> Any:
    if not isinstance(value, dict):
        raise _wrong(where, "a table of settings", value)
    fields = {field.name: field for field in dataclasses.fields(kind)}
    unknown = [str(key) for key in value if key not in fields]
    if unknown:
        raise InputError(
            f"{where or 'the settings'}: there is no setting {', '.join(unknown)}; there are {', '.join(fields)}"
        )
    missing = [name for name, field in fields.items() if _is_required(field) and name not in value]
    if missing:
        raise InputError(f"{where or 'the settings'}: {' and '.join(missing)} must be given")
    hints = get_type_hints(kind)
    inside = f"{where}." if where else ""
    given = {name: build(hints[name], item, f"{inside}{name}") for name, item in value.items()}
    try:
        return kind(**given)
    except InputError as error:
        raise InputError(f"{where}: {error}" if where else str(error)) from error


def _plain(kind: type, value: Any, where: str) -> Any:
    whole = isinstance(value, int) and not isinstance(value, bool) and abs(value) <= _MOST
    if kind is float and (whole or (isinstance(value, float) and abs(value) <= _MOST)):
        return float(value)
    if isinstance(value, str) and not value.isprintable():
        raise InputError(f"{where or 'the settings'}: holds a control character")
    if kind is Path and isinstance(value, str) and value:
        try:
            return Path(value).expanduser()
        except RuntimeError as error:
            raise InputError(f"{where}: {value}: there is no such user") from error
    if (kind is int and whole) or (kind in (str, bool) and isinstance(value, kind)):
        return value
    raise _wrong(where, _PLAIN[kind][0], value)


def _is_required(field: dataclasses.Field[Any]) -> bool:
    return field.default is dataclasses.MISSING and field.default_factory is dataclasses.MISSING


def _wrong(where: str, wanted: str, value: Any) -> InputError:
    hint = "; write it in quotes" if wanted == "text" and isinstance(value, bool | int | float) else ""
    return InputError(f"{where or 'the settings'}: {wanted} is wanted, not {repr(value)[:_SHOWN]}{hint}")
