"""Reads the sessions of a study from the folders of one or several sites, checks them against the plan, and makes rows
of them.

Sites are merged by copying their folders together or by naming several: the result depends on the sessions alone, not
on where they are. Sessions that cannot be used are named with the reason and left out; they never stop the others.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from functools import partial
from pathlib import Path
from typing import Any

from soars.catalogue import CATALOGUE
from soars.effort.log import LARGEST_LOG, SUFFIX, EffortLog, glance, read_session, session_logs
from soars.effort.records import Header
from soars.effort.review import OrganReview, review
from soars.effort.timing import IDLE_S, NS, SessionTiming, active_at_thresholds, session_timing
from soars.errors import InputError
from soars.parallel import in_processes
from soars.progress import Progress, Reporter, ignore
from soars.study.desk import Item, end_of, identity_of
from soars.study.edits import edit_amounts
from soars.study.ledger import check_checksums
from soars.study.rows import THRESHOLDS_S, EditAmount, OrganRow, threshold_field
from soars.texts import read_bytes

NAN = float("nan")


@dataclass(frozen=True)
class Expected:
    """What a study expects of its sessions; see `soars.study.load.open_study`.

    Attributes:
        study: its name; None takes any, as long as there is only one.
        items: of each reader, in their order; None checks none.
        organs: of each reader, in the catalogue's order.
        sites: of each reader.
        arms: code -> arm; a code that is not there stays.
        idle_s, washout_days: the plan's.
    """

    study: str | None = None
    items: Mapping[str, Sequence[Item]] | None = None
    organs: Mapping[str, Sequence[str]] | None = None
    sites: Mapping[str, str] | None = None
    arms: Mapping[str, str] | None = None
    idle_s: float = IDLE_S
    washout_days: int = 0


@dataclass(frozen=True)
class Span:
    """A stretch of a session for the Gantt chart, in seconds since its start; kind "active", "idle" or "paused"."""

    begin_s: float
    end_s: float
    kind: str


@dataclass(frozen=True)
class Session:
    """One session, without its events. ``digest`` names its logs; ``problems`` are violations of the protocol, in
    words;
    ``pauses`` are its breaks."""

    folder: Path
    name: str
    header: Header
    rows: tuple[OrganRow, ...]
    problems: tuple[str, ...]
    digest: str
    finished: bool
    pauses: tuple[Span, ...]
    ended_utc: str

    @property
    def active_s(self) -> float:
        """Active time of the session's organs."""
        return sum(row.active_s for row in self.rows)


@dataclass(frozen=True)
class LeftOut:
    """A session that is not used, and why."""

    folder: Path
    reason: str


@dataclass(frozen=True)
class Collection:
    """All sessions of a study, ordered by reader, number and start; and what was left out."""

    sessions: tuple[Session, ...]
    left_out: tuple[LeftOut, ...]

    @property
    def rows(self) -> tuple[OrganRow, ...]:
        return tuple(row for session in self.sessions for row in session.rows)


def find_sessions(folders: Sequence[Path]) -> list[Path]:
    """Every folder below these that holds a log, each once."""
    found: dict[Path, None] = {}
    for folder in folders:
        if not folder.is_dir():
            raise InputError(f"there is no folder {folder}")
        for path in sorted(folder.rglob(f"*{SUFFIX}")):
            if path.is_file():
                found.setdefault(path.parent.resolve())
    return list(found)


def collect_sessions(
    folders: Sequence[Path],
    expected: Expected = Expected(),
    *,
    processes: int = 1,
    progress: Reporter = ignore,
) -> Collection:
    """Read every session below the folders.

    `InputError` when there is none, or when sessions are of several studies and ``expected`` does not say which.
    """
    places = find_sessions(folders)
    if not places:
        raise InputError(f"no effort log (*{SUFFIX}) lies in {', '.join(map(str, folders))}")
    read: dict[int, Session | LeftOut] = {}
    work = partial(read_one, expected=expected)
    for done, (index, one) in enumerate(in_processes(work, places, processes), start=1):
        read[index] = one
        progress(Progress("read", done, len(places)))
    everything = [read[index] for index in range(len(places))]
    left_out = [one for one in everything if isinstance(one, LeftOut)]
    sessions = [one for one in everything if isinstance(one, Session)]
    if expected.study is None:
        names = sorted({session.header.study for session in sessions})
        if len(names) > 1:
            raise InputError(
                f"the sessions are of several studies, {', '.join(names)}: say which with --study"
            )
    sessions, doubles = _without_doubles(sessions)
    sessions = with_order_checked(sorted(sessions, key=_order), expected.washout_days)
    return Collection(
        tuple(sessions), tuple(sorted([*left_out, *doubles], key=lambda o: (o.folder.name, o.reason)))
    )


