"""The format of the effort log, schema 2; logs of schema 1 are read.

A log is a text file in UTF-8, one JSON object a line, written once from the top down and never changed. One file is
one editing session: one reader, one case, one arm. The first line is the header, every other an event.

**Header**: ``{"kind": "header", ...}`` with

===================  ================================================================================================
``schema``           2
``study``            name of the study
``case``             pseudonym of the patient's CT, never a name or a number from the hospital
``reader``           pseudonym of the reader
``arm``              what the reader was given, by any name: in a blinded study a code, else usually ``revise`` (a
                     proposal is corrected) or ``scratch`` (empty organs are drawn)
``phase``            ``training`` or ``main``; null outside of studies
``repeat``           1 for the first time that this reader reads this case in this arm, 2 for the second, ...; null
                     outside of studies
``sequence``         the session's number in the reader's worklist, from 1; null outside of studies
``proposal_source``  ``bundle``, ``contours`` (made elsewhere), ``study`` (the study's key knows) or ``none`` (from
                     scratch)
``proposal_sha256``  64 hexadecimal digits: the proposed voxels of the session's organs, see `soars.effort.identity`;
                     null where there is no proposal
``ct_sha256``        the CT's voxels, likewise; null where unknown
``voxel_size_mm``    three numbers, x, y, z; null where unknown
``bundle``           name of the model bundle behind the proposal; null where there is none or readers may not know
``bundle_version``   its version; null where unknown
``bundle_sha256``    64 hexadecimal digits that identify the bundle; null where unknown
``software``         versions, e.g. ``{"soars": "0.1.0", "slicer": "5.8.1"}``
``started_utc``      e.g. ``2026-11-21T08:30:00Z``: for people and for wash-out days; no reading time is computed
                     from it
``continues``        file name of the earlier log in the same folder that this one goes on from; null for a first one
``continues_chain``  the chain of the last record of that log; null where ``continues`` is, or it had none
``organs``           the organs of the session in the order of the table, under their names of the catalogue
===================  ================================================================================================

Schema 1 has no ``phase``, ``repeat``, ``sequence``, ``proposal_source``, ``proposal_sha256``, ``ct_sha256``,
``voxel_size_mm``, ``bundle_version`` and ``continues_chain``, its arms are ``revise`` and ``scratch`` only, and its
lines are not chained. Since schema 2 every line ends with its ``chain``: see `soars.effort.chain`.

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
                    ``overwritten`` (an edit of another organ took voxels of it, or they were lost with a program
                    that was killed before it saved them)
``view_only``       ``on`` true: from here on the reader looks and does not revise; false: the end of it
``snapshot``        the ``change`` of ``organ`` at this moment
``judge``           what the reader says of ``organ``: an acceptability ``score`` from 1 to 5 or null, a ``reason``
                    why it cannot be judged or null, a ``comment`` or null, each of one line; the last one counts
``restored``        the log had been deleted or changed by another program while it was open, and was written again
``saved``           ``file`` was written beside the log
``end``             the last event; ``cause``: ``finished``, ``scene_closed``, ``node_removed``, ``quit``
==================  =================================================================================================

A score of 1 is "unusable, draw it anew", 2 "major corrections", 3 "minor corrections that matter", 4 "minor corrections
of style", 5 "use as it is".

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

SCHEMA_VERSION = 2
REVISE, SCRATCH = "revise", "scratch"
ARMS = (REVISE, SCRATCH)
"""The arms of schema 1, and of sessions outside of studies."""
PHASES = ("training", "main")
PROPOSAL_SOURCES = ("bundle", "contours", "study", "none")
SCORES = (1, 2, 3, 4, 5)
INPUTS = ("press", "release", "wheel", "move", "key", "tablet", "touch")
REOPEN_CAUSES = ("reader", "edit", "overwritten")
END_CAUSES = ("finished", "scene_closed", "node_removed", "quit")

_SAFE_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}")
# File names that Windows keeps for devices, with any extension.
_DEVICE = re.compile(r"(con|prn|aux|nul|com[0-9]|lpt[0-9])(\..*)?", re.IGNORECASE)
_SHA256 = re.compile(r"[0-9a-f]{64}")
_UTC = re.compile(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(\.\d+)?Z")
_SHORT_TEXT = re.compile(r"[^\x00-\x1f\x7f]{1,128}")
_COMMENT = re.compile(r"[^\x00-\x1f\x7f]{1,1000}")
_CHAIN = re.compile(r"[0-9a-f]{16}")
_SINCE_SCHEMA_2 = (
    "phase",
    "repeat",
    "sequence",
    "proposal_source",
    "proposal_sha256",
    "ct_sha256",
    "voxel_size_mm",
    "bundle_version",
    "continues_chain",
)


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
    phase: str | None = None
    repeat: int | None = None
    sequence: int | None = None
    proposal_source: str | None = None
    proposal_sha256: str | None = None
    ct_sha256: str | None = None
    voxel_size_mm: tuple[float, float, float] | None = None
    bundle_version: str | None = None
    continues_chain: str | None = None
    schema: int = SCHEMA_VERSION

    @property
    def from_scratch(self) -> bool:
        """Whether the reader began with empty organs."""
        if self.proposal_source is None:
            return self.arm == SCRATCH
        return self.proposal_source == "none"

    def to_json(self) -> dict[str, Any]:
        out = {
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
        if self.schema > 1:
            out.update({field: getattr(self, field) for field in _SINCE_SCHEMA_2})
            if self.voxel_size_mm is not None:
                out["voxel_size_mm"] = list(self.voxel_size_mm)
        return out


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
    score: int | None = None
    reason: str | None = None
    comment: str | None = None

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
    "judge": ("organ", "score", "reason", "comment"),
    "restored": (),
    "saved": ("file",),
    "end": ("cause",),
}
"""The fields of each kind of event besides ``t`` and ``kind``; a record has exactly these."""

ACTS = frozenset(
    "start select interaction effect edit undo redo resume accept reopen view_only judge".split()
)
"""Kinds of events that show that the reader is at work."""

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


def one_line(text: str | None) -> str | None:
    """What a reader wrote or pasted, as a log can hold it: line ends, tabs and other control characters become spaces,
    and what is beyond 1000 characters is cut off; None where nothing is left."""
    return " ".join(re.sub(r"[\x00-\x1f\x7f]", " ", text or "").split())[:1000] or None


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
    if not _is_int(schema) or schema < 1:
        raise InputError(f"schema {schema!r} is not known")
    known = set(Header("", "", "", "", (), schema=schema).to_json())
    _require(set(record) == known, _difference(set(record), known))
    for field in ("study", "case", "reader", "arm"):
        safe_name(record[field], field)
    if schema == 1:
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
        **(_since_schema_2(record) if schema > 1 else {}),
        schema=schema,
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


def _since_schema_2(record: dict[str, Any]) -> dict[str, Any]:
    """The header's fields that schema 1 does not have, checked."""
    values = {field: record[field] for field in _SINCE_SCHEMA_2}
    for field, check in _HEADER_CHECKS.items():
        value = values[field]
        _require(value is None or check(value), f"{field} {value!r} is not allowed")
    if values["voxel_size_mm"] is not None:
        values["voxel_size_mm"] = tuple(float(v) for v in values["voxel_size_mm"])
    if values["proposal_source"] == "none":
        _require(values["proposal_sha256"] is None, "a session from scratch has no proposal_sha256")
    return values


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
    if kind == "judge":
        _require(any(values[f] is not None for f in ("score", "reason", "comment")), "a judgement is empty")
        _require(
            values["score"] is None or values["reason"] is None, "an organ that cannot be judged has a score"
        )
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
    "score": lambda value: value is None or (_is_int(value) and value in SCORES),
    "reason": lambda value: value is None or _matches(_COMMENT, value),
    "comment": lambda value: value is None or _matches(_COMMENT, value),
}

_HEADER_CHECKS: dict[str, Callable[[Any], bool]] = {
    "phase": lambda value: value in PHASES,
    "repeat": lambda value: _is_int(value) and value >= 1,
    "sequence": lambda value: _is_int(value) and value >= 1,
    "proposal_source": lambda value: value in PROPOSAL_SOURCES,
    "proposal_sha256": lambda value: _matches(_SHA256, value),
    "ct_sha256": lambda value: _matches(_SHA256, value),
    "voxel_size_mm": lambda value: (
        isinstance(value, list) and len(value) == 3 and all(_is_number(v) and 0 < v < 1e6 for v in value)
    ),
    "bundle_version": _is_text,
    "continues_chain": lambda value: _matches(_CHAIN, value),
}
