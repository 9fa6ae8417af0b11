"""Times of a session, computed from its log for any idle threshold.

Every instant of a session is of one kind and belongs to one organ or to none, so the parts add up to the session's
wall time, exactly (nanoseconds, in integers).

**Kinds.** *Paused* between ``pause`` and ``resume``. Else *busy* between ``busy_begin`` and ``busy_end``, and while the
application was ``blocked``. Else *active* as long as the reader's last act is not longer ago than the idle threshold,
not counting the paused and busy time in between; else *idle*. Acts are ``start``, ``select``, ``interaction``,
``effect``, ``edit``, ``undo``, ``redo``, ``resume``, ``accept``, ``reopen`` and ``view_only``: what the reader does.
So every stretch without an act counts as active for the length of the threshold, which is the time granted to looking
without touching anything, and as idle from then on. A block of more than ten minutes counts as paused: the computer
slept.

**Organs.** Time belongs to the organ that is selected, from its ``select`` on. An ``accept`` of it stops its clock
until it is selected again or reopened. Time before the first ``select``, with nothing selected, after an ``accept``
until the next ``select``, and while ``view_only`` is on belongs to no organ: it is the *unattributed* time, which is
reported beside the organs and shared out among none. An edit that takes voxels of a neighbour is the selected organ's
time.

What a log that was interrupted has not recorded is not known: its session ends with its last record.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Literal, get_args

import numpy as np

from soars.effort.log import EffortLog
from soars.effort.records import ACTS, Event

IDLE_S = 30.0
"""The usual threshold."""
MINOR_BELOW_S = 60.0
MAJOR_ABOVE_S = 180.0
Category = Literal["none", "minor", "moderate", "major"]
CATEGORIES: tuple[Category, ...] = get_args(Category)
SLEPT_NS = 600 * 1_000_000_000
NS = 1_000_000_000
LONGEST_S = 1e9
"""Stands for an infinite threshold."""


@dataclass
class OrganTiming:
    """Times of an organ in nanoseconds; the properties are in seconds."""

    active_ns: int = 0
    idle_ns: int = 0
    busy_ns: int = 0
    paused_ns: int = 0

    @property
    def wall_ns(self) -> int:
        return self.active_ns + self.idle_ns + self.busy_ns + self.paused_ns

    @property
    def active_s(self) -> float:
        return self.active_ns / NS

    @property
    def idle_s(self) -> float:
        return self.idle_ns / NS

    @property
    def busy_s(self) -> float:
        return self.busy_ns / NS

    @property
    def paused_s(self) -> float:
        return self.paused_ns / NS

    @property
    def wall_s(self) -> float:
        return self.wall_ns / NS


@dataclass
class SessionTiming:
    """Times of a session: of each organ of the header, in its order, and of none (``unattributed``)."""

    organs: dict[str, OrganTiming] = field(default_factory=dict)
    unattributed: OrganTiming = field(default_factory=OrganTiming)

    @property
    def wall_ns(self) -> int:
        return self.unattributed.wall_ns + sum(organ.wall_ns for organ in self.organs.values())

    @property
    def wall_s(self) -> float:
        """The length of the session: first to last record."""
        return self.wall_ns / NS


class Clock:
    """Applies the rules above to one event after another: to a whole log, or while a session runs."""

    def __init__(self, idle_s: float = IDLE_S) -> None:
        """``idle_s`` is the threshold in seconds, 0 or more; infinity counts no time as idle."""
        if not idle_s >= 0.0:
            raise ValueError(f"an idle threshold is 0 s or more, not {idle_s}")
        # An infinite threshold is a number larger than any session.
        self._idle_ns = round(min(idle_s, LONGEST_S) * NS)
        self.timing = SessionTiming()
        self.stretches: list[tuple[str | None, int, int]] = []
        """(organ or None, nanoseconds without an act before, length) of every stretch that is active or idle."""
        self._t = 0
        self._selected: str | None = None
        self._restart()

    @property
    def organ(self) -> str | None:
        """The organ whose clock runs, if one's does."""
        return self._selected if self._runs and not self._view_only else None

    def feed(self, event: Event) -> None:
        """Take in the next event of the session."""
        if event.since is not None:  # blocked
            self._advance(event.since)
            self._advance(event.t, blocked=True)
        else:
            self._advance(event.t)
        kind = event.kind
        if kind == "start":
            self._restart()
        elif kind == "select":
            self._selected, self._runs = event.organ, event.organ is not None
        elif kind == "accept" and event.organ == self._selected:
            self._runs = False
        elif kind == "reopen" and event.organ == self._selected:
            self._runs = True
        elif kind == "view_only":
            self._view_only = bool(event.on)
        elif kind in ("pause", "resume"):
            self._paused = kind == "pause"
        elif kind in ("busy_begin", "busy_end"):
            self._busy = kind == "busy_begin"
        if kind in ACTS:
            self._left_ns = self._idle_ns

    def active_s(self, organ: str, now_ns: int) -> float:
        """Active time of an organ at ``now_ns``, which is not before the last event: for a running figure."""
        active = self.timing.organs[organ].active_ns if organ in self.timing.organs else 0
        if organ == self.organ and not self._paused and not self._busy:
            active += min(max(now_ns - self._t, 0), self._left_ns)
        return active / NS

    def _restart(self) -> None:
        self._selected = None
        self._runs = False
        self._view_only = False
        self._paused = False
        self._busy = False
        self._left_ns = self._idle_ns
        """How much longer the reader counts as active without acting."""

    def _advance(self, t: int, *, blocked: bool = False) -> None:
        dt = t - self._t
        self._t = t
        organ = self.organ
        if organ is None:
            part = self.timing.unattributed
        else:
            part = self.timing.organs.setdefault(organ, OrganTiming())
        if self._paused or (blocked and dt > SLEPT_NS):
            part.paused_ns += dt
        elif self._busy or blocked:
            part.busy_ns += dt
        else:
            self.stretches.append((organ, self._idle_ns - self._left_ns, dt))
            active = min(dt, self._left_ns)
            part.active_ns += active
            part.idle_ns += dt - active
            self._left_ns -= active


