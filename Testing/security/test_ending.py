"""A command can always be ended, within two seconds, and what it leaves behind is cleared away."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import textwrap
import threading
import time
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import onnx
import psutil
import pytest
import SimpleITK as sitk
from tiny_bundle import patient, write_tiny_bundle

import soars.cli
from soars import staging
from soars.bundle.install import import_bundle
from soars.bundle.store import load_bundle, write_manifest
from soars.errors import CancelledError
from soars.files import replacing_file
from soars.run.segment import SegmentOptions, segment
from soars.staging import KEPT, REPLACED, TemporaryFolder, staging_file, staging_folder, sweep
from soars.supervise import interrupted_once, uninterrupted

SOURCE = str(Path(soars.cli.__file__).parents[1])
linux = pytest.mark.skipif(
    not sys.platform.startswith("linux"), reason="commands are run in a child on Linux only"
)


def _hear_ctrl_c() -> None:
    signal.signal(signal.SIGINT, signal.SIG_DFL)


def start(command: Sequence[str | Path]) -> subprocess.Popen[str]:
    """Start a Python program as a terminal would: Ctrl-C reaches it also when the tests run in a background job."""
    environment = {**os.environ, "PYTHONPATH": SOURCE}
    return subprocess.Popen(
        [sys.executable, *map(str, command)],
        stderr=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        env=environment,
        preexec_fn=_hear_ctrl_c,
    )


def supervised(tmp_path: Path, work: str) -> list[str]:
    """A program that does `work` as a command of ours would be done."""
    code = f"""
        import ctypes, signal, sys
        from pathlib import Path
        from soars.files import staged_folder, replacing_file
        from soars.supervise import supervised
        home = Path({str(tmp_path)!r})
        def work():
            {work}
        sys.exit(supervised(work))
    """
    return ["-c", textwrap.dedent(code)]


def wait_for(there: Callable[[], object], limit_s: float = 20.0) -> None:
    end = time.monotonic() + limit_s
    while not there():
        assert time.monotonic() < end, "it did not happen"
        time.sleep(0.02)


def end(process: subprocess.Popen[str], number: int = signal.SIGTERM) -> tuple[int, str, float]:
    """Exit code, standard error and seconds after the signal."""
    began = time.monotonic()
    process.send_signal(number)
    _, said = process.communicate(timeout=20)
    return process.returncode, said, time.monotonic() - began


def endless(folder: Path) -> Path:
    """A bundle whose network holds a loop without end."""
    write_tiny_bundle(folder)
    helper, floats = onnx.helper, onnx.TensorProto.FLOAT
    body = helper.make_graph(
        [
            helper.make_node("Identity", ["go"], ["go_on"]),
            helper.make_node("Identity", ["state"], ["state_out"]),
        ],
        "body",
        [
            helper.make_tensor_value_info("i", onnx.TensorProto.INT64, []),
            helper.make_tensor_value_info("go", onnx.TensorProto.BOOL, []),
            helper.make_tensor_value_info("state", floats, None),
        ],
        [
            helper.make_tensor_value_info("go_on", onnx.TensorProto.BOOL, []),
            helper.make_tensor_value_info("state_out", floats, None),
        ],
    )
    shape = ["b", 4, "z", "y", "x"]
    graph = helper.make_graph(
        [
            helper.make_node("Loop", ["", "yes", "x"], ["end"], body=body),
            helper.make_node("Concat", ["end"] * 4, ["y"], axis=1),
        ],
        "endless",
        [helper.make_tensor_value_info("x", floats, ["b", 1, "z", "y", "x"])],
        [helper.make_tensor_value_info("y", floats, shape)],
        [onnx.numpy_helper.from_array(np.array(True), "yes")],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    onnx.save(model, str(folder / "anchor.onnx"))
    fields = json.loads((folder / "manifest.json").read_text())
    write_manifest(folder, {k: v for k, v in fields.items() if k not in ("format_version", "card", "files")})
    return folder


@pytest.fixture(scope="module")
def ct(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("ct") / "ct.nrrd"
    sitk.WriteImage(patient().image, str(path))
    return path


# --- a request to end -------------------------------------------------------------------------------------------
@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_an_endless_network_is_ended(tmp_path: Path, ct: Path, number: int) -> None:
    bundle, out = endless(tmp_path / "endless"), tmp_path / "out"
    process = start(
        ["-m", "soars.cli", "segment", ct, "--output", out, "--bundle", bundle, "--progress", "json"]
    )
    assert process.stdout is not None
    for line in process.stdout:
        if '"stage": "heartbeat"' in line and '"message": "anchor"' in line:
            break
    code, said, seconds = end(process, number)
    assert code == 130 and said.startswith("soars: error: cancelled") and seconds < 2
    assert not out.exists() and [p.name for p in tmp_path.iterdir()] == ["endless"]


def test_a_cancel_ends_an_endless_network_in_this_process(tmp_path: Path) -> None:
    bundle = load_bundle(endless(tmp_path / "endless"))
    asked = threading.Event()
    threading.Timer(0.5, asked.set).start()
    began = time.monotonic()
    with pytest.raises(CancelledError):
        segment(patient(), bundle, SegmentOptions(engine="onnxruntime", cancel=asked.is_set))
    assert time.monotonic() - began < 2.5


@linux
def test_native_code_that_never_returns_is_ended_and_its_results_are_cleared_away(tmp_path: Path) -> None:
    """`PyDLL` keeps the interpreter's lock and the signal does not wake it: no handler, no thread can run."""
    work = "\n            ".join((
        "with staged_folder(home / 'out', ['a']) as staging, replacing_file(home / 'b.csv') as file:",
        "    file.write_text('half')",
        "    (staging / 'a').write_text('half')",
        "    signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGTERM])",
        "    ctypes.PyDLL(None).sleep(60)",
    ))  # fmt: skip
    process = start(supervised(tmp_path, work))
    wait_for(lambda: len(list(tmp_path.glob(".soars-*"))) == 2)
    time.sleep(0.2)
    code, said, seconds = end(process)
    assert (code, said) == (130, "soars: error: cancelled\n") and seconds < 2
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("delay_s", [0.0, 0.03, 0.06, 0.1, 0.2, 0.4, 0.8])
def test_a_request_during_the_start_and_the_imports_is_a_cancel(
    tmp_path: Path, ct: Path, delay_s: float
) -> None:
    """Some imports turn an interruption into an error of their own; before our first line the system's way holds."""
    bundle = endless(tmp_path / "endless")
    process = start(["-m", "soars.cli", "segment", ct, "--output", tmp_path / "out", "--bundle", bundle])
    time.sleep(delay_s)
    code, said, seconds = end(process)
    assert code in (130, -signal.SIGTERM) and seconds < 2.5
    assert "internal" not in said
    assert not (tmp_path / "out").exists()


