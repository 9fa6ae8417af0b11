"""What the values of a label map mean: the names file beside it, or one for a whole folder.

Looked for in this order:

- ``organs.json`` beside ``organs.nii.gz``: ``{"labels": {"1": "Eye_L", "2": "Lens_L", "3": ["Eye_L", "Lens_L"]}}``,
  where a value with several names stands for voxels of all of them;
- ``organs.csv``: the columns ``value,name``, a row for each name;
- ``organs.txt`` or ``organs.label``: the label descriptions of ITK-SNAP, ``1 255 0 0 1 1 1 "Eye_L"``;
- ``dataset.json`` in the same folder or the one above, as nnU-Net writes it: ``{"labels": {"Eye_L": 1}}``, or
  ``{"whole": [1, 2]}`` for regions, the other way round.

Value 0 is background, whatever the file calls it.
"""

from __future__ import annotations

import csv
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from soars.cells import original
from soars.errors import InputError
from soars.structures.model import MOST_STRUCTURES
from soars.texts import read_json, read_table

DATASET = "dataset.json"
_MOST_BYTES = 20_000_000
_MOST_VALUES = 10_000
"""Where structures overlap, each combination has a value of its own."""
_SNAP_ENDINGS = (".txt", ".label")
_SNAP_LINE = re.compile(r'\s*(\d+)(?:\s+[\d.]+){6}\s+"(.*)"\s*')
"""Value; red, green, blue, opacity, whether it is visible, whether its mesh is; name."""

Values = dict[int, tuple[str, ...]]


@dataclass(frozen=True)
class LabelNames:
    """Value -> the structures that its voxels belong to; and what the file says of the structures beside that."""

    values: Values
    about: dict[str, dict[str, Any]] = field(default_factory=dict)


def names_beside(stem: Path) -> Path | None:
    """The names file of the label map whose path without its ending is ``stem``; None when there is none."""
    for ending in (".json", ".csv", *_SNAP_ENDINGS):
        path = stem.with_name(stem.name + ending)
        if path.is_file() and path.name != DATASET and (ending not in _SNAP_ENDINGS or _snap_labels(path)):
            return path
    return names_for_all(stem.parent)


def names_for_all(folder: Path) -> Path | None:
    """The `DATASET` that names the values of every label map in ``folder``; None when there is none."""
    for place in (folder, folder.resolve().parent):
        if (place / DATASET).is_file():
            return place / DATASET
    return None


def read_label_names(path: Path) -> LabelNames:
    """Read a names file of any of these kinds; `InputError`, with the file, when it is none of them."""
    try:
        if path.suffix.lower() == ".csv":
            names = _read_csv(path)
        elif path.suffix.lower() in _SNAP_ENDINGS:
            names = _checked(LabelNames(_snap_labels(path)))
        else:
            content = read_json(path, _MOST_BYTES)
            names = _from_dataset(content) if path.name == DATASET else _from_json(content)
    except (OSError, ValueError, TypeError, AttributeError, KeyError, RecursionError, csv.Error) as error:
        should = {
            ".csv": "it should have the columns value,name",
            DATASET: 'it should read {"labels": {"background": 0, "Brainstem": 1}}',
        }.get(
            path.name if path.name == DATASET else path.suffix.lower(),
            'it should read {"labels": {"1": "Brainstem"}}',
        )
        raise InputError(f"{path} does not name the labels; {should} ({error})") from error
    values = {value: found for value, found in names.values.items() if value != 0}
    return LabelNames(values, names.about)


def _from_json(content: Any) -> LabelNames:
    labels = content.get("labels", content)
    values = {int(v): (n,) if isinstance(n, str) else tuple(n) for v, n in labels.items()}
    about = content.get("structures", {}) if "labels" in content else {}
    kept = {n: dict(info) for n, info in about.items() if isinstance(info, dict)} if about else {}
    return _checked(LabelNames(values, kept))


def _from_dataset(content: Any) -> LabelNames:
    """nnU-Net: names to values, or to lists of values (regions); "ignore" marks voxels that nobody looked at.

    Version 1 of the format maps values to names, which is recognised by the keys.
    """
    labels: Mapping[str, Any] = content["labels"]
    if labels and all(key.lstrip("-").isdigit() for key in labels):
        return _from_json({"labels": labels})
    values: dict[int, list[str]] = {}
    for name, found in labels.items():
        if name in ("background", "ignore"):
            continue
        for value in found if isinstance(found, list) else [found]:
            if not isinstance(value, int):
                raise ValueError(f"{name} has the value {value!r}, which is not a whole number")
            values.setdefault(value, []).append(name)
    return _checked(LabelNames({value: tuple(names) for value, names in values.items()}))


def _read_csv(path: Path) -> LabelNames:
    rows = [row for row in csv.reader(read_table(path, _MOST_BYTES)) if row and row[0].strip()]
    if rows and not rows[0][0].strip().lstrip("-").isdigit():
        rows = rows[1:]
    values: dict[int, list[str]] = {}
    for value, name, *_ in rows:
        values.setdefault(int(value), []).append(original(name.strip()))
    return _checked(LabelNames({value: tuple(names) for value, names in values.items()}))


def _snap_labels(path: Path) -> Values:
    """ITK-SNAP's labels; empty for a text file of another kind."""
    if path.stat().st_size > _MOST_BYTES:
        return {}
    lines = path.read_text(encoding="utf-8", errors="replace").splitlines()
    found = [_SNAP_LINE.fullmatch(line) for line in lines if line.strip() and not line.startswith("#")]
    if not all(found):
        return {}
    return {int(match[1]): (match[2].strip(),) for match in found if match is not None}


def _checked(names: LabelNames) -> LabelNames:
    if not names.values:
        raise ValueError("it names no value")
    if len(names.values) > _MOST_VALUES:
        raise ValueError(f"it names more than {_MOST_VALUES} values")
    if len({name for found in names.values.values() for name in found}) > MOST_STRUCTURES:
        raise ValueError(f"it names more than {MOST_STRUCTURES} structures")
    for value, found in names.values.items():
        if not found or not all(isinstance(name, str) and name.strip() for name in found):
            raise ValueError(f"value {value} has a name that is not text")
    return names
