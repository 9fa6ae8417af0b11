"""The reader's side of a study: a worklist, how far along it is, and what comes next.

Needs nothing that Slicer does not bring (no YAML), because it runs there. The folder it works on is ``share/`` of the
lead's folder (see `soars.study.plan.places`), usually on a drive that several readers share; no file there is
written by two people.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta, timezone
from pathlib import Path, PurePosixPath
from typing import Any

from soars.effort.lock import is_locked
from soars.effort.log import Glance, glance, session_logs
from soars.effort.records import Header, safe_name
from soars.errors import InputError
from soars.texts import read_json

SCHEMA_VERSION = 1
SHARE = "share"
STUDY_JSON = "study.json"
WORKLISTS = "worklists"
CASES = "cases"
SESSIONS = "sessions"

DONE, INTERRUPTED, RUNNING, OPEN = "done", "interrupted", "running", "open"


@dataclass(frozen=True)
class Item:
    """One session of a worklist. ``arm`` is a code; ``ct`` and ``proposal`` are paths below the share, ``proposal``
    None where the reader draws from scratch; the hashes are those of `soars.effort.identity`, the proposal's over the
    worklist's organs."""

    number: int
    case: str
    arm: str
    phase: str
    repeat: int
    ct: str
    ct_sha256: str
    proposal: str | None
    proposal_sha256: str | None

    @property
    def identity(self) -> tuple[str, str, str, int]:
        """What identifies a session header as belonging to this item."""
        return (self.case, self.arm, self.phase, self.repeat)


@dataclass(frozen=True)
class Worklist:
    """A reader's sessions in order. ``share`` is the folder that the paths are relative to."""

    share: Path
    study: str
    reader: str
    organs: tuple[str, ...]
    idle_s: float
    washout_days: int
    scores: bool
    items: tuple[Item, ...]

    @property
    def sessions(self) -> Path:
        """The folder of the sessions' folders, below one with the study's name."""
        return self.share / SESSIONS


@dataclass(frozen=True)
class ItemState:
    """Where an item is: `DONE`, `INTERRUPTED` (to be resumed in ``folder``), `RUNNING` (in another window) or `OPEN`;
    ``ended`` is when a finished session ended, UTC."""

    item: Item
    state: str
    folder: Path | None = None
    ended: datetime | None = None


@dataclass(frozen=True)
class Next:
    """What the reader does next: ``item``, resumed in ``folder`` where that is given; or nothing before ``not_before``
    (wash-out); or, with all three None, nothing more."""

    item: Item | None = None
    folder: Path | None = None
    not_before: datetime | None = None


def read_worklist(path: Path) -> Worklist:
    """A reader's worklist, ``share/worklists/READER.json``; `InputError` when it is damaged or of a newer version."""
    try:
        raw = read_json(path)
        if not isinstance(raw, dict):
            raise ValueError
    except OSError as error:
        raise InputError(f"the worklist {path} cannot be read: {error.strerror or error}") from error
    except (ValueError, RecursionError):
        raise InputError(f"{path} is not a worklist: ask the study's lead for it again") from None
    schema = raw.get("schema")
    if isinstance(schema, int) and schema > SCHEMA_VERSION:
        raise InputError(f"the worklist {path} was written by a newer version: update the extension")
    try:
        return _worklist(raw, path)
    except (KeyError, TypeError, ValueError, InputError) as error:
        raise InputError(
            f"the worklist {path} is damaged ({error}): ask the study's lead for it again"
        ) from None


def states(worklist: Worklist) -> list[ItemState]:
    """The state of every item of a worklist, in order, from the sessions' folders on the share."""
    found: dict[tuple[str, str, str, int], list[ItemState]] = {}
    for folder in _folders(worklist):
        logs = session_logs(folder)
        seen = glance(logs[-1]) if logs else None
        if seen is None or (seen.header.study, seen.header.reader) != (worklist.study, worklist.reader):
            continue
        header = seen.header
        item = next((i for i in worklist.items if i.identity == identity_of(header)), None)
        if item is not None:
            if seen.finished:
                one = ItemState(item, DONE, folder, end_of(seen))
            else:
                one = ItemState(item, RUNNING if is_locked(folder) else INTERRUPTED, folder)
            found.setdefault(item.identity, []).append(one)
    order = [DONE, RUNNING, INTERRUPTED]
    return [
        min(found[item.identity], key=lambda s: (order.index(s.state), str(s.folder)))
        if item.identity in found
        else ItemState(item, OPEN)
        for item in worklist.items
    ]


