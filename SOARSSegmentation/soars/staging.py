"""Temporary names of results that are being written, and what to do with those of a process that was killed.

Each name identifies its owner: host, process and when that process began. So the next run in the same folder can
distinguish leftovers (the owner is gone) from results that are being written.
"""

from __future__ import annotations

import hashlib
import os
import re
import shutil
import socket
import tempfile
import uuid
import weakref
from contextlib import suppress
from functools import cache
from pathlib import Path

PREFIX = ".soars-"
REPLACED = ".replaced"
"""Folder in a staging folder that keeps the replaced entries while the new results take their names."""
KEPT = ".soars-kept"
"""Ending of the second name that a file keeps while several files are replaced together."""
_NAME = re.compile(r"\.soars-([0-9a-f]{8})\.(\d+)\.(\d+)-[0-9a-z_]+(-.*)?", re.DOTALL)
_NAME_KEPT = 80
"""Characters of a file's own name, its ending among them, that its temporary name carries."""
STAGING, WRITTEN, PATIENCE, LIMIT, REPORTED = b"s", b"w", b"p", b"l", b"r"
"""What `announce` is about: a folder in which results are staged, a path that is written, the seconds for which the
child is to be waited for after a request to end, those that a step may take with what it works on ("" when the step is
over), or that the user knows already how the command ended."""
written: list[Path] = []
"""What this process's command has written so far."""
_meant: dict[str, str] = {}
"""Temporary names of this process, and what they stand for."""
_MOST_MEANT = 1000
_announce_to: int | None = None
_keeps_account = True
_swept: set[Path] = set()
_MOST_SWEPT = 10_000
"""Folders that are remembered; in one that is forgotten, leftovers are looked for once more."""


def staging_file(path: Path) -> Path:
    """A temporary name beside `path` with the same ending; nothing is made."""
    _begin_in(path.parent)
    file = path.parent / f"{_owner()}-{uuid.uuid4().hex[:12]}-{path.name[-_NAME_KEPT:]}"
    _stands_for(file, path)
    return file


def staging_folder(home: Path, target: Path | None = None) -> Path:
    """A new folder in `home` that only this user can look into, for what goes into ``target``, `home` when None."""
    _begin_in(home)
    target = home if target is None else target
    suffix = "" if home == target else "-beside"
    folder = Path(tempfile.mkdtemp(prefix=f"{_owner()}-", suffix=suffix, dir=home))
    _stands_for(folder, target)
    return folder


def by_own_names(text: str) -> str:
    """A message with the names that files are to have, in place of their temporary ones."""
    for temporary, meant in reversed(_meant.items()):  # those in a staging folder were made after it
        text = text.replace(temporary, meant)
    return text


class TemporaryFolder:
    """A folder in the system's temporary one, for what no other program needs.

    It is removed at the end of a ``with`` block, which gives its path, or with this object; what a killed process has
    left, by the next process that makes such a folder.
    """

    def __init__(self) -> None:
        self.path = staging_folder(Path(tempfile.gettempdir()))
        _meant.pop(str(self.path))  # it stands for nothing else
        self._remove = weakref.finalize(self, shutil.rmtree, self.path, ignore_errors=True)

    def remove(self) -> None:
        """Remove it now."""
        self._remove()

    def __enter__(self) -> Path:
        return self.path

    def __exit__(self, *_: object) -> None:
        self.remove()


def sweep(folder: Path) -> list[Path]:
    """Remove what processes that are gone have left in a folder; returns what was found.

    Only what this user owns is touched. Old results that such a process had moved out of the way, and not replaced
    completely, get their names back first. What cannot be removed stays.
    """
    try:
        left = [Path(entry) for entry in os.scandir(folder) if _is_abandoned(entry)]
    except OSError:
        return []
    files = [path for path in left if not path.is_dir()]
    unfinished = {_owner_of(path) for path in files if not path.name.endswith(KEPT)}
    for path in files:
        with suppress(OSError):
            if path.name.endswith(KEPT) and _owner_of(path) in unfinished:
                _rename_back(path)
            else:
                path.unlink()
    for path in set(left) - set(files):
        with suppress(OSError):
            if _put_back(path):
                shutil.rmtree(path, ignore_errors=True)
    return left


