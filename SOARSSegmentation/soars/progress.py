"""How far along a command is: one small record, and the three ways in which ``--progress`` shows it.

``auto`` writes for people, to standard error: one line that is rewritten in a terminal, else a plain line now and
then. ``none`` writes nothing. ``json`` writes for a parent process, to standard output, one JSON object per line::

    {"stage": "anchor", "done": 3, "of": 12, "message": ""}

and, whenever nothing was written for a second, a heartbeat that shows that the process is alive; it repeats the
progress of the last stage, and a parent that only wants progress skips it::

    {"stage": "heartbeat", "done": 3, "of": 12, "message": "anchor"}
"""

from __future__ import annotations

import json
import logging
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass, replace
from typing import TextIO

from soars.errors import CancelledError
from soars.words import plain, unfiltered

MODES = ("auto", "json", "none")
HEARTBEAT_S = 1.0
"""Longest silence of ``--progress json``; the contract is two seconds, and the machine may be busy."""
SPARSE_S = 10.0
"""Shortest time between two plain lines of the same stage where standard error is not a terminal."""


@dataclass(frozen=True)
class Progress:
    """``done`` of ``of`` steps of a stage are finished (``of`` 0: unknown); ``message`` is for people."""

    stage: str
    done: int = 0
    of: int = 0
    message: str = ""


Reporter = Callable[[Progress], None]


def ignore(progress: Progress) -> None:
    """A reporter that does nothing."""


def with_time_left(report: Reporter, clock: Callable[[], float] = time.monotonic) -> Reporter:
    """A reporter that adds to what it passes on how long the rest of the stage takes at its pace so far."""
    stage, began = "", clock()

    def within(progress: Progress) -> None:
        nonlocal stage, began
        now = clock()
        if progress.stage != stage or progress.done == 0:
            stage, began = progress.stage, now
        if 0 < progress.done < progress.of:
            left = f"{duration((now - began) / progress.done * (progress.of - progress.done))} left"
            message = f"{left}, {progress.message}" if progress.message else left
            progress = replace(progress, message=message)
        report(progress)

    return within


def duration(seconds: float) -> str:
    """For people: ``40 s``, ``12 min``, ``3 h 05 min``."""
    if seconds < 60:
        return f"{seconds:.0f} s"
    minutes = round(seconds / 60)
    return f"{minutes} min" if minutes < 60 else f"{minutes // 60} h {minutes % 60:02d} min"


@contextmanager
def reporting(mode: str) -> Iterator[Reporter]:
    """A reporter for ``--progress MODE``, to be opened before heavy imports so that the heartbeat covers them.

    The reporter raises `CancelledError` once the reader of standard output has gone away.
    """
    if mode == "json":
        with _json_lines(getattr(sys.stdout, "watched", sys.stdout), HEARTBEAT_S) as report:
            yield report
    elif mode == "auto":
        with _for_people(sys.stderr) as report:
            yield report
    elif mode == "none":
        yield ignore
    else:
        raise ValueError(f"unknown progress mode {mode!r}")


@contextmanager
def _json_lines(stream: TextIO, interval_s: float) -> Iterator[Reporter]:
    lock = threading.Lock()
    stop = threading.Event()
    last = Progress("start")
    written_at = 0.0
    gone = False

    def write(progress: Progress) -> None:  # with the lock held
        nonlocal written_at, gone
        try:
            stream.write(json.dumps(asdict(progress)) + "\n")
            stream.flush()
        except (OSError, ValueError):  # a broken pipe, a closed stream
            gone = True
        written_at = time.monotonic()

    def report(progress: Progress) -> None:
        nonlocal last
        with lock:
            last = progress
            write(progress)
        if gone:
            raise CancelledError("cancelled: the program that reads the progress has gone away")

    def heartbeat() -> None:
        while not stop.wait(interval_s / 4):
            with lock:
                if not stop.is_set() and not gone and time.monotonic() - written_at >= interval_s * 0.75:
                    write(Progress("heartbeat", last.done, last.of, last.stage))

    thread = threading.Thread(target=heartbeat, name="soars-heartbeat", daemon=True)
    report(last)
    thread.start()
    try:
        yield report
    finally:
        stop.set()
        thread.join(timeout=interval_s)  # it may hang on a pipe that nobody empties


@contextmanager
def _for_people(stream: TextIO) -> Iterator[Reporter]:
    stream = unfiltered(stream)
    terminal = stream.isatty()
    stage = ""
    written_at = 0.0
    width = 0

    def clear(_record: logging.LogRecord | None = None) -> bool:
        """Empty the line; as a logging filter, so that a warning does not land in the middle of it."""
        nonlocal width
        if width:
            stream.write("\r" + " " * width + "\r")
            stream.flush()
            width = 0
        return True

    def report(progress: Progress) -> None:
        nonlocal stage, written_at, width
        now = time.monotonic()
        changed = progress.stage != stage
        finished = progress.of > 0 and progress.done >= progress.of
        if terminal:
            if changed or finished or now - written_at >= 0.1:
                text = _line(progress, bar=True)
                stream.write("\r" + text.ljust(width))
                stream.flush()
                width, written_at = len(text), now
        elif changed or now - written_at >= SPARSE_S:
            stream.write(_line(progress, bar=False) + "\n")
            stream.flush()
            written_at = now
        stage = progress.stage

    handlers = list(logging.getLogger().handlers) if terminal else []
    for handler in handlers:
        handler.addFilter(clear)
    try:
        yield report
    finally:
        for handler in handlers:
            handler.removeFilter(clear)
        clear()


def _line(progress: Progress, *, bar: bool) -> str:
    # "check" and "checking the bundle" say the same: then show the message alone
    doubled = progress.message.lower().startswith(progress.stage.lower()[:4])
    parts = [plain(progress.message) if doubled else progress.stage]
    if progress.of > 0:
        share = min(max(progress.done / progress.of, 0.0), 1.0)
        if bar:
            filled = round(20 * share)
            parts.append("[" + "#" * filled + "." * (20 - filled) + "]")
        parts.append(f"{progress.done}/{progress.of}")
    if progress.message and not doubled:
        parts.append(plain(progress.message))
    line = " ".join(parts)
    return line if len(line) < 79 or not bar else line[:76] + "..."
