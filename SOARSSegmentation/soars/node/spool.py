"""The cases of a node on the disk: each in exactly one folder, named after its state.

::

    STATE/receiving/KEY/     images of a series that still comes
    STATE/queued/ID/         complete, waits to be segmented or is being segmented
    STATE/sending/ID/        segmented, waits for a destination
    STATE/done/ID/           sent everywhere; the CT is gone, the results stay for a while
    STATE/failed/ID/         could not be segmented or sent; the CT stays for a while
    STATE/refused/ID/        no rule is for it; only its record stays

A case changes its state by one rename, so it is never in two and never in none, whenever the node is killed. Images are
written and flushed under another name before they are acknowledged. ``KEY`` is a pseudonym of the series; ``ID`` is the
same, or KEY-2 and so on when a series comes again with more images.
"""

from __future__ import annotations

import hashlib
import hmac
import logging
import os
import secrets
import shutil
import threading
import time
import uuid
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any, Literal

from soars.errors import InputError
from soars.files import write_json
from soars.texts import read_json

log = logging.getLogger(__name__)

State = Literal["receiving", "queued", "sending", "done", "failed", "refused"]
STATES: tuple[State, ...] = ("receiving", "queued", "sending", "done", "failed", "refused")
CT, RESULTS, RECORD, PROBLEM = "ct", "results", "case.json", "problem.txt"
_RELEASED, _ORIGIN, _ANNOUNCED, _INCOMING = "released", "origin.json", "announced.json", "incoming"
SENT, GAVE_UP = "sent", "gave-up"
"""What can be said of a destination."""
_SECONDS_A_DAY = 86400


@dataclass(frozen=True)
class Origin:
    """How a series came: the AE titles of the last association, or the archive it was fetched from."""

    called: str = ""
    calling: str = ""
    archive: str = ""


@dataclass(frozen=True)
class Record:
    """Content of ``case.json``. ``images``: SHA-256 of each image by its pseudonym; ``settled``: the destinations that
    have it, or that were given up; ``arrived``: seconds since 1970."""

    id: str
    origin: Origin
    arrived: float
    images: Mapping[str, str]
    rule: str = ""
    crashes: int = 0
    settled: Mapping[str, str] = field(default_factory=dict)
    reason: str = ""
    soars_case: int = 1

    @property
    def key(self) -> str:
        return self.id.partition("-")[0]


