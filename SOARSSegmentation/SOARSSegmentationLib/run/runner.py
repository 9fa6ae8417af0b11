"""The segmentation as a child process: ``python -m soars.cli segment``, watched, and ended together with everything it
started.

Nothing here blocks or depends on Qt: threads read the child's output, and `Runner.poll`, called by a timer, passes it
on. The child has a process group (POSIX) or tree (Windows) of its own, because PythonSlicer is a launcher whose death
does not end the Python that it started.
"""

from __future__ import annotations

import contextlib
import json
import os
import platform
import queue
import shutil
import signal
import subprocess
import sys
import tempfile
import threading
import time
import traceback
from collections import deque
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import IO

import slicer

import soars
from soars.commands.segment import DEFAULT_BUNDLE
from soars.errors import InputError, SoarsError
from soars.progress import Progress
from soars.report.outputs import SEGMENTATION
from SOARSSegmentationLib.run.process import end_tree, launch

MODULE_FOLDER = Path(__file__).resolve().parents[2]
"""Where the package `soars` lies: the child is started there, so that it finds it."""
FOLDER_PREFIX = "soars-run-"
POLL_MS = 100
"""How often `Runner.poll` should be called."""
ASLEEP_S = 10.0
"""Polls further apart than this mean that the machine slept or the application did not respond; nobody was listening
meanwhile."""
SILENCE_S = 120.0
"""The child writes something every second; one that is silent for this long has hung."""
GRACE_S = 0.6
"""Time for the child to end by itself when it is asked to, before it is killed."""
LEFTOVER_AGE_S = 2 * 24 * 3600.0
TAIL_LINES = 200


@dataclass(frozen=True)
class RunOptions:
    """What is asked for: a bundle by name or path, a device ("auto", "cpu" or "cuda"), and organs (None: all of the
    bundle's)."""

    bundle: str = DEFAULT_BUNDLE
    device: str = "auto"
    organs: tuple[str, ...] | None = None

    def arguments(self) -> list[str]:
        """For ``soars segment``."""
        words = ["--bundle", self.bundle, "--device", self.device]
        if self.organs is not None:
            words += ["--organs", ",".join(self.organs)]
        return words

    def problem(self) -> str | None:
        """Why this cannot be run, in a sentence for the user, or None. Anything else that is wrong the child will
        report."""
        if not self.bundle:
            return "no model bundle is chosen"
        if os.path.isabs(self.bundle) and not os.path.exists(self.bundle):
            return f"the model bundle {self.bundle} is not there any more: choose another one"
        if self.organs is not None and not self.organs:
            return "no organ is chosen: choose at least one"
        return None


@dataclass(frozen=True)
class Failure:
    """Why a run ended badly: ``message`` is one sentence, ``log_tail`` the last lines that the child wrote, ``report``
    the text that a user can copy into a bug report; it names no file of the patient's."""

    message: str
    log_tail: str
    report: str


