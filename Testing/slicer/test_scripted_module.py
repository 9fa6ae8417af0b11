"""The scripted module's logic, with the application mocked and the child process real."""

from __future__ import annotations

import importlib.util
import subprocess
import sys
from pathlib import Path
from types import ModuleType
from unittest.mock import MagicMock

import pytest


@pytest.fixture
def slicer(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> MagicMock:
    """A mock of the application whose ``slicer.util`` starts processes and writes files as the real one does."""
    slicer = MagicMock()
    slicer.app.temporaryPath = str(tmp_path)

    def export_node(node: object, path: str) -> bool:
        Path(path).write_text("CT")
        return True

    def launch(args, useStartupEnvironment, updateEnvironment, cwd) -> subprocess.Popen:
        assert not useStartupEnvironment
        pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.STDOUT}
        return subprocess.Popen(args, env=updateEnvironment, cwd=cwd, text=True, **pipes)

    slicer.util.exportNode.side_effect = export_node
    slicer.util.launchConsoleProcess.side_effect = launch
    slicer.util.loadSegmentation.side_effect = lambda path: MagicMock(text=Path(path).read_text())
    bases = ModuleType("slicer.ScriptedLoadableModule")
    for kind in ("", "Widget", "Logic", "Test"):
        setattr(bases, f"ScriptedLoadableModule{kind}", type(f"ScriptedLoadableModule{kind}", (), {}))
    modules = {"ctk": MagicMock(), "qt": MagicMock(), "slicer": slicer, "slicer.i18n": MagicMock(tr=str)}
    for name, module in {**modules, "slicer.ScriptedLoadableModule": bases}.items():
        monkeypatch.setitem(sys.modules, name, module)
    return slicer


@pytest.fixture
def module(slicer: MagicMock, root: Path, monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    """SOARSSegmentation.py, loaded as Slicer does, with this Python as PythonSlicer."""
    path = root / "SOARSSegmentation" / "SOARSSegmentation.py"
    spec = importlib.util.spec_from_file_location("SOARSSegmentation", path)
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    monkeypatch.setattr(module.shutil, "which", lambda name: sys.executable)
    return module


def _volume() -> MagicMock:
    volume = MagicMock()
    volume.GetParentTransformNode.return_value = None
    volume.GetName.return_value = "CT"
    return volume


def _command_line(folder: Path, *lines: str) -> Path:
    """A package `soars` in `folder` whose command line is these lines."""
    (folder / "soars").mkdir()
    (folder / "soars" / "cli.py").write_text("\n".join(["import json, pathlib, sys", *lines]))
    return folder


def test_segments_through_the_command_line(
    module: ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    lines = (
        "assert sys.argv[1] == 'segment' and pathlib.Path(sys.argv[2]).read_text() == 'CT'",
        "assert sys.argv[3] == '--output' and sys.argv[5:] == ['--bundle', 'starter', '--progress', 'json']",
        "print(json.dumps({'stage': 'anchor', 'done': 1, 'of': 2, 'message': ''}))",
        "print(json.dumps({'stage': 'heartbeat', 'done': 1, 'of': 2, 'message': 'anchor'}))",
        "pathlib.Path(sys.argv[4]).mkdir()",
        "pathlib.Path(sys.argv[4], 'segmentation.seg.nrrd').write_text('organs')",
    )
    monkeypatch.setattr(module, "MODULE_FOLDER", _command_line(tmp_path, *lines))
    said: list[str] = []
    volume = _volume()
    segmentation = module.SOARSSegmentationLogic().segment(volume, onProgress=said.append)
    assert segmentation.text == "organs"
    assert said == ["anchor 1/2"]
    segmentation.SetReferenceImageGeometryParameterFromVolumeNode.assert_called_once_with(volume)
    assert not list(tmp_path.glob("soars-*")), "a temporary folder is left behind"


def test_reports_what_the_command_line_says_when_it_fails(
    module: ModuleType, slicer: MagicMock, tmp_path: Path
) -> None:
    with pytest.raises(RuntimeError, match="soars: error: "):
        module.SOARSSegmentationLogic().segment(_volume(), bundle="no such bundle")
    slicer.util.loadSegmentation.assert_not_called()
    assert not list(tmp_path.glob("soars-*")), "a temporary folder is left behind"


def test_refuses_a_volume_without_an_image_or_under_a_transform(
    module: ModuleType, slicer: MagicMock
) -> None:
    empty, transformed = _volume(), MagicMock()
    empty.GetImageData.return_value = None
    for volume in (None, empty, transformed):
        with pytest.raises(ValueError):
            module.SOARSSegmentationLogic().segment(volume)
    slicer.util.launchConsoleProcess.assert_not_called()


def test_lines_that_are_no_progress_are_not_taken_for_it(module: ModuleType) -> None:
    for line in ("", "soars: error: no such file", "12", "[1]", '{"done": 1}'):
        assert module.progressMessage(line) is None
