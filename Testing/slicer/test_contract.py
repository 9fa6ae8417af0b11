"""Every call of the module into Slicer's Python functions fits their parameters, in each supported version."""

from __future__ import annotations

import ast
import json
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import pytest

SIGNATURES = json.loads((Path(__file__).parent / "data" / "slicer_signatures.json").read_text())["versions"]
VERSIONS = tuple(SIGNATURES)
LIBRARY = {
    "slicer.util": "Base/Python/slicer/util.py",
    "DICOMUtils": "Modules/Scripted/DICOMLib/DICOMUtils.py",
    "SampleData": "Modules/Scripted/SampleData/SampleData.py",
    "slicer.packaging": "Base/Python/slicer/packaging.py",
    "ScriptedLoadableModule": "Base/Python/slicer/ScriptedLoadableModule.py",
    "slicer.i18n": "Base/Python/slicer/i18n.py",
}
BASES = ("ScriptedLoadableModule", "ScriptedLoadableModuleWidget", "ScriptedLoadableModuleLogic")
SINCE = {"slicer.packaging": "5.12.3"}
"""What is not in every version; the module asks whether it is there."""


class Call(NamedTuple):
    """A call in a file of ours, of a function by its home and name there."""

    where: str
    home: str
    name: str
    positional: int
    keywords: tuple[str, ...]


def dotted(node: ast.expr) -> str:
    if isinstance(node, ast.Name):
        return node.id
    return f"{dotted(node.value)}.{node.attr}" if isinstance(node, ast.Attribute) else "?"


def target_of(name: str) -> tuple[str, str] | None:
    """Home and name of a function of Slicer's; None of any other."""
    head, _, last = name.rpartition(".")
    if head == "slicer.util" or head == "DICOMUtils":
        return head, last
    if name.startswith("SampleData."):
        return "SampleData", name.removeprefix("SampleData.")
    if last == "pip_ensure":
        return "slicer.packaging", last
    if head in BASES:
        return "ScriptedLoadableModule", f"{head}.{last}"
    if name == "self.delayDisplay":
        return "ScriptedLoadableModule", "ScriptedLoadableModuleTest.delayDisplay"
    if name in ("_", "translate"):
        return "slicer.i18n", {"_": "tr"}.get(name, name)
    return None


def calls(folder: Path) -> Iterator[Call]:
    for path in sorted((folder / "SOARSSegmentationLib").rglob("*.py")) + [folder / "SOARSSegmentation.py"]:
        for node in ast.walk(ast.parse(path.read_text())):
            target = target_of(dotted(node.func)) if isinstance(node, ast.Call) else None
            if isinstance(node, ast.Call) and target is not None:
                method = target[1] == "ScriptedLoadableModuleTest.delayDisplay"  # bound: self is not written
                method |= target[1].startswith("SampleDataLogic.")
                keywords = tuple(word.arg for word in node.keywords if word.arg is not None)
                where = f"{path.relative_to(folder)}:{node.lineno}"
                yield Call(where, *target, len(node.args) + method, keywords)


def problem(call: Call, parameters: list[str]) -> str:
    """Why a call does not fit; "" when it does."""
    names = [name for name in parameters if not name.startswith("*")]
    # A static method's list has no self.
    positional = call.positional - (call.name.startswith("SampleDataLogic.") and "self" not in names)
    if positional > len(names) and "*args" not in parameters:
        return f"{call.where}: {call.name} takes {len(names)} parameters, not {positional}"
    unknown = [word for word in call.keywords if word not in names]
    if unknown and "**kwargs" not in parameters:
        return f"{call.where}: {call.name} has no parameter {', '.join(unknown)}"
    return ""


def problems(folder: Path, version: str) -> list[str]:
    found = []
    for call in calls(folder):
        functions = SIGNATURES[version].get(LIBRARY[call.home])
        if functions is None and VERSIONS.index(version) < VERSIONS.index(SINCE.get(call.home, VERSIONS[0])):
            continue
        assert functions is not None, f"{call.where}: {LIBRARY[call.home]} is not in Slicer {version}"
        assert call.name in functions, (
            f"{call.where}: {call.name} is not in {LIBRARY[call.home]} of {version}"
        )
        found.append(problem(call, functions[call.name]))
    return [text for text in found if text]


@pytest.mark.parametrize("version", VERSIONS)
def test_every_call_fits(root: Path, version: str) -> None:
    assert problems(root / "SOARSSegmentation", version) == []


def test_the_calls_are_found(root: Path) -> None:
    found = {(call.home, call.name) for call in calls(root / "SOARSSegmentation")}
    assert len(found) >= 15
    assert ("SampleData", "SampleDataLogic.registerCustomSampleDataSource") in found
    assert ("slicer.packaging", "pip_ensure") in found


@pytest.mark.parametrize("version", VERSIONS)
def test_a_parameter_that_does_not_exist_is_noticed(tmp_path: Path, version: str) -> None:
    (tmp_path / "SOARSSegmentationLib").mkdir()
    (tmp_path / "SOARSSegmentation.py").write_text(
        "SampleData.SampleDataLogic.registerCustomSampleDataSource(category='', sampleDescription='')\n"
        "DICOMUtils.importDicom('', None, True, 4)\n"
    )
    first, second = problems(tmp_path, version)
    assert "no parameter sampleDescription" in first and "takes 3 parameters, not 4" in second
