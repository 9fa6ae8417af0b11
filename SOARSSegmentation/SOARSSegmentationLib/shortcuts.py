"""Keyboard shortcuts for what a reader does about a hundred times a day.

None of them is one of the segment editor's own (digits, Escape, Space, Z, Y, Q, W, I) or of the slice views'.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Mapping
from typing import Any

import qt

NEXT = "Ctrl+Down"
PREVIOUS = "Ctrl+Up"
ACCEPT = "Ctrl+Return"
FINDING = "Ctrl+Right"
PAUSE = "Ctrl+P"


class Shortcuts:
    """Shortcuts that work in the whole window while the module is shown."""

    def __init__(self, actions: Mapping[str, Callable[[], None]]) -> None:
        """``actions`` maps each of this module's keys to what it does."""
        self._actions = dict(actions)
        self._shortcuts: list[Any] = []

    def install(self, window: Any) -> None:
        """``window`` is the application's main window."""
        self.remove()
        for key, action in self._actions.items():
            shortcut = qt.QShortcut(qt.QKeySequence(key), window)
            shortcut.activated.connect(action)
            self._shortcuts.append(shortcut)

    def remove(self) -> None:
        for shortcut in self._shortcuts:
            # Gone with the main window: PythonQt raises ValueError or AttributeError, PySide RuntimeError.
            with contextlib.suppress(AttributeError, RuntimeError, ValueError):
                shortcut.enabled = False  # takes effect at once; Qt deletes it later
                shortcut.setParent(None)
                shortcut.deleteLater()
        self._shortcuts = []
