"""The scripted module's logic and its self-test, on the real core with a real child process."""

from __future__ import annotations

import os
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

pytest.importorskip("slicer", reason="slicer-core is not installed")
import slicer
from module_visit import ORGANS
from python_slicer import hand_over, playing_child, prepare_results, real_child
from reading_desk import blocks

from soars.errors import SoarsError

pytestmark = pytest.mark.skipif(os.name == "nt", reason="the playing child is a shell script")


@pytest.fixture
def module(application: Any, root: Path) -> ModuleType:
    """SOARSSegmentation.py, loaded as Slicer does."""
    return application.load(root / "SOARSSegmentation" / "SOARSSegmentation.py")


@pytest.fixture
def put_on_path(monkeypatch: pytest.MonkeyPatch) -> Any:
    """Makes a folder's PythonSlicer the one that is found."""
    return lambda folder: monkeypatch.setenv("PATH", f"{folder}{os.pathsep}{os.environ['PATH']}")


def left_behind() -> list[Path]:
    return list(Path(slicer.app.temporaryPath).iterdir())


def test_segments_through_the_command_line(
    application: Any, module: ModuleType, tmp_path: Path, put_on_path: Any
) -> None:
    structures = blocks(ORGANS)
    ct = application.core.add_ct(structures.geometry, name="CT")
    results = hand_over(prepare_results(tmp_path / "results", structures))
    expected = "['--bundle', 'starter', '--device', 'cpu']"
    script = f"""
given = sys.argv[1:]
at = given.index("--bundle")
assert given[at:at + 2] + given[given.index("--device"):][:2] == {expected}, given
say("anchor", 1, 2)
{results}"""
    put_on_path(playing_child(tmp_path / "bin", script))
    said: list[str] = []
    node = module.SOARSSegmentationLogic().segment(ct, device="cpu", onProgress=said.append)
    assert node.GetNodeReference("referenceImageGeometryRef") is ct
    assert "anchor 1/2" in said
    assert not left_behind()


def test_says_what_the_command_line_says_when_it_fails(
    application: Any, module: ModuleType, tmp_path: Path, put_on_path: Any
) -> None:
    ct = application.core.add_ct(blocks(ORGANS).geometry, name="CT")
    before = slicer.mrmlScene.GetNumberOfNodes()
    put_on_path(real_child(tmp_path / "bin"))
    with pytest.raises(SoarsError, match="no such bundle"):
        module.SOARSSegmentationLogic().segment(ct, bundle="no such bundle")
    assert slicer.mrmlScene.GetNumberOfNodes() == before and not left_behind()


def test_refuses_a_volume_without_an_image(application: Any, module: ModuleType) -> None:
    empty = slicer.mrmlScene.AddNewNodeByClass("vtkMRMLScalarVolumeNode")
    for volume in (None, empty):
        with pytest.raises(SoarsError):
            module.SOARSSegmentationLogic().segment(volume)


def test_the_self_test_of_the_application_holds_here_too(
    application: Any,
    module: ModuleType,
    tmp_path: Path,
    put_on_path: Any,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """With a bundle that finds the phantom's bone by its HU, in place of the trained one."""
    from tiny_bundle import write_tiny_bundle

    write_tiny_bundle(tmp_path / "bundles" / "bone")
    monkeypatch.setattr(module.SOARSSegmentationTest, "BUNDLE", "bone")
    put_on_path(real_child(tmp_path / "bin"))
    widget = application.show(module)
    monkeypatch.setattr(slicer.util, "getModuleWidget", lambda name: widget)
    module.SOARSSegmentationTest().runTest()
    assert not left_behind()
