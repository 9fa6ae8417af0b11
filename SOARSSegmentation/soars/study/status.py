"""Progress of a study: sessions done by reader and arm, what is open, what went wrong; and the lead's ledger."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from pathlib import Path

from soars.files import write_json
from soars.study.ledger import LEDGER, compare_ledger
from soars.study.load import Opened
from soars.study.plan.places import read_json
from soars.study.sessions import Collection


@dataclass(frozen=True)
class Line:
    """Sessions of a reader in an arm and phase: finished, begun, and planned (0 where there is no worklist)."""

    reader: str
    arm: str
    phase: str
    finished: int
    begun: int
    planned: int


def progress_lines(opened: Opened, collection: Collection) -> list[Line]:
    """One a reader, arm and phase, in the order of the plan."""
    finished: Counter[tuple[str, str, str]] = Counter()
    begun: Counter[tuple[str, str, str]] = Counter()
    for session in collection.sessions:
        if session.rows:
            row = session.rows[0]
            (finished if session.finished else begun)[row.reader, row.arm, row.phase] += 1
    planned: Counter[tuple[str, str, str]] = Counter()
    arms = opened.expected.arms or {}
    for worklist in opened.worklists:
        for item in worklist.items:
            planned[worklist.reader, arms.get(item.arm, item.arm), item.phase] += 1
    keys = sorted({*finished, *begun, *planned}, key=lambda key: (key[0], key[2] != "training", key[1]))
    return [Line(*key, finished[key], begun[key], planned[key]) for key in keys]


def status_text(opened: Opened, collection: Collection) -> str:
    """The state of a study for people: a table, then what to look at."""
    lines = progress_lines(opened, collection)
    rows = [("reader", "arm", "phase", "finished", "begun", "planned")]
    rows += [
        (
            one.reader,
            one.arm,
            one.phase,
            str(one.finished),
            str(one.begun),
            str(one.planned) if one.planned else "-",
        )
        for one in lines
    ]
    widths = [max(len(row[i]) for row in rows) for i in range(len(rows[0]))]
    text = [
        "  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip() for row in rows
    ]
    text.insert(1, "-" * len(text[0]))
    planned, done = sum(one.planned for one in lines), sum(one.finished for one in lines)
    if planned:
        text.append(f"\n{done} of {planned} sessions are finished ({100 * done / planned:.0f} %).")
    return "\n".join([*text, *problem_lines(collection)])


def problem_lines(collection: Collection) -> list[str]:
    """A line for everything that was left out or violates the protocol."""
    found = [f"left out: {one.folder}: {one.reason}" for one in collection.left_out]
    found += [f"{s.name}: {problem}" for s in collection.sessions for problem in s.problems]
    return ["", *found] if found else []


def update_ledger(folder: Path, collection: Collection) -> list[str]:
    """Compare the finished sessions with the lead's ledger, add those that are new, and return what is not as it was.

    The ledger keeps what a session was when it was first collected, also after a complaint.
    """
    path = folder / LEDGER
    before: dict[str, str] = {}
    if path.exists():
        before = dict(read_json(path, "restore it from your backup"))
    now = {_name(s.header.study, s.name): s.digest for s in collection.sessions if s.finished}
    problems = compare_ledger(before, now)
    merged = {**now, **before}
    if merged != before:
        write_json(path, dict(sorted(merged.items())))
    return problems


def _name(study: str, session: str) -> str:
    return f"{study}/{session}"
