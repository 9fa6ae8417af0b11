"""Segmenting queued cases: what becomes of a case whose process dies, and what waits because no case is to blame."""

from __future__ import annotations

import errno
import json
import os
import shutil
import signal
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from soars.errors import EngineError
from soars.node.audit import Audit
from soars.node.collect import Collector
from soars.node.config import Config, Destination, Rule, read_config
from soars.node.deliver import finish_sent
from soars.node.spool import STATES, Origin, Spool
from soars.node.work import Answer, Job, Work, _answer

pytestmark = pytest.mark.slow  # each starts the process that segments


@pytest.fixture
def config(bundle: Path, tmp_path: Path) -> Config:
    path = tmp_path / "node.yaml"
    path.write_text(
        f"schema: 1\nstate: state\ncomplete: {{quiet_s: 0}}\nrules: [{{name: all, bundle: {bundle}}}]\n"
    )
    return read_config(path)


class Desk:
    """A spool with cases in its queue, and what works at them."""

    def __init__(self, config: Config, patients: dict[str, list[Path]]) -> None:
        self.config, self.spool, self.stop = config, Spool(config.state), threading.Event()
        self.audit = Audit(config.state / "audit")
        self.work = Work(config, self.spool, self.audit, self.stop)
        for name, files in patients.items():
            for path in files:
                key = self.spool.keep_image(name, path.stem, [path.read_bytes()], Origin())
            self.spool.release(key)
        Collector(config, self.spool, self.audit, lambda key: 1.0, lambda key: None, self.work.is_busy).step()

    def states(self) -> list[str]:
        return [state for state in STATES for _ in self.spool.cases(state)]

    def events(self, event: str) -> list[str]:
        lines = [
            line for file in self.config.state.glob("audit/*.jsonl") for line in file.read_text().splitlines()
        ]
        return [r.get("reason", "") for r in map(json.loads, lines) if r["event"] == event]


@pytest.fixture
def desks() -> Iterator[list[Desk]]:
    made: list[Desk] = []
    yield made
    for desk in made:
        desk.stop.set()
        desk.work.close()
        desk.spool.close()


def _kill_worker(desk: Desk) -> None:
    """Once it has a case."""
    end = time.monotonic() + 60
    while time.monotonic() < end:
        process = desk.work._worker._process
        if desk.work.busy_with and process is not None and process.pid:
            os.kill(process.pid, signal.SIGKILL)
            return
        time.sleep(0.005)


def test_a_process_that_dies_is_replaced_and_its_case_tried_once_more(config, ct, desks) -> None:
    desk = Desk(config, {"anna": ct("anna")})
    desks.append(desk)
    killer = threading.Thread(target=_kill_worker, args=(desk,))
    killer.start()
    desk.work.step()
    killer.join()
    assert desk.events("waiting") == ["crashed"]
    assert desk.states() == ["sending"], "the second attempt succeeds"
    finish_sent(config, desk.spool, desk.audit)
    assert desk.states() == ["done"]


def test_a_case_of_which_the_process_dies_twice_is_set_aside(config, ct, desks, monkeypatch) -> None:
    desk = Desk(config, {"anna": ct("anna")})
    desks.append(desk)
    monkeypatch.setattr(desk.work._worker, "run", lambda *arguments: Answer("crashed", "it crashed"))
    desk.work.step()
    assert desk.states() == ["failed"] and desk.events("failed") == ["crashed"]
    assert [p.read_text() for p in config.state.glob("failed/*/problem.txt")] == ["it crashed\n"]
    assert len(list(config.state.glob("failed/*/ct/*.dcm"))) == len(ct("anna")), "its CT is kept"


def test_a_case_that_takes_too_long_is_ended(config, ct, desks) -> None:
    object.__setattr__(config.limits, "case_s", 0.05)
    desk = Desk(config, {"anna": ct("anna")})
    desks.append(desk)
    desk.work.step()
    assert desk.events("failed") == ["too-long"] and desk.work._worker._process is None


def test_without_its_bundle_a_case_waits_and_then_goes_on(config, bundle, ct, desks, monkeypatch) -> None:
    away = bundle.with_name("away")
    desk = Desk(config, {"anna": ct("anna"), "berta": ct("berta")})
    desks.append(desk)
    bundle.rename(away)
    try:
        desk.work.step()
        assert desk.states() == ["queued", "queued"] and desk.work.problem == "engine"
        assert desk.events("waiting") == ["engine"], "it is said once"
    finally:
        away.rename(bundle)
    desk.work._not_before.clear()  # as if the pause were over
    desk.work.step()
    assert desk.states() == ["sending", "sending"] and desk.work.problem == ""


@pytest.mark.parametrize("first", ["the node", "the process that segments"])
def test_a_node_that_is_ended_while_it_segments_counts_no_crash(config, ct, desks, first: str) -> None:
    """A supervisor may end the whole group: then the other process can be gone before the node knows that it ends."""
    desk = Desk(config, {"anna": ct("anna")})
    desks.append(desk)
    working = threading.Thread(target=desk.work.step)
    if first == "the node":
        working.start()
        end = time.monotonic() + 60
        while desk.work._worker._process is None or not desk.work._worker._process.pid:
            assert time.monotonic() < end
            time.sleep(0.005)
        desk.stop.set()
        desk.work.close()
    else:
        killer = threading.Thread(target=_kill_worker, args=(desk,))
        killer.start()
        working.start()
        killer.join()
        time.sleep(0.3)
        desk.stop.set()
    working.join(30)
    ((case,),) = [desk.spool.cases("queued")]
    assert not working.is_alive() and desk.states() == ["queued"] and desk.events("waiting") == []
    assert desk.spool.record("queued", case).crashes == 0


