"""Checksums of finished sessions: in the session's own folder, and in a ledger that the lead keeps elsewhere.

A session's ``checksums.sha256`` (as ``sha256sum`` writes and checks it) reveals damage in transit. Somebody who changes
a file can change that list too, so the ledger, ``ledger.json`` beside the lead's study file, records every session as
first collected, and each later collection names what has changed or disappeared since.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Mapping
from pathlib import Path

from soars.errors import InputError
from soars.files import write_text
from soars.texts import read_bytes

CHECKSUMS = "checksums.sha256"
LEDGER = "ledger.json"
_LINE = re.compile(r"([0-9a-f]{64}) [ *]([^/\\]+)")


def write_checksums(folder: Path) -> None:
    """List every file of a finished session with its SHA-256."""
    lines = [f"{sha256_of(path)}  {path.name}\n" for path in _files(folder)]
    write_text(folder / CHECKSUMS, "".join(lines))


def complete_checksums(folder: Path) -> None:
    """`write_checksums` for a finished session that was killed before it had its list."""
    if not (folder / CHECKSUMS).exists():
        write_checksums(folder)


def check_checksums(folder: Path) -> list[str]:
    """What is wrong with a session's files, in words; nothing for a session without a list."""
    path = folder / CHECKSUMS
    if not path.is_file():
        return []
    listed = {}
    for line in read_bytes(path).decode("utf-8", errors="replace").splitlines():
        match = _LINE.fullmatch(line)
        if match is None:
            return [f"{CHECKSUMS} is damaged"]
        listed[match[2]] = match[1]
    there = {file.name: file for file in _files(folder)}
    problems = [f"{name} is missing" for name in sorted(set(listed) - set(there))]
    problems += [
        f"{name} was added after the session was finished" for name in sorted(set(there) - set(listed))
    ]
    for name in sorted(set(listed) & set(there)):
        if sha256_of(there[name]) != listed[name]:
            problems.append(f"{name} was changed after the session was finished")
    return problems


def compare_ledger(before: Mapping[str, str], now: Mapping[str, str]) -> list[str]:
    """What has happened to sessions since the ledger was written; both map a session to the hash of its logs."""
    problems = [
        f"{name}: was collected before and has disappeared" for name in sorted(set(before) - set(now))
    ]
    return problems + [
        f"{name}: its log differs from the one first collected"
        for name in sorted(set(before) & set(now))
        if before[name] != now[name]
    ]


def sha256_of(path: Path) -> str:
    """The SHA-256 of a file; `InputError` when it cannot be read."""
    digest = hashlib.sha256()
    try:
        with path.open("rb") as file:
            while block := file.read(1 << 20):
                digest.update(block)
    except OSError as error:
        raise InputError(f"{path} cannot be read: {error.strerror or error}") from error
    return digest.hexdigest()


def _files(folder: Path) -> list[Path]:
    return sorted(
        path
        for path in folder.iterdir()
        if path.is_file() and not path.name.startswith(".") and path.name != CHECKSUMS
    )
