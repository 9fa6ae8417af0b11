"""Effort logs on disk: append-only while a session runs, read with care afterwards.

Every record is one ``write`` of one line, so a killed process loses nothing that it had recorded; a thread brings the
file to the disk once a second, so a machine that loses power loses a second. See `soars.effort.records` for the format.
"""

from __future__ import annotations

import json
import logging
import os
import re
import threading
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace
from pathlib import Path

from soars.effort.records import Event, Header, validate
from soars.errors import InputError, SoarsError

log = logging.getLogger(__name__)

SUFFIX = ".effort.jsonl"
SYNC_S = 1.0
_encoded = json.JSONEncoder(separators=(",", ":"), allow_nan=False).encode
_NEVER_CHANGES = ("study", "case", "reader", "arm", "organs", "bundle_sha256")


class LogWriter:
    """The open log of a running session; make it with `create`. Safe to use from several threads.

    A write that fails (a full disk, a network drive that went away) does not stop the reader's work: the records wait
    in memory, are tried again with the next one, and ``problem`` says meanwhile what is wrong.
    """

    def __init__(self, path: Path, descriptor: int, clock: Callable[[], int]) -> None:
        self.path = path
        self.problem: str | None = None
        self._descriptor = descriptor
        self._clock = clock
        self._last_reading = clock()
        self._now = 0
        self._waiting: list[bytes] = []
        self._half_written = 0
        self._lock = threading.Lock()
        self._unsynced = threading.Event()
        self._closing = threading.Event()
        self._syncer = threading.Thread(target=self._sync_now_and_then, name="soars-effort-log", daemon=True)
        self._syncer.start()

    @classmethod
    def create(cls, path: Path, header: Header, clock: Callable[[], int] = time.monotonic_ns) -> LogWriter:
        """Begin the log of a session in a new file; time 0 is now.

        ``clock`` gives nanoseconds. `InputError` when the header breaks the format, when the file exists already (it
        is never written over) or cannot be made.
        """
        record = header.to_json()
        validate(record)
        flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_APPEND
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            descriptor = os.open(path, flags | getattr(os, "O_BINARY", 0), 0o644)
        except FileExistsError:
            raise InputError(
                f"there is already an effort log {path}: it is kept, begin the session in another folder"
            ) from None
        except OSError as error:
            raise InputError(f"the effort log {path} cannot be written: {error.strerror or error}") from error
        writer = cls(path, descriptor, clock)
        writer._put(_line(record))
        writer.write(Event(0, "start"))
        writer.sync()
        if writer.problem is not None:
            problem = writer.problem
            writer._abandon()
            path.unlink(missing_ok=True)
            raise InputError(problem)
        return writer

    def now(self) -> int:
        """Nanoseconds since the start. Never less than before: a clock set back costs the time it jumped over."""
        reading = self._clock()
        if reading > self._last_reading:
            self._now += reading - self._last_reading
        self._last_reading = reading
        return self._now

    def write(self, event: Event) -> None:
        """Append a record; a failure is kept in ``problem`` and mended with the next one."""
        self._put(_line(event.to_json()))

    def sync(self) -> None:
        """Bring everything so far to the disk before returning."""
        if self._descriptor < 0:
            return
        self._unsynced.clear()
        try:
            os.fsync(self._descriptor)
        except OSError as error:  # a file system that cannot
            log.debug("fsync of %s failed: %s", self.path, error)

    def close(self) -> None:
        """Write what waits, bring it to the disk and close; `SoarsError` when records are lost by that."""
        if self._closing.is_set():
            return
        with self._lock:
            self._write_waiting()
            lost = len(self._waiting)
        self._abandon()
        if lost:
            raise SoarsError(f"{self.problem}; the last {lost} records of the session are lost")

    def _abandon(self) -> None:
        self._closing.set()
        self._unsynced.set()
        self._syncer.join()
        self.sync()
        with self._lock:
            os.close(self._descriptor)
            self._descriptor = -1

    def _put(self, line: bytes) -> None:
        with self._lock:
            if self._closing.is_set():
                return
            self._waiting.append(line)
            self._write_waiting()
        self._unsynced.set()

    def _write_waiting(self) -> None:
        """With the lock held: one ``write`` a record, and the rest of a record that a full disk cut in two."""
        while self._waiting:
            line = self._waiting[0]
            try:
                self._half_written += os.write(self._descriptor, line[self._half_written :])
            except OSError as error:
                self.problem = f"the effort log {self.path} cannot be written: {error.strerror or error}"
                return
            if self._half_written < len(line):
                continue
            self._half_written = 0
            del self._waiting[0]
        self.problem = None

    def _sync_now_and_then(self) -> None:
        while True:
            self._unsynced.wait()
            if self._closing.wait(SYNC_S):
                return
            self.sync()