@linux
def test_what_was_written_before_a_cancel_is_named(tmp_path: Path) -> None:
    """Whether the command can still say so itself, or has to be killed."""
    for kind, blocked in (("a", "pass"), ("b", "signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGTERM])")):
        work = "\n            ".join((
            f"with replacing_file(home / '{kind}.csv') as file:",
            "    file.write_text('whole')",
            "with staged_folder(home / 'out', ['c']) as staging, replacing_file(staging / 'c') as file:",
            "    file.write_text('half')",
            f"    {blocked}",
            "    (home / 'ready').touch()",
            "    ctypes.PyDLL(None).sleep(60)",
        ))  # fmt: skip
        process = start(["-c", supervised(tmp_path, work)[1].replace("supervised(work)", IN_PROGRAM)])
        wait_for((tmp_path / "ready").exists)
        (tmp_path / "ready").unlink()
        code, said, _ = end(process)
        assert code == 130 and said == f"soars: error: cancelled, after {tmp_path}/{kind}.csv was written\n"
    assert sorted(path.name for path in tmp_path.iterdir()) == ["a.csv", "b.csv"]


IN_PROGRAM = (
    "supervised(lambda: __import__('soars.commands.program').commands.program.run_program("
    "'soars', __import__('argparse').ArgumentParser, lambda args: work() or 0, []))"
)


@linux
def test_a_command_that_has_said_that_it_is_done_is_done(tmp_path: Path) -> None:
    work = "import atexit, time; atexit.register(time.sleep, 1); print('written', flush=True)"
    process = start(["-c", supervised(tmp_path, work)[1].replace("supervised(work)", IN_PROGRAM)])
    assert process.stdout is not None and process.stdout.readline() == "written\n"
    time.sleep(0.1)
    code, said, _ = end(process)
    assert (code, said) == (0, "")


