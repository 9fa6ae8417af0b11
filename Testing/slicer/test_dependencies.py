"""What is missing is known without importing it, asked for once, and said when it cannot be had."""

from __future__ import annotations

import importlib.metadata
import os
import re
import subprocess
import sys
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import pytest

pytest.importorskip("slicer", reason="slicer-core is not installed")
import slicer

from soars.errors import InputError
from soars.systems.packages import REQUIREMENTS
from SOARSSegmentationLib.run import dependencies
from SOARSSegmentationLib.run.dependencies import Gpu, ask_and_install, device_sentence, missing

CARD = Gpu("NVIDIA RTX A5000", 24.0)
Versions = dict[str, str]


@pytest.fixture
def installed(monkeypatch: pytest.MonkeyPatch) -> Versions:
    """The packages that seem to be installed: a new Slicer's."""
    versions = {"pydicom": "3.0.1", "numpy": "2.0.2"}

    def version(name: str) -> str:
        try:
            return versions[name]
        except KeyError:
            raise importlib.metadata.PackageNotFoundError(name) from None

    monkeypatch.setattr(importlib.metadata, "version", version)
    monkeypatch.setitem(sys.modules, "PyTorchUtils", SimpleNamespace())  # the PyTorch extension is there
    return versions


def names(requirements: list[Any]) -> list[str]:
    return [one.name for one in requirements]


def test_a_new_slicer_lacks_the_engine_and_the_file_format(installed: Versions) -> None:
    assert names(missing("cpu")) == names(missing("auto")) == ["slicerio", "onnxruntime"]
    assert (
        names(missing("auto", CARD)) == names(missing("cuda", CARD)) == ["slicerio", "torch", "safetensors"]
    )
    assert names(missing("cpu", CARD)) == ["slicerio", "onnxruntime"]


def test_what_is_there_and_new_enough_is_not_missing(installed: Versions) -> None:
    installed |= {
        "slicerio": "1.10.0",
        "onnxruntime": "1.17",
        "torch": "2.13.0+cu128",
        "safetensors": "0.5rc1",
    }
    assert missing("auto", CARD) == missing("cpu") == []
    installed |= {"slicerio": "1.0.9"}
    assert names(missing("cpu")) == ["slicerio"]


def test_they_are_the_packages_that_the_module_declares(root: Path) -> None:
    lines = REQUIREMENTS.read_text().splitlines()
    declared = {line for line in lines if line and not line.startswith("#")}
    asked = (*dependencies.always(), *dependencies.on_cpu(), *dependencies.for_systems())
    assert declared == {one.specifier for one in asked}


def test_without_the_pytorch_extension_a_run_takes_the_processor_and_says_how_to_change_that(
    installed: Versions, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delitem(sys.modules, "PyTorchUtils")
    assert names(missing("auto", CARD)) == ["slicerio", "onnxruntime"]
    said = device_sentence("auto", CARD)
    assert "the processor" in said and "PyTorch extension" in said and CARD.name in said
    installed["torch"] = "2.13.0+cu128"
    assert names(missing("auto", CARD)) == ["slicerio", "safetensors"], "PyTorch that is there is used"


def test_finding_out_imports_nothing_heavy() -> None:
    heavy = ("torch", "onnxruntime", "SimpleITK", "scipy", "pydicom", "slicerio")
    code = (
        "import sys\nfrom SOARSSegmentationLib.run.dependencies import *\n"
        "missing('auto', find_gpu()), missing('cuda'), device_sentence('auto', find_gpu())\n"
        f"print([name for name in {heavy!r} if name in sys.modules])"
    )
    paths = [path for path in sys.path if path]
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(paths)}
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, env=environment)
    assert done.stdout.strip() == "[]", done.stderr


def test_the_user_is_told_where_it_will_run(installed: Versions) -> None:
    assert re.search(r"processor .* with ONNX Runtime, asked for at Apply", device_sentence("auto"))
    installed["onnxruntime"] = "1.31.1"
    assert re.search(r"processor .* with ONNX Runtime 1.31.1", device_sentence("cpu", CARD))
    assert "graphics card (NVIDIA RTX A5000, 24 GB) with PyTorch, asked for" in device_sentence("auto", CARD)
    assert "No NVIDIA graphics card" in device_sentence("cuda")
    installed["torch"] = "2.13.0"
    assert device_sentence("cuda", CARD).endswith("with PyTorch 2.13.0.")
    installed["torch"] = "2.13.0+cpu"
    assert re.search("processor .*built for the processor only; to use", device_sentence("auto", CARD))
    assert "install it again" in device_sentence("cuda", CARD)


@pytest.mark.parametrize(
    ("answer", "card"),
    [
        ("NVIDIA RTX A5000, 24564\nNVIDIA T4, 15360\n", Gpu("NVIDIA RTX A5000", 24.0)),
        ("Odd, with a comma, 8192\n", Gpu("Odd, with a comma", 8.0)),
        ("No devices were found\n", None),
        ("", None),
    ],
)
def test_the_drivers_answer_is_understood(answer: str, card: Gpu | None) -> None:
    assert dependencies.parse_gpu(answer) == card


