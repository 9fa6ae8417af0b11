"""The child process: what it says arrives, and when it ends, however it ends, nothing of it stays."""

from __future__ import annotations

import os
import re
import signal
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import psutil
import pytest
import SimpleITK as sitk

pytest.importorskip("slicer", reason="slicer-core is not installed")
from tiny_bundle import ABSENT, FOUND, patient, write_tiny_bundle

from soars.errors import InputError
from soars.progress import Progress
from soars.structures import Geometry
from SOARSSegmentationLib.run import results, runner
from SOARSSegmentationLib.run.process import find_python
from SOARSSegmentationLib.run.runner import Failure, Runner, RunOptions, parse_progress
from SOARSSegmentationLib.scene import proposal
from SOARSSegmentationLib.scene.ct import ct_file
from SOARSSegmentationLib.scene.reading import structures_of
from SOARSSegmentationLib.scene.segments import BUNDLE_HASH_TAG, BUNDLE_TAG, WARNING_TAG, tag_of

HEAD = """
import json, os, pathlib, signal, subprocess, sys, time
def say(stage, done=0, of=0, message=""):
    print(json.dumps({"stage": stage, "done": done, "of": of, "message": message}), flush=True)
out = pathlib.Path(sys.argv[sys.argv.index("--output") + 1])
"""
SUCCESS = 'out.mkdir(); (out / "segmentation.seg.nrrd").write_text("organs")'
posix = pytest.mark.skipif(os.name == "nt", reason="signals are POSIX's")


class Run:
    """A run of a child, and what was heard of it."""

    def __init__(self, folder: Path, script: str | None = None, **options: Any) -> None:
        self.temporary = folder / "temporary"
        self.progress: list[Progress] = []
        self.finished: list[list[str]] = []
        self.failed: list[Failure] = []
        self.on_progress: Callable[[Progress], None] = lambda progress: None
        self.on_finished: Callable[[Path], None] = lambda folder: None
        if script is not None:
            package = folder / "package" / "soars"
            package.mkdir(parents=True)
            (package / "cli.py").write_text(HEAD + script)
            options["cwd"] = folder / "package"
            options["environment"] = {k: v for k, v in os.environ.items() if k != "PYTHONPATH"}
        self.runner = Runner(
            sys.executable,
            self.temporary,
            on_progress=self._heard,
            on_finished=self._done,
            on_failed=self.failed.append,
            **options,
        )

    def _heard(self, progress: Progress) -> None:
        self.progress.append(progress)
        self.on_progress(progress)

    def _done(self, folder: Path) -> None:
        self.finished.append(sorted(path.name for path in folder.iterdir()))
        self.on_finished(folder)

    def start(self, ct: sitk.Image | None = None, **options: Any) -> None:
        def write(folder: Path) -> Path:
            path = folder / "ct.nrrd"
            path.write_text("CT") if ct is None else sitk.WriteImage(ct, str(path))
            return path

        self.runner.start(write, RunOptions(**options))

    def until(self, condition: Callable[[], bool], seconds: float = 60.0) -> None:
        """As Qt's timer would."""
        end = time.monotonic() + seconds
        while not condition():
            assert time.monotonic() < end, f"not within {seconds} s: {self.progress}, {self.failed}"
            self.runner.poll()
            time.sleep(0.02)

    def to_its_end(self) -> Run:
        self.until(lambda: not self.runner.running)
        return self

    def traces(self) -> list[str]:
        """Files of the run that are left."""
        return [str(path) for path in self.temporary.rglob("*")]

    def family(self) -> list[psutil.Process]:
        process = self.runner._process
        assert process is not None
        child = psutil.Process(process.pid)
        return [child, *child.children(recursive=True)]


def gone(processes: list[psutil.Process]) -> bool:
    return not [p for p in processes if p.is_running() and p.status() != psutil.STATUS_ZOMBIE]


# --- going well --------------------------------------------------------------------------------------------------
def test_progress_arrives_and_the_result_is_handed_over(tmp_path: Path) -> None:
    script = "say('read'); say('heartbeat', 0, 0, 'read'); say('anchor', 1, 2, 'half'); print('words')\n"
    run = Run(tmp_path, script + SUCCESS)
    run.start()
    assert run.runner.running and run.runner.elapsed_s >= 0
    run.to_its_end()
    assert run.progress == [Progress("read"), Progress("anchor", 1, 2, "half")]
    assert (run.finished, run.failed) == ([["segmentation.seg.nrrd"]], [])
    assert run.traces() == [] and run.runner.elapsed_s == 0