class Spool:
    """The state folder of one running node, which holds its lock until `close`, or to the end of a ``with`` block. Safe
    to use from several threads."""

    def __init__(self, home: Path) -> None:
        self.home = home
        self.lock = threading.RLock()
        home.mkdir(mode=0o700, parents=True, exist_ok=True)
        self._only_one = _locked(home)
        for name in (*STATES, _INCOMING):
            (home / name).mkdir(mode=0o700, exist_ok=True)
        for left in (home / _INCOMING).iterdir():  # of a node that was killed: nothing of it was acknowledged
            _remove(left)
        try:
            self._secret = _secret(home / "secret")
        except BaseException:
            self.close()
            raise

    def __enter__(self) -> Spool:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Let another node have the state folder."""
        self._only_one.close()

    def pseudonym(self, identifier: str) -> str:
        """16 digits that stand for a UID and do not reveal it."""
        return hmac.new(self._secret, identifier.encode(), hashlib.sha256).hexdigest()[:16]

    def folder(self, state: State, case: str = "") -> Path:
        return self.home / state / case if case else self.home / state

    def cases(self, state: State) -> list[str]:
        """The cases in a state, by name."""
        return sorted(entry.name for entry in os.scandir(self.home / state) if not entry.name.startswith("."))

    def of_series(self, key: str) -> Iterator[tuple[State, Record]]:
        """State and record of every case of a series, but the one that is being received."""
        for state in STATES[1:]:
            yield from ((state, record) for record in self.records(state) if record.key == key)

    def records(self, state: State) -> list[Record]:
        """The records of all cases in a state, the one that came first first. A case whose record somebody has damaged
        is set aside as failed."""
        found = []
        with self.lock:
            for case in self.cases(state):
                try:
                    found.append(self.record(state, case))
                except InputError as error:
                    if state != "failed":
                        write_problem(self.folder(state, case), str(error))
                        self.move(case, state, "failed")
                        log.warning("the record of case %s cannot be read; it was set aside as failed", case)
        return sorted(found, key=lambda record: record.arrived)

    def record(self, state: State, case: str) -> Record:
        """Raises `InputError` when it cannot be read."""
        path = self.folder(state, case) / RECORD
        try:
            content: dict[str, Any] = read_json(path)
            return Record(**(content | {"origin": Origin(**content["origin"])}))
        except (OSError, ValueError, TypeError, KeyError) as error:
            raise InputError(f"{path}: cannot be read: {error}") from error

    def write(self, state: State, record: Record, case: str = "") -> None:
        """Keep a record in its case's folder (``case`` where that is not called after it yet)."""
        write_json(self.folder(state, case or record.id) / RECORD, asdict(record))

    def move(self, case: str, before: State, after: State, new_name: str = "") -> None:
        """Change a case's state."""
        target = self.folder(after, new_name or case)
        os.rename(self.folder(before, case), target)
        for parent in {target.parent, self.folder(before)}:
            _flush_folder(parent)

    def fail(self, record: Record, before: State, reason: str, message: str) -> None:
        """Set a case aside, with the message, if any, in its folder."""
        with self.lock:
            if message:
                write_problem(self.folder(before, record.id), message)
            sent = {name: how for name, how in record.settled.items() if how == SENT}
            self.write(before, replace(record, reason=reason, settled=sent))
            self.move(record.id, before, "failed")

    def remove(self, state: State, case: str) -> None:
        """Forget a case: first by name, so that a kill in between leaves nothing half removed in sight."""
        hidden = self.home / _INCOMING / uuid.uuid4().hex
        os.rename(self.folder(state, case), hidden)
        _remove(hidden)

    # --- images ------------------------------------------------------------------------------------------------------

    def keep_image(self, series_uid: str, instance_uid: str, parts: Sequence[bytes], origin: Origin) -> str:
        """Put an image on the disk; the key of its series. Nothing happens to one that is there already.

        Raises `FileExistsError` when another image is there by that UID, and `OSError` when it cannot be written.
        """
        key, name = self.pseudonym(series_uid), f"{self.pseudonym(instance_uid)}.dcm"
        temporary = self.home / _INCOMING / uuid.uuid4().hex
        try:
            with temporary.open("xb") as file:
                for part in parts:
                    file.write(part)
                file.flush()
                os.fsync(file.fileno())
            with self.lock:
                folder = self.folder("receiving", key)
                path = folder / CT / name
                if path.exists():
                    if path.read_bytes() != b"".join(parts):
                        raise FileExistsError(path)
                else:
                    path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
                    os.rename(temporary, path)
                    _flush_folder(path.parent)
                (folder / _RELEASED).unlink(missing_ok=True)
                if self.origin(key) != origin:
                    write_json(folder / _ORIGIN, asdict(origin))
        finally:
            temporary.unlink(missing_ok=True)
        return key

    def announce(self, series_uid: str, instance_uids: Sequence[str], origin: Origin) -> None:
        """Note which images a series has, before they come or while they do; nothing when all are known already.
        Another announcement adds to it. Raises `OSError` when that cannot be written."""
        key = self.pseudonym(series_uid)
        names = {f"{self.pseudonym(uid)}.dcm" for uid in instance_uids}
        with self.lock:
            if any(names <= record.images.keys() for _, record in self.of_series(key)):
                return
            folder = self.folder("receiving", key)
            folder.mkdir(mode=0o700, exist_ok=True)
            write_json(folder / _ANNOUNCED, sorted(names | (self.announced(key) or set())))
            if not (folder / _ORIGIN).exists():
                write_json(folder / _ORIGIN, asdict(origin))

    def announced(self, key: str) -> set[str] | None:
        """The images of the series being received, by name, as far as they were announced; None when none was."""
        try:
            return set(read_json(self.folder("receiving", key) / _ANNOUNCED))
        except (OSError, ValueError, TypeError, InputError):
            return None

    def admit(self, images: Path, series_uid: str, origin: Origin) -> str:
        """Take over a folder with all images of a series; its key. A series that is being received is left alone."""
        key = self.pseudonym(series_uid)
        made = self.home / _INCOMING / uuid.uuid4().hex
        made.mkdir(mode=0o700)
        try:
            os.rename(images, made / CT)
            for path in sorted((made / CT).iterdir()):
                os.rename(path, path.with_name(f"{self.pseudonym(_instance_of(path))}.dcm"))
            write_json(made / _ORIGIN, asdict(origin))
            (made / _RELEASED).touch()
            with self.lock:
                if not self.folder("receiving", key).exists():
                    os.rename(made, self.folder("receiving", key))
                    _flush_folder(self.folder("receiving"))
        finally:
            _remove(made)
        return key

    def release(self, key: str, in_order: bool = True) -> None:
        """Note whether the association that brought the last images of a series has ended in order."""
        mark = self.folder("receiving", key) / _RELEASED
        with self.lock, suppress(FileNotFoundError):
            if in_order:
                mark.touch()
            else:
                mark.unlink()

    def is_released(self, key: str) -> bool:
        return (self.folder("receiving", key) / _RELEASED).exists()

    def origin(self, key: str) -> Origin:
        """How the series being received came."""
        try:
            content = read_json(self.folder("receiving", key) / _ORIGIN)
            return Origin(**content)
        except (OSError, ValueError, TypeError, InputError):
            return Origin()

    # --- room --------------------------------------------------------------------------------------------------------

    def used_bytes(self) -> int:
        """What lies in the state folder."""
        total = 0
        for folder, _, names in os.walk(self.home):
            for name in names:
                with suppress(OSError):
                    total += os.stat(os.path.join(folder, name)).st_size
        return total

    def free_bytes(self) -> int:
        return shutil.disk_usage(self.home).free

    def expired(self, state: State, days: float) -> list[str]:
        """The cases that have been in a state for longer than that."""
        oldest = time.time() - days * _SECONDS_A_DAY
        found = []
        for case in self.cases(state):
            with suppress(OSError):
                if self.folder(state, case).stat().st_ctime < oldest:
                    found.append(case)
        return found


