"""A reading session killed with SIGKILL at any moment, and gone on with: real Qt, the real MRML core, the real share.

The process that is killed is a fork of the one with the open window. It ends at one of its own calls to the system: at
the n-th opening, renaming, making or removing of a file on the share, or within the n-th record of the log, half of it
written. How many there are is counted first in a fork that is not killed.
"""

from __future__ import annotations

import json
import os
import shutil
import signal
import sys
import time
import traceback
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("slicer", reason="slicer-core is not installed")
import numpy as np
import SimpleITK as sitk
import vtk
from reading_study import finish, make_lead

from soars.effort.log import read_log, session_logs
from soars.study.ledger import CHECKSUMS, check_checksums
from soars.study.load import collect_study, open_study

pytestmark = [
    pytest.mark.skipif(not hasattr(os, "fork"), reason="kills a fork of the window's process"),
    pytest.mark.slow,  # the real window reads a case a dozen times
]

WATCHED = ("open", "os.rename", "os.remove", "os.mkdir", "os.rmdir", "os.link", "os.truncate")
POINTS = 12
"""Kills in one test; SOARS_KILLS asks for more."""
LONGEST_S = 60.0


class Fate:
    """Counts what a process does to the files below a folder, and kills it at a number."""

    def __init__(self, folder: Path, at: int | None) -> None:
        self.count, self._folder, self._at = 0, str(folder), at
        self._write = os.write

    def begin(self) -> None:
        sys.addaudithook(self._audit)
        os.write = self._written  # type: ignore[assignment]

    def _audit(self, event: str, arguments: tuple[Any, ...]) -> None:
        if event not in WATCHED or not str(arguments[0]).startswith(self._folder):
            return
        if event == "open" and not (
            isinstance(arguments[2], int) and arguments[2] & (os.O_WRONLY | os.O_RDWR)
        ):
            return
        self._next(lambda: None)

    def _written(self, descriptor: int, data: bytes) -> int:
        self._next(lambda: self._write(descriptor, data[: len(data) // 2]))
        return self._write(descriptor, data)

    def _next(self, last: Callable[[], object]) -> None:
        self.count += 1
        if self.count == self._at:
            last()
            os.kill(os.getpid(), signal.SIGKILL)


def read_a_case(visit: Any) -> None:
    """What a reader does."""
    section = visit.window.reading
    section.panel.next.click()
    assert visit.window.timing.control.running, section.panel.notice.text
    visit.click("Eye_L")
    visit.paint(np.s_[20:22, 15:18, 15:18])
    section.panel.scores[3].click()
    visit.window.review.accept()
    visit.window.timing.panel.pause.click()
    visit.window.timing.panel.pause.click()
    visit.click("Lens_L")
    visit.paint(np.s_[2:4, 15:18, 15:18])
    visit.window.timing.control.session.tick()
    finish(visit)


def forked(work: Callable[[], None]) -> int:
    """The exit code of a process that does this in the window of ours; minus the signal that killed it. What went wrong
    is printed."""
    child = os.fork()
    if child == 0:
        code = 1
        try:
            work()
            code = 0
        except BaseException:
            traceback.print_exc()
        finally:
            os._exit(code)  # nothing of pytest's or Qt's own
    end = time.monotonic() + LONGEST_S
    while time.monotonic() < end:
        done, status = os.waitpid(child, os.WNOHANG)
        if done:
            return os.waitstatus_to_exitcode(status)
        time.sleep(0.02)
    os.kill(child, signal.SIGKILL)
    os.waitpid(child, 0)
    raise AssertionError(f"the forked process was not done within {LONGEST_S} s")


@pytest.fixture
def forkable(visit: Any) -> Iterator[None]:
    """Without pools of threads, which a fork does not have: Qt paints a visible window with those of earlier tests."""
    visit.application.main_window.hide()
    threads = sitk.ProcessObject.GetGlobalDefaultNumberOfThreads()
    sitk.ProcessObject.SetGlobalDefaultNumberOfThreads(1)
    backend = vtk.vtkSMPTools.GetBackend()
    vtk.vtkSMPTools.SetBackend("Sequential")
    yield
    vtk.vtkSMPTools.SetBackend(backend)
    sitk.ProcessObject.SetGlobalDefaultNumberOfThreads(threads)


def test_a_killed_session_goes_on_wherever_it_was_killed(forkable: None, visit: Any, tmp_path: Path) -> None:
    """The reader opens the worklist again, is given the case, and finishes: one session, whole, with what the log held.
    A record that was cut in two is named."""
    made, count_file = make_lead(tmp_path / "lead"), tmp_path / "count.json"

    def read(lead: Path, at: int | None) -> None:
        open_worklist(visit, lead)
        fate = Fate(lead / "share", at)
        fate.begin()
        read_a_case(visit)
        count_file.write_text(json.dumps(fate.count))

    def copied(name: str) -> Path:
        return Path(shutil.copytree(made, tmp_path / name))

    whole = copied("whole")
    assert forked(lambda: read(whole, None)) == 0
    number = json.loads(count_file.read_text())
    assert number > 30
    kills = min(number, int(os.environ.get("SOARS_KILLS", POINTS)))
    for at in np.unique(np.linspace(1, number, kills).round().astype(int)).tolist():
        lead = copied(f"killed-{at}")
        assert forked(lambda lead=lead, at=at: read(lead, at)) == -signal.SIGKILL, at  # type: ignore[misc]
        assert forked(lambda lead=lead: go_on(visit, lead)) == 0, f"killed at {at} of {number}"  # type: ignore[misc]


def open_worklist(visit: Any, lead: Path) -> None:
    visit.window.reading.open_worklist(lead / "share" / "worklists" / "R1.json")
    assert visit.window.reading.panel.notice.text == ""


def go_on(visit: Any, lead: Path) -> None:
    """As the reader does the next morning; then the lead looks."""
    open_worklist(visit, lead)
    section = visit.window.reading
    if "0 of" in section.panel.progress.text:
        section.panel.next.click()
        assert visit.window.timing.control.running, section.panel.notice.text
        assert visit.log().header.case == "practice"
        finish(visit)
    assert "1 of" in section.panel.progress.text
    collection = collect_study(open_study(lead))
    (session,) = collection.sessions
    torn = "the log ends in the middle of a record"
    assert all(torn in problem for problem in session.problems), session.problems
    assert len(collection.left_out) <= 1, collection.left_out
    (checksums,) = (lead / "share" / "sessions").rglob(CHECKSUMS)
    assert check_checksums(checksums.parent) == []
    assert read_log(session_logs(checksums.parent)[-1]).events[-1].cause == "finished"
