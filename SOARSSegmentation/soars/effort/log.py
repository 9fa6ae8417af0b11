"""Reading effort logs, and the folders in which sessions keep them.

`soars.effort.writer` writes them; the format is in `soars.effort.records`.
"""

from __future__ import annotations

import json
import logging
import re
from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace
from pathlib import Path

from soars.effort.chain import chain_of
from soars.effort.records import Event, Header, validate
from soars.errors import InputError
from soars.texts import read_bytes

log = logging.getLogger(__name__)

SUFFIX = ".effort.jsonl"
PROPOSAL_FILE, RESULT_FILE = "proposal.seg.nrrd", "result.seg.nrrd"
"""What lies beside a session's logs: the contours that it began and ended with."""
_LAST_BYTES = 4096
_NEVER_CHANGES = ("study", "case", "reader", "arm", "organs", "bundle_sha256")
_NOR_SINCE_SCHEMA_2 = ("phase", "repeat", "sequence", "proposal_source", "proposal_sha256", "ct_sha256")


@dataclass(frozen=True)
class EffortLog:
    """A log as read: ``events`` in order, ``complete`` when it closes with ``end``, else it was interrupted.

    ``last_chain`` is the chain of its last record, "" for a log of schema 1.
    """

    header: Header
    events: tuple[Event, ...]
    warnings: tuple[str, ...]
    complete: bool
    last_chain: str = ""

    @property
    def wall_ns(self) -> int:
        """Time of the last record."""
        return self.events[-1].t if self.events else 0


LARGEST_LOG = 1 << 30
"""Bytes; a day of uninterrupted strokes has ten million."""


def read_log(path: Path) -> EffortLog:
    """Read a session's log and check every record.

    A last line that is cut off (the process was killed) is left out with a warning; everything before it counts.
    `InputError`, naming the file and the line, for a log that is damaged or was changed elsewhere, has no header, or is
    of a newer schema.
    """
    try:
        data = read_bytes(path, LARGEST_LOG)
    except OSError as error:
        raise InputError(f"the effort log {path} cannot be read: {error.strerror or error}") from error
    warnings: list[str] = []
    whole = data.rstrip(b"\0")  # some file systems fill the end with zeros when the power fails
    *lines, last = whole.split(b"\n")
    cut = f"line {len(lines) + 1}: the log ends in the middle of a record; it is read up to there"
    if last and _is_json(last):
        lines.append(last)
        warnings.append(f"line {len(lines)}: the last record has no line end")
    elif last or len(whole) < len(data):
        warnings.append(cut)
    if not lines:
        raise InputError(f"the effort log {path} is empty: the session was interrupted as it started")
    header, events, chain = _records(path, lines)
    complete = bool(events) and events[-1].kind == "end"
    return EffortLog(
        header, tuple(events), tuple(f"{path.name}: {text}" for text in warnings), complete, chain
    )


def _records(path: Path, lines: list[bytes]) -> tuple[Header, list[Event], str]:
    """Header, events and last chain of a log's lines."""
    header: Header | None = None
    events: list[Event] = []
    chain = ""
    for number, line in enumerate(lines, start=1):
        try:
            record = _decoded(line)
            if header is None:
                if not isinstance(record, Header):
                    raise InputError("the first line is not the header")
                header = record
            elif isinstance(record, Event):
                _check_order(record, events, header)
                events.append(record)
            else:
                raise InputError("a second header")
            if header.schema > 1:
                chain = _follows(line, chain)
        except InputError as error:
            raise InputError(f"the effort log {path} cannot be used, line {number}: {error}") from None
    assert header is not None
    return header, events, chain


def _follows(line: bytes, before: str) -> str:
    chain = chain_of(line, before)
    if chain is None:
        raise InputError(
            "its chain does not follow from the line before: the log was changed after it was written"
        )
    return chain


@dataclass(frozen=True)
class Glance:
    """A log's header and how it ended: ``cause`` of its ``end``, None without one, and ``last_ns``, the time of its
    last record. Only its first and last line are read and checked."""

    header: Header
    cause: str | None
    last_ns: int

    @property
    def finished(self) -> bool:
        """Whether the reader finished the session rather than leaving it."""
        return self.cause == "finished"


def glance(path: Path) -> Glance | None:
    """Header and end of a log, without reading what lies between; None for a file that has no header.

    Cheap, for lists of many sessions on a slow drive; `read_log` checks everything.
    """
    try:
        with path.open("rb") as file:
            first = file.readline()
            file.seek(max(0, path.stat().st_size - _LAST_BYTES))
            last = file.read().rstrip(b"\0").splitlines()[-1:]
        header = _decoded(first)
        if not isinstance(header, Header):
            return None
    except (OSError, InputError):
        return None
    try:
        event = _decoded(last[0]) if last else None
    except InputError:
        event = None
    if not isinstance(event, Event):
        return Glance(header, None, 0)
    return Glance(header, event.cause if event.kind == "end" else None, event.t)


def read_session(paths: Iterable[Path]) -> EffortLog:
    """Join the logs of a session that was interrupted and resumed, in any order, into one.

    The times of each log continue where the previous log ended, so the time between them is not counted; each begins
    with its own ``start``, after which no organ is selected. `InputError` when the logs are not one chain of
    ``continues``, or differ in study, case, reader, arm, organs or bundle.
    """
    logs = {Path(path).name: read_log(Path(path)) for path in paths}
    chain = _chain(logs)
    first = logs[chain[0]]
    events: list[Event] = []
    for name in chain:
        for field in never_changes(first.header, logs[name].header):
            if getattr(logs[name].header, field) != getattr(first.header, field):
                raise InputError(f"the effort logs {chain[0]} and {name} differ in {field}: not one session")
        _check_link(logs, name)
        shift = events[-1].t if events else 0
        events += [_later(event, shift) for event in logs[name].events]
    warnings = tuple(text for name in chain for text in logs[name].warnings)
    return EffortLog(first.header, tuple(events), warnings, logs[chain[-1]].complete)


