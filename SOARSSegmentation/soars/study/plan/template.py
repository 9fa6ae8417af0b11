"""A new study file, filled in as far as the given folders allow."""

from __future__ import annotations

import json
import os
from collections.abc import Sequence
from pathlib import Path

from soars.effort.records import safe_name
from soars.errors import InputError
from soars.files import write_text
from soars.formats.labelmap import IMAGE_SUFFIXES, image_stem
from soars.study.plan.model import STUDY_FILE, Plan, read_plan

_HEAD = """\
# A study of reading times. `soars study prepare` and `soars study worklist` go on from here; what every field means is
# in docs/studies.md. This file names the models behind the arms: keep it away from readers. Paths are relative to it.
schema: 1
name: {name}
title: ""
seed: {seed}
organs: SOARS42
assignment: every arm        # or: one arm
balance: {balance}{other}
washout_days: 14
idle_s: 30
scores: true                 # readers rate each organ from 1 to 5
test: wilcoxon               # or: paired t, mixed model

arms:
  - {{name: revise, bundle: {bundle}}}
  - {{name: scratch, proposal: none{scratch}}}

readers:
{readers}

cases:
{cases}
"""


def new_study(
    folder: Path,
    name: str,
    cts: Path,
    *,
    references: Path | None = None,
    doses: Path | None = None,
    bundle: str = "starter",
    readers: Sequence[str] = ("R1", "R2"),
    scratch: int | None = None,
    seed: int = 1,
) -> Plan:
    """Write ``study.yaml`` into a folder, and read it back.

    ``cts`` holds one CT a case: a folder of DICOM files, or an image file. Cases get pseudonyms, because names of
    folders often are names of patients; ``references`` and ``doses`` are matched by the folders' or files' names.
    ``scratch`` cases, drawn at random, are drawn from scratch as well (all when None). `InputError` when there is a
    study file already, or no CT.
    """
    path = folder / STUDY_FILE
    if path.exists():
        raise InputError(f"there is already a study file {path}: edit it, or choose another folder")
    found = _entries(cts)
    if not found:
        raise InputError(f"{cts} holds no CT: give a folder with one folder or image file a patient")
    if scratch is not None and not 1 <= scratch <= len(found):
        raise InputError(f"--scratch must be between 1 and the {len(found)} cases")
    width = max(2, len(str(len(found))))
    lines = [
        _case_line(f"case-{n:0{width}d}", one, folder, references, doses)
        for n, one in enumerate(found, start=1)
    ]
    minimise = scratch is not None and scratch < len(found)
    text = _HEAD.format(
        name=_quoted(safe_name(name, "study")),
        seed=seed,
        balance="minimisation" if minimise else "latin square",
        other="" if minimise else "        # or: minimisation",
        bundle=_quoted(bundle),
        scratch="" if scratch is None else f", cases: {scratch}",
        readers="\n".join(f"  - {{name: {_quoted(safe_name(reader, 'reader'))}}}" for reader in readers),
        cases="\n".join(lines),
    )
    folder.mkdir(parents=True, exist_ok=True)
    write_text(path, text)
    return read_plan(folder)


def _entries(folder: Path) -> list[Path]:
    if not folder.is_dir():
        raise InputError(f"there is no folder {folder}")
    return [
        path
        for path in sorted(folder.iterdir())
        if not path.name.startswith(".") and (path.is_dir() or path.name.lower().endswith(IMAGE_SUFFIXES))
    ]


def _case_line(name: str, ct: Path, folder: Path, references: Path | None, doses: Path | None) -> str:
    parts = [f"name: {name}", f"ct: {_quoted(_relative(ct, folder))}"]
    key = ct.name if ct.is_dir() else image_stem(ct)
    for field, home in (("reference", references), ("dose", doses)):
        match = None if home is None else _named(home, key)
        if match is not None:
            parts.append(f"{field}: {_quoted(_relative(match, folder))}")
    return f"  - {{{', '.join(parts)}}}"


def _named(home: Path, key: str) -> Path | None:
    if not home.is_dir():
        raise InputError(f"there is no folder {home}")
    found = [p for p in sorted(home.iterdir()) if p.name == key or p.name.startswith(f"{key}.")]
    if len(found) > 1:
        raise InputError(f"{home} holds several entries named {key}: leave one there")
    return found[0] if found else None


def _relative(path: Path, folder: Path) -> str:
    """Relative to the study file where both are on one drive, so that the whole can be moved."""
    try:
        return Path(os.path.relpath(path.resolve(), folder.resolve())).as_posix()
    except ValueError:
        return path.resolve().as_posix()


def _quoted(text: str) -> str:
    """A text in YAML, with any characters."""
    return json.dumps(text, ensure_ascii=False)
