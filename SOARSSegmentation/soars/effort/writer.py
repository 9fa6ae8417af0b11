"""The log of a running session: append-only, flushed record by record, and watched over by its writer.

Every record is one ``write`` of one line, so a killed process loses nothing that it had recorded; a thread brings the
file to the disk once a second, so a machine that loses power loses a second. The same thread checks that the file still
exists with the expected length; one that was deleted, truncated or changed by others is written again.
"""

from __future__ import annotations

import logging
import os
import threading
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

from soars.effort.chain import chained_line, plain_line
from soars.effort.lock import FolderLock
from soars.effort.log import read_log
from soars.effort.records import Event, Header, validate
from soars.errors import InputError, SoarsError

log = logging.getLogger(__name__)

SYNC_S = 1.0
_BINARY = getattr(os, "O_BINARY", 0)
_APPENDING = os.O_WRONLY | os.O_CREAT | os.O_APPEND | _BINARY


class LogWriter:
    """The open log of a running session; make it with `create`. Safe to use from several threads.

    A write that fails (a full disk, a network drive that went away) does not stop the reader's work: the records wait
    in memory, are tried again with the next one, while ``problem`` says what is wrong. ``restored`` counts how often
    the file had to be written again because somebody removed or changed it.
    """

    def __init__(
        self, path: Path, descriptor: int, clock: Callable[[], int], lock: FolderLock, schema: int
    ) -> None:
        self.path = path
        self.problem: str | None = None
        self.restored = 0
        self._descriptor = descriptor
        self._folder_lock = lock
        self._chained = schema > 1
        self._chain = ""
        self._clock = clock
        self._last_reading = clock()
        self._now = 0
        self._written: list[bytes] = []
        self._length = 0
        self._waiting: list[bytes] = []
        self._half_written = 0
        self._lock = threading.Lock()
        self._unsynced = threading.Event()
        self._closing = threading.Event()
        self._syncer = threading.Thread(target=self._sync_now_and_then, name="soars-effort-log", daemon=True)
        self._syncer.start()

    @classmethod
    def create(cls, path: Path, header: Header, clock: Callable[[], int] = time.monotonic_ns) -> LogWriter:
        """Begin the log of a session in a new file; time 0 is now. The folder is locked until the log is closed.

        ``clock`` gives nanoseconds. A header that goes on from a log in the same folder gets that log's last chain.
        `InputError` when the header breaks the format, when the file exists already (it is never written over) or
        cannot be made, and when another session is running in the folder.
        """
        validate(header.to_json())
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise InputError(f"the effort log {path} cannot be written: {error.strerror or error}") from error
        lock = FolderLock.take(path.parent)
        try:
            record = _linked(header, path.parent).to_json()
            writer = cls(path, _new_file(path), clock, lock, header.schema)
        except BaseException:
            lock.release()
            raise
        writer._put(record)
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
        self._put(event.to_json())

    def sync(self) -> None:
        """Flush everything to the disk before returning, and write the file again if it is not intact."""
        with self._lock:
            if self._descriptor < 0:
                return
            self._unsynced.clear()
            if not self._is_whole():
                self._restore()
            descriptor = os.dup(self._descriptor)
        try:
            os.fsync(descriptor)  # without the lock: a slow drive must not delay the reader
        except OSError as error:  # a file system that cannot
            log.debug("fsync of %s failed: %s", self.path, error)
        finally:
            os.close(descriptor)

    def close(self) -> None:
        """Write and flush pending records, and close; `SoarsError` if records are lost."""
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
        self._folder_lock.release()

    def _put(self, record: dict[str, object]) -> None:
        with self._lock:
            if self._closing.is_set():
                return
            if self._chained:
                line, self._chain = chained_line(record, self._chain)
            else:
                line = plain_line(record)
            self._waiting.append(line)
            self._write_waiting()
        self._unsynced.set()

    def _write_waiting(self) -> None:
        """With the lock held: one ``write`` a record, and the rest of a record that a full disk cut in two."""
        while self._waiting:
            line = self._waiting[0]
            try:
                written = os.write(self._descriptor, line[self._half_written :])
            except OSError as error:
                self.problem = f"the effort log {self.path} cannot be written: {error.strerror or error}"
                return
            self._length += written
            self._half_written += written
            if self._half_written < len(line):
                continue
            self._half_written = 0
            self._written.append(line)
            del self._waiting[0]
        self.problem = None

    def _is_whole(self) -> bool:
        """With the lock held: whether the file under our name is the one we write, and as long as what we wrote."""
        try:
            there, ours = os.stat(self.path), os.fstat(self._descriptor)
        except FileNotFoundError:
            return False
        except OSError:  # the drive is away: writing will say so
            return True
        return os.path.samestat(there, ours) and there.st_size == self._length

    def _restore(self) -> None:
        """With the lock held: replace the damaged file by a new one with every record."""
        temporary = self.path.with_name(f".{self.path.name}.restored")
        text = b"".join(self._written)
        if self._half_written:
            text += self._waiting[0][: self._half_written]
        try:
            self.path.parent.mkdir(parents=True, exist_ok=True)
            temporary.write_bytes(text)
            os.replace(temporary, self.path)
            descriptor = os.open(self.path, _APPENDING, 0o644)
        except OSError as error:
            self.problem = (
                f"the effort log {self.path} was deleted or changed by another program, and cannot be written again: "
                f"{error.strerror or error}"
            )
            return
        os.close(self._descriptor)
        self._descriptor = descriptor
        self._length = len(text)
        self.restored += 1
        log.warning(
            "the effort log %s was deleted or changed by another program; it was written again", self.path
        )

    def _sync_now_and_then(self) -> None:
        while True:
            self._unsynced.wait()
            if self._closing.wait(SYNC_S):
                return
            self.sync()


def _new_file(path: Path) -> int:
    try:
        return os.open(path, _APPENDING | os.O_EXCL, 0o644)
    except FileExistsError:
        raise InputError(
            f"there is already an effort log {path}: it is kept, begin the session in another folder"
        ) from None
    except OSError as error:
        raise InputError(f"the effort log {path} cannot be written: {error.strerror or error}") from error


def _linked(header: Header, folder: Path) -> Header:
    """The header with the chain of the log that it goes on from."""
    if header.continues is None or header.schema < 2 or not (folder / header.continues).is_file():
        return header
    return replace(header, continues_chain=read_log(folder / header.continues).last_chain)