def never_changes(first: Header, second: Header) -> tuple[str, ...]:
    """The fields in which the headers of one session's logs are equal; a log of schema 1 has fewer."""
    return _NEVER_CHANGES + (_NOR_SINCE_SCHEMA_2 if min(first.schema, second.schema) > 1 else ())


def _check_link(logs: dict[str, EffortLog], name: str) -> None:
    """Raise `InputError` when a log goes on from another state of the earlier log than the one that is there."""
    header = logs[name].header
    if header.continues is None or header.continues_chain is None:
        return
    if logs[header.continues].last_chain != header.continues_chain:
        raise InputError(
            f"the effort log {header.continues} is not what {name} went on from: it was shortened or changed since"
        )


def session_logs(folder: Path) -> list[Path]:
    """The logs in a session's folder from the first to the newest, as `read_session` takes them."""
    return sorted(
        (path for path in folder.glob(f"*{SUFFIX}") if path.is_file()), key=lambda p: (len(p.name), p.name)
    )


def new_log_path(folder: Path) -> Path:
    """A name for the folder's next log: ``1.effort.jsonl``, or the number after the newest."""
    numbers = [int(stem) for path in session_logs(folder) if (stem := path.name[: -len(SUFFIX)]).isdecimal()]
    return folder / f"{max(numbers, default=0) + 1}{SUFFIX}"


def session_folder(root: Path, header: Header) -> Path:
    """Make the folder for a new session's log and results: ``STUDY/CASE_READER_ARM_START`` below ``root``.

    The start is given to the second, in UTC; a further session in the same second gets a number, even when two programs
    ask at once. `InputError` when it cannot be made.
    """
    start = re.sub(r"[^0-9TZ]", "", header.started_utc.split(".")[0])
    name = f"{header.case}_{header.reader}_{header.arm}_{start}".rstrip("_")
    parent = root / header.study
    folder, number = parent / name, 1
    try:
        parent.mkdir(parents=True, exist_ok=True)  # raises where a file has the study's name
        while True:
            try:
                folder.mkdir()
                return folder
            except FileExistsError:
                number += 1
                folder = parent / f"{name}-{number}"
    except OSError as error:
        raise InputError(
            f"the session's folder {folder} cannot be made: {error.strerror or error}"
        ) from error


def interrupted_sessions(root: Path, wanted: Callable[[Path], bool] = lambda folder: True) -> list[Path]:
    """Folders below ``root``, made by `session_folder`, whose session was not finished, whether the program was killed
    or the reader closed it or the scene; newest last.

    Only the logs of folders that are ``wanted`` are read. A folder with a log that cannot be read is left out.
    """
    found: list[tuple[str, Path]] = []
    for folder in filter(wanted, {path.parent for path in root.glob(f"*/*/*{SUFFIX}")}):
        try:
            newest = read_log(session_logs(folder)[-1])
        except InputError as error:
            log.warning("%s", error)
            continue
        if not newest.complete or newest.events[-1].cause != "finished":
            found.append((newest.header.started_utc, folder))
    return [folder for _, folder in sorted(found)]


def _chain(logs: dict[str, EffortLog]) -> list[str]:
    if not logs:
        raise InputError("no effort log was given")
    after: dict[str | None, str] = {}
    for name, one in logs.items():
        before = one.header.continues
        if before in after:
            raise InputError(
                f"the effort logs {after[before]} and {name} both go on from {before or 'nothing'}"
            )
        after[before] = name
    chain: list[str] = []
    following = after.get(None)
    while following is not None:
        chain.append(following)
        following = after.get(following)
    if len(chain) < len(logs):
        loose = sorted(set(logs) - set(chain))
        missing = sorted({str(logs[n].header.continues) for n in loose} - set(logs))
        raise InputError(
            f"the effort logs are not one session: {', '.join(loose)} does not go on from any of the others"
            + (f"; {', '.join(missing)} is missing" if missing else "")
        )
    return chain


def _later(event: Event, shift: int) -> Event:
    if event.since is not None:
        return replace(event, t=event.t + shift, since=event.since + shift)
    return replace(event, t=event.t + shift)


def _check_order(event: Event, events: list[Event], header: Header) -> None:
    if not events and (event.kind != "start" or event.t != 0):
        raise InputError("the first event is not the start at time 0")
    if events:
        if event.kind == "start":
            raise InputError("a second start")
        if events[-1].kind == "end":
            raise InputError("a record after the end")
        if event.t < events[-1].t:
            raise InputError(f"the time {event.t} is earlier than that of the record before, {events[-1].t}")
        if event.since is not None and event.since < events[-1].t:
            raise InputError("since is earlier than the record before")
    if event.organ is not None and event.organ not in header.organs:
        raise InputError(f"{event.organ!r} is none of the session's organs")


def _decoded(line: bytes) -> Header | Event:
    try:
        record = json.loads(line.decode("utf-8"))
    except (ValueError, RecursionError):  # also UnicodeDecodeError
        raise InputError("not a JSON object") from None
    if isinstance(record, dict):
        record.pop("chain", None)  # of the line, not of the record: see `_follows`
    return validate(record)


def _is_json(line: bytes) -> bool:
    try:
        return isinstance(json.loads(line.decode("utf-8")), dict)
    except (ValueError, RecursionError):
        return False
