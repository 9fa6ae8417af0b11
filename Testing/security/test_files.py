"""Files appear whole or not at all: full disks, two runs at once, and what may never be written over."""

from __future__ import annotations

import errno
import json
import os
import re
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import SimpleITK as sitk
from tiny_bundle import patient, write_tiny_bundle
from tiny_study import tiny_study

from soars import files
from soars.bundle.store import write_manifest
from soars.cli import main
from soars.errors import InputError
from soars.files import begins_with, check_output_file, replacing_file, replacing_files, staged_folder
from soars.formats.imagefiles import write_image
from soars.formats.labelmap import write_label_map
from soars.formats.maskfolder import write_mask_folder
from soars.formats.segnrrd import write_seg_nrrd
from soars.service.segmenter import disk_is_full
from soars.structures import Geometry, StructureSet


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of one megabyte."""
    if os.name == "nt" or os.geteuid() != 0 or not shutil.which("mount"):
        pytest.skip("a small file system is mounted by root only")
    folder = tmp_path / "small"
    folder.mkdir()
    if subprocess.run(["mount", "-t", "tmpfs", "-o", "size=1m", "tmpfs", folder]).returncode:
        pytest.skip("this machine does not let a file system be mounted")
    try:
        yield folder
    finally:
        subprocess.run(["umount", folder], check=True)


def _noise() -> StructureSet:
    """Masks that cannot be compressed below two megabytes."""
    structures = StructureSet(Geometry((160, 160, 160), (1.0, 1.0, 1.0), (0.0, 0.0, 0.0)))
    rng = np.random.default_rng(3)
    for name in ("Brainstem", "Parotid_L", "Parotid_R", "SpinalCord"):
        structures.add(name, rng.random((160, 160, 160)) < 0.5)
    return structures


def _content(folder: Path) -> dict[str, bytes]:
    return {p.relative_to(folder).as_posix(): p.read_bytes() for p in folder.rglob("*") if p.is_file()}


@pytest.mark.parametrize(
    "output", ["masks", "organs.seg.nrrd", "organs.nrrd", "organs.nii.gz", "organs.nii", "organs.mha"]
)
def test_convert_on_a_full_disk_is_an_error_and_leaves_what_was_there(
    small_disk: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], output: str
) -> None:
    write_seg_nrrd(_noise(), tmp_path / "in.seg.nrrd")
    few = _noise().cropped((0, 0, 0), (4, 4, 4))
    target = small_disk / output
    write_seg_nrrd(few, tmp_path / "few.seg.nrrd")
    assert main(["convert", str(tmp_path / "few.seg.nrrd"), str(target)]) == 0
    before = _content(small_disk)
    assert before and all(before.values())
    assert main(["convert", str(tmp_path / "in.seg.nrrd"), str(target), "--overwrite"]) == 2
    assert "the disk is full" in capsys.readouterr().err
    assert _content(small_disk) == before


def test_a_full_disk_is_told_by_the_name_that_the_user_gave(
    small_disk: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Not by a temporary one; and nothing is left."""
    tiny = write_tiny_bundle(tmp_path / "tiny")
    large = write_tiny_bundle(tmp_path / "large")
    (large / "more.bin").write_bytes(np.random.default_rng(1).bytes(1 << 20))
    fields = json.loads((large / "manifest.json").read_text())
    write_manifest(large, {k: v for k, v in fields.items() if k not in ("format_version", "card", "files")})
    (tmp_path / "cts").mkdir()
    ct = tmp_path / "cts" / "ct.nrrd"
    write_image(patient().image, ct)
    write_seg_nrrd(_noise(), tmp_path / "in.seg.nrrd")
    (small_disk / "data").write_bytes(bytes(1000 << 10))
    monkeypatch.setenv("SOARS_BUNDLES", str(small_disk / "bundles"))
    for words in (
        ["segment", ct, "--bundle", tiny, "--device", "cpu", "--output", small_disk / "out"],
        ["segment-all", tmp_path / "cts", small_disk / "all", "--bundle", tiny, "--device", "cpu"],
        ["convert", tmp_path / "in.seg.nrrd", small_disk / "masks"],
        ["bundle", "import", large],
    ):
        assert main(list(map(str, words))) == 2
        said = capsys.readouterr()
        assert "the disk is full" in said.err + said.out, said
        assert ".soars-" not in said.err + said.out
        assert not list(small_disk.rglob("*.soars-*"))


