"""A command can always be ended, within two seconds, and what it leaves behind is cleared away."""

from __future__ import annotations

import ctypes
import json
import multiprocessing
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
import soars_training
from soars.bundle.store import load_bundle, write_manifest
from soars.errors import CancelledError, InputError
from soars.parallel import in_processes
from soars.run.segment import SegmentOptions, segment
from soars.supervise import GRACE_S, interrupted_once, uninterrupted, within

SOURCE = os.pathsep.join(str(Path(package.__file__ or "").parents[1]) for package in (soars, soars_training))
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
        from soars.supervise import saving_first, supervised, within
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


def test_a_cancel_stops_torch_in_the_middle_of_a_window() -> None:
    """A window of nnU-Net's size takes ten seconds on a slow computer; a layer of it, a part of one."""
    import torch
    from safetensors.torch import save

    from soars.bundle.integrity import Weights
    from soars.bundle.manifest import BranchSpec
    from soars.cascade.torch_engine import TorchEngine
    from soars.networks.architecture import Architecture
    from soars.networks.unet import UNet

    torch.manual_seed(0)
    layout = Architecture.plain(1, 2, (4, 8))
    spec = BranchSpec(
        "anchor", ("ct",), ("Brainstem",), "softmax", (3.0, 3.0, 3.0), (8, 8, 8), layout, {"safetensors": "a"}
    )
    asked: list[int] = []

    def cancelled() -> bool:
        asked.append(len(asked))
        return len(asked) == stop_at

    engine = TorchEngine(Weights(Path("a"), save(UNet(layout).state_dict())), spec, cancelled=cancelled)
    stop_at = 0
    engine.run(np.zeros((1, 1, 8, 8, 8), np.float32))
    layers = len(asked)
    assert layers >= 6  # convolutions alone: two a level down, two up, the step between
    asked.clear()
    stop_at = 3
    with pytest.raises(CancelledError):
        engine.run(np.zeros((1, 1, 8, 8, 8), np.float32))
    assert len(asked) == 3


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
@pytest.mark.parametrize("delay_s", [0.0, 0.2, 1.0])
def test_training_commands_are_cancelled_during_their_imports_and_their_work(
    tmp_path: Path, delay_s: float
) -> None:
    process = start(["-m", "soars_training.cli", "prepare", tmp_path / "cache", "--phantoms", "50"])
    wait_for(lambda: psutil.Process(process.pid).children())
    time.sleep(delay_s)
    code, said, seconds = end(process)
    assert code == 130 and seconds < 2.5 and said.count("error") == 1
    assert said.splitlines()[-1].startswith("soars-train: error: cancelled")


UNHEARD = "signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGTERM]); (home / 'ready').touch()"
"""Native code computes: no handler can run."""


@linux
def test_what_would_be_lost_is_saved_before_the_end(tmp_path: Path) -> None:
    work = "\n            ".join((
        "with saving_first():",
        f"    {UNHEARD}",
        f"    ctypes.PyDLL(None).usleep(int(1e6 * ({GRACE_S} + 1)))",
        "    (home / 'saved').touch()",
        "return 2",
    ))  # fmt: skip
    process = start(supervised(tmp_path, work))
    wait_for((tmp_path / "ready").exists)
    code, _, seconds = end(process)
    assert code == 130 and seconds > GRACE_S and (tmp_path / "saved").exists()


@linux
@pytest.mark.parametrize("saving", ["two requests", "saved"])
def test_saving_is_not_waited_for_after_a_second_request_or_when_it_is_over(
    tmp_path: Path, saving: str
) -> None:
    wait = f"{UNHEARD}; ctypes.PyDLL(None).sleep(60)"
    work = "with saving_first():\n                "
    work += wait if saving == "two requests" else f"pass\n            {wait}"
    process = start(supervised(tmp_path, work))
    wait_for((tmp_path / "ready").exists)
    if saving == "two requests":
        process.send_signal(signal.SIGTERM)
        time.sleep(GRACE_S + 0.5)
        assert process.poll() is None
    code, said, seconds = end(process)
    assert (code, said) == (130, "soars: error: cancelled\n") and seconds < 2.5


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
def test_a_cancel_is_reported_once_also_when_what_comes_after_takes_too_long(tmp_path: Path) -> None:
    """Libraries clear up at exit."""
    work = "import atexit, time; atexit.register(time.sleep, 60); (home / 'ready').touch(); time.sleep(60)"
    process = start(["-c", supervised(tmp_path, work)[1].replace("supervised(work)", IN_PROGRAM)])
    wait_for((tmp_path / "ready").exists)
    code, said, seconds = end(process)
    assert (code, said) == (130, "soars: error: cancelled\n") and seconds < 2.5


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


# --- native code that takes too long -----------------------------------------------------------------------------
@linux
def test_a_forked_worker_ends_at_once_when_its_pool_ends_it() -> None:
    """Python's handler, if the worker had it, would wait until the worker's next step, which may never come."""
    before = signal.getsignal(signal.SIGTERM)
    with interrupted_once([]):
        ours = signal.getsignal(signal.SIGTERM)
        child = os.fork()
        if child == 0:
            os._exit(0 if signal.getsignal(signal.SIGTERM) == before else 1)
        assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
        assert signal.getsignal(signal.SIGTERM) == ours != before
        with multiprocessing.get_context("fork").Pool(3) as pool:
            workers = pool._pool  # type: ignore[attr-defined]
        assert {worker.exitcode for worker in workers} <= {0, -signal.SIGTERM}


def test_a_file_that_takes_too_long_to_decode_is_named(tmp_path: Path) -> None:
    work = "\n            ".join((
        "with staged_folder(home / 'out', ['a']) as staging, within(0.5, home / 'slice.dcm'):",
        "    ctypes.PyDLL(None).sleep(60)",
    ))  # fmt: skip
    process = start(supervised(tmp_path, work))
    _, said = process.communicate(timeout=20)
    assert process.returncode == 2 and said.count("\n") == 1
    assert said.startswith(
        f"soars: error: {tmp_path / 'slice.dcm'}: decoding takes far longer than it should"
    )
    assert list(tmp_path.iterdir()) == []


@linux
def test_a_limit_is_that_of_its_step_and_ends_with_it(tmp_path: Path) -> None:
    work = "\n            ".join((
        "import time",
        "for _ in range(3):",
        "    with within(1.0, 'a'): time.sleep(0.5)",
        "time.sleep(1.5)",
        "return 0",
    ))  # fmt: skip
    process = start(supervised(tmp_path, work))
    assert process.communicate(timeout=20) == ("", "") and process.returncode == 0


def _endless_decoding(_item: int) -> None:
    with within(0.5, "a"):
        ctypes.PyDLL(None).sleep(60)


@linux
def test_a_worker_that_takes_too_long_ends_and_is_one_sentence() -> None:
    began = time.monotonic()
    with pytest.raises(InputError, match="took far too long over a damaged file"):
        list(in_processes(_endless_decoding, [1, 2], 2))
    assert time.monotonic() - began < 30


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
