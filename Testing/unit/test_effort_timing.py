"""Times from the log: scripted sessions with times known beforehand, random ones against the rules read literally."""

from __future__ import annotations

import math
import random
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from effort_logs import HEADER, MS, ORGANS, HandClock, S, recorder_at
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from soars.effort.change import OrganChange
from soars.effort.log import EffortLog, read_log, read_session
from soars.effort.recorder import Recorder
from soars.effort.records import Event
from soars.effort.review import review
from soars.effort.timing import Clock, OrganTiming, active_at_thresholds, category, session_timing

CHANGED = OrganChange(5, 2, 0.9, 1.0)
SAME = OrganChange(0, 0, 1.0, 1.0)


def ms(timing: OrganTiming) -> tuple[float, float, float, float]:
    """Active, idle, busy, paused."""
    return (timing.active_ns / MS, timing.idle_ns / MS, timing.busy_ns / MS, timing.paused_ns / MS)


def log_of(*events: Event) -> EffortLog:
    return EffortLog(HEADER, (Event(0, "start"), *events), (), False)


def scripted(folder: Path) -> EffortLog:
    """A session on paper: seconds on the left, what counts from there on in the comment."""
    clock = HandClock()
    recorder = recorder_at(folder / "1.effort.jsonl", clock)
    script: list[tuple[float, Callable[[], Any]]] = [
        (4.0, lambda: recorder.select("Brainstem")),  # 0-4 nobody's
        (14.0, lambda: recorder.edit("Brainstem")),
        (20.0, lambda: recorder.interaction("wheel")),
        (70.0, lambda: recorder.interaction("press")),  # 20-50 active, 50-70 idle
        (75.5, recorder.pause),
        (135.5, recorder.resume),  # 60 paused
        (140.0, lambda: recorder.accept("Brainstem", CHANGED)),  # then nobody's
        (141.25, lambda: recorder.select("Eye_L")),
        (151.25, lambda: busy(recorder, clock, 3.0)),  # until 154.25
        (
            190.0,
            lambda: recorder.interaction("key"),
        ),  # idle clock stood still: active until 141.25 + 30 + 3 = 174.25
        (200.0, lambda: recorder.accept("Eye_L", SAME)),
        (200.0, lambda: recorder.select("Parotid_L")),
        (210.0, lambda: recorder.view_only(True)),  # then nobody's
        (215.0, lambda: recorder.view_only(False)),
        (220.0, lambda: recorder.select("Brainstem")),
        (225.0, lambda: recorder.reopen("Brainstem")),
        (230.0, recorder.end),
    ]
    begin = clock.ns
    for at, act in script:
        clock.ns = begin + round(at * S)
        act()
    return read_log(folder / "1.effort.jsonl")


def busy(recorder: Recorder, clock: HandClock, seconds: float) -> None:
    with recorder.busy("smoothing"):
        clock.step(seconds)


def test_a_scripted_session_has_the_times_of_the_script(tmp_path: Path) -> None:
    timing = session_timing(scripted(tmp_path))
    assert ms(timing.organs["Brainstem"]) == (
        (20 - 4 + 30) * 1000 + 5_500 + 4_500 + 10_000, 20_000, 0, 60_000,
    )  # fmt: skip
    assert ms(timing.organs["Eye_L"]) == (10_000 + 20_000 + 10_000, 15_750, 3_000, 0)
    assert ms(timing.organs["Parotid_L"]) == (15_000, 0, 0, 0)
    assert ms(timing.organs["Lens_L"]) == (0, 0, 0, 0)
    assert ms(timing.unattributed) == (4_000 + 1_250 + 5_000, 0, 0, 0)
    assert timing.wall_s == 230.0


def test_states_and_categories_of_the_scripted_session(tmp_path: Path) -> None:
    organs = review(scripted(tmp_path))
    assert list(organs) == list(ORGANS)
    assert {name: organ.state for name, organ in organs.items()} == {
        "Brainstem": "in_progress",  # it was reopened
        "Eye_L": "accepted",
        "Lens_L": "not_reviewed",
        "Parotid_L": "in_progress",
    }
    assert (organs["Brainstem"].edits, organs["Brainstem"].category) == (1, "moderate")  # 66 s
    assert organs["Eye_L"].category == "none"
    assert organs["Parotid_L"].category is None and organs["Parotid_L"].change is None


def test_another_threshold_moves_time_between_active_and_idle_only(tmp_path: Path) -> None:
    log = scripted(tmp_path)
    none, never = session_timing(log, 0.0), session_timing(log, math.inf)
    assert ms(none.organs["Brainstem"]) == (0, 86_000, 0, 60_000)
    assert ms(never.organs["Brainstem"]) == (86_000, 0, 0, 60_000)
    assert ms(session_timing(log, 45.0).organs["Brainstem"]) == (81_000, 5_000, 0, 60_000)
    for bad in (-1.0, math.nan):
        with pytest.raises(ValueError, match="threshold"):
            session_timing(log, bad)


