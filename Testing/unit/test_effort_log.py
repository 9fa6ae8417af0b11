"""Effort logs on disk: nothing that was recorded is lost, and nothing damaged is taken for a log."""

from __future__ import annotations

import errno
import json
import os
import re
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import pytest
from effort_logs import HEADER, MS, HandClock, S, recorder_at

import soars.effort.writer as writer_module
from soars.effort.change import OrganChange
from soars.effort.log import (
    interrupted_sessions,
    new_log_path,
    read_log,
    read_session,
    session_folder,
    session_logs,
)
from soars.effort.records import Event
from soars.effort.writer import LogWriter
from soars.errors import InputError, SoarsError

CHANGE = OrganChange(3, 1, 0.9, 1.25)


def write_short_session(path: Path, **header: object) -> None:
    """start 0, select 1 s, edit 2 s, accept 3 s, end 4 s."""
    clock = HandClock()
    recorder = recorder_at(path, clock, **header)
    for act in (
        lambda: recorder.select("Eye_L"),
        lambda: recorder.edit("Eye_L"),
        lambda: recorder.accept("Eye_L", CHANGE),
        recorder.end,
    ):
        clock.step(1.0)
        act()


def test_what_is_written_is_read_back(tmp_path: Path) -> None:
    path = tmp_path / "deep" / "1.effort.jsonl"
    write_short_session(path)
    log = read_log(path)
    assert log.header == HEADER
    assert log.events == (
        Event(0, "start"),
        Event(1 * S, "select", organ="Eye_L"),
        Event(2 * S, "edit", organ="Eye_L"),
        Event(3 * S, "accept", organ="Eye_L", change=CHANGE),
        Event(4 * S, "end", cause="finished"),
    )
    assert log.complete and log.warnings == () and log.wall_ns == 4 * S


def test_a_log_is_never_written_over(tmp_path: Path) -> None:
    path = tmp_path / "1.effort.jsonl"
    write_short_session(path)
    before = path.read_bytes()
    with pytest.raises(InputError, match="already"):
        LogWriter.create(path, HEADER)
    assert path.read_bytes() == before


def test_a_header_that_breaks_the_format_makes_no_file(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="case"):
        LogWriter.create(tmp_path / "1.effort.jsonl", replace(HEADER, case="Doe, Jane"))
    assert list(tmp_path.iterdir()) == []


def test_a_log_cut_at_any_byte_keeps_all_that_was_whole(tmp_path: Path) -> None:
    path = tmp_path / "1.effort.jsonl"
    write_short_session(path)
    data, full = path.read_bytes(), read_log(path)
    header_length = data.index(b"\n") + 1
    cut = tmp_path / "cut.effort.jsonl"
    for length in range(len(data)):
        cut.write_bytes(data[:length])
        if length < header_length - 1:
            with pytest.raises(InputError, match="line 1|is empty"):
                read_log(cut)
            continue
        log = read_log(cut)
        records = data[header_length:length].split(b"\n")
        whole = len(records) - 1 + records[-1].endswith(b"}") * is_json(records[-1])
        assert log.events == full.events[:whole]
        assert bool(log.warnings) == (data[length - 1 : length] != b"\n")
        assert log.complete == (whole == len(full.events))


def is_json(text: bytes) -> bool:
    try:
        json.loads(text)
    except ValueError:
        return False
    return True


def test_zeros_at_the_end_are_a_cut(tmp_path: Path) -> None:
    path = tmp_path / "1.effort.jsonl"
    write_short_session(path)
    data = path.read_bytes()
    path.write_bytes(data[:-5] + bytes(100))
    log = read_log(path)
    assert len(log.events) == 4 and len(log.warnings) == 1 and not log.complete


@pytest.mark.parametrize(
    ("line", "text", "says"),
    [
        (1, b'{"kind":"header"}', "schema None"),
        (2, b'{"t":0,"kind":"undo"}', "not the start"),
        (3, b"\xff\xfe", "not a JSON object"),
        (3, b'{"t":1000000000,"kind":"sel', "not a JSON object"),
        (3, b"", "not a JSON object"),
        (3, b"[" * 100_000, "not a JSON object"),
        (3, b'{"t":0,"kind":"start"}', "second start"),
        (3, b'{"t":9000000000,"kind":"undo"}', "earlier"),
        (3, b'{"t":1,"kind":"select","organ":"Jane"}', "'Jane'"),
        (3, b'{"t":1,"kind":"end","cause":"quit"}', "after the end"),
    ],
)
def test_damage_before_the_end_is_refused_with_its_line(
    tmp_path: Path, line: int, text: bytes, says: str
) -> None:
    path = tmp_path / "1.effort.jsonl"
    write_short_session(path, schema=1)  # whose lines are not chained, so that the damage itself is named
    lines = path.read_bytes().split(b"\n")
    lines[line - 1] = text
    path.write_bytes(b"\n".join(lines))
    with pytest.raises(InputError, match=rf"line \d: .*{re.escape(says)}") as error:
        read_log(path)
    assert str(path) in str(error.value)


