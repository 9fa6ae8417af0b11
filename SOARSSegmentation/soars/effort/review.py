"""The outcome of each organ in a session: its state, what was done to it, how much it changed, and its category."""

from __future__ import annotations

from dataclasses import dataclass

from soars.effort.change import OrganChange
from soars.effort.log import EffortLog
from soars.effort.timing import IDLE_S, Category, OrganTiming, category, session_timing

NOT_REVIEWED = "not_reviewed"
IN_PROGRESS = "in_progress"
ACCEPTED = "accepted"


@dataclass
class OrganReview:
    """``state`` is `NOT_REVIEWED`, `IN_PROGRESS` or `ACCEPTED`; ``change`` is the last one the log holds, None where
    the organ was never compared; ``category`` is the paper's, None where ``change`` is. ``score``, ``reason`` and
    ``comment`` are those of the last judgement."""

    state: str
    edits: int
    undos: int
    redos: int
    timing: OrganTiming
    change: OrganChange | None
    category: Category | None
    score: int | None = None
    reason: str | None = None
    comment: str | None = None


def review(log: EffortLog, idle_s: float = IDLE_S) -> dict[str, OrganReview]:
    """Each organ of the header, in its order.

    An undo or redo counts for the organ that is selected at that moment. An organ that lost voxels to an edit of its
    neighbour has a change without an edit.
    """
    timing = session_timing(log, idle_s)
    out = {
        organ: OrganReview(NOT_REVIEWED, 0, 0, 0, timing.organs[organ], None, None)
        for organ in log.header.organs
    }
    selected: OrganReview | None = None
    for event in log.events:
        organ = out.get(event.organ) if event.organ is not None else None
        if event.kind == "start":
            selected = None
        elif event.kind == "select":
            selected = organ
            if organ is not None and organ.state == NOT_REVIEWED:
                organ.state = IN_PROGRESS
        elif event.kind == "undo" and selected is not None:
            selected.undos += 1
        elif event.kind == "redo" and selected is not None:
            selected.redos += 1
        if organ is None:
            continue
        if event.kind == "edit":
            organ.edits += 1
            organ.state = IN_PROGRESS
        elif event.kind == "accept":
            organ.state = ACCEPTED
        elif event.kind == "reopen":
            organ.state = IN_PROGRESS
        elif event.kind == "judge":
            organ.score, organ.reason, organ.comment = event.score, event.reason, event.comment
        if event.change is not None:
            organ.change = event.change
    for organ_review in out.values():
        if organ_review.change is not None:
            organ_review.category = category(organ_review.timing.active_s, organ_review.change.changed)
    return out