def test_a_blocked_application_is_busy_and_a_computer_asleep_is_paused() -> None:
    select = Event(0, "select", organ="Eye_L")
    log = log_of(select, Event(12 * S, "blocked", since=2 * S), Event(15 * S, "undo"))
    assert ms(session_timing(log).organs["Eye_L"]) == (5_000, 0, 10_000, 0)
    slept = log_of(select, Event(3602 * S, "blocked", since=2 * S), Event(3605 * S, "undo"))
    assert ms(session_timing(slept).organs["Eye_L"]) == (5_000, 0, 0, 3_600_000)


def test_an_interrupted_log_ends_with_its_last_record_and_a_resumed_one_selects_nothing(
    tmp_path: Path,
) -> None:
    clock = HandClock()
    recorder = recorder_at(tmp_path / "1.effort.jsonl", clock)
    recorder.select("Eye_L")
    recorder.pause()
    clock.step(3.0)
    recorder.edit("Eye_L")
    recorder.writer.close()
    clock.step(1000.0)  # counts nowhere
    recorder = recorder_at(tmp_path / "2.effort.jsonl", clock, continues="1.effort.jsonl")
    clock.step(5.0)
    recorder.select("Eye_L")
    clock.step(7.0)
    recorder.end()
    timing = session_timing(read_session(tmp_path.iterdir()))
    assert ms(timing.organs["Eye_L"]) == (7_000, 0, 0, 3_000)
    assert ms(timing.unattributed) == (5_000, 0, 0, 0)


def test_the_running_figure_is_the_one_computed_afterwards() -> None:
    clock = Clock(30.0)
    clock.feed(Event(0, "start"))
    clock.feed(Event(1 * S, "select", organ="Eye_L"))
    assert clock.active_s("Eye_L", 11 * S) == 10.0
    assert clock.active_s("Eye_L", 100 * S) == 30.0  # idle since 31 s
    assert clock.active_s("Brainstem", 100 * S) == 0.0
    clock.feed(Event(101 * S, "accept", organ="Eye_L", change=SAME))
    assert clock.active_s("Eye_L", 200 * S) == 30.0


@pytest.mark.parametrize(
    ("active_s", "changed", "is_"),
    [
        (0.0, False, "none"),
        (500.0, False, "none"),
        (0.0, True, "minor"),
        (59.999, True, "minor"),
        (60.0, True, "moderate"),
        (180.0, True, "moderate"),
        (180.001, True, "major"),
    ],
)
def test_the_categories_of_the_paper(active_s: float, changed: bool, is_: str) -> None:
    assert category(active_s, changed) == is_


def latest(events: list[Event], *kinds: str) -> Event | None:
    return next((event for event in reversed(events) if event.kind in kinds), None)


# --- random sessions --------------------------------------------------------------------------------------------------

ACTS = (
    "start",
    "select",
    "interaction",
    "effect",
    "edit",
    "undo",
    "redo",
    "resume",
    "accept",
    "reopen",
    "view_only",
)
QUANTUM_NS = 500 * MS
ACTIONS = (
    "select", "none", "press", "move", "effect", "edit", "undo", "redo", "busy", "pause", "resume", "accept", "reopen",
    "view_on", "view_off", "snapshot", "tick",
)  # fmt: skip
STEPS = st.lists(
    st.tuples(
        st.sampled_from(ACTIONS),
        st.integers(0, len(ORGANS) - 1),
        # Quanta that pass before it; sometimes the clock jumps, back or far ahead.
        st.one_of(st.integers(0, 15), st.sampled_from([-5000, -1, 0, 100, 1300])),
    ),
    max_size=40,
)


def play(path: Path, steps: list[tuple[str, int, int]]) -> int:
    """Record a random session to its end; returns how long it took by the clock, jumps back left out."""
    clock = HandClock()
    recorder = recorder_at(path, clock)
    passed = 0

    def step(quanta: int) -> None:
        nonlocal passed
        clock.ns += quanta * QUANTUM_NS
        passed += max(quanta, 0) * QUANTUM_NS
        recorder.now()  # the clock is read after every jump, as one that ticks is

    for action, index, quanta in steps:
        organ = ORGANS[index]
        step(quanta)
        if action == "busy":
            with recorder.busy("save"):
                step(3 * index)
        else:
            perform(recorder, action, organ)
    recorder.end()
    return passed


def perform(recorder: Recorder, action: str, organ: str) -> None:
    acts: dict[str, Callable[[], None]] = {
        "select": lambda: recorder.select(organ),
        "none": lambda: recorder.select(None),
        "press": lambda: recorder.interaction("press"),
        "move": lambda: recorder.interaction("move"),
        "effect": lambda: recorder.effect("Paint"),
        "edit": lambda: recorder.edit(organ),
        "undo": recorder.undo,
        "redo": recorder.redo,
        "pause": recorder.pause,
        "resume": recorder.resume,
        "accept": lambda: recorder.accept(organ, CHANGED),
        "reopen": lambda: recorder.reopen(organ),
        "view_on": lambda: recorder.view_only(True),
        "view_off": lambda: recorder.view_only(False),
        "snapshot": lambda: recorder.snapshot(organ, SAME),
        "tick": recorder.tick,
    }
    acts[action]()


