"""What happened, a line each, in ``audit/YYYY-MM-DD.jsonl`` (UTC), without saying to whom.

A case is named by its pseudonym, which only the secret in the state folder ties to its series. Reasons come from a
closed set: messages, which can quote descriptions and identifiers, are in the case's own folder only. A line is written
before what it is about is made lasting, so a node that is killed in between says it twice, but never leaves it out.
"""

from __future__ import annotations

import errno
import json
import os
import threading
from collections import Counter, deque
from collections.abc import Mapping
from contextlib import suppress
from datetime import datetime, timezone
from pathlib import Path
from typing import Literal

Event = Literal[
    "started",
    "stopped",
    "association-refused",
    "image-refused",
    "image-discarded",
    "association-broken",
    "announced",
    "queued",
    "refused",
    "duplicate",
    "joined",
    "segmented",
    "waiting",
    "sent",
    "not-sent",
    "done",
    "failed",
    "removed",
    "polled",
    "not-polled",
]
Reason = Literal[
    "",
    "calling-title",
    "called-title",
    "too-many-associations",
    "no-ct",
    "no-identifiers",
    "identifiers-differ",
    "other-content",
    "disk-full",
    "queue-full",
    "incomplete",
    "late-images",
    "unreadable",
    "no-rule",
    "engine",
    "crashed",
    "too-long",
    "fault",
    "destination",
    "gave-up",
    "no-destination",
    "archive",
    "expired",
]


_MOST_WAITING = 10_000
"""Lines that are kept until the disk has room for them."""


class Audit:
    """The log of one node; every line is on the disk before `note` returns. Safe to use from several threads.

    When the disk is full the node goes on, and lines wait in memory until a later one can be written; one that says the
    same as the one before it is left out then, and what would be too many counts as "audit-lost".
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._lock = threading.Lock()
        self._waiting: deque[tuple[Path, str, str]] = deque()
        """Lines: the file, when, and what."""
        self.counts: Counter[tuple[str, str]] = Counter()
        folder.mkdir(mode=0o700, exist_ok=True)

    def note(
        self,
        event: Event,
        case: str = "",
        reason: Reason = "",
        more: Mapping[str, str | int | float] | None = None,
    ) -> None:
        """Add a line. ``more``: AE titles, names of destinations and rules, counts, seconds; nothing of a patient."""
        now = datetime.now(timezone.utc)
        named = {key: value for key, value in (("case", case), ("reason", reason)) if value}
        what = json.dumps({"event": event, **named, **(more or {})})
        with self._lock:
            self.counts[event, reason] += 1
            if not self._waiting or self._waiting[-1][2] != what:
                at = now.isoformat(timespec="milliseconds")
                self._waiting.append((self._folder / f"{now:%Y-%m-%d}.jsonl", at, what))
            with suppress(OSError):
                while self._waiting:
                    path, at, what = self._waiting[0]
                    _append(path, f'{{"at": "{at}", {what[1:]}\n'.encode())
                    self._waiting.popleft()
            if len(self._waiting) > _MOST_WAITING:
                self._waiting.popleft()
                self.counts["audit-lost", ""] += 1


def _append(path: Path, line: bytes) -> None:
    """Add a line, whole or not at all; one that a crash has cut short is ended first."""
    with path.open("ab+", buffering=0) as file:
        size = file.seek(0, os.SEEK_END)
        if size:
            file.seek(size - 1)
            line = line if file.read(1) == b"\n" else b"\n" + line
        try:
            if file.write(line) != len(line):
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
            os.fsync(file.fileno())
        except OSError:
            file.truncate(size)
            raise
