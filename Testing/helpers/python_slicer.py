"""A PythonSlicer on the PATH: the real child process on this Python, or one that plays a part.

Tests put one of them into a folder that is first on the PATH, where the runner finds it as it finds Slicer's.
"""

from __future__ import annotations

import shlex
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path

from soars.catalogue import CATALOGUE, SOARS42
from soars.findings.finding import ExpectedDsc, Finding
from soars.formats.segnrrd import write_seg_nrrd
from soars.report.outputs import RECORD, SEGMENTATION
from soars.report.record import (
    ABSENT,
    NOT_COVERED,
    PRESENT,
    BundleRecord,
    CtRecord,
    EngineRecord,
    OrganRecord,
    RunRecord,
)
from soars.structures import StructureSet

HEAD = """
import json, os, pathlib, shutil, signal, subprocess, sys, time
def say(stage, done=0, of=0, message=""):
    print(json.dumps({"stage": stage, "done": done, "of": of, "message": message}), flush=True)
if "segment" in sys.argv:
    ct = pathlib.Path(sys.argv[sys.argv.index("segment") + 1])
    out = pathlib.Path(sys.argv[sys.argv.index("--output") + 1])
"""


def real_child(folder: Path) -> Path:
    """The command line itself; returns the folder for the PATH."""
    return _program(folder, sys.executable)


def playing_child(folder: Path, script: str) -> Path:
    """A child that runs ``script``, which can `say` progress and knows ``ct`` and ``out``; returns the folder."""
    play = folder / "play.py"
    folder.mkdir(parents=True, exist_ok=True)
    play.write_text(HEAD + script)
    return _program(folder, sys.executable, str(play))


def hand_over(results: Path) -> str:
    """A line of script: the child's results are those prepared in a folder."""
    return f"shutil.copytree({str(results)!r}, out)\n"


def prepare_results(
    folder: Path,
    structures: StructureSet,
    *,
    covered: tuple[str, ...] = tuple(SOARS42),
    warnings: dict[str, str] | None = None,
    findings: Sequence[Finding] = (),
    expected: Mapping[str, ExpectedDsc] | None = None,
) -> Path:
    """What ``soars segment`` would leave of a CT on which it found these structures."""
    folder.mkdir(parents=True)
    write_seg_nrrd(structures, folder / SEGMENTATION)
    organs = []
    for name in SOARS42:
        oar = CATALOGUE[name]
        there = name in structures and not structures.is_empty(name)
        state = NOT_COVERED if name not in covered else PRESENT if there else ABSENT
        organs.append(
            OrganRecord(
                name,
                oar.label,
                oar.stratum,
                state,
                oar.colour,
                reason="it was looked for and not found" if state == ABSENT else "",
                warnings=(warnings[name],) if warnings and name in warnings else (),
                findings=tuple(one for one in findings if one.organ == name),
                expected_dsc=(expected or {}).get(name),
            )
        )
    grid = structures.geometry
    record = RunRecord(
        ct=CtRecord("ct.nrrd", grid.size, grid.spacing, grid.origin, grid.direction, "LPS"),
        bundle=BundleRecord("phantom", "1.0.0", "ab" * 32),
        organs=tuple(organs),
        engine=EngineRecord("onnxruntime", "cpu", "float32"),
        timings_s={"anchor": 4.0, "small_hard": 7.0},
        finished_utc="2026-11-21T08:30:00Z",
    )
    (folder / RECORD).write_text(record.to_json(), encoding="utf-8")
    return folder


def _program(folder: Path, *command: str) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    program = folder / "PythonSlicer"
    program.write_text(f'#!/bin/sh\nexec {shlex.join(command)} "$@"\n')
    program.chmod(0o755)
    return folder