class Runner:
    """One run of ``soars segment``: `start` it, call `poll` every `POLL_MS`, `cancel` it if need be.

    Calls, always from `poll`: ``on_progress(Progress)``; then one of ``on_finished(folder)``, with the folder of the
    results, which is removed afterwards, and ``on_failed(Failure)``. If ``on_finished`` raises, ``on_failed`` is called
    as well. Neither is called after `cancel`.
    """

    def __init__(
        self,
        python: str,
        temporary: Path,
        *,
        cwd: Path = MODULE_FOLDER,
        environment: Mapping[str, str] | None = None,
        on_progress: Callable[[Progress], None] | None = None,
        on_finished: Callable[[Path], None] | None = None,
        on_failed: Callable[[Failure], None] | None = None,
        silence_s: float = SILENCE_S,
    ) -> None:
        """``python`` is the interpreter (see `find_python`), ``temporary`` where the run's own folder is made."""
        self._python = python
        self._temporary = Path(temporary)
        self._cwd = Path(cwd)
        self._environment = environment
        self._on_progress = on_progress or (lambda progress: None)
        self._on_finished = on_finished or (lambda folder: None)
        self._on_failed = on_failed or (lambda failure: None)
        self._silence_s = silence_s
        self._process: subprocess.Popen[str] | None = None
        self._folder: Path | None = None
        self._readers: list[threading.Thread] = []
        self._said: queue.SimpleQueue[tuple[str, str, float]] = queue.SimpleQueue()
        self._tail: deque[str] = deque(maxlen=TAIL_LINES)
        self._arguments: list[str] = []
        self._progress = Progress("start")
        self._started_at = self._heard_at = self._polled_at = self._awake_at = 0.0
        self._ended_at: float | None = None
        self._polling = False

    # --- asking --------------------------------------------------------------------------------------------------
    @property
    def running(self) -> bool:
        return self._process is not None

    @property
    def progress(self) -> Progress:
        """The child's progress by its last message."""
        return self._progress

    @property
    def elapsed_s(self) -> float:
        return time.monotonic() - self._started_at if self.running else 0.0

    @property
    def heard_s(self) -> float:
        """When the child sent its last message, in seconds after the start: not when the application got round to
        reading it."""
        return self._heard_at - self._started_at if self.running else 0.0

    @property
    def silent_s(self) -> float:
        """How long nothing was heard from the child, not even a heartbeat, while somebody was listening."""
        return time.monotonic() - max(self._heard_at, self._awake_at) if self.running else 0.0

    # --- doing ---------------------------------------------------------------------------------------------------
    def start(
        self,
        write_ct: Callable[[Path], Path],
        options: RunOptions,
        write_mr: Callable[[Path], Path] | None = None,
    ) -> None:
        """Start the child on what ``write_ct(folder)`` and, where there is an MR, ``write_mr(folder)`` write (see
        `scene.ct.ct_file`).

        `InputError` when the options are wrong, a run is already going on, or the child cannot be started; nothing is
        left behind then.
        """
        if self.running:
            raise InputError("a segmentation is running already: wait for it, or cancel it first")
        problem = options.problem()
        if problem is not None:
            raise InputError(problem)
        remove_leftovers(self._temporary)
        try:
            self._temporary.mkdir(parents=True, exist_ok=True)
            self._folder = Path(tempfile.mkdtemp(prefix=FOLDER_PREFIX, dir=self._temporary))
            ct = write_ct(self._folder)
            mr = ["--mr", str(write_mr(self._folder))] if write_mr is not None else []
            self._arguments = [
                *("-m", "soars.cli", "segment", str(ct), "--output", str(self._output), "--progress", "json"),
                *options.arguments(),
                *mr,
            ]
            self._launch()
        except BaseException as error:
            self._remove_folder(0.0)
            if isinstance(error, OSError):
                raise InputError(
                    f"the segmentation could not be started: {error.strerror or error} ({self._python})"
                ) from error
            raise

    def poll(self) -> None:
        """Pass on what the child has written meanwhile, and notice its end."""
        if self._polling:  # a callback may let the timer fire again
            return
        self._polling = True
        try:
            self._poll()
        finally:
            self._polling = False

    def _poll(self) -> None:
        process = self._process
        if process is None:
            return
        now = time.monotonic()
        if now - self._polled_at > ASLEEP_S:
            self._awake_at = now
        self._polled_at = now
        self._drain()
        if self._process is not process:
            return  # cancelled from on_progress
        code = process.poll()
        if code is None:
            if self.silent_s > self._silence_s:
                self._kill()
                self._fail(
                    f"the segmentation process has hung: silent for {self._silence_s:.0f} s, and was ended"
                )
            return
        self._ended_at = self._ended_at or now
        # Processes that the child started may keep its output open; they are not waited for.
        if any(reader.is_alive() for reader in self._readers) and now - self._ended_at < 1.0:
            return
        self._kill()
        self._drain()
        if self._process is process:
            self._ended(code)

    def cancel(self) -> None:
        """End the child and everything it started, and remove the run's files; waits at most 2 s for that."""
        if self._process is not None:
            self._kill(GRACE_S)
            self._close()

    # --- the child -----------------------------------------------------------------------------------------------
    @property
    def _output(self) -> Path:
        assert self._folder is not None
        return self._folder / "output"

    def _launch(self) -> None:
        self._process = launch(self._python, self._arguments, self._cwd, self._environment)
        self._said = queue.SimpleQueue()
        self._tail.clear()
        self._progress = Progress("start")
        self._started_at = self._heard_at = self._polled_at = self._awake_at = time.monotonic()
        self._ended_at = None
        self._readers = [
            threading.Thread(
                target=read_lines, args=(stream, kind, self._said), name=f"soars-{kind}", daemon=True
            )
            for kind, stream in (("out", self._process.stdout), ("err", self._process.stderr))
        ]
        for reader in self._readers:
            reader.start()

    def _drain(self) -> None:
        process = self._process
        while self._process is process:
            try:
                kind, line, self._heard_at = self._said.get_nowait()
            except queue.Empty:
                return
            progress = parse_progress(line) if kind == "out" else None
            if progress is None:
                if line.strip():
                    self._tail.append(line.rstrip())
            elif progress.stage != "heartbeat":
                self._progress = progress
                self._on_progress(progress)

    def _kill(self, grace_s: float = 0.0) -> None:
        """End the child with all that it started; first by asking, when there is time for that."""
        if self._process is not None:
            end_tree(self._process, grace_s)

    def _ended(self, code: int) -> None:
        if code != 0:
            self._fail(end_message(code, list(self._tail)))
            return
        if not (self._output / SEGMENTATION).is_file():
            self._fail("the segmentation ended without a result: see the report")
            return
        try:
            self._on_finished(self._output)
        except SoarsError as error:
            self._fail(str(error), code)
        except Exception as error:  # shown like any failure of the run, with what is needed to find the fault
            self._tail.extend(traceback.format_exc().splitlines())
            self._fail(f"the result could not be shown: {type(error).__name__}: {error}", code)
        else:
            self._close()  # also after a `cancel` from the callback, which has nothing left to close

    def _fail(self, message: str, code: int | None = None) -> None:
        process = self._process
        if code is None and process is not None:
            code = process.poll()
        seconds = time.monotonic() - self._started_at
        tail = "\n".join(self._tail)
        report = "\n".join(
            (
                "SOARS Segmentation: report of a failed run",
                f"message: {message}",
                f"version: soars {soars.__version__}",
                f"application: {_application()}",
                f"platform: {platform.platform()}, {os.cpu_count()} processors",
                f"command: {Path(self._python).name} {' '.join(self._arguments)}",
                f"ended with: {code}, after {seconds:.1f} s, at stage {self._progress.stage} "
                f"({self._progress.done} of {self._progress.of})",
                "",
                "last lines:",
                tail or "(none)",
                "",
            )
        )
        report = _without_folder(report, self._folder, self._temporary)
        self._close()
        self._on_failed(Failure(message, tail, report))

    # --- tidying up ----------------------------------------------------------------------------------------------
    def _close(self) -> None:
        process, self._process = self._process, None
        for reader in self._readers:
            reader.join(timeout=0.2)
        if process is not None:
            for stream, reader in zip((process.stdout, process.stderr), self._readers, strict=True):
                if stream is not None and not reader.is_alive():
                    stream.close()
        self._readers = []
        self._remove_folder()

    def _remove_folder(self, patience_s: float = 1.0) -> None:
        folder, self._folder = self._folder, None
        if folder is None:
            return
        until = time.monotonic() + patience_s
        while True:  # Windows lets go of a killed process's files a little later
            shutil.rmtree(folder, ignore_errors=True)
            if not folder.exists() or time.monotonic() > until:
                return
            time.sleep(0.05)


