"""Cells of CSV files that a spreadsheet does not take for formulas.

Excel, LibreOffice and Google Sheets compute a cell that begins with ``=``, ``+``, ``-`` or ``@`` (OWASP, "CSV
Injection"), and such a formula can send the table elsewhere or start a program. Names of cases, organs and readers come
from untrusted files; so such text is preceded by an apostrophe, which `original` removes again.
"""

from __future__ import annotations

import csv
import re
from collections.abc import Iterable
from pathlib import Path
from typing import Any, TextIO

from soars.files import replacing_file

_FORMULA = re.compile(r"'*[=+\-@\t\r\n\uff1d\uff0b\uff0d\uff20]")
"""What a cell must not begin with, also in full width; also after apostrophes, so that none is taken for ours."""


def harmless(cell: object) -> object:
    """The cell as it is to be written: an apostrophe before text that could be a formula, numbers as they are."""
    if isinstance(cell, str) and _FORMULA.match(cell) and not _is_number(cell):
        return f"'{cell}"
    return cell


def original(cell: str) -> str:
    """The text that `harmless` was given."""
    return cell[1:] if cell.startswith("'") and _FORMULA.match(cell) else cell


class HarmlessWriter:
    """As `csv.writer`, with `harmless` cells."""

    def __init__(self, file: TextIO, **options: Any) -> None:
        self._writer = csv.writer(file, **options)

    def writerow(self, row: Iterable[object]) -> None:
        self._writer.writerow([harmless(cell) for cell in row])

    def writerows(self, rows: Iterable[Iterable[object]]) -> None:
        for row in rows:
            self.writerow(row)


def write_table(
    path: Path, header: Iterable[object], rows: Iterable[Iterable[object]], *, overwrite: bool = True
) -> None:
    """Write a CSV file, all or nothing."""
    with (
        replacing_file(path, overwrite=overwrite) as temporary,
        temporary.open("w", newline="", encoding="utf-8") as file,
    ):
        writer = HarmlessWriter(file)
        writer.writerow(header)
        writer.writerows(rows)


def _is_number(cell: str) -> bool:
    try:
        float(cell)
    except ValueError:
        return False
    return True
