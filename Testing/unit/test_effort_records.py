"""The effort log's format: what is in a record, and what is refused."""

from __future__ import annotations

import json
import re
from dataclasses import replace

import pytest
from effort_logs import HEADER

from soars.effort import records
from soars.effort.change import OrganChange
from soars.effort.records import FIELDS, Event, Header, validate
from soars.errors import InputError

CHANGE = {"added": 3, "removed": 1, "dsc": 0.9, "volume_cc": 1.25}
EXAMPLES: list[dict[str, object]] = [
    {"t": 0, "kind": "start"},
    {"t": 1, "kind": "select", "organ": "Eye_L"},
    {"t": 1, "kind": "select", "organ": None},
    {"t": 2, "kind": "interaction", "input": "wheel"},
    {"t": 3, "kind": "effect", "name": "Level tracing"},
    {"t": 3, "kind": "effect", "name": None},
    {"t": 4, "kind": "edit", "organ": "Eye_L"},
    {"t": 5, "kind": "undo"},
    {"t": 5, "kind": "redo"},
    {"t": 6, "kind": "busy_begin", "why": "save"},
    {"t": 7, "kind": "busy_end"},
    {"t": 9, "kind": "blocked", "since": 8},
    {"t": 10, "kind": "alive"},
    {"t": 11, "kind": "pause"},
    {"t": 12, "kind": "resume"},
    {"t": 13, "kind": "accept", "organ": "Eye_L", "change": CHANGE},
    {"t": 14, "kind": "reopen", "organ": "Eye_L", "cause": "overwritten"},
    {"t": 15, "kind": "view_only", "on": True},
    {"t": 16, "kind": "snapshot", "organ": "Eye_L", "change": CHANGE},
    {"t": 17, "kind": "judge", "organ": "Eye_L", "score": 4, "reason": None, "comment": "front slice, late"},
    {"t": 17, "kind": "judge", "organ": "Eye_L", "score": None, "reason": "dental artefact", "comment": None},
    {"t": 17, "kind": "restored"},
    {"t": 17, "kind": "saved", "file": "result.seg.nrrd"},
    {"t": 18, "kind": "end", "cause": "quit"},
]


@pytest.mark.parametrize("record", EXAMPLES, ids=lambda record: str(record["kind"]))
def test_every_kind_of_event_comes_back_as_it_was(record: dict[str, object]) -> None:
    event = validate(json.loads(json.dumps(record)))
    assert isinstance(event, Event)
    assert event.to_json() == record


def test_every_kind_is_in_the_examples_and_in_the_documentation() -> None:
    assert {str(record["kind"]) for record in EXAMPLES} == set(FIELDS)
    documented = set(re.findall(r"``(\w+)``", records.__doc__ or ""))
    assert set(FIELDS) <= documented
    assert {field for fields in FIELDS.values() for field in fields} <= documented
    assert set(HEADER.to_json()) - {"kind"} <= documented
    assert {*records.INPUTS, *records.REOPEN_CAUSES, *records.END_CAUSES, *records.ARMS} <= documented
    assert {*records.PHASES, *records.PROPOSAL_SOURCES} <= documented


@pytest.mark.parametrize(
    "header",
    [
        HEADER,
        replace(HEADER, schema=1),
        replace(
            HEADER,
            arm="arm-K7",
            phase="main",
            repeat=2,
            sequence=17,
            proposal_source="study",
            proposal_sha256="cd" * 32,
            ct_sha256="ef" * 32,
            voxel_size_mm=(0.9, 0.9, 2.5),
            bundle_version="3",
            continues="1.effort.jsonl",
            continues_chain="0123456789abcdef",
        ),
    ],
)
def test_a_header_comes_back_as_it_was(header: Header) -> None:
    assert validate(json.loads(json.dumps(header.to_json()))) == header


def test_a_session_is_from_scratch_by_its_source_or_else_its_arm() -> None:
    assert not HEADER.from_scratch and replace(HEADER, arm="scratch").from_scratch
    assert replace(HEADER, arm="arm-K7", proposal_source="none").from_scratch
    assert not replace(HEADER, arm="scratch", proposal_source="study").from_scratch


