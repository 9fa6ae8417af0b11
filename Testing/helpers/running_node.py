"""`soars serve` in a process of its own, as a supervisor would run it, and what can be seen of it from outside."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import yaml
from orthanc import free_port

TITLE = "SOARS"
STATES = ("receiving", "queued", "sending", "done", "failed", "refused")


class RunningNode:
    """A node on free ports of this computer; ``settings`` go over quick ones for tests."""

    def __init__(self, folder: Path, bundle: Path, **settings: Any) -> None:
        self.port, self.status_port = free_port(), free_port()
        self.state = folder / "state"
        self.file = folder / "node.yaml"
        content: dict[str, Any] = {
            "schema": 1,
            "state": str(self.state),
            "listen": {"port": self.port},
            "complete": {"quiet_s": 0.5, "give_up_s": 2},
            "limits": {"free_gb": 0},
            "status": {"port": self.status_port},
            "retry": {"first_s": 0.3, "most_s": 0.6},
            "rules": [{"name": "neck", "when": {"StudyDescription": "*neck*"}, "bundle": str(bundle)}],
        }
        for key, value in settings.items():
            content[key] = {**content.get(key, {}), **value} if isinstance(value, dict) else value
        self.file.write_text(yaml.safe_dump(content))
        self._log = folder / "node.log"
        self._process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        with self._log.open("ab") as log:
            self._process = subprocess.Popen(
                [sys.executable, "-m", "soars.cli", "serve", str(self.file)],
                stdout=log, stderr=subprocess.STDOUT, start_new_session=True,
            )  # fmt: skip
        self.wait_for(lambda: self._answers(), "it answers")

    @property
    def pid(self) -> int:
        assert self._process is not None
        return self._process.pid

    def kill(self) -> None:
        """As `kill -9` does it: all of its processes, without a word."""
        assert self._process is not None
        os.killpg(self._process.pid, signal.SIGKILL)
        self._process.wait()

    def stop(self) -> int:
        """As a supervisor does it; the exit code."""
        assert self._process is not None
        self._process.terminate()
        return self._process.wait(20)

    def send(
        self, files: Sequence[Path], *options: str, called: str = TITLE, calling: str = "SCANNER"
    ) -> int:
        """By dcmtk's storescu, in this order over one association; its exit code."""
        return self.sending(files, *options, called=called, calling=calling).wait(120)

    def sending(
        self, files: Sequence[Path], *options: str, called: str = TITLE, calling: str = "SCANNER"
    ) -> subprocess.Popen[bytes]:
        """The same, running."""
        command = ["storescu", "-aet", calling, "-aec", called, *options, "127.0.0.1", str(self.port)]
        return subprocess.Popen(
            [*command, *map(str, files)], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
        )

    def cases(self) -> dict[str, list[str]]:
        """The names of the cases by state."""
        return {
            state: sorted(p.name for p in (self.state / state).iterdir())
            if (self.state / state).is_dir()
            else []
            for state in STATES
        }

    def counts(self) -> dict[str, int]:
        """How many cases are in each state that has any."""
        return {state: len(cases) for state, cases in self.cases().items() if cases}

    def audit(self, event: str = "") -> list[dict[str, Any]]:
        """The lines of the audit log, or those of one event."""
        lines = [
            line
            for file in sorted((self.state / "audit").glob("*.jsonl"))
            for line in file.read_text().splitlines()
        ]
        found = [json.loads(line) for line in lines]
        return [record for record in found if event in ("", record["event"])]

    def get(self, path: str) -> str:
        with urllib.request.urlopen(f"http://127.0.0.1:{self.status_port}{path}", timeout=10) as answer:
            return answer.read().decode()

    def wait_for(self, holds: Callable[[], bool], what: str, seconds: float = 120) -> None:
        end = time.monotonic() + seconds
        while not holds():
            assert self._process is not None and self._process.poll() is None, f"it ended: {self.log()}"
            assert time.monotonic() < end, f"not within {seconds:g} s: {what}; {self.counts()}; {self.log()}"
            time.sleep(0.05)

    def log(self) -> str:
        return self._log.read_text(errors="replace")[-3000:]

    def _answers(self) -> bool:
        try:
            self.get("/metrics")
            return True
        except (urllib.error.URLError, ConnectionError, TimeoutError):
            return False

    def close(self) -> None:
        if self._process is not None and self._process.poll() is None:
            self.kill()


@contextmanager
def running_node(folder: Path, bundle: Path, **settings: Any) -> Iterator[RunningNode]:
    """A node that is killed after the block, if it runs then."""
    node = RunningNode(folder, bundle, **settings)
    try:
        node.start()
        yield node
    finally:
        node.close()
