"""A short ``soars`` command as a child process beside the application: what it says, its progress, and its end."""

from __future__ import annotations

import queue
import subprocess
import threading
from collections import deque
from collections.abc import Callable, Sequence

import qt

from soars.errors import InputError
from soars.progress import Progress
from SOARSSegmentationLib.run.process import end_tree, find_python, launch
from SOARSSegmentationLib.run.runner import (
    GRACE_S,
    MODULE_FOLDER,
    POLL_MS,
    TAIL_LINES,
    end_message,
    parse_progress,
    read_lines,
)


class Command:
    """One command at a time: `start` it, `cancel` it; `close` it with its owner."""

    def __init__(self) -> None:
        self._process: subprocess.Popen[str] | None = None
        self._said: queue.SimpleQueue[tuple[str, str, float]] = queue.SimpleQueue()
        self._readers: list[threading.Thread] = []
        self._lines: list[str] = []
        self._tail: deque[str] = deque(maxlen=TAIL_LINES)
        self._what = ""
        self._on_done: Callable[[list[str]], None] = lambda lines: None
        self._on_failed: Callable[[str], None] = lambda message: None
        self._on_progress: Callable[[Progress], None] = lambda progress: None
        self._timer = qt.QTimer()
        self._timer.interval = POLL_MS
        self._timer.timeout.connect(self._poll)

    @property
    def running(self) -> bool:
        return self._process is not None

    def start(
        self,
        words: Sequence[str],
        what: str,
        *,
        on_done: Callable[[list[str]], None],
        on_failed: Callable[[str], None],
        on_progress: Callable[[Progress], None] = lambda progress: None,
    ) -> None:
        """Start ``soars WORDS``; a command that is running is cancelled.

        ``what`` is it in words, for errors. ``on_done(lines)`` is called with what it printed, ``on_failed(message)``
        with one sentence; neither after `cancel`. `InputError` when it cannot be started.
        """
        self.cancel()
        self._what, self._on_done = what, on_done
        self._on_failed, self._on_progress = on_failed, on_progress
        self._lines, self._said = [], queue.SimpleQueue()
        self._tail.clear()
        try:
            self._process = launch(find_python(), ["-m", "soars.cli", *words], MODULE_FOLDER)
        except OSError as error:
            raise InputError(f"{what} could not be started: {error.strerror or error}") from error
        self._readers = [
            threading.Thread(target=read_lines, args=(stream, kind, self._said), daemon=True)
            for kind, stream in (("out", self._process.stdout), ("err", self._process.stderr))
        ]
        for reader in self._readers:
            reader.start()
        self._timer.start()

    def cancel(self) -> bool:
        """End the command, if one is running; whether one was."""
        if self._process is None:
            return False
        end_tree(self._process, GRACE_S)
        self._close()
        return True

    def close(self) -> None:
        """Let go of the timer, which would keep this and its owner for ever."""
        self.cancel()
        self._timer.timeout.disconnect(self._poll)

    def _poll(self) -> None:
        process = self._process
        if process is None:
            return
        code = process.poll()
        over = code is not None and not any(reader.is_alive() for reader in self._readers)
        self._drain()
        if not over or code is None or self._process is not process:
            return
        self._close()
        if code == 0:
            self._on_done(self._lines)
        else:
            self._on_failed(end_message(code, list(self._tail), self._what))

    def _drain(self) -> None:
        process = self._process
        while self._process is process:  # a callback may cancel
            try:
                kind, line, _time = self._said.get_nowait()
            except queue.Empty:
                return
            progress = parse_progress(line) if kind == "out" else None
            if progress is not None:
                if progress.stage != "heartbeat":
                    self._on_progress(progress)
            elif line.strip():
                (self._lines if kind == "out" else self._tail).append(line.rstrip())

    def _close(self) -> None:
        process, self._process = self._process, None
        self._timer.stop()
        for reader in self._readers:
            reader.join(timeout=0.2)
        if process is not None:
            for stream, reader in zip((process.stdout, process.stderr), self._readers, strict=True):
                if stream is not None and not reader.is_alive():
                    stream.close()
        self._readers = []
