"""A site's own ROI names: a small table beside the planning system, read once, used when an RTSTRUCT is written.

The table is a CSV file of two columns, organ and name, with or without that heading, comma or semicolon between::

    organ,name
    Parotid_L,OAR Parotis li
    Brainstem,OAR Hirnstamm

An organ may be spelled in any way that the catalogue knows, and may be one that it does not know. Organs that the
table leaves out keep their TG-263 names.
"""

from __future__ import annotations

import csv
import io
from collections.abc import Iterable, Mapping
from pathlib import Path

from soars import catalogue
from soars.cells import original
from soars.errors import InputError
from soars.texts import read_text

#: DICOM's limit of ROI Name (LO, PS3.5 table 6.2-1).
LONGEST_NAME = 64
LONGEST_TABLE = 1 << 20
"""Bytes."""
_HEADING = ("organ", "name")


def read_roi_names(path: Path | str) -> dict[str, str]:
    """TG-263 name -> the site's name, from a CSV file (see the module).

    Raises `InputError`, with the file and the line, when a line has not two cells, names an organ twice, or gives
    a name that DICOM cannot hold (over 64 characters, a backslash, control characters) or that two organs share.
    """
    path = Path(path)
    try:
        text = read_text(path, LONGEST_TABLE)
        first = text.partition("\n")[0]
        delimiter = ";" if first.count(";") > first.count(",") else ","
        rows = list(csv.reader(io.StringIO(text, newline=""), delimiter=delimiter))
    except OSError as error:
        raise InputError(f"cannot read {path}: {error.strerror or error}") from error
    except UnicodeDecodeError as error:
        raise InputError(f"{path} is not UTF-8 text; save the table of names as CSV UTF-8") from error
    except csv.Error as error:
        raise InputError(f"{path} is not a table of names: {error}") from error
    names: dict[str, str] = {}
    for number, row in enumerate(rows, start=1):
        cells = [original(cell.strip()) for cell in row]
        if not any(cells) or (number == 1 and tuple(c.lower() for c in cells[:2]) == _HEADING):
            continue
        where = f"{path}, line {number}"
        if len(cells) != 2 or not all(cells):
            raise InputError(f"{where}: an organ and its name are needed, two cells, not {len(cells)}")
        organ, name = _catalogue_name(cells[0]), cells[1]
        if organ in names:
            raise InputError(f"{where}: {organ} has a name already, {names[organ]!r}")
        if len(name) > LONGEST_NAME or "\\" in name or not name.isprintable():
            raise InputError(
                f"{where}: DICOM cannot hold the name {name!r}: at most {LONGEST_NAME} printable characters and no "
                "backslash"
            )
        if name in names.values():
            raise InputError(f"{where}: {name!r} is the name of another organ already")
        names[organ] = name
    if not names:
        raise InputError(f"{path} holds no names: one line for each organ is needed, organ,name")
    return names


def site_names(structures: Iterable[str], names: Mapping[str, str]) -> dict[str, str]:
    """Name in the structure set -> ROI name, for every structure; `InputError` when two would have the same."""
    out: dict[str, str] = {}
    for structure in structures:
        name = names.get(structure, structure).replace("\\", "/").strip()[:LONGEST_NAME]
        if name in out.values():
            other = next(key for key, value in out.items() if value == name)
            raise InputError(
                f"{other!r} and {structure!r} would both be called {name!r} in the RTSTRUCT; rename one"
            )
        out[structure] = name
    return out


def _catalogue_name(text: str) -> str:
    oar = catalogue.find(text)
    return text if oar is None else oar.name