def test_after_a_fault_a_new_process_tries_once_more(config, ct, desks, monkeypatch) -> None:
    """A card that is lost fails every case in the process that has opened it: they are no case's fault."""
    desk = Desk(config, {"anna": ct("anna")})
    desks.append(desk)
    ended: list[str] = []

    class Process:
        def is_alive(self) -> bool:
            return True

        def kill(self) -> None:
            ended.append("killed")

        def join(self) -> None: ...

        def close(self) -> None: ...

    class Connection(Process):
        def send(self, job: Job) -> None: ...

        def poll(self, seconds: float) -> bool:
            return True

        def recv(self) -> Answer:
            return Answer() if ended else Answer("fault", "CUDA error", anew=True)

    def start(worker) -> None:
        worker._process, worker._connection = Process(), Connection()

    monkeypatch.setattr(type(desk.work._worker), "_start", start)
    desk.work.step()
    assert ended == ["killed"] and desk.events("waiting") == ["fault"] and desk.states() == ["sending"]
    monkeypatch.setattr(desk.work._worker, "run", lambda *_: Answer("fault", "CUDA error", anew=True))
    ((case,),) = [desk.spool.cases("sending")]
    desk.spool.move(case, "sending", "queued")
    desk.work.step()
    assert desk.states() == ["failed"] and desk.events("failed") == ["fault"], "but not for ever"


def test_a_bundle_that_is_replaced_is_used_for_the_next_case(bundle, ct, tmp_path, monkeypatch) -> None:
    """`soars bundle import --overwrite` while the node runs; meanwhile, and while the bundle is away, nothing fails."""
    mine = tmp_path / "tiny"
    shutil.copytree(bundle, mine)
    rule = Rule("all", bundle=str(mine))
    ready: dict[object, object] = {}

    def version(name: str) -> str:
        folder = tmp_path / name
        (folder / "ct").mkdir(parents=True)
        for path in ct("anna"):
            shutil.copy(path, folder / "ct")
        assert _answer(Job(folder, rule, {}), ready) == Answer()  # type: ignore[arg-type]
        return json.loads((folder / "results" / "run.json").read_text())["bundle"]["version"]

    assert version("one") == "1"
    manifest = json.loads((mine / "manifest.json").read_text())
    (mine / "manifest.json").write_text(json.dumps(manifest | {"version": "2"}))
    assert version("two") == "2"
    mine.rename(tmp_path / "away")
    assert version("three") == "2"

    def lost(*_: object) -> None:
        raise EngineError("the cuda device is lost")

    monkeypatch.setattr("soars.service.segmenter.segment_case", lost)
    shutil.rmtree(tmp_path / "one" / "results")
    answer = _answer(Job(tmp_path / "one", rule, {}), ready)  # type: ignore[arg-type]
    assert answer == Answer("fault", "the cuda device is lost", anew=True)
    (tmp_path / "away").rename(mine)
    assert _answer(Job(tmp_path / "one", rule, {}), {}).reason == "engine", (
        "at its first case: all cases wait"
    )


def test_a_full_disk_is_no_fault_of_a_case(config, bundle, ct, desks, monkeypatch) -> None:
    desk = Desk(config, {"anna": ct("anna")})
    desks.append(desk)
    (case,) = desk.spool.cases("queued")
    job = Job(desk.spool.folder("queued", case), config.rules[0], {})

    def full(path: Path) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(path))

    monkeypatch.setattr("soars.files.flush_to_disk", full)
    answer = _answer(job, {})
    assert answer.reason == "disk-full" and "the disk is full" in answer.message
    monkeypatch.undo()
    assert not (job.folder / "results").exists()
    assert _answer(job, {}) == Answer()


def test_results_are_made_again_only_for_what_is_wanted(config, bundle, ct, desks) -> None:
    desk = Desk(config, {"anna": ct("anna")})
    desks.append(desk)
    (case,) = desk.spool.cases("queued")
    folder = desk.spool.folder("queued", case)
    rule = Rule("all", bundle=str(bundle))
    ready: dict[object, object] = {}
    assert _answer(Job(folder, rule, {}), ready) == Answer()  # type: ignore[arg-type]
    first = (folder / "results" / "rtstruct.dcm").read_bytes()
    assert _answer(Job(folder, rule, {}), ready) == Answer()  # type: ignore[arg-type]
    assert (folder / "results" / "rtstruct.dcm").read_bytes() == first, "what is there is not made again"
    with_seg = {"pacs": Destination(web="http://pacs.example", seg=True)}
    assert _answer(Job(folder, rule, with_seg), ready) == Answer()  # type: ignore[arg-type]
    assert (folder / "results" / "seg.dcm").is_file()
    shutil.rmtree(folder / "ct")
    assert _answer(Job(folder, rule, {}), ready).reason == "unreadable"  # type: ignore[arg-type]
