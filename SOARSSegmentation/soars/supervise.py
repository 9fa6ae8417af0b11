"""Running a command in a child process that can be ended whatever it is doing.

Python runs no signal handler while native code computes, reads or loops forever, and a crash there ends the process
without any message. So on Linux the command line forks before anything heavy is imported: the child does the work; the
parent waits, forwards signals (SIGTERM, SIGINT, SIGHUP), kills the child if it does not end by itself, removes what it
was writing, and reports in one sentence what happened. The child dies with its parent. Elsewhere the work is done in
this process, where a step in native code has to finish before the command can end.
"""

from __future__ import annotations

import ctypes
import faulthandler
import math
import os
import select
import signal
import sys
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from functools import cache
from pathlib import Path
from types import FrameType
from typing import Any, TextIO

from soars.staging import LIMIT, PATIENCE, REPORTED, STAGING, WRITTEN, announce, announce_to, sweep
from soars.words import plain

GRACE_S = 1.5
"""Time for the child to end by itself when it is asked to, unless it says that it is `saving_first`."""
SAVING_S = 600.0
CANCELLED = 130
SIGNALS = tuple(
    getattr(signal, name) for name in ("SIGINT", "SIGTERM", "SIGHUP", "SIGBREAK") if hasattr(signal, name)
)
"""What asks a command to end: the keyboard, a parent process, a closed terminal, Ctrl-Break on Windows."""
_PR_SET_PDEATHSIG = 1
_POLL_S = 0.2
_is_child = False
_holding: list[bool] = []
"""For each `uninterrupted` block that has been entered: whether a request waits for its end."""
_handlers_before: dict[int, Any] = {}
"""The handlers that `interrupted_once` stands in for, by signal."""


def supervised(work: Callable[[], int], name: str = "soars") -> int:
    """``work()`` in a child process; returns its exit code, 130 when it was ended on request.

    ``name`` is the program's, for messages. Returns in both processes, in the child with the value of ``work``. Call it
    once, at the process's beginning.
    """
    if not sys.platform.startswith("linux") or threading.active_count() > 1:
        return work()
    sys.stdout.flush()
    sys.stderr.flush()
    reading, writing = os.pipe()
    parent = os.getpid()
    with _requests() as requests:
        child = os.fork()
        if child:
            os.close(writing)
            return _wait(child, reading, requests, name)
    os.close(reading)
    _die_with(parent)
    announce_to(writing)
    global _is_child
    _is_child = True
    return work()


@contextmanager
def saving_first() -> Iterator[None]:
    """What is computed in this block would be lost: after a request to end, it may take up to `SAVING_S` to finish a
    step and save. A second request, `GRACE_S` or more after the first, ends the command at once."""
    announce(PATIENCE, f"{SAVING_S}")
    try:
        yield
    finally:
        announce(PATIENCE, f"{GRACE_S}")


@contextmanager
def within(seconds: float, what: Path | str) -> Iterator[None]:
    """A step in native code on ``what``, a file of others, that may not take longer: a supervised command ends with
    exit code 2 then, and a process of `soars.parallel` ends. In other processes nothing can end it."""
    import multiprocessing

    alone = multiprocessing.parent_process() is not None
    announce(LIMIT, f"{seconds} {what}")
    if alone:
        faulthandler.dump_traceback_later(seconds, exit=True, file=_nowhere())
    try:
        yield
    finally:
        announce(LIMIT)
        if alone:
            faulthandler.cancel_dump_traceback_later()


@cache
def _nowhere() -> TextIO:
    return open(os.devnull, "w", encoding="utf-8")


class _Told:
    """What a child has announced so far."""

    def __init__(self) -> None:
        self._rest = b""
        self.staging: list[Path] = []
        self.written: list[Path] = []
        self.patience_s = GRACE_S
        self.limit_s, self.limited = math.inf, ""
        self.reported = False

    def take(self, chunk: bytes) -> None:
        *lines, self._rest = (self._rest + chunk).split(b"\0")
        for line in lines:
            kind, text = line[:1], os.fsdecode(line[1:])
            if kind == STAGING:
                self.staging.append(Path(text))
            elif kind == WRITTEN:
                self.written.append(Path(text))
            elif kind == PATIENCE:
                self.patience_s = float(text)
            elif kind == LIMIT:
                seconds, _, self.limited = text.partition(" ")
                self.limit_s = float(seconds or math.inf)
            elif kind == REPORTED:
                self.reported = True

    def take_rest(self, reading: int) -> None:
        """What is still in the pipe, which other processes may keep open."""
        os.set_blocking(reading, False)
        with suppress(BlockingIOError):
            while chunk := os.read(reading, 65536):
                self.take(chunk)

    def passes(self, seconds: float) -> bool:
        """Count time that has passed; whether the limit is over. Time for which this process was stopped does not
        count."""
        self.limit_s -= min(seconds, 5 * _POLL_S)
        return self.limit_s < 0


