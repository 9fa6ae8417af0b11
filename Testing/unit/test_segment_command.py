"""`soars segment` from its arguments to its files, with a cascade that finds balls where it is told to."""

from __future__ import annotations

import errno
import json
import os
import re
import signal
import subprocess
import sys
import textwrap
import time
from pathlib import Path

import balls
import numpy as np
import pydicom
import pytest
import SimpleITK as sitk

from soars.bundle.store import load_bundle
from soars.cli import main
from soars.ct.images import read_ct
from soars.dicom.write import write_ct_series
from soars.errors import BundleError, EngineError, InputError
from soars.files import staged_folder
from soars.formats.reading import read_structures
from soars.report.record import RESEARCH_NOTICE, read_run
from soars.run import case
from soars.structures import Geometry

FILES = ["report.html", "rtstruct.dcm", "run.json", "segmentation.seg.nrrd"]


@pytest.fixture(autouse=True)
def cascade(monkeypatch):
    monkeypatch.setattr("soars.bundle.store.load_bundle", lambda name: balls.a_bundle())
    monkeypatch.setattr(case, "segment", balls.fake_segment)


@pytest.fixture(scope="session")
def ct_image() -> sitk.Image:
    values = np.full((16, 40, 44), -1000, np.int16)
    values[1:15, 4:36, 4:40] = 40
    values[1:15, 18:22, 20:24] = 700  # bone, without which a CT is odd
    image = sitk.GetImageFromArray(values)
    image.SetSpacing((2.0, 2.0, 4.0))
    image.SetOrigin((-44.0, -40.0, 100.0))
    return image


@pytest.fixture
def nrrd(ct_image, tmp_path) -> Path:
    path = tmp_path / "mueller_anna" / "ct.nrrd"
    path.parent.mkdir()
    sitk.WriteImage(ct_image, str(path))
    return path


