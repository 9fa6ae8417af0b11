"""What the desktop offers: the pointer that says that the application is busy, the user's folders, the file manager."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import qt


@contextmanager
def waiting() -> Iterator[None]:
    """The pointer says that the application is busy."""
    qt.QApplication.setOverrideCursor(qt.QCursor(qt.Qt.WaitCursor))
    try:
        yield
    finally:
        qt.QApplication.restoreOverrideCursor()


def documents() -> str:
    """The user's folder of documents."""
    return str(qt.QStandardPaths.writableLocation(qt.QStandardPaths.DocumentsLocation))


def open_folder(folder: Path) -> None:
    """Show a folder in the desktop's file manager."""
    qt.QDesktopServices.openUrl(qt.QUrl.fromLocalFile(str(folder)))