def _wait(child: int, reading: int, requests: list[int], name: str) -> int:
    """Pass requests on until the child has ended, and make sure that it does; its exit code."""
    told = _Told()
    passed_on = 0
    asked_at: float | None = None
    insisted = too_long = False
    looked_at = time.monotonic()
    while True:
        if len(requests) > passed_on:
            os.kill(child, requests[passed_on])
            passed_on += 1
            insisted = insisted or (asked_at is not None and time.monotonic() - asked_at > GRACE_S)
            asked_at = time.monotonic() if asked_at is None else asked_at
        if asked_at is not None:
            waited = time.monotonic() - asked_at
            if waited > GRACE_S and (insisted or waited > told.patience_s):
                os.kill(child, signal.SIGKILL)
        now = time.monotonic()
        if told.passes(now - looked_at):
            too_long = True
            os.kill(child, signal.SIGKILL)
        looked_at = now
        if reading in select.select([reading], [], [], _POLL_S)[0]:
            chunk = os.read(reading, 65536)
            told.take(chunk)
            if not chunk:
                time.sleep(0.001)  # the child has closed everything and is about to end
        ended, status = os.waitpid(child, os.WNOHANG)
        if ended:
            break
    told.take_rest(reading)
    os.close(reading)
    code = os.waitstatus_to_exitcode(status)
    if code < 0:
        for folder in told.staging:
            sweep(folder)
        if requests and told.reported:
            return CANCELLED
        if too_long and not requests:
            return _took_too_long(told.limited, name)
        return _killed(-code, told.written, name, asked=bool(requests))
    return CANCELLED if requests and code else code


def _took_too_long(what: str, name: str) -> int:
    print(
        f"{name}: error: {plain(what)}: decoding takes far longer than it should; the file is damaged or made to do "
        "that: export it again, uncompressed",
        file=sys.stderr,
    )
    return 2


def cancelled_message(written: Sequence[Path]) -> str:
    """What a command that was cancelled says: also what had been written before, and stays."""
    if not written:
        return "cancelled"
    shown = ", ".join(str(path) for path in written[:3]) + (" ..." if len(written) > 3 else "")
    return f"cancelled, after {shown} {'was' if len(written) == 1 else 'were'} written"


def _killed(number: int, written: Sequence[Path], name: str, *, asked: bool) -> int:
    """What to report about a child that a signal has ended, and the exit code."""
    if asked or number in SIGNALS:
        print(f"{name}: error: {plain(cancelled_message(written))}", file=sys.stderr)
        return CANCELLED
    if number == signal.SIGKILL:
        print(
            f"{name}: error: the system ended the program, most likely because memory ran out; close other programs or "
            "use a smaller CT",
            file=sys.stderr,
        )
        return 2
    print(
        f"{name}: internal error: native code crashed ({signal.Signals(number).name}); a damaged file can cause that; "
        "please report it, with the file if it may be shared",
        file=sys.stderr,
    )
    return 1


@contextmanager
def interrupted_once(interrupted: list[int]) -> Iterator[None]:
    """The first of `SIGNALS` raises KeyboardInterrupt, so that all clean-up runs, and later ones cannot disturb that;
    from then on `interrupted` holds its number. The child of `supervised` has nothing left to cancel after the block,
    and ignores them."""
    outer = dict(_handlers_before)
    before: dict[int, Any] = {}

    def interrupt(number: int, _frame: FrameType | None) -> None:
        for each in before:
            signal.signal(each, signal.SIG_IGN)
        interrupted.append(number)
        if _holding:
            _holding[-1] = True
            return
        raise KeyboardInterrupt

    try:
        for number in SIGNALS:
            if signal.getsignal(number) is not signal.SIG_IGN:
                before[number] = signal.signal(number, interrupt)
                _handlers_before.setdefault(number, before[number])
    except ValueError:
        pass  # not the main thread: whoever called us handles signals
    try:
        yield
    finally:
        _handlers_before.clear()
        _handlers_before.update(outer)
        for number, handler in before.items():
            signal.signal(number, signal.SIG_IGN if _is_child else handler)


def _have_no_requests() -> None:
    """In a process that was forked from this one within `interrupted_once`: signals do there what they did before.

    A handler of Python's runs between two steps of Python only: a worker of a pool that is told to end just before it
    waits for work would wait for ever, and its pool for the worker.
    """
    for number, handler in _handlers_before.items():
        signal.signal(number, handler)


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_have_no_requests)


@contextmanager
def uninterrupted() -> Iterator[None]:
    """A request to end waits for the end of this block, which is short: it is done whole, or not begun."""
    _holding.append(False)
    try:
        yield
    finally:
        asked = _holding.pop()
    if asked:
        if _holding:
            _holding[-1] = True
            return
        raise KeyboardInterrupt


@contextmanager
def _requests() -> Iterator[list[int]]:
    """Signals that arrive meanwhile, in a list, instead of what they would do."""
    requests: list[int] = []

    def note(number: int, _frame: FrameType | None) -> None:
        requests.append(number)

    before = {number: signal.getsignal(number) for number in SIGNALS}
    try:
        for number, handler in before.items():
            if handler is not signal.SIG_IGN:  # nohup, or a shell's background job
                signal.signal(number, note)
        yield requests
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def end_with_this_process() -> Callable[[], None] | None:
    """For `subprocess.Popen(preexec_fn=...)`: the kernel ends the new program when this process ends, however that
    happens (Linux; None elsewhere)."""
    if not sys.platform.startswith("linux"):
        return None
    control, parent = ctypes.CDLL(None, use_errno=True).prctl, os.getpid()

    def begin() -> None:
        control(_PR_SET_PDEATHSIG, signal.SIGKILL)
        if os.getppid() != parent:
            os._exit(CANCELLED)

    return begin


def _die_with(parent: int) -> None:
    """Have the kernel end this process when its parent ends, however that happens."""
    ctypes.CDLL(None, use_errno=True).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
    if os.getppid() != parent:  # the parent ended first
        os._exit(CANCELLED)