def next_session(worklist: Worklist, known: list[ItemState], now: datetime) -> Next:
    """What comes next: the first item that is not done, unless its wash-out is not over.

    Items are read in their order; none is skipped. ``now`` is in UTC. `InputError` when the reader's next session runs
    in another window.
    """
    for state in known:
        if state.state == DONE:
            continue
        if state.state == RUNNING:
            raise InputError("your next session is open in another window: go on there")
        if state.state == INTERRUPTED:
            return Next(state.item, state.folder)
        before = [s.ended for s in known if s.item.case == state.item.case and s.ended is not None]
        ready = max(before) + timedelta(days=worklist.washout_days) if before else now
        return Next(not_before=ready) if ready > now else Next(state.item)
    return Next()


def end_of(seen: Glance) -> datetime:
    """When a session ended, UTC."""
    return end_of_log(seen.header.started_utc, seen.last_ns)


def end_of_log(started_utc: str, last_ns: int) -> datetime:
    """The start recorded in a log, plus the time that has passed since by its own clock."""
    started = datetime.strptime(started_utc[:19], "%Y-%m-%dT%H:%M:%S").replace(tzinfo=timezone.utc)
    return started + timedelta(microseconds=last_ns / 1000)


def identity_of(header: Header) -> tuple[str, str, str, int]:
    """Case, arm, phase and repeat of a session, as in `Item.identity`."""
    return (header.case, header.arm, header.phase or "main", header.repeat or 1)


def header_of_item(worklist: Worklist, item: Item, software: Mapping[str, str]) -> Header:
    """The header that the log of this item's session begins with; the voxel size is not known yet."""
    return Header(
        study=worklist.study,
        case=item.case,
        reader=worklist.reader,
        arm=item.arm,
        organs=worklist.organs,
        software=dict(software),
        started_utc=datetime.now(timezone.utc).strftime("%Y-%m-%dT%H:%M:%SZ"),
        phase=item.phase,
        repeat=item.repeat,
        sequence=item.number,
        proposal_source="none" if item.proposal is None else "study",
        proposal_sha256=item.proposal_sha256,
        ct_sha256=item.ct_sha256,
    )


def _worklist(raw: Mapping[str, Any], path: Path) -> Worklist:
    items = tuple(_item(one) for one in raw["items"])
    if [item.number for item in items] != list(range(1, len(items) + 1)):
        raise ValueError("its numbers are not 1, 2, 3, ...")
    if len({item.identity for item in items}) < len(items):
        raise ValueError("a session is listed twice")
    return Worklist(
        share=path.resolve().parents[1],
        study=safe_name(raw["study"], "study"),
        reader=safe_name(raw["reader"], "reader"),
        organs=tuple(str(organ) for organ in raw["organs"]),
        idle_s=float(raw["idle_s"]),
        washout_days=int(raw["washout_days"]),
        scores=bool(raw["scores"]),
        items=items,
    )


def _item(raw: Mapping[str, Any]) -> Item:
    if (raw["proposal"] is None) != (raw["proposal_sha256"] is None):
        raise ValueError("a proposal without its hash")
    return Item(
        number=int(raw["number"]),
        case=safe_name(raw["case"], "case"),
        arm=safe_name(raw["arm"], "arm"),
        phase=str(raw["phase"]),
        repeat=int(raw["repeat"]),
        ct=_inside(raw["ct"]),
        ct_sha256=str(raw["ct_sha256"]),
        proposal=None if raw["proposal"] is None else _inside(raw["proposal"]),
        proposal_sha256=raw["proposal_sha256"],
    )


def _inside(text: str) -> str:
    """A path that stays below the share."""
    path = PurePosixPath(text)
    if path.is_absolute() or ".." in path.parts or "\\" in text or ":" in text:
        raise ValueError(f"the path {text!r} leaves the study's folder")
    return text


def _folders(worklist: Worklist) -> list[Path]:
    home = worklist.sessions / worklist.study
    return (
        sorted(path for path in home.glob(f"*_{worklist.reader}_*") if path.is_dir()) if home.is_dir() else []
    )
