"""A log that is changed, cut, deleted or written by two: noticed, and nothing that was recorded is lost."""

from __future__ import annotations

import hashlib
import json
import os
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
from effort_logs import HEADER, HandClock, S, recorder_at

from soars.effort.identity import contours_sha256, image_sha256
from soars.effort.lock import LOCK_FILE, FolderLock, is_locked
from soars.effort.log import new_log_path, read_log, read_session, session_folder
from soars.effort.recorder import Recorder
from soars.effort.writer import LogWriter
from soars.errors import InputError
from soars.structures import tight_mask


def short_log(folder: Path, **header: object) -> Path:
    """start, five undos a second apart, end."""
    path, clock = new_log_path(folder), HandClock()
    recorder = recorder_at(path, clock, **header)
    for _ in range(5):
        clock.step(1.0)
        recorder.undo()
    recorder.end()
    return path


# --- the chain --------------------------------------------------------------------------------------------------------


def test_every_line_names_the_hash_of_all_before_it(tmp_path: Path) -> None:
    before = ""
    for line in short_log(tmp_path).read_text().splitlines():
        record = json.loads(line)
        chain = record.pop("chain")
        body = json.dumps(record, separators=(",", ":"))
        assert chain == hashlib.sha256((before + body).encode()).hexdigest()[:16]
        before = chain


@pytest.mark.parametrize("line", range(1, 8))
def test_a_line_taken_out_is_noticed(tmp_path: Path, line: int) -> None:
    path = short_log(tmp_path)
    lines = path.read_bytes().splitlines(keepends=True)
    path.write_bytes(b"".join(lines[:line] + lines[line + 1 :]))
    if line == len(lines) - 1:
        assert not read_log(path).complete  # cut at its end a log is an interrupted one
        return
    with pytest.raises(InputError, match="chain does not follow|not the start"):
        read_log(path)


def test_a_time_changed_by_hand_is_noticed(tmp_path: Path) -> None:
    path = short_log(tmp_path)
    changed = path.read_bytes().replace(b'"t":3000000000', b'"t":2500000000')
    path.write_bytes(changed)
    with pytest.raises(InputError, match="line 5: its chain does not follow"):
        read_log(path)


def test_an_arm_changed_by_hand_is_noticed(tmp_path: Path) -> None:
    path = short_log(tmp_path)
    path.write_bytes(path.read_bytes().replace(b'"arm":"revise"', b'"arm":"other1"'))
    with pytest.raises(InputError, match="line 1: its chain"):
        read_log(path)


def test_schema_1_has_no_chain_and_is_read(tmp_path: Path) -> None:
    path = short_log(tmp_path, schema=1)
    assert b"chain" not in path.read_bytes()
    log = read_log(path)
    assert log.complete and log.header.schema == 1 and log.last_chain == ""


def test_an_earlier_log_cut_after_the_session_went_on_is_noticed(tmp_path: Path) -> None:
    first = new_log_path(tmp_path)
    recorder = recorder_at(first, HandClock())
    recorder.undo()
    recorder.redo()
    recorder.writer.close()  # interrupted
    second = short_log(tmp_path, continues=first.name)
    assert read_session([first, second]).complete
    assert read_log(second).header.continues_chain == read_log(first).last_chain
    lines = first.read_bytes().splitlines(keepends=True)
    first.write_bytes(b"".join(lines[:-1]))
    with pytest.raises(InputError, match="shortened or changed"):
        read_session([first, second])


# --- the file of a running session ------------------------------------------------------------------------------------


def delete(path: Path) -> None:
    path.unlink()


def truncate(path: Path) -> None:
    os.truncate(path, 40)


def append(path: Path) -> None:
    with path.open("ab") as file:
        file.write(b"hello\n")


def replace(path: Path) -> None:
    data = path.read_bytes()
    path.unlink()
    path.write_bytes(data)


