"""The format of the effort log, schema 1.

A log is a text file in UTF-8, one JSON object a line, written once from the top down and never changed. One file is
one editing session: one reader, one case, one arm. The first line is the header, every other an event.

**Header**: ``{"kind": "header", ...}`` with

=================  ==================================================================================================
``schema``         1
``study``          name of the study
``case``           pseudonym of the patient's CT, never a name or a number from the hospital
``reader``         pseudonym of the reader
``arm``            ``revise`` (the model's proposal is corrected) or ``scratch`` (empty organs are drawn)
``bundle``         name of the model bundle behind the proposal; null in ``scratch``
``bundle_sha256``  64 hexadecimal digits that identify the bundle; null where unknown
``software``       versions, e.g. ``{"soars": "0.1.0", "slicer": "5.8.1"}``
``started_utc``    e.g. ``2026-11-21T08:30:00Z``: for people; no time is computed from it
``continues``      file name of the earlier log in the same folder that this one goes on from; null for a first one
``organs``         the organs of the session in the order of the table, under their names of the catalogue
=================  ==================================================================================================

Study, case and reader are made of letters, digits and ``. _ -`` so that they can be in a file name.

**Events**: ``{"t": ..., "kind": ..., ...}``; ``t`` is the time since the start of the session in whole nanoseconds of
a clock that never goes back; records never go back in ``t``.

==================  =================================================================================================
``start``           the first event of a file, ``t`` 0
``select``          ``organ`` is selected in the segment editor; null: no organ of this session is
``interaction``     ``input``: ``press`` or ``release`` of a mouse button, ``wheel``, ``move``, ``key``, ``tablet``,
                    ``touch``; of moves (mouse, tablet, touch) at most five a second are recorded
``effect``          ``name`` of the editor's effect that became active; null: none is
``edit``            voxels of ``organ`` were edited; null: of a segment that is no organ of this session
``undo``, ``redo``  a step was taken back, or made again
``busy_begin``      the application computes and the reader waits: ``why`` in a word, e.g. ``save``
``busy_end``        the end of it
``blocked``         the application did not answer between ``since`` (as ``t``) and ``t``
``alive``           nothing happened, but the application ran until ``t``
``pause``           the reader stops the clock
``resume``          the reader starts it again
``accept``          the reader accepts ``organ``, with its ``change``
``reopen``          ``organ`` is no longer accepted; ``cause``: ``reader``, ``edit`` (its voxels were edited) or
                    ``overwritten`` (an edit of another organ took voxels of it)
``view_only``       ``on`` true: from here on the reader looks and does not revise; false: the end of it
``snapshot``        the ``change`` of ``organ`` at this moment
``saved``           ``file`` was written beside the log
``end``             the last event; ``cause``: ``finished``, ``scene_closed``, ``node_removed``, ``quit``
==================  =================================================================================================

``change`` is ``{"added": voxels, "removed": voxels, "dsc": number, "volume_cc": number}``, all against the proposal
(against nothing in ``scratch``): see `soars.effort.change`.

A file that does not end with ``end`` was interrupted: everything in it holds, and a later file may go on from it.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, TypeGuard

from soars.effort.change import OrganChange, check_change
from soars.errors import InputError

SCHEMA_VERSION = 1
ARMS = ("revise", "scratch")
INPUTS = ("press", "release", "wheel", "move", "key", "tablet", "touch")
REOPEN_CAUSES = ("reader", "edit", "overwritten")
END_CAUSES = ("finished", "scene_closed", "node_removed", "quit")

_SAFE_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}")
# File names that Windows keeps for devices, with any extension.
_DEVICE = re.compile(r"(con|prn|aux|nul|com[0-9]|lpt[0-9])(\..*)?", re.IGNORECASE)
_SHA256 = re.compile(r"[0-9a-f]{64}")
_UTC = re.compile(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(\.\d+)?Z")
_SHORT_TEXT = re.compile(r"[^\x00-\x1f\x7f]{1,128}")


@dataclass(frozen=True)
class Header:
    """The first record of a log; the fields are those of the module's docstring."""

    study: str
    case: str
    reader: str
    arm: str
    organs: tuple[str, ...]
    bundle: str | None = None
    bundle_sha256: str | None = None
    software: Mapping[str, str] | None = None
    started_utc: str = ""
    continues: str | None = None
    schema: int = SCHEMA_VERSION

    def to_json(self) -> dict[str, Any]:
        return {
            "kind": "header",
            "schema": self.schema,
            "study": self.study,
            "case": self.case,
            "reader": self.reader,
            "arm": self.arm,
            "bundle": self.bundle,
            "bundle_sha256": self.bundle_sha256,
            "software": dict(self.software or {}),
            "started_utc": self.started_utc,
            "continues": self.continues,
            "organs": list(self.organs),
        }


