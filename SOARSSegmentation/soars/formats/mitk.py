"""The labels in the header of a NRRD file that MITK Workbench wrote.

Since 2023 they are JSON, a list of groups with their labels (mitkMultiLabelIOHelper.cpp);
before, XML, one field a label (mitkLabelSetImageIO.cpp), where the label 0 is what lies outside of all. Each group is a
layer: groups may overlap, the labels of one may not. Several groups are several values a voxel ("vector domain domain
domain").
"""

from __future__ import annotations

import html
import json
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from soars.structures.model import Colour, as_colour

GROUPS = "org.mitk.multilabel.segmentation.labelgroups"
_LABEL = re.compile(r"org\.mitk\.label_(\d+)_(\d+)")
_NAME = re.compile(r'key="name"[^>]*>\s*<string\s+value="([^"]*)"')
_VALUE = re.compile(r'key="value"[^>]*>\s*<unsigned\s+value="(\d+)"')
_COLOUR = re.compile(r'key="color"[^>]*>\s*<color\s+r="([\d.e+-]+)"\s+g="([\d.e+-]+)"\s+b="([\d.e+-]+)"')


@dataclass(frozen=True)
class MitkLabel:
    """A label: the layer and the value of its voxels; ``name`` is "" where it has none."""

    layer: int
    value: int
    name: str
    colour: Colour | None


def is_mitk(header: Mapping[str, Any]) -> bool:
    """Whether the fields of a NRRD file hold MITK's labels."""
    return GROUPS in header or any(_LABEL.fullmatch(key) for key in header)


def mitk_labels(header: Mapping[str, Any]) -> list[MitkLabel]:
    """The labels, group by group. Raises `ValueError` with what is wrong with them."""
    labels = list(_from_json(str(header[GROUPS])) if GROUPS in header else _from_xml(header))
    if not labels:
        raise ValueError("its header lists no labels")
    return labels


def mitk_matrix(header: Mapping[str, Any]) -> npt.NDArray[np.float64]:
    """Voxel (x, y, z) to LPS mm, shape (4, 4). Raises `ValueError` for another space than MITK's, or none."""
    if header.get("space") not in ("left-posterior-superior", "LPS"):
        raise ValueError(f"its space is {header.get('space')!r}, not left-posterior-superior")
    axes = np.asarray(header["space directions"], dtype=np.float64)[-3:]
    matrix = np.eye(4)
    matrix[:3, :3], matrix[:3, 3] = axes.T, header["space origin"]
    return matrix


def _from_json(text: str) -> Iterator[MitkLabel]:
    try:
        groups = json.loads(text)
    except ValueError:
        groups = json.loads(text.replace("\\\\", "\\"))  # as the NRRD format escapes a backslash
    if not isinstance(groups, list):
        raise ValueError("its label groups are no list")
    for layer, group in enumerate(groups):
        for label in (group.get("labels") if isinstance(group, dict) else None) or []:
            if not isinstance(label, dict) or not isinstance(label.get("value"), int):
                raise ValueError(f"a label of its group {layer} has no value")
            value = label["value"]
            colour = label.get("color")
            parts = colour.get("value") if isinstance(colour, dict) else colour
            yield MitkLabel(layer, value, str(label.get("name") or "").strip(), _colour(parts))


def _from_xml(header: Mapping[str, Any]) -> Iterator[MitkLabel]:
    fields = sorted((int(m[1]), int(m[2]), key) for key in header if (m := _LABEL.fullmatch(key)))
    for layer, _, key in fields:
        text = str(header[key])
        value = _VALUE.search(text)
        if value is None:
            raise ValueError(f"its label {key} has no value")
        if int(value[1]) == 0:
            continue
        name, colour = _NAME.search(text), _COLOUR.search(text)
        known = html.unescape(name[1]).strip() if name else ""
        yield MitkLabel(layer, int(value[1]), known, _colour(colour.groups() if colour else None))


def _colour(parts: Any) -> Colour | None:
    """From red, green and blue between 0 and 1."""
    try:
        return as_colour([round(255 * float(part)) for part in parts])
    except (TypeError, ValueError, OverflowError):
        return None
