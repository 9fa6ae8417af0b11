"""Reports what a reader does with mouse, keyboard, pen and touch to the effort log.

Input reaches a top-level window before Qt passes it to a widget, so a filter on the windows sees every click, turn of
the wheel and key once, also those in the slice and 3D views, and none of the events that Qt generates itself. Key
presses that are shortcuts are consumed before they reach the window, but their releases are not.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable
from typing import Any

import qt
import slicer

KINDS = {
    int(event): kind
    for event, kind in (
        (qt.QEvent.MouseButtonPress, "press"),
        (qt.QEvent.MouseButtonDblClick, "press"),
        (qt.QEvent.MouseButtonRelease, "release"),
        (qt.QEvent.MouseMove, "move"),
        (qt.QEvent.Wheel, "wheel"),
        (qt.QEvent.KeyPress, "key"),
        (qt.QEvent.KeyRelease, "key"),
        (qt.QEvent.TabletPress, "tablet"),
        (qt.QEvent.TabletMove, "tablet"),
        (qt.QEvent.TabletRelease, "tablet"),
        (qt.QEvent.TouchBegin, "touch"),
        (qt.QEvent.TouchUpdate, "touch"),
        (qt.QEvent.TouchEnd, "touch"),
    )
}
"""Qt's types of events, and `soars.effort.records.INPUTS`."""


class InteractionFilter(qt.QObject):
    """Calls ``on_input(kind)`` for every input in the windows it watches, until `stop`."""

    def __init__(self, on_input: Callable[[str], None]) -> None:
        super().__init__()
        self._on_input = on_input
        self._watched: list[Any] = []

    def watch(self) -> None:
        """Watch the application's windows; call it from time to time, because dialogs come and go."""
        for widget in (slicer.util.mainWindow(), slicer.app.activeWindow()):
            window = widget.windowHandle() if widget is not None else None
            if window is not None and not any(window is one for one in self._watched):
                window.installEventFilter(self)
                self._watched.append(window)

    def stop(self) -> None:
        for window in self._watched:
            with contextlib.suppress(RuntimeError, ValueError):  # a dialog that is gone
                window.removeEventFilter(self)
        self._watched = []

    def eventFilter(self, watched: Any, event: Any) -> bool:
        kind = KINDS.get(int(event.type()))
        if kind is not None:
            self._on_input(kind)
        return False