def test_a_request_waits_until_results_have_their_names() -> None:
    steps = []
    with pytest.raises(KeyboardInterrupt), interrupted_once([]):
        with uninterrupted():
            signal.raise_signal(signal.SIGINT)
            steps.append("renamed")
        steps.append("not reached")
    assert steps == ["renamed"]


# --- native code that crashes -------------------------------------------------------------------------------------
@linux
def test_a_crash_of_native_code_is_one_sentence_and_leaves_nothing(tmp_path: Path) -> None:
    work = "\n            ".join((
        "with staged_folder(home / 'out', ['a']) as staging:",
        "    (staging / 'a').write_text('half')",
        "    ctypes.string_at(0)",
    ))  # fmt: skip
    process = start(supervised(tmp_path, work))
    _, said = process.communicate(timeout=20)
    assert process.returncode == 1
    assert said.startswith("soars: internal error: native code crashed (SIGSEGV)") and said.count("\n") == 1
    assert list(tmp_path.iterdir()) == []


@linux
def test_a_child_that_the_system_kills_for_memory_is_one_sentence(tmp_path: Path) -> None:
    process = start(supervised(tmp_path, "import os; os.kill(os.getpid(), 9)"))
    _, said = process.communicate(timeout=20)
    assert process.returncode == 2 and "memory ran out" in said


@linux
@pytest.mark.parametrize("code", [0, 1, 2, 130])
def test_the_exit_code_is_the_commands(tmp_path: Path, code: int) -> None:
    process = start(supervised(tmp_path, f"return {code}"))
    process.communicate(timeout=20)
    assert process.returncode == code


# --- kill -9 ------------------------------------------------------------------------------------------------------
@linux
def test_nothing_survives_a_parent_that_is_killed_and_the_next_run_sweeps(tmp_path: Path, ct: Path) -> None:
    bundle, out = endless(tmp_path / "endless"), tmp_path / "out"
    process = start(["-m", "soars.cli", "segment", ct, "--output", out, "--bundle", bundle])
    wait_for(lambda: list(tmp_path.glob(".soars-*")))
    (child,) = psutil.Process(process.pid).children()
    process.kill()
    process.communicate()
    wait_for(lambda: not child.is_running() or child.status() == psutil.STATUS_ZOMBIE, 3)
    assert list(tmp_path.glob(".soars-*"))  # nobody was left to clear them away
    good = write_tiny_bundle(tmp_path / "good")
    command = ["-m", "soars.cli", "segment", ct, "--output", out, "--bundle", good, "--progress", "none"]
    again = start(command)
    again.communicate(timeout=60)
    assert again.returncode == 0 and (out / "run.json").exists()
    assert list(tmp_path.glob(".soars-*")) == []


def test_workers_end_with_the_process_that_started_them(tmp_path: Path) -> None:
    (tmp_path / "slow.py").write_text("import time\ndef work(item):\n    time.sleep(60)\n")
    code = f"""
        import sys
        sys.path.insert(0, {str(tmp_path)!r})
        from slow import work
        from soars.parallel import in_processes
        if __name__ == "__main__":
            list(in_processes(work, [1, 2], 2))
    """
    (tmp_path / "main.py").write_text(textwrap.dedent(code))
    process = start([tmp_path / "main.py"])
    parent = psutil.Process(process.pid)
    wait_for(lambda: len([c for c in parent.children() if "spawn_main" in " ".join(c.cmdline())]) == 2)
    time.sleep(0.5)
    workers = parent.children()
    process.kill()
    process.communicate()
    wait_for(lambda: not any(w.is_running() and w.status() != psutil.STATUS_ZOMBIE for w in workers), 5)


# --- sweeping -----------------------------------------------------------------------------------------------------
@pytest.fixture
def gone(monkeypatch: pytest.MonkeyPatch) -> Callable[[], object]:
    """Act for a while as a process that has ended since, and forget which folders were swept."""
    ended = subprocess.run(
        [sys.executable, "-c", "import os; print(os.getpid())"], capture_output=True, text=True
    )
    monkeypatch.setattr(staging, "_swept", set())

    def owner() -> str:
        return f"{staging.PREFIX}{staging._host()}.{int(ended.stdout)}.12345"

    class Gone:
        def __enter__(self) -> None:
            self.patch = pytest.MonkeyPatch()
            self.patch.setattr(staging, "_owner", owner)

        def __exit__(self, *_: object) -> None:
            self.patch.undo()
            staging._swept.clear()

    return Gone