@dataclass(frozen=True)
class Event:
    """Something that happened ``t`` nanoseconds after the start; `FIELDS` says which other fields a kind has."""

    t: int
    kind: str
    organ: str | None = None
    input: str | None = None
    name: str | None = None
    why: str | None = None
    since: int | None = None
    on: bool | None = None
    cause: str | None = None
    file: str | None = None
    change: OrganChange | None = None

    def to_json(self) -> dict[str, Any]:
        out: dict[str, Any] = {"t": self.t, "kind": self.kind}
        for field in FIELDS[self.kind]:
            value = getattr(self, field)
            if isinstance(value, OrganChange):
                value = {
                    "added": value.voxels_added,
                    "removed": value.voxels_removed,
                    "dsc": value.dsc,
                    "volume_cc": value.volume_cc,
                }
            out[field] = value
        return out


FIELDS: dict[str, tuple[str, ...]] = {
    "start": (),
    "select": ("organ",),
    "interaction": ("input",),
    "effect": ("name",),
    "edit": ("organ",),
    "undo": (),
    "redo": (),
    "busy_begin": ("why",),
    "busy_end": (),
    "blocked": ("since",),
    "alive": (),
    "pause": (),
    "resume": (),
    "accept": ("organ", "change"),
    "reopen": ("organ", "cause"),
    "view_only": ("on",),
    "snapshot": ("organ", "change"),
    "saved": ("file",),
    "end": ("cause",),
}
"""The fields of each kind of event besides ``t`` and ``kind``; a record has exactly these."""

ACTS = frozenset("start select interaction effect edit undo redo resume accept reopen view_only".split())
"""Kinds of events by which the reader shows to be at work."""

_ORGAN_MAY_BE_NULL = ("select", "edit")


def safe_name(text: str, what: str) -> str:
    """``text``, which can be in a file name on any system; `InputError` says what is wrong with it.

    ``what`` names it in the message: "case", "reader".
    """
    if not isinstance(text, str) or not text:
        raise InputError(f"the {what} is empty: give it a short name, for example {what}-01")
    if not _SAFE_NAME.fullmatch(text) or text.endswith(".") or _DEVICE.fullmatch(text):
        raise InputError(
            f"the {what} {text[:70]!r} cannot be in a file name: use up to 64 letters (A-Z), digits and . _ -, "
            "beginning with a letter or a digit; it must not identify a patient"
        )
    return text


def validate(record: object) -> Header | Event:
    """The `Header` or `Event` of a decoded line.

    `InputError` says in a few words what the format does not allow: a wrong kind, a field that is missing, not known
    or of the wrong type, or a newer schema.
    """
    if not isinstance(record, dict):
        raise InputError("not a JSON object")
    if record.get("kind") == "header":
        return _header(record)
    return _event(record)


