"""The running session: begun, ticked, paused, finished, and informed of what the reader does."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext, suppress
from pathlib import Path
from typing import Any

import qt
import slicer

from soars.effort.records import Header
from soars.errors import SoarsError
from SOARSSegmentationLib.session import sessions
from SOARSSegmentationLib.session.editing import TICK_MS, Changed, EditingSession
from SOARSSegmentationLib.session.interactions import InteractionFilter

_LOOK_FOR_WINDOWS_EVERY = 4
"""Ticks."""


class SessionControl:
    """Holds the session, even while another module is shown.

    ``on_changed(what)`` is called after something in it has changed, ``on_tick(session)`` several times a second,
    ``on_over(session)`` once it has ended, whoever ended it.
    """

    def __init__(
        self,
        on_changed: Callable[[Changed], None],
        on_tick: Callable[[EditingSession], None],
        on_over: Callable[[EditingSession], None],
        guard: Callable[[], AbstractContextManager[None]] = nullcontext,
    ) -> None:
        """``guard()`` is entered around the timer's work, whose exceptions would reach no caller."""
        self._guard = guard
        self._on_changed = on_changed
        self._on_tick = on_tick
        self._on_over = on_over
        self._ticks = 0
        self._filter: InteractionFilter | None = None
        self.session: EditingSession | None = None
        self.timer = qt.QTimer()
        self.timer.interval = TICK_MS
        self.timer.timeout.connect(self._tick)
        slicer.app.aboutToQuit.connect(self.quit)

    @property
    def running(self) -> bool:
        return self.session is not None and self.session.running

    def begin(
        self, segmentation_node: Any, volume_node: Any, header: Header, root: Path, editor: Any, idle_s: float
    ) -> EditingSession:
        """A new session; `InputError` when it cannot begin."""
        session = sessions.begin(
            segmentation_node,
            volume_node,
            header,
            root,
            editor_node=editor,
            idle_s=idle_s,
        )
        return self._began(session)

    def resume(
        self,
        interrupted: sessions.Interrupted,
        segmentation_node: Any,
        volume_node: Any,
        editor: Any,
        idle_s: float,
    ) -> EditingSession:
        """Resume an interrupted session; `InputError` when that is not possible."""
        session = sessions.resume(
            interrupted,
            segmentation_node,
            volume_node,
            editor_node=editor,
            idle_s=idle_s,
        )
        return self._began(session)

    def toggle_pause(self) -> None:
        if self.session is not None and self.session.running:
            (self.session.resume if self.session.paused else self.session.pause)()

    def finish(self, cause: str = "finished") -> None:
        """`SoarsError` when the last records or the result could not be written; it is over all the same."""
        if self.session is not None and self.session.running:
            self.session.finish(cause)

    def quit(self, *_arguments: Any) -> None:
        """End the session because the application ends or the module is unloaded: nobody is there to be told of a
        failure."""
        with suppress(SoarsError):
            self.finish("quit")

    def close(self) -> None:
        """Release the timer and the application, which would keep this object and its owner alive for ever."""
        self.quit()
        self.timer.stop()
        self.timer.timeout.disconnect(self._tick)
        slicer.app.aboutToQuit.disconnect(self.quit)

    def expect_redo(self) -> None:
        if self.session is not None and self.session.running:
            self.session.expect_redo()

    def _began(self, session: EditingSession) -> EditingSession:
        self.session = session
        session.on_changed = self._changed
        self._filter = InteractionFilter(session.recorder.interaction)
        self._filter.watch()
        self._ticks = 0
        self.timer.start()
        return session

    def _tick(self) -> None:
        session = self.session
        if session is None or not session.running:
            return
        with self._guard():
            session.tick()
            self._ticks += 1
            if self._filter is not None and self._ticks % _LOOK_FOR_WINDOWS_EVERY == 0:
                self._filter.watch()
            self._on_tick(session)

    def _changed(self, what: Changed) -> None:
        session = self.session
        if session is not None and not session.running and self.timer.active:
            self.timer.stop()
            if self._filter is not None:
                self._filter.stop()
                self._filter = None
            self._on_over(session)
        self._on_changed(what)