def announce_to(descriptor: int) -> None:
    """Write to this pipe what the process that supervises this one has to know, each as a kind, its text and a zero."""
    global _announce_to
    _announce_to = descriptor


def announce(kind: bytes, what: Path | str = "") -> None:
    """Tell the process that supervises this one, if any does."""
    if _announce_to is not None:
        with suppress(OSError):
            os.write(_announce_to, kind + os.fsencode(what) + b"\0")


def keep_no_account() -> None:
    """Of a process that runs for months, nobody asks what it has written, and a list of that would grow for ever."""
    global _keeps_account
    _keeps_account = False


def note_written(path: Path) -> None:
    """Results have taken this name: a command that is cancelled later says so. What is still in a staging folder does
    not count."""
    if not _keeps_account or any(_NAME.fullmatch(part) for part in path.parts):
        return
    written.append(path)
    announce(WRITTEN, path)


def _stands_for(temporary: Path, path: Path) -> None:
    while len(_meant) >= _MOST_MEANT:
        del _meant[next(iter(_meant))]
    _meant[str(temporary)] = str(path)


def _begin_in(folder: Path) -> None:
    folder = folder.resolve()
    if folder in _swept:
        return
    if len(_swept) >= _MOST_SWEPT:
        _swept.clear()
    _swept.add(folder)
    if _keeps_account:
        announce(STAGING, folder)
    sweep(folder)


def _rename_back(kept: Path) -> None:
    """Give a file its own name again; a name that was too long to be kept whole is not guessed."""
    name = kept.name.split("-", 3)[3].removesuffix(KEPT)
    if len(name) < _NAME_KEPT:
        os.replace(kept, kept.with_name(name))


def _put_back(staging: Path) -> bool:
    """Undo a swap that was cut short in the middle (`soars.files.staged_folder`); False when it is not known where."""
    old = staging / REPLACED
    if not old.is_dir():
        return True
    for path in list(old.iterdir()):
        if staging.name.endswith("-beside"):
            return False
        place = staging.parent / path.name
        if os.path.lexists(place):
            os.rename(place, staging / path.name)
        os.rename(path, place)
    return True


def _is_abandoned(entry: os.DirEntry[str]) -> bool:
    found = _NAME.fullmatch(entry.name)
    if found is None or found[1] != _host() or entry.is_symlink():
        return False
    if hasattr(os, "geteuid") and entry.stat(follow_symlinks=False).st_uid != os.geteuid():
        return False
    process, began = int(found[2]), int(found[3])
    return process != os.getpid() and (not _is_alive(process) or _began(process) not in (0, began))


def _owner_of(path: Path) -> str:
    return "-".join(path.name.split("-", 2)[:2])


def _owner() -> str:
    process = os.getpid()
    return f"{PREFIX}{_host()}.{process}.{_began(process)}"


@cache
def _host() -> str:
    """Eight digits for this computer and, in a container, for its own numbering of processes."""
    try:
        numbering = os.readlink("/proc/self/ns/pid")
    except OSError:
        numbering = ""
    return hashlib.sha256(f"{socket.gethostname()} {numbering}".encode()).hexdigest()[:8]


def _is_alive(process: int) -> bool:
    if os.name != "posix":
        return True  # there is no way to ask that could not end the process; nothing is swept
    try:
        os.kill(process, 0)
    except ProcessLookupError:
        return False
    except (PermissionError, OverflowError):
        pass
    return _state(process)[:1] != [
        b"Z"
    ]  # one that has ended and that its parent has not asked after does nothing more


def _began(process: int) -> int:
    """When a process began, in clock ticks since the computer did; 0 where the system does not say."""
    try:
        return int(_state(process)[19])
    except (ValueError, IndexError):
        return 0


def _state(process: int) -> list[bytes]:
    """What Linux says of a process, from its state on; empty where it says nothing."""
    try:
        return Path(f"/proc/{process}/stat").read_bytes().rpartition(b")")[2].split()
    except OSError:
        return []