def test_only_what_a_process_that_is_gone_has_left_is_swept(tmp_path: Path, gone) -> None:  # type: ignore[no-untyped-def]
    with gone():
        staging_file(tmp_path / "a.csv").write_text("half")
        (staging_folder(tmp_path) / "rtstruct.dcm").write_text("half")
    mine = staging_file(tmp_path / "b.csv")
    mine.write_text("being written")
    others = [
        tmp_path / ".soars-00000000.99999999.1-abc-x.csv",
        tmp_path / ".soars-notes",
        tmp_path / "a.csv",
    ]
    for path in others:
        path.write_text("not ours to touch")
    sweep(tmp_path)
    assert sorted(tmp_path.iterdir()) == sorted([mine, *others])


def test_the_next_writing_in_a_folder_sweeps_it(tmp_path: Path, gone) -> None:  # type: ignore[no-untyped-def]
    with gone():
        staging_file(tmp_path / "a.csv").write_text("half")
    with replacing_file(tmp_path / "b.csv") as file:
        file.write_text("whole")
    assert [p.name for p in tmp_path.iterdir()] == ["b.csv"]


def test_results_that_were_being_replaced_get_their_names_back(tmp_path: Path, gone) -> None:  # type: ignore[no-untyped-def]
    """Killed between the renames: the old run's results are whole again, and nothing of the new one's is among them."""
    (tmp_path / "b").write_text("new")
    (tmp_path / "c").write_text("old")
    with gone():
        folder = staging_folder(tmp_path)
    (folder / REPLACED).mkdir()
    (folder / REPLACED / "a").write_text("old")
    (folder / REPLACED / "b").write_text("old")
    sweep(tmp_path)
    assert {p.name: p.read_text() for p in tmp_path.iterdir()} == {"a": "old", "b": "old", "c": "old"}


def test_results_whose_place_is_not_known_are_kept(tmp_path: Path, gone) -> None:  # type: ignore[no-untyped-def]
    with gone():
        folder = staging_folder(tmp_path, beside=True)
    (folder / REPLACED).mkdir()
    (folder / REPLACED / "a").write_text("old")
    sweep(tmp_path)
    assert (folder / REPLACED / "a").read_text() == "old"


@pytest.mark.parametrize("unfinished", [True, False])
def test_a_pair_of_files_stays_a_pair(tmp_path: Path, gone, unfinished: bool) -> None:  # type: ignore[no-untyped-def]
    """A label map and its names, killed after the first was replaced, or after both."""
    with gone():
        first, second = staging_file(tmp_path / "map.nrrd"), staging_file(tmp_path / "map.json")
    first.with_name(first.name + KEPT).write_text("old")
    (tmp_path / "map.nrrd").write_text("new")
    if unfinished:
        second.write_text("new")
    (tmp_path / "map.json").write_text("old" if unfinished else "new")
    sweep(tmp_path)
    state = "old" if unfinished else "new"
    assert {p.name: p.read_text() for p in tmp_path.iterdir()} == {"map.nrrd": state, "map.json": state}


def test_what_was_unpacked_for_a_process_that_was_killed_is_swept(  # type: ignore[no-untyped-def]
    tmp_path: Path, gone, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    with gone():
        left = TemporaryFolder()
        left._remove.detach()  # it never comes to that
    (left.path / "anchor.onnx").write_text("gigabytes")
    with TemporaryFolder() as mine:
        assert list(tmp_path.iterdir()) == [mine]
    assert list(tmp_path.iterdir()) == []
    kept = TemporaryFolder()
    del kept
    assert list(tmp_path.iterdir()) == []


def test_a_bundle_that_was_being_replaced_or_removed_is_whole_or_gone(  # type: ignore[no-untyped-def]
    tmp_path: Path, gone, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Killed between the two renames of an import, and in the middle of a removal."""
    home, new = tmp_path / "home", write_tiny_bundle(tmp_path / "new")
    monkeypatch.setenv("SOARS_BUNDLES", str(home))
    import_bundle(new, "first")
    with gone():
        folder, removed = staging_folder(home), staging_folder(home)
    (folder / REPLACED).mkdir()
    (home / "first").rename(folder / REPLACED / "first")
    write_tiny_bundle(removed / "other")
    import_bundle(new, "second")
    assert sorted(path.name for path in home.iterdir()) == ["first", "second"]
    assert load_bundle("first").name == "new"
