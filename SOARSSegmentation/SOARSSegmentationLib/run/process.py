"""Slicer's Python as a program, and ending a child process together with everything that it started."""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import subprocess
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import slicer

from soars.errors import InputError

WINDOWS = os.name == "nt"


def find_python() -> str:
    """Slicer's Python, as a program. `InputError` when it is not found."""
    found = shutil.which("PythonSlicer")
    home = getattr(getattr(slicer, "app", None), "slicerHome", None)
    if found is None and home:
        found = shutil.which("PythonSlicer", path=str(Path(home) / "bin"))
    if found is None:
        raise InputError(
            "PythonSlicer, the program that runs the segmentation, was not found in this installation of Slicer: "
            "install Slicer again"
        )
    return found


def child_environment() -> dict[str, str]:
    """The environment in which Slicer itself was started: PythonSlicer adds its own paths again."""
    if getattr(slicer, "app", None) is None:
        return dict(os.environ)
    return dict(slicer.util.startupEnvironment())


def launch(
    python: str, arguments: Sequence[str], cwd: Path, environment: Mapping[str, str] | None = None
) -> subprocess.Popen[str]:
    """Start Python with these arguments in a process group or tree of its own, with pipes for all that it says.

    ``environment`` is `child_environment`'s when not given; UTF-8 and unbuffered output are added. Raises `OSError`.
    """
    options: dict[str, Any] = {"start_new_session": True}
    if WINDOWS:
        flags = ("CREATE_NEW_PROCESS_GROUP", "CREATE_NO_WINDOW")
        options = {"creationflags": sum(getattr(subprocess, flag, 0) for flag in flags)}
    return subprocess.Popen(
        [python, *arguments],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        encoding="utf-8",
        errors="replace",
        env={
            **(child_environment() if environment is None else environment),
            "PYTHONUTF8": "1",
            "PYTHONUNBUFFERED": "1",
        },
        cwd=str(cwd),
        **options,
    )


def end_tree(process: subprocess.Popen[str], grace_s: float = 0.0) -> None:
    """End a child with all that it started; first by asking, when there is time for that. Waits for 1 s at most."""
    if WINDOWS:
        end_windows_tree(process)
    else:
        end_group(process, grace_s)
    with contextlib.suppress(subprocess.TimeoutExpired):
        process.wait(timeout=1.0)


def end_group(process: subprocess.Popen[str], grace_s: float) -> None:
    """POSIX: the child leads a group, which has its number even after the child itself has gone."""
    if grace_s > 0 and _signal_group(process.pid, signal.SIGTERM):
        until = time.monotonic() + grace_s
        while time.monotonic() < until:
            process.poll()  # takes the ended child off the list of processes
            if not _signal_group(process.pid, 0):
                return
            time.sleep(0.02)
    _signal_group(process.pid, signal.SIGKILL)


def _signal_group(group: int, number: int) -> bool:
    """Whether any process was there to receive the signal."""
    try:
        os.killpg(group, number)
    except ProcessLookupError:
        return False
    except PermissionError:  # macOS, when only ended processes are left
        return False
    return True


def end_windows_tree(process: subprocess.Popen[str]) -> None:
    if process.poll() is None:
        with contextlib.suppress(OSError, subprocess.TimeoutExpired):
            subprocess.run(
                ["taskkill", "/T", "/F", "/PID", str(process.pid)],
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,
                stderr=subprocess.DEVNULL,
                creationflags=getattr(subprocess, "CREATE_NO_WINDOW", 0),
                timeout=1.5,
                check=False,
            )
    if process.poll() is None:
        process.kill()