@pytest.mark.parametrize("ending", [".nrrd", ".nii.gz", ".nii", ".mha"])
def test_a_file_size_limit_is_an_error_where_no_disk_can_be_mounted(tmp_path: Path, ending: str) -> None:
    resource = pytest.importorskip("resource", reason="Windows has no limits of this kind")
    signal = pytest.importorskip("signal")
    write_label_map(_noise().cropped((0, 0, 0), (3, 3, 3)), tmp_path / f"organs{ending}")
    before = _content(tmp_path)
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    handler = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    try:
        resource.setrlimit(resource.RLIMIT_FSIZE, (200_000, hard))
        with pytest.raises(InputError, match=f"cannot write .*organs{ending}: File too large"):
            write_label_map(_noise(), tmp_path / f"organs{ending}")
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
        signal.signal(signal.SIGXFSZ, handler)
    assert _content(tmp_path) == before


def test_what_the_disk_reports_only_when_it_is_flushed_is_an_error(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(descriptor: int) -> None:
        raise OSError(errno.EDQUOT, "Disk quota exceeded")

    (tmp_path / "table.csv").write_text("old")
    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(InputError, match="table.csv: the disk is full"):
        files.write_text(tmp_path / "table.csv", "new")
    with (
        pytest.raises(InputError, match="out: the disk is full"),
        staged_folder(tmp_path / "out", ["a"]) as folder,
    ):
        (folder / "a").write_text("new")
    assert _content(tmp_path) == {"table.csv": b"old"}


def test_a_full_disk_is_one_also_when_a_library_says_something_else(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A node lets its cases wait for the disk then, instead of setting them aside."""
    monkeypatch.setattr(shutil, "disk_usage", lambda _: SimpleNamespace(free=0))
    for writing in (staged_folder(tmp_path / "out", ["a"]), replacing_file(tmp_path / "b")):
        with pytest.raises(InputError, match="the disk is full") as told, writing:
            raise RuntimeError("[enforce fail at inline_container.cc:595] . unexpected pos 64 vs 0")
        assert disk_is_full(told.value)


def test_several_files_appear_together_or_not_at_all(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    first, second, third = (tmp_path / name for name in ("a.csv", "b.csv", "c.png"))
    first.write_text("old a")
    third.write_text("old c")
    replace = os.replace
    failed: list[Path] = []

    def fails_at(source: Path, target: Path) -> None:
        if Path(target) == third and not failed:  # putting the old one back works again
            failed.append(Path(source))
            raise OSError(errno.EIO, "I/O error", str(source), None, str(target))
        replace(source, target)

    monkeypatch.setattr(os, "replace", fails_at)
    with pytest.raises(InputError, match="cannot write .*c.png: I/O error"):
        with replacing_files([first, second, third]) as temporary:
            for file in temporary.values():
                file.write_text("new")
    assert _content(tmp_path) == {"a.csv": b"old a", "c.png": b"old c"}
    monkeypatch.undo()
    with replacing_files([first, second, third]) as temporary:
        for file in temporary.values():
            file.write_text("new")
    assert _content(tmp_path) == {"a.csv": b"new", "b.csv": b"new", "c.png": b"new"}


def test_a_file_that_appears_meanwhile_is_not_replaced(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="a.csv is there already; add --overwrite"):
        with replacing_files([tmp_path / "b.csv", tmp_path / "a.csv"], overwrite=False) as temporary:
            for file in temporary.values():
                file.write_text("mine")
            (tmp_path / "a.csv").write_text("theirs")
    assert _content(tmp_path) == {"a.csv": b"theirs"}


@pytest.mark.parametrize("there", ["nothing", "an empty folder", "a folder of something else"])
def test_of_two_runs_into_one_folder_the_first_wins(tmp_path: Path, there: str) -> None:
    out = tmp_path / "out"
    if there != "nothing":
        out.mkdir()
    if there == "a folder of something else":
        (out / "notes.txt").write_text("mine")
    kept = _content(tmp_path)
    with pytest.raises(InputError, match=r"out already holds rtstruct.dcm, run.json; add --overwrite"):
        with staged_folder(out, ["run.json", "rtstruct.dcm"][::-1]) as slow:
            for name in ("run.json", "rtstruct.dcm"):
                (slow / name).write_text("slow")
            with staged_folder(out, ["run.json", "rtstruct.dcm"]) as fast:
                for name in ("run.json", "rtstruct.dcm"):
                    (fast / name).write_text("fast")
    assert _content(tmp_path) == {**kept, "out/run.json": b"fast", "out/rtstruct.dcm": b"fast"}


def test_overwriting_replaces_neither_a_folder_by_a_file_nor_what_is_not_ours(tmp_path: Path) -> None:
    (tmp_path / "report.html").mkdir()
    (tmp_path / "report.html" / "mine.txt").write_text("mine")
    with pytest.raises(InputError, match="report.html is a folder, which soars did not write"):
        with staged_folder(tmp_path, ["report.html"], overwrite=True):
            raise AssertionError("refused before the work")
    with (
        pytest.raises(InputError, match="which soars did not write"),
        staged_folder(
            tmp_path, ["report.html"], folders=["report.html"], overwrite=True, ours=lambda _: False
        ),
    ):
        raise AssertionError("refused before the work")
    (tmp_path / "mine.csv").write_text("value,name\n1,Brainstem\n")
    ours = begins_with("case,organ,")
    with pytest.raises(InputError, match="was not written by soars"):
        check_output_file(tmp_path / "mine.csv", overwrite=True, ours=ours)
    (tmp_path / "scores.csv").write_text("case,organ,dsc\n")
    check_output_file(tmp_path / "scores.csv", overwrite=True, ours=ours)
    with pytest.raises(InputError, match="scores.csv is there already; add --overwrite"):
        check_output_file(tmp_path / "scores.csv", overwrite=False, ours=ours)


@pytest.mark.skipif(os.name == "nt", reason="Windows has no such files")
def test_a_device_is_not_replaced_by_a_file(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    with pytest.raises(InputError, match="it is no ordinary file"), replacing_file(tmp_path / "pipe"):
        raise AssertionError("refused before the work")


@pytest.mark.parametrize("command", ["evaluate", "dose"])
def test_an_input_is_never_an_output(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], command: str
) -> None:
    few = _noise().cropped((0, 0, 0), (4, 4, 4))
    a, b, dose = tmp_path / "a.seg.nrrd", tmp_path / "b.seg.nrrd", tmp_path / "dose.nrrd"
    write_seg_nrrd(few, a)
    write_seg_nrrd(few, b)
    sitk.WriteImage(sitk.Image(4, 4, 4, sitk.sitkFloat32), str(dose))
    before = _content(tmp_path)
    words = {
        "evaluate": ["evaluate", str(a), str(b)],
        "dose": ["dose", "--dose", str(dose), "--reference", str(a), "--substitute", str(b)],
    }[command]
    for target in (a, b, *([dose] if command == "dose" else [])):
        for more in ([], ["--overwrite"]):
            assert main([*words, "--csv", str(target), *more]) == 2
            assert f"{target} is the input" in capsys.readouterr().err
    assert _content(tmp_path) == before


def test_a_batch_does_not_replace_the_list_that_it_works_through(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """An earlier table with one more column is a list, and is recognised as one of ours."""
    from soars.service.tables import CASE_COLUMNS

    write_image(patient().image, tmp_path / "ct.nrrd")
    table = tmp_path / "out" / "cases.csv"
    table.parent.mkdir()
    table.write_text(
        ",".join([*CASE_COLUMNS, "ct"]) + "\n" + "one" + "," * len(CASE_COLUMNS) + "../ct.nrrd\n"
    )
    before = table.read_bytes()
    bundle = write_tiny_bundle(tmp_path / "tiny")
    assert main(["segment-all", str(table), str(table.parent), "--bundle", str(bundle)]) == 2
    assert "is the input" in capsys.readouterr().err and table.read_bytes() == before


def test_tables_and_picture_of_an_evaluation_appear_together(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    pytest.importorskip("matplotlib")
    few = _noise().cropped((0, 0, 0), (4, 4, 4))
    write_mask_folder(few, tmp_path / "a")
    write_mask_folder(few, tmp_path / "b")
    outputs = {name: tmp_path / name for name in ("scores.csv", "summary.csv", "plot.png")}
    words = ["evaluate", str(tmp_path / "a"), str(tmp_path / "b"), "--csv", str(outputs["scores.csv"])]
    words += ["--summary", str(outputs["summary.csv"]), "--plot", str(outputs["plot.png"])]

    def fails(*_: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr("soars.metrics.plots.plot_scores", fails)
        assert main(words) == 2
    assert not any(path.exists() for path in outputs.values())
    assert main(words) == 0
    assert all(path.stat().st_size for path in outputs.values())
    capsys.readouterr()
    assert main(words) == 2
    assert "add --overwrite" in capsys.readouterr().err
    assert main([*words, "--overwrite"]) == 0
    outputs["plot.png"].write_bytes(b"\x89PNG a picture of mine")
    assert main([*words, "--overwrite"]) == 2
    assert outputs["plot.png"].read_bytes() == b"\x89PNG a picture of mine"


def test_no_writer_is_used_that_does_not_report_a_full_disk() -> None:
    """SimpleITK's leaves an empty file and says nothing; `soars.formats.imagefiles.write_image` is ours."""
    root = Path(__file__).resolve().parents[2]
    files = [*(root / "SOARSSegmentation").rglob("*.py"), *(root / "training").rglob("*.py")]
    assert len(files) > 200
    for path in files:
        assert not re.search(r"\bWriteImage\(|ImageFileWriter", path.read_text(encoding="utf-8")), path


def test_a_simulated_study_that_fails_leaves_no_folder(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr("soars.formats.imagefiles.write_image", full)
    with pytest.raises(OSError, match="No space left"):
        tiny_study(tmp_path / "study", cases=1, scratch=1)
    assert list(tmp_path.iterdir()) == []