@dataclass(frozen=True)
class EffortLog:
    """A log as read: ``events`` in order, ``complete`` when it closes with ``end``, else it was interrupted."""

    header: Header
    events: tuple[Event, ...]
    warnings: tuple[str, ...]
    complete: bool

    @property
    def wall_ns(self) -> int:
        """Time of the last record."""
        return self.events[-1].t if self.events else 0


def read_log(path: Path) -> EffortLog:
    """Read a session's log and check every record.

    A last line that is cut off (the process was killed) is left out with a warning; everything before it counts.
    `InputError`, naming the file and the line, for a log that is damaged elsewhere, has no header, or is of a newer
    schema.
    """
    try:
        data = path.read_bytes()
    except OSError as error:
        raise InputError(f"the effort log {path} cannot be read: {error.strerror or error}") from error
    warnings: list[str] = []
    whole = data.rstrip(b"\0")  # some file systems fill the end with zeros when the power fails
    *lines, last = whole.split(b"\n")
    cut = f"line {len(lines) + 1}: the log ends in the middle of a record; it is read up to there"
    if last and _is_json(last):
        lines.append(last)
        warnings.append(f"line {len(lines)}: the last record has no line end")
    elif last or len(whole) < len(data):
        warnings.append(cut)
    if not lines:
        raise InputError(f"the effort log {path} is empty: the session was interrupted as it began")
    header: Header | None = None
    events: list[Event] = []
    for number, line in enumerate(lines, start=1):
        try:
            record = _decoded(line)
            if header is None:
                if not isinstance(record, Header):
                    raise InputError("the first line is not the header")
                header = record
                continue
            if not isinstance(record, Event):
                raise InputError("a second header")
            _check_order(record, events, header)
        except InputError as error:
            raise InputError(f"the effort log {path} cannot be used, line {number}: {error}") from None
        events.append(record)
    assert header is not None
    complete = bool(events) and events[-1].kind == "end"
    return EffortLog(header, tuple(events), tuple(f"{path.name}: {text}" for text in warnings), complete)


def read_session(paths: Iterable[Path]) -> EffortLog:
    """Join the logs of a session that was interrupted and resumed, in any order, into one.

    The times of each log go on where the log before it ended, so the time between them counts nowhere; each begins
    with its own ``start``, after which no organ is selected. `InputError` when the logs are not one chain of
    ``continues``, or differ in study, case, reader, arm, organs or bundle.
    """
    logs = {Path(path).name: read_log(Path(path)) for path in paths}
    chain = _chain(logs)
    first = logs[chain[0]]
    events: list[Event] = []
    for name in chain:
        for field in _NEVER_CHANGES:
            if getattr(logs[name].header, field) != getattr(first.header, field):
                raise InputError(f"the effort logs {chain[0]} and {name} differ in {field}: not one session")
        shift = events[-1].t if events else 0
        events += [_later(event, shift) for event in logs[name].events]
    warnings = tuple(text for name in chain for text in logs[name].warnings)
    return EffortLog(first.header, tuple(events), warnings, logs[chain[-1]].complete)


def session_logs(folder: Path) -> list[Path]:
    """The logs in a session's folder from the first to the newest, as `read_session` takes them."""
    return sorted(
        (path for path in folder.glob(f"*{SUFFIX}") if path.is_file()), key=lambda p: (len(p.name), p.name)
    )


