"""One session at a time in a folder: a lock that the operating system releases when its process ends, however it
ends."""

from __future__ import annotations

import contextlib
import os
import sys
from pathlib import Path

from soars.errors import InputError

LOCK_FILE = ".session.lock"


class FolderLock:
    """A folder held by this process until `release`, or until the process ends."""

    def __init__(self, path: Path, descriptor: int) -> None:
        self._path = path
        self._descriptor: int | None = descriptor

    @classmethod
    def take(cls, folder: Path) -> FolderLock:
        """Lock a folder; `InputError` when another session holds it, or the drive does not support locks."""
        path = folder / LOCK_FILE
        while True:
            try:
                descriptor = os.open(path, os.O_RDWR | os.O_CREAT, 0o644)
            except OSError as error:
                raise InputError(
                    f"the session's lock {path} cannot be made: {error.strerror or error}"
                ) from error
            try:
                _lock(descriptor)
            except (BlockingIOError, PermissionError):
                os.close(descriptor)
                raise InputError(
                    f"another window is running a session in {folder}: finish it there, or begin a new session"
                ) from None
            except OSError as error:
                os.close(descriptor)
                raise InputError(
                    f"the drive of {folder} cannot lock files ({error.strerror or error}): keep sessions on one that "
                    "can, so that two windows never write the same session"
                ) from error
            if _is_still(path, descriptor):
                return cls(path, descriptor)
            os.close(descriptor)  # its holder removed it between our opening and our locking it

    def release(self) -> None:
        """Release the folder. Does nothing the second time."""
        if self._descriptor is None:
            return
        descriptor, self._descriptor = self._descriptor, None
        if sys.platform == "win32":  # an open file cannot be removed there
            os.close(descriptor)
            _remove(self._path)
        else:
            _remove(self._path)
            os.close(descriptor)


def is_locked(folder: Path) -> bool:
    """Whether a session is running in a folder. A session on another machine is seen if the drive shares its locks."""
    path = folder / LOCK_FILE
    if not path.exists():
        return False
    try:
        descriptor = os.open(path, os.O_RDWR)
    except OSError:
        return path.exists()
    try:
        _lock(descriptor)
    except OSError:
        return True
    finally:
        os.close(descriptor)
    return False


def _remove(path: Path) -> None:
    with contextlib.suppress(OSError):  # a left-over file is not a lock
        path.unlink(missing_ok=True)


def _is_still(path: Path, descriptor: int) -> bool:
    try:
        return os.path.samestat(os.stat(path), os.fstat(descriptor))
    except FileNotFoundError:
        return False


if sys.platform == "win32":
    import msvcrt

    def _lock(descriptor: int) -> None:
        msvcrt.locking(descriptor, msvcrt.LK_NBLCK, 1)
else:
    import fcntl

    def _lock(descriptor: int) -> None:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
