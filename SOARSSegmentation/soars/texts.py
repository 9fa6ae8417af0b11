"""Reading tables, lists and other small files that anybody may have written: never without end, and never in vain.

A file may be a pipe that nobody writes to, hold gigabytes, nest ten thousand levels deep, or use YAML's references to
be worth billions of values. Each of these is an ordinary error here.
"""

from __future__ import annotations

import io
import json
import stat
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from soars.errors import InputError

LARGEST_TEXT = 64 << 20
"""Bytes of a table, a list or a description; a table of scores of ten thousand patients has 60 million."""
LARGEST_YAML = 1 << 20
"""Bytes; PyYAML needs ten seconds for that, and for a study of ten thousand patients."""
MOST_VALUES = 1_000_000
"""Values in a YAML file, each counted as often as it is referred to."""


_PIECE = 1 << 16


def read_bytes(path: Path, limit: int = LARGEST_TEXT) -> bytes:
    """A file's content; `InputError` when it is no ordinary file or longer than ``limit``, else `OSError`."""
    mode = path.stat().st_mode
    if not stat.S_ISREG(mode) and not stat.S_ISDIR(mode):  # opening a folder fails by itself
        raise InputError(f"{path}: is no ordinary file")
    data = bytearray()
    with path.open("rb") as file:
        # in pieces: Python allocates what is asked for before it reads
        while len(data) <= limit and (piece := file.read(min(_PIECE, limit + 1 - len(data)))):
            data += piece
    if len(data) > limit:
        raise InputError(f"{path}: is longer than {_size(limit)}, more than any such file")
    return bytes(data)


def read_text(path: Path, limit: int = LARGEST_TEXT) -> str:
    """A UTF-8 text file, with or without a byte order mark. Raises as `read_bytes`, and `UnicodeDecodeError`."""
    return read_bytes(path, limit).decode("utf-8-sig")


def read_table(path: Path, limit: int = LARGEST_TEXT) -> io.StringIO:
    """A CSV file as a stream for the `csv` module, which takes its line ends as they are. Raises as `read_text`."""
    return io.StringIO(read_text(path, limit), newline="")


def read_json(path: Path, limit: int = LARGEST_TEXT) -> Any:
    """A JSON file's content. Raises as `read_bytes`, and `ValueError` for anything that is no usable JSON."""
    return parse_json(read_bytes(path, limit))


def parse_json(data: bytes, **options: Any) -> Any:
    """The value that JSON in UTF-8 describes; ``options`` as for `json.loads`. Raises `ValueError`."""
    with _too_deep():
        value = json.loads(data.decode("utf-8-sig"), **options)
        json.dumps(value, ensure_ascii=False).encode()  # half a surrogate pair is text that no file can hold
        return value


def parse_yaml(data: bytes, loader: Any = None) -> Any:
    """The value that YAML in UTF-8 describes, read by PyYAML's safe loader or a class derived from it.

    Raises `ValueError`, and `ImportError` without PyYAML.
    """
    import yaml

    if len(data) > LARGEST_YAML:
        raise ValueError(f"it is longer than {_size(LARGEST_YAML)}, more than any such file")
    with _too_deep():
        try:
            value = yaml.load(data.decode("utf-8-sig"), Loader=loader or yaml.SafeLoader)
        except yaml.YAMLError as error:
            raise ValueError(" ".join(str(error).split())) from error
        if _count(value, {}) > MOST_VALUES:
            raise ValueError("its references make it larger than any such file")
        return value


@contextmanager
def _too_deep() -> Iterator[None]:
    try:
        yield
    except RecursionError as error:
        raise ValueError("it is nested too deeply") from error


def _count(value: object, known: dict[int, int]) -> int:
    """Values in a tree whose branches may be shared, each as often as it is reached; more than any limit for a tree
    that contains itself."""
    if isinstance(value, str):
        value.encode()  # fails on half a surrogate pair, as for JSON
    if not isinstance(value, dict | list | tuple | set):
        return 1
    if id(value) not in known:
        known[id(value)] = MOST_VALUES + 1  # for as long as its own parts are counted
        parts = [*value.keys(), *value.values()] if isinstance(value, dict) else value
        known[id(value)] = 1 + sum(_count(part, known) for part in parts)
    return known[id(value)]


def _size(limit: int) -> str:
    return f"{limit >> 20} MB" if limit >> 20 else f"{limit >> 10} kB"