def parse_progress(line: str) -> Progress | None:
    """A line of ``--progress json``; None when it is anything else."""
    try:
        record = json.loads(line)
        return Progress(
            str(record["stage"]), int(record["done"]), int(record["of"]), str(record["message"] or "")
        )
    except (ValueError, TypeError, KeyError):
        return None


def remove_leftovers(temporary: Path) -> None:
    """Remove the folders of runs whose application crashed: those untouched for days."""
    for folder in temporary.glob(f"{FOLDER_PREFIX}*"):
        with contextlib.suppress(OSError):
            if folder.is_dir() and time.time() - folder.stat().st_mtime > LEFTOVER_AGE_S:
                shutil.rmtree(folder, ignore_errors=True)


def read_lines(stream: IO[str], kind: str, said: queue.SimpleQueue[tuple[str, str, float]]) -> None:
    """Put every line of a child's stream into a queue, with its kind and its time, until the stream ends."""
    with contextlib.suppress(OSError, ValueError):  # closed meanwhile
        for line in stream:
            said.put((kind, line, time.monotonic()))


def end_message(code: int, tail: list[str], what: str = "the segmentation") -> str:
    """One sentence on why the child that does ``what`` ended with ``code``; ``tail`` is what it said last."""
    for line in reversed(tail):
        if line.startswith("soars: error: "):
            return line.removeprefix("soars: error: ")
        if line.startswith("soars: internal error: "):
            return f"a fault of SOARS: {line.removeprefix('soars: internal error: ')}"
    # A launcher passes the end of its Python on as 128 + signal.
    number = -code if code < 0 else code - 128 if 128 < code < 160 else 0
    if number == signal.SIGINT or code == 130:
        return f"{what} was interrupted from outside"
    if number:
        name = signal.Signals(number).name if number in set(signal.Signals) else f"signal {number}"
        hint = ": often the memory was full, so close other programs" if name == "SIGKILL" else ""
        return f"{what} process was ended from outside ({name}){hint}"
    if tail:
        return f"{what} failed (exit code {code}): {tail[-1]}"
    return f"{what} process ended without any message (exit code {code}); it may have been killed"


def _without_folder(text: str, *folders: Path | None) -> str:
    """Paths of temporary folders contain the user's name and are of no use in a report."""
    for folder in folders:
        if folder is not None and str(folder) not in (".", os.sep):
            text = text.replace(str(folder), "...")
    home = os.path.expanduser("~")
    return text.replace(home, "~") if len(home) > 1 else text


def _application() -> str:
    app = getattr(slicer, "app", None)
    version = getattr(app, "applicationVersion", None)
    return (
        f"Slicer {version}, Python {sys.version.split()[0]}"
        if version
        else f"Python {sys.version.split()[0]}"
    )
