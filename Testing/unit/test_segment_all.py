"""`soars segment-all`: many CTs, one result folder each, whatever happens to some of them."""

from __future__ import annotations

import csv
import json
import multiprocessing
import os
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import numpy as np
import pytest
import SimpleITK as sitk
from tiny_bundle import patient, write_tiny_bundle

from soars.bundle.store import load_bundle
from soars.cascade import engine
from soars.cli import main
from soars.ct.images import read_ct
from soars.dicom.write import write_ct_series
from soars.errors import BundleError, EngineError, InputError
from soars.formats.reading import read_structures
from soars.parallel import one_ahead
from soars.progress import duration, ignore
from soars.service import workers
from soars.service.batch import FAILED, SEGMENTED, Outcome
from soars.service.cases import BatchCase, find_cases
from soars.service.segmenter import BatchOptions
from soars.service.spread import Answer, Lost, Settler, spread
from soars.service.where import parse_condition
from soars.structures import Mask

FILES = {
    *("batch.json", "picture.svg", "report.html", "rtstruct.dcm", "run.json", "segmentation.seg.nrrd"),
}


@pytest.fixture(scope="module")
def bundle(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_tiny_bundle(tmp_path_factory.mktemp("bundle") / "tiny")


@pytest.fixture(scope="module")
def tree(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two good patients, one whose CT misses a slice, and one without a CT."""
    root = tmp_path_factory.mktemp("tree")
    image = patient().image
    for number, name in enumerate(("anna", "berta", "damaged")):
        write_ct_series(
            image, root / name / "ct", patient_id=name, patient_name=name, series_description=f"Neck {name}",
            seed=number,
        )  # fmt: skip
    slices = sorted((root / "damaged" / "ct").iterdir())
    slices[len(slices) // 2].unlink()
    (root / "empty").mkdir()
    return root


def batch(source: Path, output: Path, bundle: Path, *more: str) -> int:
    return main(
        ["segment-all", str(source), str(output), "--bundle", str(bundle), "--progress", "none", *more]
    )


def table(path: Path) -> list[dict[str, str]]:
    with path.open(encoding="utf-8", newline="") as file:
        return list(csv.DictReader(file))


def test_a_tree_of_patients_one_folder_each_and_bad_cases_left_out(
    tree: Path,
    bundle: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    opened: list[str] = []
    whole = engine.open_engine

    def counting(bundle, branch, *rest):
        opened.append(branch)
        return whole(bundle, branch, *rest)

    monkeypatch.setattr(engine, "open_engine", counting)
    out = tmp_path / "out"
    assert batch(tree, out, bundle) == 2
    assert opened == ["anchor"], "the network is loaded once for both patients"
    said = capsys.readouterr()
    assert "2 of 4 cases failed" in said.err and "damaged was left out" in said.err
    assert "2 segmented, 0 up to date, 2 failed" in said.out
    assert {path.name for path in out.iterdir()} == {"anna", "berta", "cases.csv", "organs.csv", "index.html"}
    assert {path.name for path in (out / "anna").iterdir()} == FILES

    states = {row["case"]: row["state"] for row in table(out / "cases.csv")}
    assert states == dict(anna="segmented", berta="segmented", damaged="failed", empty="failed")
    volumes = {(row["case"], row["organ"]): row["volume_cc"] for row in table(out / "organs.csv")}
    sphere_cc = 4 / 3 * np.pi * 1.8**3
    assert float(volumes["anna", "Brainstem"]) == pytest.approx(sphere_cc, rel=0.1)
    assert volumes["anna", "Eye_L"] == ""
    page = (out / "index.html").read_text(encoding="utf-8")
    assert page.count("data:image/svg+xml;base64,") == 2 and 'href="anna/report.html"' in page
    assert "http://" not in page and "https://" not in page

    # The same contours as the command for a single CT gives.
    single = tmp_path / "single"
    ct = str(tree / "anna" / "ct")
    assert main(["segment", ct, "--output", str(single), "--bundle", str(bundle), "--progress", "none"]) == 0
    ours, theirs = (read_structures(folder / "segmentation.seg.nrrd") for folder in (out / "anna", single))
    assert ours.names == theirs.names

    def whole_mask(mask: Mask) -> tuple[object, ...]:
        return (*mask.start, mask.array.tobytes())

    assert all(whole_mask(ours.crop(name)) == whole_mask(theirs.crop(name)) for name in ours)

    # Again: what is done stays, byte by byte, and what a case was made from decides whether it is done.
    before = (out / "anna" / "run.json").stat().st_mtime_ns
    assert batch(tree, out, bundle, "--where", "case!=damaged", "--where", "case!=empty") == 2
    assert "2 up to date" in capsys.readouterr().out
    assert (out / "anna" / "run.json").stat().st_mtime_ns == before
    assert batch(tree, out, bundle, "--where", "case=anna", "--organs", "Brainstem") == 2
    assert "add --overwrite" in capsys.readouterr().err
    assert (
        batch(tree, out, bundle, "--where", "SeriesDescription=*ANNA", "--organs", "Brainstem", "--overwrite")
        == 2
    )
    assert read_structures(out / "anna" / "segmentation.seg.nrrd").names == ("Brainstem",)


def test_killed_and_started_again_every_case_is_there_once(bundle: Path, tmp_path: Path) -> None:
    root, out = tmp_path / "in", tmp_path / "out"
    root.mkdir()
    for name in "abc":
        sitk.WriteImage(patient().image, str(root / f"{name}.nrrd"))
    command = [sys.executable, "-m", "soars.cli", "segment-all", str(root), str(out), "--bundle", str(bundle)]
    process = subprocess.Popen(
        command, start_new_session=True, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
    )
    try:
        until = time.monotonic() + 300
        while not (out / "a").exists() and process.poll() is None and time.monotonic() < until:
            time.sleep(0.02)
    finally:
        if process.poll() is None:
            os.killpg(process.pid, signal.SIGKILL)
        process.wait()
    first = (out / "a" / "run.json").read_bytes()
    assert not (out / "cases.csv").exists(), "it was killed before its end"
    assert batch(root, out, bundle) == 0
    assert (out / "a" / "run.json").read_bytes() == first
    # What the killed process was writing is hidden, and swept away once the system has buried it.
    there = sorted(path.name for path in out.iterdir() if not path.name.startswith("."))
    assert there == ["a", "b", "c", "cases.csv", "index.html", "organs.csv"]
    states = [row["state"] for row in table(out / "cases.csv")]
    assert states[0] == "up to date" and states[2] == "segmented"


def _kill_one_that_segments(out: Path, stop: threading.Event) -> None:
    """Kill one of this process's workers as soon as they write."""
    while not stop.wait(0.005):
        workers = [child for child in multiprocessing.active_children() if child.name == "soars-case"]
        if len(workers) == 2 and out.is_dir() and any(out.iterdir()):
            os.kill(workers[0].pid or 0, signal.SIGKILL)
            return


@pytest.mark.slow  # three fresh interpreters, each of which imports everything
def test_several_at_once_give_the_same_and_bear_that_one_is_killed(
    bundle: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    root, out = tmp_path / "in", tmp_path / "out"
    root.mkdir()
    for name in "abcd":
        sitk.WriteImage(patient().image, str(root / f"{name}.nrrd"))
    (root / "e.nrrd").write_bytes(b"NRRD0004\n")
    stop = threading.Event()
    killer = threading.Thread(target=_kill_one_that_segments, args=(out, stop))
    killer.start()
    try:
        assert batch(root, out, bundle, "--at-once", "2") == 2
    finally:
        stop.set()
        killer.join()
    said = capsys.readouterr()
    assert "a worker was lost at" in said.err and "e was left out" in said.err
    assert "4 segmented, 0 up to date, 1 failed" in said.out
    assert not list(out.rglob(".soars-*")), "what the killed worker was writing is swept"
    assert not multiprocessing.active_children(), "no process is left"
    volumes = {(row["case"], row["organ"]): row["volume_cc"] for row in table(out / "organs.csv")}
    assert batch(root, tmp_path / "one", bundle, "--where", "case=b") == 0
    alone = {(row["case"], row["organ"]): row["volume_cc"] for row in table(tmp_path / "one" / "organs.csv")}
    assert alone.items() <= volumes.items() and {case for case, _ in volumes} == set("abcd")
    capsys.readouterr()
    assert batch(root, out, bundle, "--at-once", "1") == 2
    assert "0 segmented, 4 up to date, 1 failed" in capsys.readouterr().out


class Strike:
    """A crew in this process whose workers die at some cases; ``said`` is what they answer."""

    at_once, cannot_work = 2, "nobody can work"

    def __init__(self, deadly: dict[str, int]) -> None:
        self._deadly, self._given = deadly, list[tuple[int, str]]()
        self.hired = 0

    def hire(self) -> int:
        self.hired += 1
        return self.hired

    def give(self, worker: int, case: BatchCase, output: Path) -> None:
        self._given.append((worker, case.name))

    def wait(self) -> list[tuple[int, Answer | Lost]]:
        worker, name = self._given.pop()
        if self._deadly.get(name, 0) > 0:
            self._deadly[name] -= 1
            return [(worker, Lost("exit code -9"))]
        return [(worker, Answer(Outcome(name, SEGMENTED), 1.0))]


def test_a_case_is_tried_twice_and_workers_that_never_answer_are_not_its_fault(tmp_path: Path) -> None:
    cases = [BatchCase(name, tmp_path) for name in "abc"] + [BatchCase("d", tmp_path, problem="no CT")]
    crew = Strike({"a": 1, "b": 2})
    outcomes = spread(cases, tmp_path, crew, ignore, lambda known: None)
    assert [(o.case, o.state, o.fault) for o in outcomes] == [
        ("a", SEGMENTED, False), ("b", FAILED, True), ("c", SEGMENTED, False), ("d", FAILED, False),
    ]  # fmt: skip
    assert crew.hired <= 2 + 3, "each that died is replaced once"
    with pytest.raises(EngineError, match="nobody can work"):
        spread([BatchCase(str(n), tmp_path) for n in range(20)], tmp_path, Strike({str(n): 2 for n in range(20)}),
               ignore, lambda known: None)  # fmt: skip


def test_as_many_at_once_as_memory_and_cases_allow(bundle: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(workers, "available_processors", lambda: 16)
    for free_gb, cases, expected in (
        (100, 60, 4),
        (100, 3, 1),
        (100, 4, 2),
        (9, 60, 2),
        (1, 60, 1),
        (None, 60, 4),
    ):
        free = None if free_gb is None else free_gb << 30
        monkeypatch.setattr(workers, "free_memory", lambda free=free: free)
        assert workers.how_many_at_once(BatchOptions(str(bundle)), cases) == expected
    with pytest.raises(EngineError):
        workers.how_many_at_once(BatchOptions(str(bundle), device="cuda:7"), 60)


def test_a_changed_ct_is_not_up_to_date(bundle: Path, tmp_path: Path) -> None:
    root, out = tmp_path / "in", tmp_path / "out"
    root.mkdir()
    image = patient().image
    sitk.WriteImage(image, str(root / "a.nrrd"))
    assert batch(root, out, bundle) == 0
    key = json.loads((out / "a" / "batch.json").read_text())["key"]
    image[0, 0, 0] = -999
    sitk.WriteImage(image, str(root / "a.nrrd"))
    assert batch(root, out, bundle) == 2, "the results of another CT are not replaced without being asked"
    assert batch(root, out, bundle, "--overwrite") == 0
    assert json.loads((out / "a" / "batch.json").read_text())["key"] != key


def test_a_list_names_cases_and_chooses_by_its_columns(tree: Path, tmp_path: Path) -> None:
    path = tmp_path / "list.csv"
    ct = tree / "anna" / "ct"
    uid = read_ct(ct).series.series_uid  # type: ignore[union-attr]
    path.write_text(f"case,ct,series,arm\none,{ct},{uid},A\ntwo,{tree / 'berta' / 'ct'},,B\n")
    found = find_cases(path, [parse_condition("arm=a")])
    assert [(case.name, case.ct, case.series) for case in found.cases] == [("one", ct, uid)]
    assert found.left_out == 1
    thick = find_cases(path, [parse_condition("SliceThickness>=3"), parse_condition("case=t*")])
    assert [case.name for case in thick.cases] == ["two"]


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("name,ct\na,b\n", "no column case"),
        ("case,ct\na,b\nA,c\n", "two cases have the name"),
        ("case,ct\n../a,b\n", "cannot give a folder its name"),
        ("case,ct\na,\n", "row 2"),
        ("case,ct\n", "holds no case"),
    ],
)
def test_a_wrong_list_is_refused(text: str, reason: str, tmp_path: Path) -> None:
    path = tmp_path / "list.csv"
    path.write_text(text)
    with pytest.raises(InputError, match=reason):
        find_cases(path)


@pytest.mark.parametrize(
    ("condition", "value", "holds"),
    [
        ("A=neck*", "Neck CT", True),
        ("A!=neck*", "Neck CT", False),
        ("A<=3", "3.0", True),
        ("A<3", "3.0", False),
        ("A>0", "", False),
        ("A=", "", True),
        ("A=HN [Plan]*", "hn [plan] 2 mm", True),
        ("A=HN [Plan]", "HN P", False),
    ],
)
def test_conditions(condition: str, value: str, holds: bool) -> None:
    assert parse_condition(condition).holds(value) is holds


def test_a_misspelt_condition_is_refused_and_leaves_nothing_out_silently(tree: Path) -> None:
    with pytest.raises(InputError, match="DICOM keyword"):
        find_cases(tree, [parse_condition("SeriesDescripton=x")])
    with pytest.raises(InputError, match="not a number"):
        parse_condition("SliceThickness<thin")
    with pytest.raises(InputError, match="KEY=VALUE"):
        parse_condition("neck")
    with pytest.raises(InputError, match="leaves out all"):
        find_cases(tree / "anna", [parse_condition("case=nobody")])


def _root(number: float) -> tuple[int, float]:
    if number < 0:
        os._exit(9)
    return os.getpid(), number**0.5


def test_one_ahead_keeps_the_order_and_survives_a_worker_that_dies() -> None:
    seen = [
        (item, None if done.exception() else done.result()) for item, done in one_ahead(_root, [4, -1, 9])
    ]
    assert [item for item, _ in seen] == [4, -1, 9]
    assert seen[0][1] is not None and seen[0][1][1] == 2 and seen[0][1][0] != os.getpid()
    assert seen[1][1] is None
    assert seen[2][1] is not None and seen[2][1][1] == 3


def test_durations_are_for_people() -> None:
    assert [duration(s) for s in (41.2, 720, 11100)] == ["41 s", "12 min", "3 h 05 min"]


def test_a_worker_that_has_another_bundle_segments_nothing(bundle: Path, tmp_path: Path) -> None:
    """One of a cluster's machines has another version, or it was replaced before a worker was started anew."""
    sitk.WriteImage(patient().image, str(tmp_path / "ct.nrrd"))
    case, out = BatchCase("case", tmp_path / "ct.nrrd"), str(tmp_path / "out")
    options = BatchOptions(str(bundle))
    answer = Settler(options, 1, "0" * 64).settle(case, out)
    assert isinstance(answer.error, BundleError) and "another bundle tiny (1)" in str(answer.error)
    assert answer.outcome.state == FAILED and not Path(out).exists()
    answer = Settler(options, 1, load_bundle(bundle).sha256).settle(case, out)
    assert answer.error is None and answer.outcome == Outcome("case", SEGMENTED)