def test_a_newer_schema_is_refused_with_the_way_out(tmp_path: Path) -> None:
    path = tmp_path / "1.effort.jsonl"
    write_short_session(path)
    path.write_bytes(path.read_bytes().replace(b'"schema":2', b'"schema":3', 1))
    with pytest.raises(InputError, match="schema 3.*update"):
        read_log(path)


def test_a_clock_set_back_costs_its_jump_and_nothing_else(tmp_path: Path) -> None:
    clock = HandClock()
    recorder = recorder_at(tmp_path / "1.effort.jsonl", clock)
    times = []
    for step in (1.0, -5.0, 2.0, -0.5, 3.0):
        clock.step(step)
        recorder.undo()
        times.append(recorder.now())
    recorder.end()
    assert times == [1 * S, 1 * S, 3 * S, 3 * S, 6 * S]
    assert [event.t for event in read_log(tmp_path / "1.effort.jsonl").events] == [0, *times, 6 * S]


# --- a disk that is full ----------------------------------------------------------------------------------------------


class FullDisk:
    """``os.write`` that has room for so many bytes."""

    def __init__(self, room: int) -> None:
        self.room = room
        self.write = os.write

    def __call__(self, descriptor: int, data: bytes) -> int:
        if self.room == 0:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        written = self.write(descriptor, data[: self.room])
        self.room -= written
        return written


@pytest.mark.parametrize("room", [0, 1, 30, 45])
def test_records_wait_while_the_disk_is_full_and_none_is_torn(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, room: int
) -> None:
    path, clock = tmp_path / "1.effort.jsonl", HandClock()
    recorder = recorder_at(path, clock)
    disk = FullDisk(room)
    monkeypatch.setattr(writer_module.os, "write", disk)
    recorder.select("Eye_L")
    recorder.edit("Eye_L")
    assert recorder.writer.problem is not None and os.strerror(errno.ENOSPC) in recorder.writer.problem
    assert read_log(path).events[0].kind == "start"  # readable at any moment
    disk.room = 10_000
    recorder.undo()
    assert recorder.writer.problem is None
    recorder.end()
    assert [e.kind for e in read_log(path).events] == ["start", "select", "edit", "undo", "end"]