def write_problem(folder: Path, message: str) -> None:
    """Keep for people why a case stopped; with the CT, as it may quote descriptions."""
    with suppress(OSError, InputError):
        (folder / PROBLEM).write_text(message + "\n", encoding="utf-8")


def sha256_of(path: Path) -> str:
    with path.open("rb") as file:
        return (
            hashlib.file_digest(file, "sha256").hexdigest()
            if hasattr(hashlib, "file_digest")
            else _sha256(file)
        )


def _sha256(file: Any) -> str:
    total = hashlib.sha256()
    while chunk := file.read(1 << 20):
        total.update(chunk)
    return total.hexdigest()


def _instance_of(path: Path) -> str:
    from soars.ct.dicom_files import read_header

    return read_header(path).text("SOPInstanceUID")


def _secret(path: Path) -> bytes:
    try:
        return bytes.fromhex(path.read_text(encoding="ascii"))
    except FileNotFoundError:
        made = secrets.token_bytes(32)
        temporary = path.with_name(f".{uuid.uuid4().hex}")
        descriptor = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
        with os.fdopen(descriptor, "w", encoding="ascii") as file:
            file.write(made.hex())
            file.flush()
            os.fsync(file.fileno())
        os.rename(temporary, path)
        return made
    except ValueError as error:
        raise InputError(
            f"{path}: is damaged; without it, pseudonyms of known series cannot be made"
        ) from error


def _locked(home: Path) -> Any:
    """Hold the lock of a state folder until the file is closed."""
    file = (home / "lock").open("a")
    try:
        import fcntl

        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except ImportError:  # Windows
        pass
    except OSError as error:
        file.close()
        raise InputError(f"{home}: another node is running with this state folder") from error
    return file


def _flush_folder(folder: Path) -> None:
    """Have a rename on the disk; not on Windows, where folders cannot be opened."""
    if os.name != "posix":
        return
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _remove(path: Path) -> None:
    if path.is_dir():
        shutil.rmtree(path, ignore_errors=True)
    else:
        path.unlink(missing_ok=True)
