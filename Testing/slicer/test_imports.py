"""Slicer starts as fast with the module as without: importing it loads nothing slow, or that Slicer does not ship."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

pytest.importorskip("slicer", reason="slicer-core is not installed")

BUDGET = 0.5
"""Of the time that importing Slicer's core, VTK and numpy takes in the same process."""
ALLOWED = {"slicer", "slicer_core", "vtk", "vtkmodules", "numpy", "qt", "ctk"}
OWN = {"soars", "SOARSSegmentationLib", "SOARSSegmentation"}

CODE = """
import importlib, sys, time, types
start = time.process_time()
import slicer, slicer.util, vtk, numpy
import vtk.util.numpy_support
libraries = time.process_time() - start

class Anything(int):
    __or__ = __add__ = lambda self, other: self
    def __getattr__(self, name):
        if name.startswith("__"):
            raise AttributeError(name)
        return Anything()
    def __call__(self, *args, **options):
        return args[0] if args else self

class Kind(type):
    def __getattr__(cls, name):
        return Anything()

class StandIn(types.ModuleType):
    # Whatever the application's own modules are asked for at import: a class, or a function.
    __path__ = []
    def __getattr__(self, name):
        if name.startswith("__"):
            raise AttributeError(name)
        return Kind(name, (), {}) if name[0].isupper() or name[0] == "q" else Anything()

for name in ("qt", "ctk", "slicer.i18n", "slicer.ScriptedLoadableModule", "slicer.parameterNodeWrapper"):
    sys.modules[name] = StandIn(name)
taken = 0.0
for name in sys.argv[1:]:
    before = set(sys.modules)
    start = time.process_time()
    importlib.import_module(name)
    taken += time.process_time() - start
    came = {module.partition(".")[0] for module in set(sys.modules) - before}
    print(name, *sorted(came - set(sys.stdlib_module_names)))
print(taken / libraries)
"""


def imported(root: Path) -> tuple[float, dict[str, set[str]]]:
    """Processor time of importing all modules in a fresh interpreter, as a share of what Slicer's core and its
    libraries take there; and what came first with each."""
    folder = root / "SOARSSegmentation"
    library = [
        f"SOARSSegmentationLib.{p.stem}" for p in sorted((folder / "SOARSSegmentationLib").glob("*.py"))
    ]
    names = ["SOARSSegmentation", *(name for name in library if not name.endswith("__init__"))]
    environment = {**os.environ, "PYTHONPATH": str(folder)}
    done = subprocess.run(
        [sys.executable, "-c", CODE, *names], capture_output=True, text=True, env=environment
    )
    assert done.returncode == 0, done.stderr
    *lines, share = done.stdout.splitlines()
    return float(share), {name: set(came) for name, *came in map(str.split, lines)}


def test_the_module_and_its_library_import_only_what_slicer_ships_and_that_fast(root: Path) -> None:
    # The best of three, so that a busy computer counts for little.
    runs = [imported(root) for _ in range(3)]
    for name, came in runs[0][1].items():
        extra = came - ALLOWED - OWN
        assert not extra, f"{name} imports {', '.join(sorted(extra))} at file scope"
    best = min(share for share, _ in runs)
    assert best < BUDGET, f"{best:.2f} of the time of Slicer's core, VTK and numpy"
