"""`soars demo`: works again and again in its own folder, and touches nobody else's CT."""

from __future__ import annotations

import json
from dataclasses import replace
from types import SimpleNamespace

import balls
import numpy as np
import pytest
import SimpleITK as sitk

from soars.cascade.engine import EngineInfo
from soars.cli import main
from soars.errors import EngineError
from soars.report.record import read_run
from soars.run import case
from soars.run.segment import SegmentResult
from soars.structures import Geometry, StructureSet

FILES = {"ct", "demo.json", "report.html", "rtstruct.dcm", "run.json", "segmentation.seg.nrrd"}
GEOMETRY = Geometry((30, 24, 12), (3.0, 3.0, 5.0), (-45.0, -36.0, 0.0))


def truth() -> StructureSet:
    structures = StructureSet(GEOMETRY)
    for i, name in enumerate(("Brainstem", "Parotid_L")):
        structures.add_crop(name, (2 + 4 * i, 4, 5), np.ones((4, 6, 6), bool))
    structures.add("Pituitary", np.zeros(GEOMETRY.shape, bool))
    return structures


def fake_phantom(seed: int) -> SimpleNamespace:
    values = np.full(GEOMETRY.shape, -1000, np.int16)
    values[:, 2:-2, 2:-2] = seed
    return SimpleNamespace(ct=GEOMETRY.place(sitk.GetImageFromArray(values)), structures=truth())


def half_right(ct, bundle, options, progress) -> SegmentResult:
    """The brainstem as it is, the parotid one half of itself."""
    structures = StructureSet(Geometry.of(ct.image))
    structures.add_crop("Brainstem", (2, 4, 5), np.ones((4, 6, 6), bool))
    structures.add_crop("Parotid_L", (6, 4, 5), np.ones((4, 6, 3), bool))
    return SegmentResult(
        structures=structures,
        absent={},
        findings=(),
        look_order=structures.names,
        warnings=[],
        engine=EngineInfo("onnxruntime", "cpu", "fp32", ""),
        timings_s={"total": 1.0},
    )


@pytest.fixture(autouse=True)
def quick(monkeypatch, request):
    if request.node.get_closest_marker("slow"):
        return
    monkeypatch.setattr("soars.bundle.store.load_bundle", lambda name: replace(balls.a_bundle(), name=name))
    monkeypatch.setattr("soars.phantom.make_phantom", fake_phantom)
    monkeypatch.setattr(case, "segment", half_right)


def demo(*words: object) -> int:
    return main(["demo", *map(str, words)])


def test_demo_ends_with_table_warning_and_paths(tmp_path, capsys):
    out = tmp_path / "out"
    assert demo("--output", out, "--seed", 7) == 0
    assert {path.name for path in out.iterdir()} == FILES
    assert len(list((out / "ct").iterdir())) == 12
    data = json.loads((out / "demo.json").read_text())
    assert data == {"soars_demo": 1, "seed": 7, "dice": {"Brainstem": 1.0, "Parotid_L": 0.6667}}
    printed = capsys.readouterr().out
    assert "phantom bundle" in printed and "not for real CTs" in printed
    assert "against the truth of this phantom: 0.83" in printed
    for name in FILES:
        assert str(out / name) in printed
    assert read_run(out / "run.json").bundle.name == "phantom"


@pytest.mark.parametrize("words", [[], ["--overwrite"]])
def test_demo_replaces_its_own_output(words, tmp_path):
    out = tmp_path / "out"
    assert demo("--output", out, "--seed", 1) == 0
    (out / "notes.txt").write_text("mine")
    assert demo("--output", out, "--seed", 2, *words) == 0
    assert json.loads((out / "demo.json").read_text())["seed"] == 2
    assert {path.name for path in out.iterdir()} == {*FILES, "notes.txt"}


def test_demo_without_folder_makes_one_here(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert demo() == 0 and demo() == 0
    assert [path.name for path in tmp_path.iterdir()] == ["soars-demo"]


def test_demo_never_replaces_somebody_elses_ct(tmp_path, capsys):
    (tmp_path / "ct").mkdir()
    (tmp_path / "ct" / "slice.dcm").write_text("real")
    assert demo("--output", tmp_path, "--overwrite") == 2
    assert "was not made by a demo" in capsys.readouterr().err
    assert (tmp_path / "ct" / "slice.dcm").read_text() == "real" and len(list(tmp_path.iterdir())) == 1


def test_demo_replaces_other_results_only_when_told(tmp_path):
    (tmp_path / "run.json").write_text("{}")
    assert demo("--output", tmp_path) == 2
    assert (tmp_path / "run.json").read_text() == "{}"
    assert demo("--output", tmp_path, "--overwrite") == 0


def test_a_failed_demo_leaves_the_earlier_one(tmp_path, monkeypatch):
    assert demo("--output", tmp_path / "out", "--seed", 1) == 0
    before = {path: path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()}

    def fail(*_):
        raise EngineError("no")

    monkeypatch.setattr(case, "segment", fail)
    assert demo("--output", tmp_path / "out", "--seed", 2) == 2
    assert {path: path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()} == before
    assert demo("--output", tmp_path / "other") == 2 and not (tmp_path / "other").exists()


@pytest.mark.parametrize("seed", ["-1", "x"])
def test_bad_seeds_are_refused(seed, tmp_path, capsys):
    assert demo("--output", tmp_path / "out", "--seed", seed) == 2
    assert "--seed" in capsys.readouterr().err


@pytest.mark.slow
def test_demo_with_the_shipped_bundle(tmp_path):
    assert demo("--output", tmp_path / "out", "--progress", "none") == 0
    record = read_run(tmp_path / "out" / "run.json")
    assert len([o for o in record.organs if o.state == "present"]) >= 40