def _header(record: dict[str, Any]) -> Header:
    schema = record.get("schema")
    if _is_int(schema) and schema > SCHEMA_VERSION:
        raise InputError(
            f"written by a newer version (schema {schema}; this one reads up to {SCHEMA_VERSION}): update the extension"
        )
    _require(schema == SCHEMA_VERSION and _is_int(schema), f"schema {schema!r} is not known")
    known = set(Header("", "", "", "", ()).to_json())
    _require(set(record) == known, _difference(set(record), known))
    for field in ("study", "case", "reader"):
        safe_name(record[field], field)
    _require(record["arm"] in ARMS, f"arm {record['arm']!r} is none of {', '.join(ARMS)}")
    bundle, digest, continues = record["bundle"], record["bundle_sha256"], record["continues"]
    _require(bundle is None or _is_text(bundle), "the bundle is not a name")
    _require(digest is None or _matches(_SHA256, digest), "bundle_sha256 is not 64 hexadecimal digits")
    _require(
        continues is None or (_is_text(continues) and not set(continues) & set("/\\:")),
        "continues is not a file name",
    )
    software, organs = record["software"], record["organs"]
    _require(
        isinstance(software, dict) and all(_is_text(k) and _is_text(v) for k, v in software.items()),
        "software is not a list of versions",
    )
    _require(_matches(_UTC, record["started_utc"]), "started_utc is not like 2026-11-21T08:30:00Z")
    _require(
        isinstance(organs, list) and all(map(_is_text, organs)) and len(set(organs)) == len(organs),
        "organs is not a list of different names",
    )
    return Header(
        study=record["study"],
        case=record["case"],
        reader=record["reader"],
        arm=record["arm"],
        organs=tuple(organs),
        bundle=bundle,
        bundle_sha256=digest,
        software=software,
        started_utc=record["started_utc"],
        continues=continues,
    )


def _event(record: dict[str, Any]) -> Event:
    kind, t = record.get("kind"), record.get("t")
    if not isinstance(kind, str) or kind not in FIELDS:
        raise InputError(f"the kind {kind!r} is not known")
    if not _is_int(t) or t < 0:
        raise InputError(f"the time {t!r} is not a whole number of nanoseconds")
    fields = FIELDS[kind]
    known = {"t", "kind", *fields}
    _require(set(record) == known, _difference(set(record), known))
    values = {field: record[field] for field in fields}
    for field, value in values.items():
        if field == "change":
            values[field] = _change(value)
        elif field == "organ" and value is None:
            _require(kind in _ORGAN_MAY_BE_NULL, "no organ is named")
        else:
            _require(_CHECKS[field](value), f"{field} {value!r} is not allowed")
    if kind == "blocked":
        _require(values["since"] <= t, "since is later than t")
    if kind in ("reopen", "end"):
        allowed = REOPEN_CAUSES if kind == "reopen" else END_CAUSES
        _require(values["cause"] in allowed, f"cause {values['cause']!r} is none of {', '.join(allowed)}")
    return Event(t, kind, **values)


def _change(value: object) -> OrganChange:
    known = {"added", "removed", "dsc", "volume_cc"}
    if not isinstance(value, dict) or set(value) != known:
        raise InputError("change is not added, removed, dsc and volume_cc")
    if not (_is_int(value["added"]) and _is_int(value["removed"])):
        raise InputError("change does not count voxels in whole numbers")
    if not (_is_number(value["dsc"]) and _is_number(value["volume_cc"])):
        raise InputError("change has a dsc or volume_cc that is not a number")
    change = OrganChange(value["added"], value["removed"], float(value["dsc"]), float(value["volume_cc"]))
    problem = check_change(change)
    _require(problem is None, f"change: {problem}")
    return change


def _require(condition: bool, problem: str) -> None:
    if not condition:
        raise InputError(problem)


def _difference(found: set[str], known: set[str]) -> str:
    parts = [
        f"{word} {', '.join(sorted(map(str, names)))}"
        for word, names in (("lacks", known - found), ("has the unknown", found - known))
        if names
    ]
    return " and ".join(parts)


def _is_int(value: object) -> TypeGuard[int]:
    return isinstance(value, int) and not isinstance(value, bool)


def _is_number(value: object) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool)


def _matches(pattern: re.Pattern[str], value: object) -> bool:
    return isinstance(value, str) and pattern.fullmatch(value) is not None


def _is_text(value: object) -> bool:
    return _matches(_SHORT_TEXT, value)


_CHECKS: dict[str, Callable[[Any], bool]] = {
    "organ": _is_text,
    "input": lambda value: value in INPUTS,
    "name": lambda value: value is None or _is_text(value),
    "why": _is_text,
    "since": lambda value: _is_int(value) and value >= 0,
    "on": lambda value: isinstance(value, bool),
    "cause": _is_text,
    "file": lambda value: _is_text(value) and not set(value) & set("/\\:"),
}