@pytest.mark.skipif(sys.platform == "win32", reason="Windows does not let others touch an open file")
@pytest.mark.parametrize("harm", [delete, truncate, append, replace])
def test_a_log_harmed_while_it_is_open_is_written_again_whole(tmp_path: Path, harm: object) -> None:
    path, clock = new_log_path(tmp_path), HandClock()
    recorder = recorder_at(path, clock)
    recorder.undo()
    assert callable(harm)
    harm(path)
    deadline = time.monotonic() + 10
    recorder.redo()
    while not recorder.writer.restored and time.monotonic() < deadline:
        time.sleep(0.02)
    clock.step(1.0)
    recorder.tick()
    recorder.end()
    kinds = [event.kind for event in read_log(path).events]
    assert kinds == ["start", "undo", "redo", "restored", "alive", "end"] or kinds == [
        "start", "undo", "redo", "restored", "end",
    ]  # fmt: skip
    assert [p.name for p in tmp_path.iterdir()] == [path.name]


@pytest.mark.skipif(os.name == "nt", reason="a folder in use cannot be removed there")
def test_a_session_folder_removed_under_a_running_session_comes_back(tmp_path: Path) -> None:
    folder = session_folder(tmp_path, HEADER)
    path = new_log_path(folder)
    recorder = recorder_at(path, HandClock())
    for name in list(folder.iterdir()):
        name.unlink()
    folder.rmdir()
    recorder.writer.sync()
    recorder.end()
    assert read_log(path).complete


# --- two at once ------------------------------------------------------------------------------------------------------


def test_a_second_session_in_the_same_folder_is_refused_while_the_first_runs(tmp_path: Path) -> None:
    first = Recorder(LogWriter.create(new_log_path(tmp_path), HEADER))
    assert is_locked(tmp_path)
    with pytest.raises(InputError, match="another window is running a session"):
        LogWriter.create(new_log_path(tmp_path), HEADER)
    first.end()
    assert not is_locked(tmp_path)
    Recorder(LogWriter.create(new_log_path(tmp_path), HEADER)).end()
    assert sorted(p.name for p in tmp_path.iterdir()) == ["1.effort.jsonl", "2.effort.jsonl"]


def test_a_lock_file_that_a_dead_session_left_is_no_lock(tmp_path: Path) -> None:
    (tmp_path / LOCK_FILE).touch()
    assert not is_locked(tmp_path)
    lock = FolderLock.take(tmp_path)
    assert is_locked(tmp_path)
    lock.release()
    lock.release()
    assert not (tmp_path / LOCK_FILE).exists()


def test_a_session_that_cannot_begin_leaves_no_lock(tmp_path: Path) -> None:
    path = short_log(tmp_path)
    with pytest.raises(InputError, match="already an effort log"):
        LogWriter.create(path, HEADER)
    assert not is_locked(tmp_path)


TWO = """
import sys
from pathlib import Path
from effort_logs import HEADER
from soars.effort.log import new_log_path, session_folder
from soars.effort.recorder import Recorder
from soars.effort.writer import LogWriter
sys.stdin.readline()  # both begin at once
for number in range(10):
    folder = session_folder(Path(sys.argv[1]), HEADER)
    with Recorder(LogWriter.create(new_log_path(folder), HEADER)) as recorder:
        for step in range(50):
            recorder.effect(f"{sys.argv[2]} {number} {step}")
"""


def test_two_programs_that_begin_the_same_session_at_once_lose_nothing(tmp_path: Path, root: Path) -> None:
    path = os.pathsep.join([str(root / "SOARSSegmentation"), str(root / "Testing" / "helpers")])
    environment = {**os.environ, "PYTHONPATH": path}
    children = [
        subprocess.Popen(
            [sys.executable, "-c", TWO, str(tmp_path), name],
            stdin=subprocess.PIPE,
            text=True,
            env=environment,
        )
        for name in ("first", "second")
    ]
    for child in children:
        assert child.stdin is not None
        child.stdin.write("go\n")
        child.stdin.flush()
    for child in children:
        child.communicate(timeout=60)
    assert [child.returncode for child in children] == [0, 0]
    logs = [read_log(path) for path in tmp_path.glob("*/*/*.effort.jsonl")]
    said = sorted(event.name or "" for log in logs for event in log.events if event.kind == "effect")
    assert len(logs) == 20 and all(log.complete for log in logs)
    assert said == sorted(
        f"{who} {n} {s}" for who in ("first", "second") for n in range(10) for s in range(50)
    )