def read_one(folder: Path, expected: Expected) -> Session | LeftOut:
    """One session, or why it is not used."""
    try:
        log = read_session(session_logs(folder))
        item = _expected_item(log.header, expected)
    except InputError as error:
        return LeftOut(folder, str(error))
    timing = session_timing(log, expected.idle_s)
    amounts, odd = edit_amounts(folder, log.header)
    rows = _rows(folder, log, timing, review(log, expected.idle_s), amounts, expected)
    problems = [*check_checksums(folder), *odd, *_violations(log, timing, item)]
    return Session(
        folder,
        folder.name,
        log.header,
        rows,
        tuple(problems),
        _digest(folder),
        _finished(log),
        _pauses(log),
        _ended_utc(folder),
    )


def _expected_item(header: Header, expected: Expected) -> Item | None:
    """The item of the worklist that a session is of; `InputError` for a session that the study does not know."""
    if expected.study is not None and header.study != expected.study:
        raise InputError(f"it is of another study, {header.study}")
    if expected.items is None:
        return None
    if header.reader not in expected.items:
        raise InputError(f"the study has no reader {header.reader}")
    item = next((i for i in expected.items[header.reader] if i.identity == identity_of(header)), None)
    if item is None:
        raise InputError(
            f"the worklist of {header.reader} has no session on case {header.case} in arm {header.arm} "
            f"({header.phase or 'main'}, repeat {header.repeat or 1})"
        )
    wanted = tuple((expected.organs or {}).get(header.reader, header.organs))
    if set(wanted) != set(header.organs):
        raise InputError(f"its organs are not those that {header.reader} has in the study")
    return item


def _violations(log: EffortLog, timing: SessionTiming, item: Item | None) -> list[str]:
    """Violations of the protocol that this session shows by itself."""
    header, found = log.header, list(log.warnings)
    if item is not None:
        if header.sequence is not None and header.sequence != item.number:
            found.append(
                f"it calls itself number {header.sequence}, but is number {item.number} of the worklist"
            )
        if header.proposal_sha256 != item.proposal_sha256:
            found.append("it began from contours other than the arm's proposal")
        if header.ct_sha256 is not None and header.ct_sha256 != item.ct_sha256:
            found.append("it was read on a CT other than the study's")
    if not _finished(log):
        found.append("it was not finished")
    if any(event.kind == "restored" for event in log.events):
        found.append("its log was deleted or changed while it ran, and was written again")
    idle = timing.unattributed.idle_ns + sum(organ.idle_ns for organ in timing.organs.values())
    at_work = (
        timing.wall_ns - timing.unattributed.paused_ns - sum(o.paused_ns for o in timing.organs.values())
    )
    if at_work > 0 and idle / at_work > IDLE_SHARE:
        found.append(f"the reader was idle for {idle / at_work:.0%} of the time")
    jumps = sum(event.t - event.since > JUMP_S * NS for event in log.events if event.since is not None)
    if jumps:
        found.append(f"the computer stood still {jumps} times for more than {JUMP_S // 60} minutes")
    return found


IDLE_SHARE = 0.5
"""A session with a larger share of idle time is named."""
JUMP_S = 600


def _finished(log: EffortLog) -> bool:
    return log.complete and log.events[-1].cause == "finished"


def _rows(
    folder: Path,
    log: EffortLog,
    timing: SessionTiming,
    reviews: Mapping[str, OrganReview],
    amounts: Mapping[str, EditAmount],
    expected: Expected,
) -> tuple[OrganRow, ...]:
    header = log.header
    at = active_at_thresholds(log, THRESHOLDS_S)
    first = _session_fields(folder, log, timing, expected)
    voxel_cc = float("nan")
    if header.voxel_size_mm is not None:
        x, y, z = header.voxel_size_mm
        voxel_cc = x * y * z / 1000
    return tuple(
        OrganRow(
            **first,
            **_organ_fields(organ, one, amounts.get(organ), header, voxel_cc),
            **_active_at(at, organ),
        )
        for organ, one in reviews.items()
    )


def _active_at(seconds: Mapping[float, Mapping[str, float]], organ: str) -> dict[str, Any]:
    return {threshold_field(t): seconds[t][organ] for t in THRESHOLDS_S}


def _session_fields(
    folder: Path, log: EffortLog, timing: SessionTiming, expected: Expected
) -> dict[str, Any]:
    header = log.header
    voxel = header.voxel_size_mm or (NAN, NAN, NAN)
    return {
        "study": header.study,
        "session": folder.name,
        "reader": header.reader,
        "site": (expected.sites or {}).get(header.reader, ""),
        "case": header.case,
        "arm": (expected.arms or {}).get(header.arm, header.arm),
        "arm_code": header.arm,
        "from_scratch": header.from_scratch,
        "phase": header.phase or "main",
        "repeat": header.repeat or 1,
        "sequence": header.sequence or 0,
        "started_utc": header.started_utc,
        "finished": _finished(log),
        "session_active_s": timing.unattributed.active_s + sum(o.active_s for o in timing.organs.values()),
        "session_unattributed_s": timing.unattributed.active_s,
        "session_wall_s": timing.wall_s,
        "proposal_sha256": header.proposal_sha256 or "",
        "ct_sha256": header.ct_sha256 or "",
        "voxel_x_mm": voxel[0],
        "voxel_y_mm": voxel[1],
        "voxel_z_mm": voxel[2],
        "bundle": header.bundle or "",
        "bundle_version": header.bundle_version or "",
        "bundle_sha256": header.bundle_sha256 or "",
        "software": json.dumps(dict(sorted((header.software or {}).items()))),
    }