def by_the_letter(log: EffortLog, idle_s: float) -> dict[str | None, list[int]]:
    """Active, idle, busy, paused nanoseconds of every organ (None: unattributed), quantum by quantum.

    For each quantum the whole log is asked again what the rules of `soars.effort.timing` say, word by word.
    """
    out: dict[str | None, list[int]] = {organ: [0, 0, 0, 0] for organ in (None, *ORGANS)}
    kind_of: list[int] = []
    blocks = [(event.since or 0, event.t) for event in log.events if event.kind == "blocked"]
    for q in range(log.wall_ns // QUANTUM_NS):
        now = q * QUANTUM_NS
        past = [event for event in log.events if event.t <= now]
        switch = latest(past, "pause", "resume")
        work = latest(past, "busy_begin", "busy_end")
        block = next((end - since for since, end in blocks if since <= now < end), 0)
        if (switch is not None and switch.kind == "pause") or block > 600 * S:
            kind = 3
        elif (work is not None and work.kind == "busy_begin") or block:
            kind = 2
        else:
            act = latest(past, *ACTS)
            assert act is not None
            since_act = kind_of[act.t // QUANTUM_NS :]
            counted = (since_act.count(0) + since_act.count(1)) * QUANTUM_NS
            kind = 0 if counted < idle_s * S else 1
        kind_of.append(kind)
        select, look = latest(past, "select"), latest(past, "view_only")
        organ = select.organ if select is not None else None
        if select is not None and organ is not None:
            begin = max(n for n, event in enumerate(past) if event is select)
            own = [event for event in past[begin:] if event.organ == organ]
            stop = latest(own, "accept", "reopen")
            if stop is not None and stop.kind == "accept":
                organ = None
        if look is not None and look.on:
            organ = None
        out[organ][kind] += QUANTUM_NS
    return out


@settings(max_examples=200, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(
    steps=STEPS,
    idle_s=st.sampled_from([0.0, 0.5, 5.0, 30.0]),
    killed_at=st.floats(0.0, 1.0, exclude_max=True),
)
def test_200_random_sessions(steps: list[tuple[str, int, int]], idle_s: float, killed_at: float) -> None:
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "1.effort.jsonl"
        passed = play(path, steps)
        whole = read_log(path)
        timing = session_timing(whole, idle_s)

        # The time adds up, to the nanosecond, and is the clock's.
        assert timing.wall_ns == whole.wall_ns == passed
        # It is divided as the rules say.
        expected = by_the_letter(whole, idle_s)
        assert {
            organ: [part.active_ns, part.idle_ns, part.busy_ns, part.paused_ns]
            for organ, part in [(None, timing.unattributed), *timing.organs.items()]
        } == expected

        # Killed at any byte after the header: all records before are there, and no time is more than it was.
        data = path.read_bytes()
        begin = data.index(b"\n") + 1
        length = begin + int(killed_at * (len(data) - begin))
        path.write_bytes(data[:length])
        cut = read_log(path)
        lines = data[begin:length].count(b"\n")
        assert cut.events[:lines] == whole.events[:lines]
        assert len(cut.events) - lines <= 1
        assert bool(cut.warnings) == (data[length - 1 : length] != b"\n")
        shorter = session_timing(cut, idle_s)
        assert shorter.wall_ns == cut.wall_ns <= whole.wall_ns
        for organ in ORGANS:
            assert shorter.organs[organ].active_ns <= timing.organs[organ].active_ns
            assert shorter.organs[organ].wall_ns <= timing.organs[organ].wall_ns

        # And it is resumed: both logs together are one session.
        second = Path(folder) / "2.effort.jsonl"
        recorder = recorder_at(second, HandClock(), continues=path.name)
        recorder.select(ORGANS[0])
        recorder.end()
        joined = session_timing(read_session([path, second]), idle_s)
        assert joined == shorter


def test_all_thresholds_in_one_pass_are_those_of_one_at_a_time(tmp_path: Path) -> None:
    chance = random.Random(3)
    clock = HandClock()
    recorder = recorder_at(tmp_path / "1.effort.jsonl", clock)
    acts = [
        lambda: recorder.select(chance.choice([*ORGANS, None])),
        lambda: recorder.interaction("wheel"),
        lambda: recorder.edit("Eye_L"),
        lambda: recorder.accept(chance.choice(ORGANS), OrganChange(1, 0, 0.9, 1.0)),
        lambda: recorder.view_only(chance.random() < 0.5),
        recorder.pause,
        recorder.resume,
        recorder.resume,
    ]
    for _ in range(600):
        clock.step(chance.choice([0.3, 4.0, 11.0, 33.0, 70.0, 700.0]))
        chance.choice(acts)()
    recorder.end()
    log = read_log(tmp_path / "1.effort.jsonl")
    thresholds = (0.0, 10.0, 30.0, 60.0, math.inf)
    found = active_at_thresholds(log, thresholds)
    for threshold in thresholds:
        timing = session_timing(log, threshold)
        assert found[threshold] == {organ: one.active_s for organ, one in timing.organs.items()}
    assert sum(found[30.0].values()) < sum(found[math.inf].values())