@pytest.fixture(scope="session")
def dicom(ct_image, tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("dicom") / "ct"
    write_ct_series(
        ct_image, folder, patient_id="P1", patient_name="Mueller^Anna", series_description="<b>Neck</b>"
    )
    return folder


def run(*words: object) -> int:
    return main(["segment", *map(str, words)])


def listing(folder: Path) -> list[str]:
    return sorted(str(path.relative_to(folder)) for path in folder.rglob("*"))


# What comes out


def test_dicom_gives_contours_rtstruct_report_and_record(dicom, tmp_path, capsys):
    out = tmp_path / "deep" / "out"
    assert run(dicom, "--output", out) == 0
    assert listing(out) == FILES
    structures = read_structures(out / "segmentation.seg.nrrd")
    assert structures.names == tuple(balls.FOUND)
    assert structures.geometry.same_as(Geometry.of(read_ct(dicom).image))
    rtstruct = pydicom.dcmread(out / "rtstruct.dcm")
    frame = rtstruct.ReferencedFrameOfReferenceSequence[0]
    series = frame.RTReferencedStudySequence[0].RTReferencedSeriesSequence[0]
    assert series.SeriesInstanceUID == pydicom.dcmread(next(dicom.iterdir())).SeriesInstanceUID
    assert [roi.ROIName for roi in rtstruct.StructureSetROISequence] == list(balls.FOUND)
    printed = capsys.readouterr().out
    for name in FILES:
        assert str(out / name) in printed
    assert RESEARCH_NOTICE in printed
    volume = structures.volume_cc("Parotid_L")
    assert re.search(rf"Parotid_L +{volume:.2f} +present +its volume of 2.1 cc is unusual", printed)
    assert re.search(r"SpinalCord +- +absent +outside the scan", printed)
    assert "38 organs not covered by the bundle balls" in printed


def test_other_files_give_no_rtstruct(nrrd, tmp_path):
    out = tmp_path / "out"
    assert run(nrrd, "--output", out) == 0
    assert listing(out) == [name for name in FILES if name != "rtstruct.dcm"]
    assert read_run(out / "run.json").outputs == ("segmentation.seg.nrrd", "report.html", "run.json")


def test_run_record_tells_the_run(dicom, tmp_path):
    out = tmp_path / "out"
    assert (
        run(dicom, "--output", out, "--organs", "brain stem,LeftParotid,spinal cord", "--device", "cpu") == 0
    )
    data = json.loads((out / "run.json").read_text(encoding="utf-8"))
    assert data["schema_version"] == 2 and data["notice"] == RESEARCH_NOTICE
    assert data["bundle"]["name"] == "balls" and data["bundle"]["sha256"] == "cd" * 32
    assert data["bundle"]["notes"] == {"Trained on": "Ten balls.", "What it cannot do": "- patients"}
    assert data["ct"]["size"] == [44, 40, 16] and data["ct"]["spacing_mm"] == [2, 2, 4]
    assert data["ct"]["orientation"] == "LPS" and data["ct"]["source"] == "ct"
    assert data["ct"]["series_uid"] == read_ct(dicom).series.series_uid
    assert data["options"]["organs"] == ["Brainstem", "SpinalCord", "Parotid_L"]
    assert data["engine"]["name"] == "onnxruntime 1"
    assert list(data["timings_s"]) == ["read", "prepare", "anchor", "write", "report"]
    assert "numpy" in data["libraries"] and re.fullmatch(
        r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\dZ", data["finished_utc"]
    )
    organs = {organ["name"]: organ for organ in data["organs"]}
    assert len(organs) == 42
    states = {name: organ["state"] for name, organ in organs.items()}
    assert states["Brainstem"] == "present" and states["SpinalCord"] == "absent"
    assert states["Parotid_R"] == "not_requested" and states["Lens_L"] == "not_covered"
    structures = read_structures(out / "segmentation.seg.nrrd")
    assert organs["Brainstem"]["voxels"] == structures.voxels("Brainstem") > 0
    assert organs["Brainstem"]["volume_cc"] == pytest.approx(structures.volume_cc("Brainstem"))
    assert organs["SpinalCord"]["reason"] == "outside the scan" and organs["SpinalCord"]["volume_cc"] == 0
    finding = {
        "organ": "Parotid_L", "kind": "volume", "severity": "check", "text": "its volume of 2.1 cc is unusual",
        "advice": "Look at it.", "where": {"slice_number": 3, "side": "left", "point_mm": [1, 2, 3]},
    }  # fmt: skip
    assert data["findings"] == organs["Parotid_L"]["findings"] == [finding]
    assert data["warnings"] == ["Left parotid gland: its volume of 2.1 cc is unusual (slice 3, left)"]
    assert data["look_order"] == ["Brainstem", "SpinalCord", "Parotid_L"]
    assert organs["Parotid_L"]["warnings"] == ["its volume of 2.1 cc is unusual (slice 3, left)"]


@pytest.mark.parametrize("kind", ["nrrd", "dicom"])
def test_results_name_neither_patient_nor_folders(kind, request, tmp_path):
    out = tmp_path / "out"
    assert run(request.getfixturevalue(kind), "--output", out) == 0
    for name in ("run.json", "report.html"):
        text = (out / name).read_text(encoding="utf-8").lower()
        assert str(tmp_path).lower() not in text and "mueller" not in text
    assert "<b>neck" not in (out / "report.html").read_text(encoding="utf-8").lower()


@pytest.mark.parametrize("code", ["RAI", "SPL"])
def test_any_orientation_gives_contours_on_the_ct_as_it_is(code, ct_image, tmp_path):
    turned = sitk.DICOMOrient(ct_image, code)
    sitk.WriteImage(turned, str(tmp_path / "ct.nrrd"))
    assert run(tmp_path / "ct.nrrd", "--output", tmp_path / "out") == 0
    structures = read_structures(tmp_path / "out" / "segmentation.seg.nrrd")
    assert structures.geometry.same_as(Geometry.of(turned))
    assert structures.centre_of_mass("Parotid_L")[0] > structures.centre_of_mass("Parotid_R")[0]
    assert read_run(tmp_path / "out" / "run.json").ct.orientation == code


def test_nothing_found_is_a_result(nrrd, dicom, tmp_path, capsys):
    for ct, out in ((nrrd, tmp_path / "a"), (dicom, tmp_path / "b")):
        assert run(ct, "--output", out, "--organs", "SpinalCord") == 0
        assert "No organ was contoured" in (out / "report.html").read_text(encoding="utf-8")
    assert "38 organs not covered" in capsys.readouterr().out


def test_json_progress_is_json_only(nrrd, tmp_path, capsys):
    assert run(nrrd, "--output", tmp_path / "out", "--progress", "json") == 0
    lines = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert all(set(line) == {"stage", "done", "of", "message"} for line in lines)
    assert lines[-1] == {"stage": "done", "done": 1, "of": 1, "message": str(tmp_path / "out")}


# Overwriting


def test_earlier_results_stay_without_overwrite(nrrd, tmp_path, capsys):
    out = tmp_path / "out"
    assert run(nrrd, "--output", out) == 0
    before = {path: path.read_bytes() for path in out.iterdir()}
    assert run(nrrd, "--output", out) == 2
    assert "--overwrite" in capsys.readouterr().err
    assert {path: path.read_bytes() for path in out.iterdir()} == before


def test_overwrite_replaces_our_files_only(nrrd, dicom, tmp_path):
    out = tmp_path / "out"
    out.mkdir()
    (out / "notes.txt").write_text("mine")
    assert run(dicom, "--output", out) == 0, "a folder with other files is no obstacle"
    assert listing(out) == sorted([*FILES, "notes.txt"])
    assert run(nrrd, "--output", out, "--overwrite") == 0
    assert listing(out) == ["notes.txt", "report.html", "run.json", "segmentation.seg.nrrd"], (
        "no stale RTSTRUCT"
    )
    assert (out / "notes.txt").read_text() == "mine"
    assert read_run(out / "run.json").ct.series_uid is None


# All or nothing


@pytest.mark.parametrize(
    ("error", "code", "said"),
    [
        (OSError(errno.ENOSPC, "No space left on device"), 2, "the disk is full"),
        (InputError("no patient in it"), 2, "no patient in it"),
        (EngineError("no GPU"), 2, "no GPU"),
        (KeyboardInterrupt(), 130, "cancelled"),
        (RuntimeError("ours"), 1, "internal error"),
    ],
)
@pytest.mark.parametrize("where", ["segment", "write_seg_nrrd", "write_report"])
@pytest.mark.parametrize("earlier", [False, True])
def test_a_failed_run_leaves_nothing(error, code, said, where, earlier, nrrd, tmp_path, monkeypatch, capsys):
    out = tmp_path / "new" / "out"
    if earlier:
        assert run(nrrd, "--output", out) == 0
    before = {path: path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()}

    def fail(*_, **__):
        raise error

    monkeypatch.setattr(case, where, fail)
    capsys.readouterr()
    assert run(nrrd, "--output", out, "--overwrite") == code
    streams = capsys.readouterr()
    assert said in streams.err and "Traceback" not in streams.err and streams.out == ""
    assert {path: path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()} == before
    assert out.parent.exists() == earlier


def test_a_failed_move_puts_the_old_files_back(tmp_path, monkeypatch):
    out = tmp_path / "out"
    out.mkdir()
    for name in "ab":
        (out / name).write_text("old")
    rename = os.rename

    def fails_at_the_end(source, target):
        if Path(target) == out / "b" and Path(source).parent.name != ".replaced":
            raise OSError(errno.EIO, "I/O error")
        rename(source, target)

    monkeypatch.setattr(os, "rename", fails_at_the_end)
    with pytest.raises(InputError, match="I/O error"), staged_folder(out, "ab", overwrite=True) as folder:
        for name in "ab":
            (folder / name).write_text("new")
    assert {path.name: path.read_text() for path in out.iterdir()} == {"a": "old", "b": "old"}


def test_undeclared_output_is_our_fault(tmp_path):
    with pytest.raises(RuntimeError, match="other"), staged_folder(tmp_path / "out", ["a"]) as folder:
        (folder / "other").write_text("x")
    assert listing(tmp_path) == []


def test_results_can_be_read_by_whom_the_umask_lets(nrrd, tmp_path):
    assert run(nrrd, "--output", tmp_path / "out") == 0
    (tmp_path / "made").mkdir()
    assert (tmp_path / "out").stat().st_mode == (tmp_path / "made").stat().st_mode


@pytest.mark.skipif(os.name == "nt", reason="Windows has no SIGTERM")
def test_sigterm_leaves_nothing(nrrd, tmp_path):
    program = textwrap.dedent(
        """
        import sys, time
        sys.path[:0] = sys.argv[1:3]
        import balls
        from soars import cli
        from soars.run import case
        import soars.bundle.store
        soars.bundle.store.load_bundle = lambda name: balls.a_bundle()
        def forever(*_):
            print("working", flush=True)
            time.sleep(60)
        case.segment = forever
        sys.exit(cli.main(["segment", *sys.argv[3:], "--progress", "none"]))
        """
    )
    here, core = Path(balls.__file__).parent, Path(case.__file__).parents[2]
    out = tmp_path / "new" / "out"
    command = [sys.executable, "-c", program, str(here), str(core), str(nrrd), "--output", str(out)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
        assert process.stdout.readline() == "working\n"
        assert out.parent.exists()
        started = time.monotonic()
        process.send_signal(signal.SIGTERM)
        _, errors = process.communicate(timeout=60)
    assert time.monotonic() - started < 30
    assert process.returncode == 130 and "cancelled" in errors
    assert listing(tmp_path) == ["mueller_anna", "mueller_anna/ct.nrrd"]


# Refused before any long work


@pytest.fixture
def no_work(monkeypatch):
    def worked(*_):
        raise AssertionError("the long work began")

    monkeypatch.setattr(case, "segment", worked)


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["CT"], "--output"),
        (["CT", "--output", "CT"], "inside the CT's folder"),
        (["CT", "--output", "CT/results/a"], "inside the CT's folder"),
        (["CT", "--output", "FILE"], "FILE is not a folder"),
        (["CT", "--output", "FILE/below"], "FILE is not a folder"),
        (["NRRD", "--output", "NRRD"], "is the CT itself"),
        (["nowhere", "--output", "out"], "nowhere: there is no such file or folder"),
        (["FILE", "--output", "out"], "FILE: "),
        (["CT", "--output", "out", "--organs", "Paratid_L"], "did you mean"),
        (["CT", "--output", "out", "--organs", "Lens_L,Brainstem"], "does not cover Lens_L"),
        (["CT", "--output", "out", "--organs", " , "], "names no organ"),
        (["CT", "--output", "out", "--series", "1.2.3"], "1.2.3"),
        (["CT", "--output", "out", "--device", "tpu"], "--device"),
        (["CT", "--output", "out", "--progress", "loud"], "--progress"),
    ],
)
def test_bad_requests_end_with_one_line(words, said, no_work, dicom, nrrd, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "CT").symlink_to(dicom)
    (tmp_path / "FILE").write_text("text")
    (tmp_path / "NRRD").symlink_to(nrrd)
    before, ct_before = listing(tmp_path), listing(dicom)
    assert run(*words) == 2
    streams = capsys.readouterr()
    assert streams.err.startswith("soars: error: ") or "\nsoars: error: " in streams.err
    assert said in streams.err and streams.out == ""
    assert listing(tmp_path) == before and listing(dicom) == ct_before