def test_the_child_is_asked_for_what_was_chosen(tmp_path: Path) -> None:
    run = Run(tmp_path, "say('/'.join(sys.argv[1:]))\n" + SUCCESS)
    run.start(bundle="starter", device="cpu", organs=("Eye_L", "Lens_L"))
    run.to_its_end()
    words = run.progress[0].stage.replace(str(run.temporary), "").split("/")
    assert words[0] == "segment" and "ct.nrrd" in words and "json" in words
    assert "/".join(words).endswith("--bundle/starter/--device/cpu/--organs/Eye_L,Lens_L")


def test_text_is_utf8_whatever_the_locale(tmp_path: Path) -> None:
    environment = {**os.environ, "LC_ALL": "C", "PYTHONCOERCECLOCALE": "0"}
    run = Run(tmp_path, "print('soars: error: Größe µ', file=sys.stderr); sys.exit(2)")
    run.runner._environment = {k: v for k, v in environment.items() if k != "PYTHONPATH"}
    run.start()
    assert run.to_its_end().failed[0].message == "Größe µ"


def test_a_run_after_a_run(tmp_path: Path) -> None:
    run = Run(tmp_path, SUCCESS)
    for _ in range(2):
        run.start()
        with pytest.raises(InputError, match="running already"):
            run.start()
        run.to_its_end()
    assert len(run.finished) == 2 and run.traces() == []


def test_a_callback_that_lets_the_timer_fire_hears_nothing_twice(tmp_path: Path) -> None:
    run = Run(tmp_path, "say('read')\n" + SUCCESS)
    run.on_progress = run.on_finished = lambda what: run.runner.poll()
    run.start()
    run.to_its_end()
    assert (len(run.progress), len(run.finished)) == (1, 1)


def test_a_very_talkative_child_does_not_stall(tmp_path: Path) -> None:
    script = "for i in range(20000): print('x' * 80, file=sys.stderr); say('anchor', i, 20000)\n" + SUCCESS
    run = Run(tmp_path, script.replace("; say", "\nfor i in range(20000): say"))
    run.start()
    run.to_its_end()
    assert len(run.progress) == 20000 and run.finished


# --- going wrong -------------------------------------------------------------------------------------------------
@pytest.mark.parametrize(
    ("script", "message"),
    [
        (
            "print('soars: error: the CT is upside down', file=sys.stderr); sys.exit(2)",
            "the CT is upside down",
        ),
        (
            "print('soars: internal error: KeyError: 3', file=sys.stderr); sys.exit(1)",
            "a fault of SOARS: KeyError: 3",
        ),
        ("sys.exit(7)", r"without any message \(exit code 7\)"),
        ("import nothing_like_this", "exit code 1.*nothing_like_this"),
        ("pass", "without a result"),
        pytest.param("os.kill(os.getpid(), signal.SIGKILL)", "from outside .SIGKILL.*memory", marks=posix),
        pytest.param("os.kill(os.getpid(), signal.SIGSEGV)", "from outside .SIGSEGV", marks=posix),
        ("sys.exit(137)", "from outside .SIGKILL"),
        ("sys.exit(130)", "interrupted from outside"),
    ],
)
def test_each_way_to_fail_is_one_sentence(tmp_path: Path, script: str, message: str) -> None:
    run = Run(tmp_path, script)
    run.start()
    (failure,) = run.to_its_end().failed
    assert re.search(message, failure.message) and "\n" not in failure.message
    assert run.finished == [] and run.traces() == []


def test_the_report_tells_all_but_where_the_files_lay(tmp_path: Path) -> None:
    script = (
        "say('anchor', 3, 12); print('soars: warning: odd', file=sys.stderr)\n"
        "print(f'soars: error: cannot write {out}', file=sys.stderr); sys.exit(2)"
    )
    run = Run(tmp_path, script)
    run.start(bundle="starter")
    (failure,) = run.to_its_end().failed
    for words in (
        "soars: warning: odd",
        "anchor (3 of 12)",
        "ended with: 2",
        "--bundle starter",
        "platform: ",
    ):
        assert words in failure.report
    assert str(tmp_path) not in failure.report
    assert failure.log_tail.startswith("soars: warning: odd")


@posix
def test_a_child_killed_from_outside_is_said(tmp_path: Path) -> None:
    run = Run(tmp_path, "say('anchor')\ntime.sleep(60)")
    run.start()
    run.until(lambda: bool(run.progress))
    family = run.family()
    os.kill(family[0].pid, signal.SIGKILL)
    (failure,) = run.to_its_end().failed
    assert "from outside" in failure.message
    assert gone(family) and run.traces() == []


@posix
def test_a_launcher_killed_from_outside_takes_its_child_with_it(tmp_path: Path) -> None:
    script = (
        "child = subprocess.Popen([sys.executable, '-c', 'import time; time.sleep(60)'])\n"
        "say('anchor')\nchild.wait()"
    )
    run = Run(tmp_path, script)
    run.start()
    run.until(lambda: bool(run.progress))
    family = run.family()
    assert len(family) == 2
    os.kill(family[0].pid, signal.SIGKILL)
    run.until(lambda: not run.runner.running, 3.0)
    assert len(run.failed) == 1
    run.until(lambda: gone(family), 2.0)