def session_timing(log: EffortLog, idle_s: float = IDLE_S) -> SessionTiming:
    """Times of a session, or of one that `log.read_session` joined, by the rules at the top of this module.

    ``idle_s`` is the idle threshold in seconds. Organs that were never selected are there, with no time.
    """
    clock = Clock(idle_s)
    clock.timing.organs = {organ: OrganTiming() for organ in log.header.organs}
    for event in log.events:
        clock.feed(event)
    return clock.timing


def active_at_thresholds(log: EffortLog, thresholds_s: Sequence[float]) -> dict[float, dict[str, float]]:
    """Threshold -> organ -> active seconds: the same as `session_timing` gives for each, in one pass over the log."""
    clock = Clock(math.inf)
    for event in log.events:
        clock.feed(event)
    place = {organ: index for index, organ in enumerate(log.header.organs)}
    own = [(place[organ], since, dt) for organ, since, dt in clock.stretches if organ is not None]
    organs, since, length = np.array(own, dtype=np.int64).reshape(-1, 3).T
    out = {}
    for threshold in thresholds_s:
        limit = round(min(threshold, LONGEST_S) * NS)
        active = np.minimum(length, np.maximum(limit - since, 0))
        sums = np.zeros(len(place), dtype=np.int64)
        np.add.at(sums, organs, active)
        out[threshold] = {organ: int(sums[index]) / NS for organ, index in place.items()}
    return out


def category(active_s: float, changed: bool) -> Category:
    """The paper's category of a revision: none (no voxel differs from the proposal), minor (less than 60 s), moderate
    (60 to 180 s) or major (more than 180 s of active time)."""
    if not changed:
        return "none"
    if active_s < MINOR_BELOW_S:
        return "minor"
    return "moderate" if active_s <= MAJOR_ABOVE_S else "major"
