"""The recorder: what becomes a record, and what does not."""

from __future__ import annotations

import random
import statistics
import time
from collections.abc import Callable
from pathlib import Path

import pytest
from effort_logs import HEADER, MS, HandClock, S, recorder_at

from soars.effort.change import OrganChange
from soars.effort.log import read_log
from soars.effort.recorder import Recorder
from soars.effort.records import Event
from soars.effort.timing import Clock
from soars.effort.writer import LogWriter

Play = Callable[[Recorder, HandClock], object]


def recorded(folder: Path, play: Play) -> list[Event]:
    """The events between start and end."""
    clock = HandClock()
    recorder = recorder_at(folder / "1.effort.jsonl", clock)
    play(recorder, clock)
    recorder.end()
    return list(read_log(folder / "1.effort.jsonl").events[1:-1])


def at_ms(events: list[Event]) -> list[tuple[str, float]]:
    return [(event.input or event.kind, event.t / MS) for event in events]


def test_a_stream_of_moves_is_thinned_and_its_last_move_is_kept(tmp_path: Path) -> None:
    def play(recorder: Recorder, clock: HandClock) -> None:
        for _ in range(100):  # a move every 10 ms: at 10, 20, ..., 1000 ms
            clock.step(0.010)
            recorder.interaction("move")
        clock.step(5.0)
        recorder.interaction("key")

    assert at_ms(recorded(tmp_path, play)) == [
        ("move", 10), ("move", 260), ("move", 510), ("move", 760), ("move", 1000), ("key", 6000),
    ]  # fmt: skip


def test_never_more_than_five_moves_in_any_second(tmp_path: Path) -> None:
    chance = random.Random(7)

    def play(recorder: Recorder, clock: HandClock) -> None:
        for _ in range(3000):
            clock.step(chance.choice([0.001, 0.02, 0.2, 1.1]))
            if chance.random() < 0.1:
                chance.choice([recorder.undo, recorder.tick, lambda: recorder.effect(None)])()
                with recorder.busy("save"):
                    pass
            else:
                recorder.interaction(chance.choice(["move", "tablet", "touch"]))

    moves = [event.t for event in recorded(tmp_path, play) if event.kind == "interaction"]
    assert len(moves) > 500
    assert all(later - first >= S for first, later in zip(moves, moves[5:], strict=False))


def test_buttons_keys_and_the_wheel_are_all_recorded(tmp_path: Path) -> None:
    def play(recorder: Recorder, clock: HandClock) -> None:
        for kind in ("press", "release", "wheel", "wheel", "key", "wheel"):
            clock.step(0.001)
            recorder.interaction(kind)

    assert [event.input for event in recorded(tmp_path, play)] == [
        "press", "release", "wheel", "wheel", "key", "wheel",
    ]  # fmt: skip


def test_nested_busy_is_one(tmp_path: Path) -> None:
    def play(recorder: Recorder, clock: HandClock) -> None:
        with recorder.busy("save"):
            clock.step(1.0)
            with recorder.busy("compare"):
                clock.step(1.0)
        with pytest.raises(RuntimeError), recorder.busy("smoothing"):
            clock.step(1.0)
            raise RuntimeError

    assert at_ms(recorded(tmp_path, play)) == [
        ("busy_begin", 0), ("busy_end", 2000), ("busy_begin", 2000), ("busy_end", 3000),
    ]  # fmt: skip


def test_no_interaction_is_recorded_in_a_pause_and_pausing_twice_is_once(tmp_path: Path) -> None:
    def play(recorder: Recorder, clock: HandClock) -> None:
        recorder.resume()
        recorder.pause()
        clock.step(2.0)
        recorder.pause()
        recorder.interaction("press")
        recorder.tick()
        recorder.resume()
        recorder.resume()
        recorder.interaction("press")

    assert at_ms(recorded(tmp_path, play)) == [("pause", 0), ("resume", 2000), ("press", 2000)]


def test_ticks_speak_only_into_silence(tmp_path: Path) -> None:
    def play(recorder: Recorder, clock: HandClock) -> None:
        for _ in range(8):  # 2 s without anything
            clock.step(0.25)
            recorder.tick()
        for _ in range(8):  # 2 s of work
            clock.step(0.25)
            recorder.tick()
            recorder.interaction("wheel")

    assert at_ms(recorded(tmp_path, play)) == [
        ("alive", 1000), ("alive", 2000), *(("wheel", 2000 + 250 * n) for n in range(1, 9)),
    ]  # fmt: skip


def test_an_application_that_did_not_answer_is_noticed(tmp_path: Path) -> None:
    def play(recorder: Recorder, clock: HandClock) -> None:
        clock.step(0.25)
        recorder.tick()
        clock.step(0.1)
        recorder.edit("Eye_L")
        clock.step(7.0)  # a smoothing: no event gets through
        recorder.interaction("press")
        recorder.tick()
        with recorder.busy("save"):  # said: not noticed again
            clock.step(4.0)
        recorder.tick()
        clock.step(0.5)
        recorder.tick()
        recorder.pause()
        clock.step(60.0)
        recorder.resume()
        recorder.tick()

    events = recorded(tmp_path, play)
    assert at_ms(events) == [
        ("edit", 350), ("blocked", 7350), ("press", 7350), ("busy_begin", 7350), ("busy_end", 11350),
        ("pause", 11850), ("resume", 71850),
    ]  # fmt: skip
    assert events[1].since == 350 * MS


def test_without_ticks_a_gap_is_only_a_gap(tmp_path: Path) -> None:
    def play(recorder: Recorder, clock: HandClock) -> None:
        recorder.undo()
        clock.step(100.0)
        recorder.redo()

    assert at_ms(recorded(tmp_path, play)) == [("undo", 0), ("redo", 100_000)]


def test_nothing_is_recorded_after_the_end(tmp_path: Path) -> None:
    recorder = recorder_at(tmp_path / "1.effort.jsonl", HandClock())
    recorder.end("scene_closed")
    for act in (recorder.undo, recorder.tick, recorder.end, recorder.pause):
        act()
    recorder.interaction("move")
    recorder.accept("Eye_L", OrganChange(0, 0, 1.0, 1.0))
    with recorder.busy("save"):
        pass
    log = read_log(tmp_path / "1.effort.jsonl")
    assert [event.kind for event in log.events] == ["start", "end"] and log.events[-1].cause == "scene_closed"


def test_a_session_that_fails_leaves_a_log_that_can_be_resumed(tmp_path: Path) -> None:
    path = tmp_path / "1.effort.jsonl"
    with pytest.raises(RuntimeError), recorder_at(path, HandClock()) as recorder:
        recorder.select("Eye_L")
        raise RuntimeError
    assert [event.kind for event in read_log(path).events] == ["start", "select"]


def test_the_listener_hears_every_record(tmp_path: Path) -> None:
    heard: list[Event] = []
    recorder = recorder_at(tmp_path / "1.effort.jsonl", HandClock())
    recorder = Recorder(recorder.writer, heard.append)
    recorder.select("Eye_L")
    recorder.interaction("move")
    recorder.end()
    assert heard == list(read_log(tmp_path / "1.effort.jsonl").events[1:])


def test_an_event_costs_the_reader_less_than_50_microseconds(tmp_path: Path) -> None:
    recorder = Recorder(LogWriter.create(tmp_path / "1.effort.jsonl", HEADER), Clock().feed)
    taken = []
    for n in range(3000):
        begin = time.perf_counter_ns()
        recorder.interaction("key" if n % 2 else "move")
        taken.append(time.perf_counter_ns() - begin)
    recorder.end()
    assert statistics.median(taken) < 50_000