def test_a_child_that_hangs_is_ended(tmp_path: Path) -> None:
    run = Run(tmp_path, "say('anchor')\ntime.sleep(60)", silence_s=0.5)
    run.start()
    run.until(lambda: bool(run.progress))
    family = run.family()
    (failure,) = run.to_its_end().failed
    assert "hung" in failure.message and gone(family) and run.traces() == []


def test_heartbeats_keep_a_slow_child_alive(tmp_path: Path) -> None:
    run = Run(
        tmp_path, "for i in range(15):\n    say('heartbeat'); time.sleep(0.1)\n" + SUCCESS, silence_s=0.8
    )
    run.start()
    assert run.to_its_end().finished and run.progress == []


def test_a_machine_that_slept_is_no_child_that_hangs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("SOARSSegmentationLib.run.runner.ASLEEP_S", 0.8)
    run = Run(tmp_path, "say('anchor')\ntime.sleep(60)", silence_s=0.6)
    run.start()
    time.sleep(1.5)  # nobody polls
    run.runner.poll()
    assert run.failed == [] and run.runner.running
    assert "hung" in run.to_its_end().failed[0].message, "one that says nothing to somebody who listens does"


def test_a_result_that_cannot_be_shown_is_a_failure(tmp_path: Path) -> None:
    for error, words in ((InputError("the CT is gone"), "the CT is gone"), (KeyError("x"), "KeyError: 'x'")):
        run = Run(tmp_path / type(error).__name__, SUCCESS)

        def show(folder: Path, error: Exception = error) -> None:
            raise error

        run.on_finished = show
        run.start()
        (failure,) = run.to_its_end().failed
        assert words in failure.message and run.traces() == []
    assert "Traceback" in failure.report


def test_what_cannot_start_leaves_nothing(tmp_path: Path) -> None:
    run = Run(tmp_path, SUCCESS)

    def refuse(folder: Path) -> Path:
        (folder / "half").touch()
        raise InputError("no CT")

    with pytest.raises(InputError, match="no CT"):
        run.runner.start(refuse, RunOptions())
    for options, words in (
        ({"organs": ()}, "no organ"),
        ({"bundle": ""}, "no model bundle"),
        ({"bundle": str(tmp_path / "gone")}, "not there any more"),
    ):
        with pytest.raises(InputError, match=words):
            run.start(**options)
    run.runner._python = str(tmp_path / "PythonSlicer")
    with pytest.raises(InputError, match="could not be started"):
        run.start()
    assert run.traces() == [] and not run.runner.running
    run.runner.poll()
    run.runner.cancel()
    assert (run.finished, run.failed) == ([], [])


# --- cancelling --------------------------------------------------------------------------------------------------
@pytest.mark.parametrize(
    "stubborn", ["", "signal.signal(signal.SIGTERM, signal.SIG_IGN)\n"], ids=["obedient", "deaf"]
)
def test_cancel_ends_the_whole_tree_and_removes_every_file(tmp_path: Path, stubborn: str) -> None:
    sleep = "import signal, time; " + stubborn.strip() + "; time.sleep(60)"
    script = (
        f"{stubborn}subprocess.Popen([sys.executable, '-c', {sleep!r}])\n"
        "(out.parent / 'big').write_bytes(bytes(1000)); time.sleep(0.3); say('anchor'); time.sleep(60)"
    )
    run = Run(tmp_path, script)
    run.start()
    run.until(lambda: bool(run.progress))
    family = run.family()
    assert len(family) == 2
    start = time.monotonic()
    run.runner.cancel()
    assert not run.runner.running and run.traces() == []
    run.until(lambda: gone(family), 2.0)
    assert time.monotonic() - start < 2.0
    run.runner.poll()
    assert (run.finished, run.failed) == ([], [])


def test_cancel_from_a_callback(tmp_path: Path) -> None:
    run = Run(tmp_path, "say('anchor')\nsay('mid_level')\ntime.sleep(60)")
    run.on_progress = lambda progress: run.runner.cancel()
    run.start()
    run.to_its_end()
    assert len(run.progress) == 1 and (run.finished, run.failed, run.traces()) == ([], [], [])