@pytest.mark.parametrize("name", ["nowhere", "Not A Name"])
def test_unknown_bundles_are_refused(name, no_work, nrrd, tmp_path, monkeypatch, capsys):
    monkeypatch.setattr("soars.bundle.store.load_bundle", load_bundle)
    assert run(nrrd, "--output", tmp_path / "out", "--bundle", name) == 2
    assert name in capsys.readouterr().err and not (tmp_path / "out").exists()


def test_damaged_bundles_are_refused(no_work, nrrd, tmp_path, monkeypatch, capsys):
    def damaged(name):
        raise BundleError("anchor.onnx: SHA-256 differs")

    monkeypatch.setattr("soars.bundle.store.load_bundle", damaged)
    assert run(nrrd, "--output", tmp_path / "out") == 2
    assert "SHA-256 differs" in capsys.readouterr().err and not (tmp_path / "out").exists()


def test_unwritable_folders_are_refused(no_work, nrrd, tmp_path, monkeypatch, capsys):
    def forbidden(*_args, **_kwargs):
        raise PermissionError(errno.EACCES, "Permission denied")

    # Not a folder's mode, which does not keep root out, and CI may be root.
    monkeypatch.setattr("soars.staging.tempfile.mkdtemp", forbidden)
    assert run(nrrd, "--output", tmp_path / "out") == 2
    assert "no permission" in capsys.readouterr().err and not (tmp_path / "out").exists()