def _organ_fields(
    organ: str, one: OrganReview, amount: EditAmount | None, header: Header, voxel_cc: float
) -> dict[str, Any]:
    change, timing = one.change, one.timing
    found = amount or EditAmount(NAN, NAN, NAN, NAN, NAN, NAN, NAN, change.volume_cc if change else NAN)
    edited = NAN if change is None else (change.voxels_added + change.voxels_removed) * voxel_cc
    return {
        "organ": organ,
        "stratum": CATALOGUE[organ].stratum if organ in CATALOGUE else "",
        "state": one.state,
        "active_s": timing.active_s,
        "idle_s": timing.idle_s,
        "busy_s": timing.busy_s,
        "paused_s": timing.paused_s,
        "wall_s": timing.wall_s,
        "edits": one.edits,
        "undos": one.undos,
        "redos": one.redos,
        "category": "" if header.from_scratch else one.category or "",
        "voxels_added": -1 if change is None else change.voxels_added,
        "voxels_removed": -1 if change is None else change.voxels_removed,
        "edited_cc": edited,
        "edit_dsc": found.dsc,
        "edit_hd_mm": found.hd_mm,
        "edit_hd95_mm": found.hd95_mm,
        "edit_asd_mm": found.asd_mm,
        "edit_surface_dsc": found.surface_dsc,
        "edit_apl_mm": found.apl_mm,
        "proposal_cc": found.proposal_cc,
        "result_cc": found.result_cc,
        "score": one.score or 0,
        "reason": one.reason or "",
        "comment": one.comment or "",
    }


def _pauses(log: EffortLog) -> tuple[Span, ...]:
    begin: int | None = None
    found = []
    for event in log.events:
        if event.kind == "pause":
            begin = event.t
        elif begin is not None and event.kind in ("resume", "start", "end"):
            found.append(Span(begin / NS, event.t / NS, "paused"))
            begin = None
    return tuple(found)


def _ended_utc(folder: Path) -> str:
    """By the last of its logs: a resumed session may have lasted days."""
    seen = glance(session_logs(folder)[-1])
    return "" if seen is None else end_of(seen).strftime("%Y-%m-%dT%H:%M:%SZ")


def _digest(folder: Path) -> str:
    """Of all logs of a session, whatever its folder is called."""
    digest = hashlib.sha256()
    for path in session_logs(folder):
        digest.update(read_bytes(path, LARGEST_LOG))
    return digest.hexdigest()


def _without_doubles(sessions: Sequence[Session]) -> tuple[list[Session], list[LeftOut]]:
    """Of copies of a session one stays; of two readings of one item the finished one that began first."""
    kept: list[Session] = []
    left_out: list[LeftOut] = []
    by_item: dict[tuple[object, ...], Session] = {}
    seen: dict[str, Session] = {}
    for session in sorted(sessions, key=lambda s: (not s.finished, s.header.started_utc, s.digest, s.name)):
        key = (session.header.study, session.header.reader, *identity_of(session.header))
        if session.digest in seen:
            left_out.append(LeftOut(session.folder, f"it is a copy of {seen[session.digest].name}"))
        elif key in by_item:
            left_out.append(
                LeftOut(
                    session.folder,
                    f"{by_item[key].name} is an earlier reading of the same by the same reader",
                )
            )
        else:
            kept.append(session)
            by_item[key] = seen[session.digest] = session
    return kept, left_out


def _order(session: Session) -> tuple[object, ...]:
    header = session.header
    return (header.reader, header.sequence or 0, header.started_utc, header.case, header.arm, session.digest)


def with_order_checked(sessions: Sequence[Session], washout_days: int) -> list[Session]:
    """The sessions with the violations that only a comparison with the reader's other sessions shows: a wrong order, a
    wash-out not kept."""
    out = []
    for session in sessions:
        own = [s for s in sessions if s.header.reader == session.header.reader and s is not session]
        problems = list(session.problems)
        number, began = session.header.sequence or 0, session.header.started_utc
        late = sorted(s.header.sequence or 0 for s in own if s.header.started_utc > began)
        overtaken = [n for n in late if 0 < n < number]
        if overtaken:
            problems.append(f"number {number} was read before number {overtaken[0]}")
        same = [s.ended_utc for s in own if s.header.case == session.header.case and s.ended_utc <= began]
        if same and _days(max(same), began) < washout_days:
            days = _days(max(same), began)
            problems.append(f"the case was read {days:.1f} days before, and the wash-out is {washout_days}")
        out.append(replace(session, problems=tuple(problems)))
    return out


def _days(first: str, second: str) -> float:
    a, b = (datetime.strptime(text[:19], "%Y-%m-%dT%H:%M:%S") for text in (first, second))
    return (b - a).total_seconds() / 86400