def new_log_path(folder: Path) -> Path:
    """A name for the folder's next log: ``1.effort.jsonl``, or the number after the newest."""
    numbers = [int(stem) for path in session_logs(folder) if (stem := path.name[: -len(SUFFIX)]).isdecimal()]
    return folder / f"{max(numbers, default=0) + 1}{SUFFIX}"


def session_folder(root: Path, header: Header) -> Path:
    """Where a new session's log and results go: ``STUDY/CASE_READER_ARM_START`` below ``root``, not made yet.

    The start is to the second and in UTC; a second session of the same second gets a number.
    """
    start = re.sub(r"[^0-9TZ]", "", header.started_utc.split(".")[0])
    name = f"{header.case}_{header.reader}_{header.arm}_{start}".rstrip("_")
    parent = root / header.study
    folder, number = parent / name, 1
    while folder.exists():
        number += 1
        folder = parent / f"{name}-{number}"
    return folder


def interrupted_sessions(root: Path, wanted: Callable[[Path], bool] = lambda folder: True) -> list[Path]:
    """Folders below ``root``, made by `session_folder`, whose session did not come to its end; newest last.

    Only the logs of folders that are ``wanted`` are read. A folder with a log that cannot be read is left out.
    """
    found: list[tuple[str, Path]] = []
    for folder in filter(wanted, {path.parent for path in root.glob(f"*/*/*{SUFFIX}")}):
        try:
            newest = read_log(session_logs(folder)[-1])
        except InputError as error:
            log.warning("%s", error)
            continue
        if not newest.complete:
            found.append((newest.header.started_utc, folder))
    return [folder for _, folder in sorted(found)]


def _chain(logs: dict[str, EffortLog]) -> list[str]:
    if not logs:
        raise InputError("no effort log was given")
    after: dict[str | None, str] = {}
    for name, one in logs.items():
        before = one.header.continues
        if before in after:
            raise InputError(
                f"the effort logs {after[before]} and {name} both go on from {before or 'nothing'}"
            )
        after[before] = name
    chain: list[str] = []
    following = after.get(None)
    while following is not None:
        chain.append(following)
        following = after.get(following)
    if len(chain) < len(logs):
        loose = sorted(set(logs) - set(chain))
        missing = sorted({str(logs[n].header.continues) for n in loose} - set(logs))
        raise InputError(
            f"the effort logs are not one session: {', '.join(loose)} does not go on from any of the others"
            + (f"; {', '.join(missing)} is missing" if missing else "")
        )
    return chain


def _later(event: Event, shift: int) -> Event:
    if event.since is not None:
        return replace(event, t=event.t + shift, since=event.since + shift)
    return replace(event, t=event.t + shift)


def _check_order(event: Event, events: list[Event], header: Header) -> None:
    if not events and (event.kind != "start" or event.t != 0):
        raise InputError("the first event is not the start at time 0")
    if events:
        if event.kind == "start":
            raise InputError("a second start")
        if events[-1].kind == "end":
            raise InputError("a record after the end")
        if event.t < events[-1].t:
            raise InputError(f"the time {event.t} is earlier than that of the record before, {events[-1].t}")
        if event.since is not None and event.since < events[-1].t:
            raise InputError("since is earlier than the record before")
    if event.organ is not None and event.organ not in header.organs:
        raise InputError(f"{event.organ!r} is none of the session's organs")


def _decoded(line: bytes) -> Header | Event:
    try:
        return validate(json.loads(line.decode("utf-8")))
    except (ValueError, RecursionError):  # also UnicodeDecodeError
        raise InputError("not a JSON object") from None


def _is_json(line: bytes) -> bool:
    try:
        return isinstance(json.loads(line.decode("utf-8")), dict)
    except (ValueError, RecursionError):
        return False


def _line(record: dict[str, object]) -> bytes:
    return (_encoded(record) + "\n").encode("utf-8")