@pytest.mark.skipif(os.name == "nt", reason="a shell script stands for nvidia-smi")
def test_the_graphics_card_is_looked_for(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    for script, card in (
        (None, None),
        ("#!/bin/sh\nexit 9\n", None),
        ("#!/bin/sh\necho 'NVIDIA T4, 15360'\n", Gpu("NVIDIA T4", 15.0)),
    ):
        if script is not None:
            (tmp_path / "nvidia-smi").write_text(script)
            (tmp_path / "nvidia-smi").chmod(0o755)
        dependencies.find_gpu.cache_clear()
        assert dependencies.find_gpu() == card
    dependencies.find_gpu.cache_clear()


# --- asking and installing ---------------------------------------------------------------------------------------
class Pip:
    """What would be asked and installed, and does it to the versions."""

    def __init__(self, versions: Versions, *, agrees: bool = True) -> None:
        self.versions, self.agrees = versions, agrees
        self.asked: list[tuple[str, str]] = []
        self.installed: list[str] = []

    def ask(self, text: str, details: str) -> bool:
        self.asked.append((text, details))
        return self.agrees

    def install(self, specifiers: list[str]) -> None:
        for specifier in specifiers:
            name, _, version = specifier.partition(">=")
            self.versions[name] = version
            self.installed.append(specifier)

    def install_torch(self, version: str) -> None:
        self.install([f"torch{version}"])

    def options(self) -> dict[str, Any]:
        return {"ask": self.ask, "install": self.install, "install_torch": self.install_torch}


def test_nothing_is_asked_when_nothing_is_missing(installed: Versions) -> None:
    pip = Pip(installed)
    ask_and_install([], **pip.options())
    assert pip.asked == []


def test_all_is_asked_for_once_with_sizes(installed: Versions) -> None:
    pip = Pip(installed)
    ask_and_install(missing("auto", CARD), **pip.options())
    ((text, details),) = pip.asked
    assert "3 Python packages" in text and "2.8 GB" in text
    assert [line.split(":")[0] for line in details.splitlines()] == [
        "slicerio>=1.1",
        "torch>=2.4",
        "safetensors>=0.4",
    ]
    assert pip.installed == ["torch>=2.4", "slicerio>=1.1", "safetensors>=0.4"]
    assert missing("auto", CARD) == []


def test_who_declines_is_told_what_else_there_is(installed: Versions) -> None:
    pip = Pip(installed, agrees=False)
    with pytest.raises(InputError, match="choose another device"):
        ask_and_install(missing("cuda"), **pip.options())
    assert pip.installed == []


def test_a_failure_of_pip_is_one_sentence(installed: Versions) -> None:
    pip = Pip(installed)

    def fail(specifiers: list[str]) -> None:
        raise subprocess.CalledProcessError(1, ["pip", "install"])

    with pytest.raises(InputError, match="could not be installed .*check the network"):
        ask_and_install(missing("cpu"), ask=pip.ask, install=fail)
    with pytest.raises(InputError, match="still not installed: slicerio>=1.1, onnxruntime>=1.17"):
        ask_and_install(missing("cpu"), ask=pip.ask, install=lambda specifiers: None)


def test_slicers_own_installer_is_used_whatever_it_is_called(
    installed: Versions, monkeypatch: pytest.MonkeyPatch
) -> None:
    pip = Pip(installed)
    used: list[str] = []

    def ensure(name: str) -> ModuleType:
        module = ModuleType(f"slicer.{name}")

        def pip_ensure(requirements: list[Any], *, prompt_install: bool, requester: str) -> None:
            assert not prompt_install and requester
            used.append(name)
            pip.install([str(one) for one in requirements])

        module.pip_ensure = pip_ensure  # type: ignore[attr-defined]
        return module

    def old(specifiers: list[str]) -> None:
        used.append("util")
        pip.install(specifiers)

    def ask(text: str, title: str, detailedText: str) -> bool:
        return pip.ask(text, detailedText)

    monkeypatch.setattr(slicer.util, "confirmOkCancelDisplay", ask, raising=False)
    monkeypatch.setattr(slicer.util, "pip_install", old, raising=False)
    for name in ("util", "packaging", "pydeps"):
        if name != "util":
            monkeypatch.setitem(sys.modules, f"slicer.{name}", ensure(name))
        for package in ("slicerio", "onnxruntime"):
            installed.pop(package, None)
        ask_and_install(missing("cpu"))
        assert used[-1] == name and missing("cpu") == []
    assert len(pip.asked) == 3


def test_torch_comes_through_the_pytorch_extension(
    installed: Versions, monkeypatch: pytest.MonkeyPatch
) -> None:
    pip = Pip(installed)
    options = {"ask": pip.ask, "install": pip.install}
    monkeypatch.delitem(sys.modules, "PyTorchUtils")
    with pytest.raises(InputError, match="Extensions"):
        ask_and_install(missing("cuda"), **options)
    calls: list[dict[str, Any]] = []

    class Logic:
        answer: Any = None

        def installTorch(self, **arguments: Any) -> Any:
            calls.append(arguments)
            if self.answer is not None:
                pip.install_torch(arguments["torchVersionRequirement"])
            return self.answer

    monkeypatch.setitem(sys.modules, "PyTorchUtils", SimpleNamespace(PyTorchUtilsLogic=Logic))
    with pytest.raises(InputError, match="PyTorch could not be installed"):
        ask_and_install(missing("cuda"), **options)
    Logic.answer = "torch"
    ask_and_install(missing("cuda"), **options)
    assert calls[-1] == {"askConfirmation": False, "torchVersionRequirement": ">=2.4"}