# --- what a session began from ----------------------------------------------------------------------------------------


def test_contours_are_named_by_their_voxels() -> None:
    array = np.zeros((4, 5, 6), bool)
    array[1:3, 2:4, 1:5] = True
    eye = tight_mask(array)
    known = contours_sha256({"Eye_L": eye}, ["Eye_L", "Lens_L"])
    # Worked out by hand from the format: a box of 2 x 2 x 4 voxels that are all set is two bytes of ones.
    text = b"Eye_L:1,2,1,2,2,4\n" + b"\xff\xff" + b"Lens_L:empty\n"
    assert known == hashlib.sha256(text).hexdigest()
    assert contours_sha256({"Eye_L": tight_mask(array.copy())}, ["Lens_L", "Eye_L"]) == known
    array[1, 2, 1] = False
    assert contours_sha256({"Eye_L": tight_mask(array)}, ["Eye_L", "Lens_L"]) != known
    moved = tight_mask(eye.array, (0, 2, 1))
    assert contours_sha256({"Eye_L": moved}, ["Eye_L", "Lens_L"]) != known
    assert contours_sha256({"Eye_R": eye}, ["Eye_R"]) != contours_sha256({"Eye_L": eye}, ["Eye_L"])


def test_an_image_is_named_by_its_voxels_whatever_type_they_have() -> None:
    image = np.arange(-1000, -1000 + 24, dtype=np.int16).reshape(2, 3, 4)
    known = image_sha256(image)
    assert known == hashlib.sha256(b"2,3,4\n" + image.astype("<f4").tobytes()).hexdigest()
    assert image_sha256(image.astype(np.float64)) == known
    assert image_sha256(image.reshape(2, 4, 3)) != known
    assert image_sha256(image + 1) != known


def test_a_judgement_is_in_the_review(tmp_path: Path) -> None:
    from soars.effort.review import review

    path, clock = new_log_path(tmp_path), HandClock()
    recorder = recorder_at(path, clock)
    recorder.judge("Eye_L", 2, comment="too large")
    clock.step(1.0)
    recorder.judge("Eye_L", 4)
    recorder.judge("Lens_L", reason="artefact")
    recorder.end()
    found = review(read_log(path))
    assert (found["Eye_L"].score, found["Eye_L"].comment) == (4, None)
    assert (found["Lens_L"].score, found["Lens_L"].reason) == (None, "artefact")
    assert found["Brainstem"].score is None
    assert read_log(path).wall_ns == S


def test_a_pasted_comment_leaves_the_log_readable(tmp_path: Path) -> None:
    """A line of text that readers paste may hold line ends and tabs, and a log none."""
    path = new_log_path(tmp_path)
    recorder = recorder_at(path, HandClock())
    recorder.judge("Eye_L", 4, comment=" cut off\r\n\tbelow\x07 the lens \u00fc ")
    recorder.judge("Lens_L", reason="x" * 1001)
    for nothing in ({"comment": "\t\n"}, {"score": 6}, {"score": 3, "reason": "artefact"}):
        with pytest.raises(InputError):
            recorder.judge("Brainstem", **nothing)  # type: ignore[arg-type]
    recorder.end()
    events = [event for event in read_log(path).events if event.kind == "judge"]
    assert [event.comment for event in events] == ["cut off below the lens \u00fc", None]
    assert events[1].reason == "x" * 1000