@pytest.mark.parametrize(
    ("record", "says"),
    [
        ([], "not a JSON object"),
        ({"t": 1}, "kind None is not known"),
        ({"t": 1, "kind": "dance"}, "'dance'"),
        ({"t": 1, "kind": ["undo"]}, "not known"),
        ({"t": -1, "kind": "undo"}, "nanoseconds"),
        ({"t": 1.5, "kind": "undo"}, "nanoseconds"),
        ({"t": True, "kind": "undo"}, "nanoseconds"),
        ({"t": 1, "kind": "undo", "name": "Jane"}, "unknown name"),
        ({"t": 1, "kind": "edit"}, "lacks organ"),
        ({"t": 1, "kind": "accept", "organ": None, "change": CHANGE}, "no organ"),
        ({"t": 1, "kind": "interaction", "input": "stare"}, "input"),
        ({"t": 1, "kind": "effect", "name": "a\nb"}, "name"),
        ({"t": 1, "kind": "blocked", "since": 2}, "later than t"),
        ({"t": 1, "kind": "reopen", "organ": "Eye_L", "cause": "quit"}, "overwritten"),
        ({"t": 1, "kind": "end", "cause": "edit"}, "finished"),
        ({"t": 1, "kind": "view_only", "on": 1}, "on"),
        ({"t": 1, "kind": "saved", "file": "../x"}, "file"),
        ({"t": 1, "kind": "snapshot", "organ": "Eye_L", "change": {**CHANGE, "dsc": 1.5}}, "DSC"),
        ({"t": 1, "kind": "snapshot", "organ": "Eye_L", "change": {**CHANGE, "dsc": float("nan")}}, "DSC"),
        ({"t": 1, "kind": "snapshot", "organ": "Eye_L", "change": {**CHANGE, "added": -1}}, "negative"),
        ({"t": 1, "kind": "snapshot", "organ": "Eye_L", "change": {**CHANGE, "added": 1.0}}, "whole"),
        ({"t": 1, "kind": "snapshot", "organ": "Eye_L", "change": {"added": 1}}, "change"),
        ({"t": 1, "kind": "judge", "organ": "Eye_L", "score": 6, "reason": None, "comment": None}, "score"),
        (
            {"t": 1, "kind": "judge", "organ": "Eye_L", "score": True, "reason": None, "comment": None},
            "score",
        ),
        (
            {"t": 1, "kind": "judge", "organ": "Eye_L", "score": 3, "reason": "x", "comment": None},
            "cannot be judged",
        ),
        (
            {"t": 1, "kind": "judge", "organ": "Eye_L", "score": None, "reason": None, "comment": None},
            "a judgement is empty",
        ),
        ({"t": 1, "kind": "judge", "organ": None, "score": 3, "reason": None, "comment": None}, "no organ"),
        (
            {"t": 1, "kind": "judge", "organ": "Eye_L", "score": 3, "reason": None, "comment": "a\nb"},
            "comment",
        ),
        ({**HEADER.to_json(), "schema": 3}, "newer version"),
        ({**HEADER.to_json(), "schema": 0}, "schema 0"),
        ({**HEADER.to_json(), "schema": True}, "schema True"),
        ({**HEADER.to_json(), "phase": "pilot"}, "phase"),
        ({**HEADER.to_json(), "repeat": 0}, "repeat"),
        ({**HEADER.to_json(), "sequence": 1.5}, "sequence"),
        ({**HEADER.to_json(), "proposal_source": "thin air"}, "proposal_source"),
        ({**HEADER.to_json(), "proposal_source": "none", "proposal_sha256": "ab" * 32}, "from scratch"),
        ({**HEADER.to_json(), "ct_sha256": "ab"}, "ct_sha256"),
        ({**HEADER.to_json(), "voxel_size_mm": [1, 1]}, "voxel_size_mm"),
        ({**HEADER.to_json(), "voxel_size_mm": [1, 1, 0]}, "voxel_size_mm"),
        ({**HEADER.to_json(), "continues_chain": "xyz"}, "continues_chain"),
        ({**HEADER.to_json(), "schema": "1"}, "schema"),
        ({**HEADER.to_json(), "patient": "Jane"}, "unknown patient"),
        ({**HEADER.to_json(), "arm": "a/b"}, "arm"),
        ({**replace(HEADER, schema=1).to_json(), "arm": "both"}, "arm"),
        ({**replace(HEADER, schema=1).to_json(), "phase": "main"}, "unknown phase"),
        ({**HEADER.to_json(), "bundle_sha256": "AB"}, "hexadecimal"),
        ({**HEADER.to_json(), "started_utc": "yesterday"}, "started_utc"),
        ({**HEADER.to_json(), "continues": "../1.effort.jsonl"}, "continues"),
        ({**HEADER.to_json(), "organs": ["Eye_L", "Eye_L"]}, "organs"),
        ({**HEADER.to_json(), "software": {"soars": 1}}, "software"),
    ],
)
def test_what_the_format_does_not_allow_is_refused_in_words(record: object, says: str) -> None:
    with pytest.raises(InputError, match=re.escape(says)):
        validate(record)


@pytest.mark.parametrize(
    "text", ["", "Müller", "a/b", "a\\b", "..", ".x", "a b", "x" * 65, "nul", "COM1", "aux.txt", "a.", "a\n"]
)
def test_a_case_or_reader_that_cannot_be_in_a_file_name_is_refused(text: str) -> None:
    with pytest.raises(InputError, match="case"):
        records.safe_name(text, "case")
    with pytest.raises(InputError, match="reader"):
        validate(replace(HEADER, reader=text).to_json())


@pytest.mark.parametrize("text", ["R1", "case-001", "0_a.b", "console", "x" * 64])
def test_an_ordinary_pseudonym_is_taken(text: str) -> None:
    assert records.safe_name(text, "case") == text


def test_an_event_is_written_without_fields_of_other_kinds() -> None:
    event = Event(5, "accept", organ="Eye_L", change=OrganChange(3, 1, 0.9, 1.25))
    assert event.to_json() == {"t": 5, "kind": "accept", "organ": "Eye_L", "change": CHANGE}