def test_a_disk_that_stays_full_is_said_at_the_end(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "1.effort.jsonl"
    recorder = recorder_at(path, HandClock())
    monkeypatch.setattr(writer_module.os, "write", FullDisk(0))
    recorder.undo()
    with pytest.raises(SoarsError, match="last 2 records"):
        recorder.end()
    assert [e.kind for e in read_log(path).events] == ["start"]


def test_a_full_disk_at_the_beginning_is_one_message_and_no_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(writer_module.os, "write", FullDisk(10))
    with pytest.raises(InputError, match="cannot be written"):
        LogWriter.create(tmp_path / "1.effort.jsonl", HEADER)
    assert list(tmp_path.iterdir()) == []


# --- sessions of several logs -----------------------------------------------------------------------------------------


def test_a_resumed_session_is_joined_in_the_order_of_its_chain(tmp_path: Path) -> None:
    first, second = tmp_path / "1.effort.jsonl", tmp_path / "2.effort.jsonl"
    clock = HandClock()
    recorder = recorder_at(first, clock)
    clock.step(2.0)
    recorder.select("Eye_L")
    recorder.writer.close()  # killed: no end
    write_short_session(second, continues="1.effort.jsonl", started_utc="2026-11-22T08:30:00Z")
    joined = read_session([second, first])
    assert [(event.kind, event.t) for event in joined.events] == [
        ("start", 0),
        ("select", 2 * S),
        ("start", 2 * S),
        ("select", 3 * S),
        ("edit", 4 * S),
        ("accept", 5 * S),
        ("end", 6 * S),
    ]
    assert joined.complete and joined.header.continues is None and joined.wall_ns == 6 * S
    assert read_session([first]).complete is False


def test_logs_of_different_sessions_are_not_joined(tmp_path: Path) -> None:
    first, second = tmp_path / "1.effort.jsonl", tmp_path / "2.effort.jsonl"
    write_short_session(first)
    write_short_session(second, continues="1.effort.jsonl", reader="R2")
    with pytest.raises(InputError, match="differ in reader"):
        read_session([first, second])
    with pytest.raises(InputError, match=r"1\.effort\.jsonl is missing"):
        read_session([second])
    with pytest.raises(InputError, match="no effort log"):
        read_session([])
    other = tmp_path / "3.effort.jsonl"
    write_short_session(other)
    with pytest.raises(InputError, match="both go on from nothing"):
        read_session([first, other])


def test_the_next_log_of_a_folder_has_the_next_number(tmp_path: Path) -> None:
    assert new_log_path(tmp_path).name == "1.effort.jsonl"
    for number in range(1, 12):
        path = new_log_path(tmp_path)
        assert path.name == f"{number}.effort.jsonl"
        path.touch()
    (tmp_path / "notes.txt").touch()
    assert [path.name for path in session_logs(tmp_path)][-3:] == [
        "9.effort.jsonl", "10.effort.jsonl", "11.effort.jsonl",
    ]  # fmt: skip


def test_a_file_with_the_studys_name_is_told_and_not_tried_for_ever(tmp_path: Path) -> None:
    (tmp_path / HEADER.study).write_text("a note")
    with pytest.raises(InputError, match="cannot be made: File exists"):
        session_folder(tmp_path, HEADER)


def test_interrupted_sessions_are_found_by_their_folders(tmp_path: Path) -> None:
    first = session_folder(tmp_path, HEADER)
    assert first == tmp_path / "pilot" / "case-01_R1_revise_20261121T083000Z"
    recorder_at(new_log_path(first), HandClock()).writer.close()  # killed
    second = session_folder(tmp_path, HEADER)
    assert second.name == first.name + "-2"
    write_short_session(new_log_path(second))
    damaged = session_folder(tmp_path, replace(HEADER, case="case-02"))
    write_short_session(new_log_path(damaged))
    new_log_path(damaged).write_text("nonsense\n")
    assert interrupted_sessions(tmp_path) == [first]
    assert interrupted_sessions(tmp_path, lambda folder: folder != first) == []
    left = recorder_at(new_log_path(first), HandClock(), continues="1.effort.jsonl")
    left.end("quit")
    assert interrupted_sessions(tmp_path) == [first]
    write_short_session(new_log_path(first), continues="2.effort.jsonl")
    assert interrupted_sessions(tmp_path) == []
    assert interrupted_sessions(tmp_path / "nowhere") == []


# --- kill -9 ----------------------------------------------------------------------------------------------------------

CHILD = """
import sys, time
from pathlib import Path
from effort_logs import HEADER
from soars.effort.recorder import Recorder
from soars.effort.writer import LogWriter
recorder = Recorder(LogWriter.create(Path(sys.argv[1]), HEADER))
number = 0
while True:
    recorder.effect(f"effect {number}")
    print(number, flush=True)  # from here on the record may not be lost
    number += 1
    recorder.tick()
    time.sleep(0.002)
"""


@pytest.mark.parametrize("seconds", [0.05, 0.31, 0.77])
def test_kill_9_loses_no_record_that_was_made(tmp_path: Path, root: Path, seconds: float) -> None:
    path = tmp_path / "1.effort.jsonl"
    environment = {
        **os.environ,
        "PYTHONPATH": os.pathsep.join(
            [
                str(root / "SOARSSegmentation"),
                str(root / "Testing" / "helpers"),
                os.environ.get("PYTHONPATH", ""),
            ]
        ),
    }
    with subprocess.Popen(
        [sys.executable, "-c", CHILD, str(path)], stdout=subprocess.PIPE, text=True, env=environment
    ) as child:
        assert child.stdout is not None
        assert child.stdout.readline() == "0\n"
        began = time.monotonic_ns()
        time.sleep(seconds)
        killed = time.monotonic_ns()
        child.kill()
        said = child.stdout.read().splitlines()
    last = int(said[-1])
    log = read_log(path)
    recorded = [event for event in log.events if event.kind == "effect"]
    assert [event.name for event in recorded] == [f"effect {n}" for n in range(len(recorded))]
    assert len(recorded) >= last + 1
    assert not log.complete
    # The log's time is that of the clock outside: nothing of the last second is missing.
    assert log.wall_ns - recorded[0].t == pytest.approx(killed - began, abs=500 * MS)
