"""The reader's side of a study: what comes next, what waits, and worklists that cannot be trusted."""

from __future__ import annotations

import json
from datetime import datetime, timedelta, timezone
from pathlib import Path
from typing import Any

import pytest

from soars.effort.log import new_log_path, session_folder
from soars.effort.recorder import Recorder
from soars.effort.writer import LogWriter
from soars.errors import InputError
from soars.study.desk import (
    DONE,
    INTERRUPTED,
    OPEN,
    RUNNING,
    Worklist,
    header_of_item,
    next_session,
    read_worklist,
    states,
)

NOW = datetime(2026, 3, 2, 9, 0, tzinfo=timezone.utc)


def item(number: int, case: str, arm: str, **more: Any) -> dict[str, Any]:
    return {
        "number": number, "case": case, "arm": arm, "phase": "main", "repeat": 1, "ct": f"cases/{case}/ct.nrrd",
        "ct_sha256": "ab" * 32, "proposal": f"cases/{case}/{arm}.seg.nrrd", "proposal_sha256": "cd" * 32, **more,
    }  # fmt: skip


WORKLIST: dict[str, Any] = {
    "schema": 1,
    "study": "pilot",
    "reader": "R1",
    "organs": ["Brainstem", "Eye_L"],
    "idle_s": 30,
    "washout_days": 14,
    "scores": True,
    "items": [item(1, "case-01", "K7"), item(2, "case-02", "K7"), item(3, "case-01", "Z3")],
}


def written(folder: Path, **changes: Any) -> Path:
    path = folder / "share" / "worklists" / "R1.json"
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps({**WORKLIST, **changes}))
    return path


def begin(worklist: Worklist, number: int, started: datetime, **changes: Any) -> Recorder:
    from dataclasses import replace

    header = header_of_item(worklist, worklist.items[number - 1], {"soars": "test"})
    header = replace(header, started_utc=started.strftime("%Y-%m-%dT%H:%M:%SZ"), **changes)
    return Recorder(LogWriter.create(new_log_path(session_folder(worklist.sessions, header)), header))


@pytest.fixture
def worklist(tmp_path: Path) -> Worklist:
    return read_worklist(written(tmp_path))


def test_a_worklist_is_read_as_it_was_written(worklist: Worklist, tmp_path: Path) -> None:
    assert worklist.share == tmp_path / "share"
    assert [one.case for one in worklist.items] == ["case-01", "case-02", "case-01"]
    assert worklist.organs == ("Brainstem", "Eye_L") and worklist.scores


def test_items_come_one_after_the_other_and_none_is_skipped(worklist: Worklist) -> None:
    for number in (1, 2):
        assert next_session(worklist, states(worklist), NOW).item == worklist.items[number - 1]
        begin(worklist, number, NOW).end()
    assert [one.state for one in states(worklist)] == [DONE, DONE, OPEN]


def test_the_same_case_waits_for_its_wash_out(worklist: Worklist) -> None:
    begin(worklist, 1, NOW).end()
    begin(worklist, 2, NOW).end()
    found = next_session(worklist, states(worklist), NOW + timedelta(days=13))
    assert found.item is None and found.not_before is not None
    assert abs(found.not_before - (NOW + timedelta(days=14))) < timedelta(minutes=1)
    assert next_session(worklist, states(worklist), NOW + timedelta(days=15)).item == worklist.items[2]


def test_an_interrupted_session_comes_first(worklist: Worklist) -> None:
    recorder = begin(worklist, 1, NOW)
    assert states(worklist)[0].state == RUNNING
    with pytest.raises(InputError, match="another window"):
        next_session(worklist, states(worklist), NOW)
    recorder.writer.close()  # killed
    found = next_session(worklist, states(worklist), NOW)
    assert states(worklist)[0].state == INTERRUPTED
    assert found.item == worklist.items[0] and found.folder is not None


def test_a_session_that_was_left_is_not_done(worklist: Worklist) -> None:
    begin(worklist, 1, NOW).end("quit")
    assert states(worklist)[0].state == INTERRUPTED


def test_sessions_of_others_are_not_mine(worklist: Worklist) -> None:
    begin(worklist, 1, NOW, reader="R2").end()
    begin(worklist, 1, NOW, study="other").end()
    begin(worklist, 1, NOW, arm="Z3", repeat=2).end()
    assert [one.state for one in states(worklist)] == [OPEN, OPEN, OPEN]


def test_when_all_is_done_nothing_comes(worklist: Worklist) -> None:
    for number in (1, 2, 3):
        begin(worklist, number, NOW).end()
    found = next_session(worklist, states(worklist), NOW)
    assert found.item is None and found.folder is None and found.not_before is None


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        ({"schema": 2}, "newer version"),
        ({"study": "my study"}, "damaged"),
        ({"items": [item(2, "case-01", "K7")]}, "numbers are not"),
        ({"items": [item(1, "case-01", "K7"), item(2, "case-01", "K7")]}, "twice"),
        ({"items": [item(1, "case-01", "K7", ct="/etc/passwd")]}, "leaves the study's folder"),
        ({"items": [item(1, "case-01", "K7", proposal="../../x.seg.nrrd")]}, "leaves the study's folder"),
        ({"items": [item(1, "case-01", "K7", proposal_sha256=None)]}, "without its hash"),
        ({"items": None}, "damaged"),
        ({"organs": None}, "damaged"),
    ],
)
def test_a_worklist_that_cannot_be_trusted_is_refused(
    tmp_path: Path, changes: dict[str, Any], says: str
) -> None:
    with pytest.raises(InputError, match=says):
        read_worklist(written(tmp_path, **changes))


def test_what_is_no_worklist_is_refused(tmp_path: Path) -> None:
    path = written(tmp_path)
    for text in ("", "[]", "{", "null"):
        path.write_text(text)
        with pytest.raises(InputError, match="ask the study's lead"):
            read_worklist(path)
    with pytest.raises(InputError, match="cannot be read"):
        read_worklist(tmp_path / "nothing.json")


def test_a_header_says_what_the_worklist_says_and_no_model(worklist: Worklist) -> None:
    header = header_of_item(worklist, worklist.items[2], {"soars": "1"})
    assert (header.arm, header.sequence, header.phase, header.repeat) == ("Z3", 3, "main", 1)
    assert header.proposal_source == "study" and header.proposal_sha256 == "cd" * 32
    assert header.bundle is None and header.bundle_sha256 is None
