"""The command line: exit codes, one line for an error, progress that a parent process can rely on."""

from __future__ import annotations

import argparse
import errno
import io
import json
import logging
import os
import signal
import subprocess
import sys
import tempfile
import textwrap
import threading
import time
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import cast

import pytest

import soars.cli
import soars.progress
from soars.cli import main
from soars.errors import CancelledError, InputError, UnknownOrganError
from soars.progress import Progress, reporting, with_time_left

Output = pytest.CaptureFixture[str]


@pytest.fixture
def command(monkeypatch: pytest.MonkeyPatch) -> Callable[[Callable[[], object]], None]:
    """Make ``soars work`` call a function."""

    def install(work: Callable[[], object]) -> None:
        def add_parser(subparsers: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
            subparsers.add_parser("work")

        def run(args: argparse.Namespace) -> int:
            return int(cast(int, work() or 0))

        module = SimpleNamespace(__name__="soars.commands.work", add_parser=add_parser, run=run)
        monkeypatch.setattr(soars.cli, "COMMANDS", (cast(ModuleType, module),))

    return install


def raising(error: BaseException) -> Callable[[], object]:
    def work() -> object:
        raise error

    return work


def environment(tmp_path: Path) -> dict[str, str]:
    source = str(Path(soars.cli.__file__).parents[1])
    return {**os.environ, "PYTHONPATH": source, "SOARS_BUNDLES": str(tmp_path), "PYTHONIOENCODING": "ascii"}


class TestExitCodes:
    @pytest.mark.parametrize(
        ("error", "code", "line"),
        [
            (InputError("ct.nrrd is not a CT"), 2, "soars: error: ct.nrrd is not a CT"),
            (InputError("two\nlines"), 2, "soars: error: two lines"),
            (
                UnknownOrganError("Parotis", ["Parotid_L"]),
                2,
                "soars: error: unknown organ 'Parotis'; did you mean Parotid_L?",
            ),
            (CancelledError("cancelled by the user"), 130, "soars: error: cancelled by the user"),
            (KeyboardInterrupt(), 130, "soars: error: cancelled"),
            (
                OSError(errno.ENOSPC, "No space", "/out/x"),
                2,
                "soars: error: cannot write /out/x: the disk is full",
            ),
            (OSError(errno.ENOSPC, "No space"), 2, "soars: error: cannot write a file: the disk is full"),
            (
                PermissionError(errno.EACCES, "No", "/out"),
                2,
                "soars: error: no permission to read or write /out",
            ),
            (MemoryError(), 2, "soars: error: not enough memory"),
            (
                ZeroDivisionError("division by zero"),
                1,
                "soars: internal error: ZeroDivisionError: division by",
            ),
            (FileNotFoundError(errno.ENOENT, "No such", "x"), 1, "soars: internal error: FileNotFoundError"),
        ],
    )
    def test_every_error_ends_in_one_line(
        self, command: Callable[..., None], capsys: Output, error: BaseException, code: int, line: str
    ) -> None:
        command(raising(error))
        assert main(["work"]) == code
        output = capsys.readouterr()
        assert output.out == ""
        assert output.err.startswith(line)
        assert output.err.count("\n") == 1

    def test_success_is_zero_and_a_command_may_choose(self, command: Callable[..., None]) -> None:
        command(lambda: None)
        assert main(["work"]) == 0
        command(lambda: 3)
        assert main(["work"]) == 3

    @pytest.mark.parametrize("argv", [["--debug", "work"], ["work", "--debug"]])
    def test_debug_shows_the_traceback_wherever_it_is_written(
        self, command: Callable[..., None], capsys: Output, argv: list[str]
    ) -> None:
        command(raising(ZeroDivisionError("oh")))
        assert main(argv) == 1
        error = capsys.readouterr().err
        assert "Traceback" in error and "soars: internal error: ZeroDivisionError: oh\n" in error

    def test_without_debug_an_internal_error_says_how_to_see_more(
        self, command: Callable[..., None], capsys: Output
    ) -> None:
        command(raising(ZeroDivisionError("oh")))
        main(["work"])
        (line,) = capsys.readouterr().err.splitlines()
        assert line.startswith("soars: internal error: ZeroDivisionError: oh; run it again with --debug ")

    @pytest.mark.parametrize(
        ("argv", "reason"),
        [
            ([], "required: COMMAND"),
            (["nonsense"], "invalid choice: 'nonsense'"),
            (["bundle"], "required: ACTION (see soars bundle --help)"),
            (["bundle", "list", "--nonsense"], "unrecognized arguments: --nonsense"),
            (["bundle", "show"], "required: NAME|PATH"),
            (
                ["segment", "ct", "--output", "o", "--mr-series", "1.2"],
                "--mr-series chooses a series of the MR",
            ),
            (["segment-all", "in", "out", "--at-once", "0"], "--at-once must be a whole number of 1 or more"),
            (
                ["segment-all", "in", "out", "--ray-cores", "2"],
                "--ray-workers and --ray-cores belong to --ray",
            ),
        ],
    )
    def test_bad_usage_is_one_line_too(self, capsys: Output, argv: list[str], reason: str) -> None:
        assert main(argv) == 2
        error = capsys.readouterr().err
        assert error.startswith("soars: error: ") and reason in error and error.count("\n") == 1

    def test_help_and_version_are_no_errors(self, capsys: Output) -> None:
        for module in soars.cli.COMMANDS:
            assert main([module.__name__.rsplit(".", 1)[-1].replace("_", "-"), "--help"]) == 0
        assert main(["--help"]) == 0
        assert main(["network", "echo", "--help"]) == 0
        assert "\nCheck that an archive responds and knows us (C-ECHO).\n" in capsys.readouterr().out
        assert main(["--version"]) == 0
        assert capsys.readouterr().out.endswith(f"soars {soars.__version__}\n")

    def test_every_command_module_is_registered(self) -> None:
        folder = Path(soars.cli.__file__).parent / "commands"
        found = [path for path in folder.rglob("*.py") if "def add_parser(" in path.read_text("utf-8")]
        there = {path.relative_to(folder).with_suffix("").parts[0] for path in found}
        assert {module.__name__.rsplit(".", 1)[-1] for module in soars.cli.COMMANDS} == there


class TestWarnings:
    def test_our_warnings_are_lines_for_people(self, command: Callable[..., None], capsys: Output) -> None:
        command(lambda: logging.getLogger("soars.ct.images").warning("slice %d is missing", 3))
        assert main(["work"]) == 0
        assert capsys.readouterr().err == "soars: warning: slice 3 is missing\n"

    def test_libraries_python_warnings_are_not_for_people(
        self, command: Callable[..., None], capsys: Output
    ) -> None:
        command(lambda: warnings.warn("deprecated", stacklevel=1))
        assert main(["work"]) == 0
        assert capsys.readouterr().err == ""

    def test_logging_is_left_as_it_was(self, command: Callable[..., None]) -> None:
        before = list(logging.getLogger().handlers), logging.getLogger("soars").level
        command(lambda: None)
        main(["--debug", "work"])
        assert (list(logging.getLogger().handlers), logging.getLogger("soars").level) == before


class TestAsAProcess:
    @pytest.mark.parametrize("module", ["soars", "soars.cli"])
    def test_runs_as_a_module(self, tmp_path: Path, module: str) -> None:
        done = subprocess.run(
            [sys.executable, "-m", module, "bundle", "show", "nosuch"],
            env=environment(tmp_path),
            capture_output=True,
            text=True,
        )
        assert (done.returncode, done.stdout) == (2, "")
        assert done.stderr.startswith("soars: error: no bundle 'nosuch'") and done.stderr.count("\n") == 1

    def test_writes_utf8_whatever_the_locale(self, tmp_path: Path) -> None:
        done = subprocess.run(
            [sys.executable, "-m", "soars", "bundle", "verify", "Müller.zip"],
            env=environment(tmp_path),
            capture_output=True,
        )
        assert "Müller.zip" in done.stderr.decode("utf-8")

    def test_help_imports_nothing_heavy(self, tmp_path: Path) -> None:
        code = """
            import sys, soars.cli
            soars.cli.main(["--help"])
            heavy = {"numpy", "scipy", "SimpleITK", "pydicom", "torch", "onnxruntime", "monai", "matplotlib"}
            sys.exit(", ".join(heavy & set(sys.modules)) or 0)
        """
        done = subprocess.run(
            [sys.executable, "-c", textwrap.dedent(code)],
            env=environment(tmp_path),
            capture_output=True,
            text=True,
        )
        assert (done.returncode, done.stderr) == (0, "")

    def test_a_reader_that_goes_away_is_not_a_fault(self, tmp_path: Path) -> None:
        with subprocess.Popen(
            [sys.executable, "-m", "soars", "bundle", "list"],
            env=environment(tmp_path),
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        ) as process:
            assert process.stdout is not None and process.stderr is not None
            process.stdout.close()
            error = process.stderr.read()
        assert (process.returncode, error) == (0, "")  # as in `soars bundle list | head`

    def test_a_reader_that_goes_away_in_the_middle_of_the_work_cancels_it(
        self, command: Callable[..., None], capsys: Output
    ) -> None:
        command(raising(BrokenPipeError()))
        assert main(["work"]) == 130
        error = capsys.readouterr().err
        assert error == "soars: error: cancelled: the program that reads the output has gone away\n"

    @pytest.mark.skipif(sys.platform == "win32", reason="Windows looks for temporary files elsewhere")
    def test_a_missing_folder_for_temporary_files_names_the_setting(
        self, command: Callable[..., None], capsys: Output, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        def work() -> None:
            monkeypatch.setattr(tempfile, "tempdir", None)
            monkeypatch.setattr(tempfile, "_candidate_tempdir_list", lambda: ["/proc/none"])
            tempfile.mkdtemp()

        command(work)
        assert main(["work"]) == 2
        assert "temporary files" in (error := capsys.readouterr().err) and "TMPDIR" in error

    def test_a_home_that_cannot_be_written_names_the_setting(
        self, command: Callable[..., None], capsys: Output, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
    ) -> None:
        monkeypatch.setenv("XDG_DATA_HOME", str(tmp_path))
        if sys.platform != "linux":
            pytest.skip("other systems keep a user's data in a place of their own")
        for number in (errno.EACCES, errno.EROFS):
            command(raising(PermissionError(number, "No", str(tmp_path / "soars" / "bundles"))))
            assert main(["work"]) == 2
            assert "XDG_DATA_HOME" in capsys.readouterr().err
        command(raising(PermissionError(errno.EACCES, "No", str(tmp_path.parent / "elsewhere"))))
        assert main(["work"]) == 2
        assert "XDG_DATA_HOME" not in capsys.readouterr().err

    @pytest.mark.skipif(sys.platform == "win32", reason="a process on Windows is not terminated by a signal")
    @pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
    def test_a_signal_cancels_and_lets_the_clean_up_run(self, tmp_path: Path, number: int) -> None:
        code = """
            import sys, tempfile, time, types, soars.cli
            def run(args):
                with tempfile.TemporaryDirectory(dir=sys.argv[1]):
                    print("working", flush=True)
                    time.sleep(60)
            work = types.SimpleNamespace(
                __name__="x.work", add_parser=lambda subparsers: subparsers.add_parser("work"), run=run
            )
            soars.cli.COMMANDS = (work,)
            sys.exit(soars.cli.main(["work"]))
        """
        with subprocess.Popen(
            [sys.executable, "-c", textwrap.dedent(code), str(tmp_path)],
            env=environment(tmp_path),
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            # A shell starts its background jobs, and so these tests there, with Ctrl-C ignored.
            preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
        ) as process:
            assert process.stdout is not None and process.stderr is not None
            assert process.stdout.readline() == "working\n"
            assert list(tmp_path.iterdir())
            process.send_signal(number)
            error = process.stderr.read()
        assert (process.returncode, error) == (130, "soars: error: cancelled\n")
        assert not list(tmp_path.iterdir())


class TestJsonProgress:
    @pytest.fixture(autouse=True)
    def impatient(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(soars.progress, "HEARTBEAT_S", 0.05)

    def test_is_one_object_a_line_and_begins_at_once(self, capsys: Output) -> None:
        with reporting("json") as report:
            report(Progress("anchor", 3, 12, "läuft"))
        lines = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
        assert lines[0] == {"stage": "start", "done": 0, "of": 0, "message": ""}
        assert lines[-1] == {"stage": "anchor", "done": 3, "of": 12, "message": "läuft"}

    def test_beats_while_a_step_takes_long_and_stops_with_it(self, capsys: Output) -> None:
        with reporting("json") as report:
            report(Progress("anchor", 3, 12))
            time.sleep(0.5)
        lines = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
        beats = [line for line in lines if line["stage"] == "heartbeat"]
        assert len(beats) >= 3
        assert beats[-1] == {"stage": "heartbeat", "done": 3, "of": 12, "message": "anchor"}
        assert not [t for t in threading.enumerate() if t.name == "soars-heartbeat"]
        time.sleep(0.1)
        assert capsys.readouterr().out == ""

    def test_does_not_beat_while_progress_is_made(
        self, capsys: Output, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """The clock is set by hand; the beating looks at it every ten milliseconds."""
        clock = [0.0]
        monkeypatch.setattr(soars.progress, "time", SimpleNamespace(monotonic=lambda: clock[0]))
        monkeypatch.setattr(soars.progress, "HEARTBEAT_S", 0.04)
        with reporting("json") as report:
            for step in range(5):
                report(Progress("anchor", step, 5))
                time.sleep(0.03)
            assert "heartbeat" not in capsys.readouterr().out
            clock[0], said, deadline = 1.0, "", time.monotonic() + 10
            while "heartbeat" not in said and time.monotonic() < deadline:
                time.sleep(0.01)
                said += capsys.readouterr().out
        assert "heartbeat" in said

    def test_lines_stay_whole_when_written_from_many_threads(self, capsys: Output) -> None:
        with reporting("json") as report:
            threads = [
                threading.Thread(target=lambda: [report(Progress("s" * 200, i, 50)) for i in range(50)])
                for _ in range(4)
            ]
            for thread in threads:
                thread.start()
            for thread in threads:
                thread.join()
        lines = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
        assert sum(line["stage"] == "s" * 200 for line in lines) == 200

    def test_a_reader_that_goes_away_cancels_the_work(self, monkeypatch: pytest.MonkeyPatch) -> None:
        class Closing(io.StringIO):
            def flush(self) -> None:
                if "second" in self.getvalue():
                    raise BrokenPipeError

        monkeypatch.setattr(sys, "stdout", Closing())
        with reporting("json") as report:
            report(Progress("first"))
            with pytest.raises(CancelledError, match="gone away"):
                report(Progress("second"))


def test_the_longest_silence_is_well_within_two_seconds() -> None:
    assert soars.progress.HEARTBEAT_S <= 1.0


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


class TestProgressForPeople:
    @pytest.mark.parametrize(
        ("progress", "line"),
        [
            (Progress("check", message="checking the bundle"), "checking the bundle"),
            (Progress("write", 2, 4, "writing the contours"), "writing the contours 2/4"),
            (Progress("prepare", message="finding the patient"), "prepare finding the patient"),
            (Progress("evaluate", 1, 2, "case_001"), "evaluate 1/2 case_001"),
        ],
    )
    def test_no_word_is_said_twice(self, capsys: Output, progress: Progress, line: str) -> None:
        with reporting("auto") as report:
            report(progress)
        assert capsys.readouterr().err == line + "\n"

    def test_writes_few_plain_lines_where_there_is_no_terminal(self, capsys: Output) -> None:
        with reporting("auto") as report:
            for stage in ("read", "anchor"):
                for step in range(1000):
                    report(Progress(stage, step + 1, 1000))
        output = capsys.readouterr()
        assert output.out == ""
        assert output.err.splitlines() == ["read 1/1000", "anchor 1/1000"]

    def test_rewrites_one_line_in_a_terminal_and_leaves_it_empty(
        self, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(sys, "stderr", terminal := Terminal())
        with reporting("auto") as report:
            report(Progress("anchor", 1, 2, "windows"))
            report(Progress("anchor", 2, 2))
        assert "\n" not in terminal.getvalue()
        assert "anchor [##########..........] 1/2 windows" in terminal.getvalue()
        assert shown(terminal.getvalue()) == [""]

    def test_a_warning_has_its_own_line(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(sys, "stderr", terminal := Terminal())
        with handler_to(terminal), reporting("auto") as report:
            report(Progress("anchor", 1, 2))
            logging.getLogger("soars").warning("odd")
            report(Progress("small_hard", 1, 2))
        assert shown(terminal.getvalue()) == ["odd", ""]

    def test_how_long_the_rest_takes_is_told_from_the_pace_so_far(self) -> None:
        told: list[str] = []
        now = [0.0]
        report = with_time_left(lambda progress: told.append(progress.message), clock=lambda: now[0])
        for seconds, done in ((0, 0), (10, 1), (30, 3), (200, 20)):
            now[0] = float(seconds)
            report(Progress("evaluate", done, 20, f"case{done}"))
        now[0] = 300.0
        report(Progress("plot", 0, 4))
        now[0] = 302.0
        report(Progress("plot", 2, 4))
        assert told == ["case0", "3 min left, case1", "3 min left, case3", "case20", "", "2 s left"]

    def test_none_is_silent(self, capsys: Output) -> None:
        with reporting("none") as report:
            report(Progress("anchor", 1, 2))
        output = capsys.readouterr()
        assert output.out + output.err == ""


def shown(text: str) -> list[str]:
    """What a terminal shows: a carriage return goes back to the line's start, later text covers earlier."""
    lines = []
    for line in text.split("\n"):
        screen: list[str] = []
        for part in line.split("\r"):
            screen[: len(part)] = part
        lines.append("".join(screen).rstrip())
    return lines


@contextmanager
def handler_to(stream: io.StringIO) -> Iterator[None]:
    """A log handler on the root logger, for the length of a block."""
    handler = logging.StreamHandler(stream)
    logging.getLogger().addHandler(handler)
    yield
    logging.getLogger().removeHandler(handler)


def test_nothing_is_downloaded_for_a_bundle_that_brings_its_weights(
    capsys: pytest.CaptureFixture[str],
) -> None:
    assert main(["bundle", "get", "starter"]) == 0
    assert capsys.readouterr().out == "starter: nothing to download, its weights are on this machine\n"
