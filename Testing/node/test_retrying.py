"""Sending with pauses: which case is tried when, and when a destination is given up. The clock is set by hand."""

from __future__ import annotations

import json
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from soars.errors import InputError
from soars.node import deliver
from soars.node.audit import Audit
from soars.node.config import Config, read_config
from soars.node.deliver import Deliverer, finish_sent
from soars.node.spool import CT, RESULTS, STATES, Origin, Record, Spool
from soars.report.outputs import RTSTRUCT

SETTINGS = """
schema: 1
state: state
destinations:
  tps: {host: tps.example, port: 104, ae_title: TPS}
  pacs: {host: pacs.example, port: 104, ae_title: PACS}
rules: [{name: all, send: [tps, pacs]}]
retry: {first_s: 10, most_s: 30, give_up_days: 1}
"""


class Scene:
    """A spool with two segmented cases, two destinations, and a clock."""

    def __init__(
        self, folder: Path, monkeypatch: pytest.MonkeyPatch, open_spool: Callable[[Path], Spool]
    ) -> None:
        (folder / "node.yaml").write_text(SETTINGS)
        self.config: Config = read_config(folder / "node.yaml")
        self.spool = open_spool(self.config.state)
        self.audit = Audit(self.config.state / "audit")
        self.now, self.down, self.refused = 1000.0, set[str](), set[str]()
        self.sent: list[tuple[str, str]] = []
        for number, case in enumerate(("a" * 16, "b" * 16)):
            home = self.spool.folder("sending", case)
            (home / RESULTS).mkdir(parents=True)
            (home / RESULTS / RTSTRUCT).touch()
            (home / CT).mkdir()
            self.spool.write("sending", Record(case, Origin(), time.time() + number, {}, rule="all"))
        monkeypatch.setattr(deliver, "send", self._send)
        monkeypatch.setattr(deliver.time, "monotonic", lambda: self.now)
        self.deliverers = {
            name: Deliverer(name, self.config, self.spool, self.audit) for name in ("tps", "pacs")
        }

    def _send(self, node, paths, *, tls=None) -> None:
        case = paths[0].parents[1].name[0]
        if node.name in self.down or case in self.refused:
            raise InputError("it does not answer")
        self.sent.append((node.name, case))

    def step(self, *names: str) -> list[tuple[str, str]]:
        """One step of these destinations' threads; what was sent."""
        before = len(self.sent)
        for name in names or ("tps", "pacs"):
            self.deliverers[name].step()
        finish_sent(self.config, self.spool, self.audit)
        return self.sent[before:]

    def states(self) -> dict[str, str]:
        return {case[0]: state for state in STATES for case in self.spool.cases(state)}

    def attempts(self) -> list[float]:
        lines = [
            line for file in self.config.state.glob("audit/*.jsonl") for line in file.read_text().splitlines()
        ]
        return [r["pause_s"] for r in map(json.loads, lines) if r["event"] == "not-sent"]


@pytest.fixture
def scene(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, open_spool: Callable[[Path], Spool]) -> Scene:
    return Scene(tmp_path, monkeypatch, open_spool)


def test_each_case_goes_to_each_destination_once_in_order(scene: Scene) -> None:
    assert scene.step() == [("tps", "a"), ("tps", "b"), ("pacs", "a"), ("pacs", "b")]
    assert scene.states() == {"a": "done", "b": "done"}
    assert not list(scene.config.state.glob("done/*/ct")) and scene.step() == []


def test_one_that_is_down_keeps_no_other_and_is_asked_at_growing_intervals(scene: Scene) -> None:
    scene.down = {"tps"}
    assert scene.step() == [("pacs", "a"), ("pacs", "b")]
    assert scene.states() == {"a": "sending", "b": "sending"}
    for _ in range(200):  # seconds
        scene.now += 1
        assert scene.step() == []
    # One attempt in 10 s at most, for the case that has failed least: a at 0, b at 10, a at 20, b at 30 ...; then
    # the pauses of both, 30 s at most, have grown longer than that.
    pauses = scene.attempts()
    assert pauses[:4] == [10, 10, 20, 20] and max(pauses) == 30 and 10 < len(pauses) <= 1 + 200 // 10
    scene.down = set()
    scene.now += 60
    assert scene.step() == [("tps", "a"), ("tps", "b")], "what the other has is not sent to it again"
    assert scene.states() == {"a": "done", "b": "done"}


def test_a_case_that_is_refused_does_not_hold_up_the_next(scene: Scene) -> None:
    scene.refused = {"a"}
    assert scene.step("tps") == []
    scene.now += 10.5
    assert scene.step("tps") == [("tps", "b")]


def test_it_is_given_up_after_its_time_and_can_be_taken_up_again(scene: Scene) -> None:
    scene.down = {"tps"}
    scene.step()
    for state_case in scene.spool.records("sending"):
        old = Record(**{**vars(state_case), "arrived": time.time() - 2 * 86400})
        scene.spool.write("sending", old)
    scene.now += 100
    scene.step()
    scene.now += 100
    scene.step()
    assert scene.states() == {"a": "failed", "b": "failed"}
    assert (
        "tps: it does not answer" in next(iter(scene.config.state.glob("failed/*/problem.txt"))).read_text()
    )
    record = scene.spool.record("failed", "a" * 16)
    assert record.reason == "gave-up" and record.settled == {"pacs": "sent"}
    scene.down = set()
    scene.spool.move("a" * 16, "failed", "sending")  # by hand: mv
    scene.now += 100
    assert scene.step() == [("tps", "a")] and scene.states()["a"] == "done"


def test_what_a_destination_gets_since_the_settings_were_changed_is_made_first(scene: Scene) -> None:
    """A SEG is wanted of a case that was segmented without: it goes back to the queue, with what is settled, and is not
    tried in vain until it is given up."""
    assert scene.step("pacs") == [("pacs", "a"), ("pacs", "b")]
    object.__setattr__(scene.deliverers["tps"]._destination, "seg", True)
    (scene.spool.folder("sending", "b" * 16) / RESULTS / "seg.dcm").touch()
    assert scene.step("tps") == [("tps", "b")]
    assert scene.states() == {"a": "queued", "b": "done"} and scene.attempts() == []
    deliver.note_settled(scene.spool, "a" * 16, "web", "sent")  # by another thread, which had begun before
    record = scene.spool.record("queued", "a" * 16)
    assert record.settled == {"pacs": "sent", "web": "sent"}
    (scene.spool.folder("queued", "a" * 16) / RESULTS / "seg.dcm").touch()
    scene.spool.move("a" * 16, "queued", "sending")
    assert scene.step() == [("tps", "a")] and scene.states() == {"a": "done", "b": "done"}


def test_results_of_a_rule_that_is_gone_are_set_aside(scene: Scene) -> None:
    record = scene.spool.record("sending", "a" * 16)
    scene.spool.write("sending", Record(**{**vars(record), "rule": "old"}))
    assert ("tps", "a") not in scene.step()
    assert scene.states()["a"] == "failed" and scene.spool.record("failed", "a" * 16).reason == "no-rule"
