"""What happened, a line each, in ``audit/YYYY-MM-DD.jsonl`` (UTC), without saying to whom.

A case is named by its pseudonym, which only the secret in the state folder ties to its series. Reasons come from a
closed set: messages, which can quote descriptions and identifiers, are in the case's own folder only. A line is written
before what it is about is made lasting, so a node that is killed in between says it twice, but never leaves it out.
"""

from __future__ import annotations

import json
import os
import threading
from collections import Counter
from collections.abc import Mapping
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


class Audit:
    """The log of one node; every line is on the disk before `note` returns. Safe to use from several threads."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._lock = threading.Lock()
        self.counts: Counter[tuple[str, str]] = Counter()
        folder.mkdir(mode=0o700, exist_ok=True)

    def note(
        self,
        event: Event,
        case: str = "",
        reason: Reason = "",
        more: Mapping[str, str | int | float] | None = None,
    ) -> None:
        """Add a line. ``more``: AE titles, names of destinations and rules, counts and seconds; nothing of a patient.

        What cannot be written, as the disk is full, is counted all the same: the node goes on.
        """
        now = datetime.now(timezone.utc)
        record = {"at": now.isoformat(timespec="milliseconds"), "event": event}
        record |= {key: value for key, value in (("case", case), ("reason", reason)) if value}
        line = json.dumps({**record, **(more or {})}) + "\n"
        with self._lock:
            self.counts[event, reason] += 1
            try:
                with (self._folder / f"{now:%Y-%m-%d}.jsonl").open("a", encoding="utf-8") as file:
                    file.write(line)
                    file.flush()
                    os.fsync(file.fileno())
            except OSError:
                self.counts["audit-lost", ""] += 1