# --- for real ----------------------------------------------------------------------------------------------------
@pytest.fixture(scope="module")
def bundle(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_tiny_bundle(tmp_path_factory.mktemp("bundles") / "tiny")


def test_a_ct_becomes_a_segmentation_in_the_scene(core: Any, tmp_path: Path, bundle: Path) -> None:
    scan = patient()
    ct = core.add_ct(Geometry.of(scan.image), sitk.GetArrayFromImage(scan.image))
    made: list[results.Result] = []
    run = Run(tmp_path)
    run.on_finished = lambda folder: made.append(results.add_result(core.scene, ct, folder))
    run.runner.start(lambda folder: ct_file(ct, folder), RunOptions(str(bundle), "cpu"))
    run.to_its_end()
    assert run.failed == []
    (result,) = made
    node = result.segmentation_node
    found = structures_of(node)
    assert set(found.names) == {*FOUND, ABSENT} and found.is_empty(ABSENT)
    for name, sphere in FOUND.items():
        # Its network takes the voxels that are nearly all sphere, so it misses up to half a voxel around.
        low, high = (4 / 3 * np.pi * (sphere.radius_mm - d) ** 3 / 1000 for d in (1.5, 0.0))
        assert low < found.volume_cc(name) < high
        assert found.centre_of_mass(name) == pytest.approx(sphere.centre_mm, abs=1.0)
        assert result.proposal.masks[name].equals(found.crop(name))
    known = proposal.proposal_of(node)
    assert known is not None and set(known.masks) == {*FOUND, ABSENT}
    segment = node.GetSegmentation().GetSegment("Brainstem")
    assert tag_of(segment, BUNDLE_TAG) == "tiny 1"
    assert tag_of(segment, BUNDLE_HASH_TAG) == result.record.bundle.sha256 != ""
    assert tag_of(node.GetSegmentation().GetSegment(ABSENT), WARNING_TAG)
    assert {p.stage for p in run.progress} >= {"read", "anchor", "contours", "write", "done"}
    assert run.traces() == []


@pytest.mark.parametrize("stage", ["start", "check", "read", "load", "anchor", "contours", "write"])
def test_cancelling_at_any_stage_leaves_nothing(tmp_path: Path, bundle: Path, stage: str) -> None:
    run = Run(tmp_path)
    run.start(patient().image, bundle=str(bundle), device="cpu")
    run.until(lambda: any(progress.stage == stage for progress in run.progress))
    family = run.family() if run.runner.running else []
    start = time.monotonic()
    run.runner.cancel()
    assert run.traces() == []
    run.until(lambda: gone(family), 2.0)
    assert time.monotonic() - start < 2.0
    assert run.failed == []


def test_a_bundle_that_vanishes_and_a_ct_that_is_none_are_said(tmp_path: Path, bundle: Path) -> None:
    for ct, chosen, words in (
        (patient().image, "no-such-bundle", "no-such-bundle"),
        (None, str(bundle), "ct.nrrd"),
    ):
        run = Run(tmp_path / words)
        run.start(ct, bundle=chosen, device="cpu")
        (failure,) = run.to_its_end().failed
        assert words in failure.message and run.traces() == []


def test_a_ct_deleted_during_the_run_leaves_the_scene_as_it_was(
    core: Any, tmp_path: Path, bundle: Path
) -> None:
    scan = patient()
    ct = core.add_ct(Geometry.of(scan.image), sitk.GetArrayFromImage(scan.image), study=False)
    run = Run(tmp_path)
    run.on_finished = lambda folder: results.add_result(core.scene, ct, folder)
    run.runner.start(lambda folder: ct_file(ct, folder), RunOptions(str(bundle), "cpu"))
    core.scene.RemoveNode(ct)
    before = core.scene.GetNumberOfNodes()
    (failure,) = run.to_its_end().failed
    assert "removed from the scene" in failure.message
    assert core.scene.GetNumberOfNodes() == before


# --- small things ------------------------------------------------------------------------------------------------
def test_lines_that_are_no_progress_are_not_taken_for_it() -> None:
    for line in (
        "",
        "soars: error: no such file",
        "12",
        "[1]",
        '{"done": 1}',
        "null",
        '{"stage": 1, "done": "x"}',
    ):
        assert parse_progress(line) is None
    line = '{"stage": "anchor", "done": 3, "of": 12, "message": ""}'
    assert parse_progress(line) == Progress("anchor", 3, 12)


def test_old_leftovers_are_removed_and_new_ones_kept(tmp_path: Path) -> None:
    for name, age_s in (
        (f"{runner.FOLDER_PREFIX}old", 3 * 86400),
        (f"{runner.FOLDER_PREFIX}new", 60),
        ("other", 9e6),
    ):
        (tmp_path / name).mkdir()
        (tmp_path / name / "ct.nrrd").touch()
        os.utime(tmp_path / name, (time.time() - age_s,) * 2)
    runner.remove_leftovers(tmp_path)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["other", f"{runner.FOLDER_PREFIX}new"]


def test_pythonslicer_is_looked_for(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(InputError, match="PythonSlicer"):
        find_python()
    program = tmp_path / ("PythonSlicer.exe" if os.name == "nt" else "PythonSlicer")
    program.touch(mode=0o755)
    assert find_python() == str(program)
