"""PythonQt writes what Qt calls properties as attributes, and refuses others; PySide6 takes any attribute.

The list is that of Qt 6, which has a few more than Qt 5.15. Every attribute that the widgets' code writes is held
against it, and against the properties of CTK's and Slicer's widgets, read in their headers (Q_PROPERTY).
"""

from __future__ import annotations

import ast
from pathlib import Path

import pytest

pytest.importorskip("PySide6.QtWidgets", reason="PySide6 cannot be used here", exc_type=ImportError)
from PySide6 import QtCore, QtGui, QtWidgets

CTK_AND_SLICER = {
    *("collapsed", "text"),  # ctkCollapsibleButton
    *("nodeTypes", "showChildNodeTypes", "addEnabled", "removeEnabled", "noneEnabled", "noneDisplay"),
    "sizeAdjustPolicy",  # qMRMLNodeComboBox
    "undoEnabled",  # qMRMLSegmentEditorWidget
}
OUR_OBJECTS = {
    *("session", "session_folder", "segmentation", "volume", "running", "on_changed", "on", "CallDataType"),
    *("state", "share", "seconds"),
}
"""Written on objects of ours, and on functions."""


def properties() -> set[str]:
    names: set[str] = set()
    for part in (QtCore, QtGui, QtWidgets):
        for kind in (getattr(part, name) for name in dir(part)):  # made when they are asked for
            meta = getattr(kind, "staticMetaObject", None) if isinstance(kind, type) else None
            if meta is not None:
                names |= {meta.property(index).name() for index in range(meta.propertyCount())}
    return names


def written(path: Path) -> set[tuple[str, int]]:
    """Attributes that a file writes on anything but ``self`` itself."""
    found = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        targets = node.targets if isinstance(node, ast.Assign) else []
        for target in targets:
            if isinstance(target, ast.Attribute) and not (
                isinstance(target.value, ast.Name) and target.value.id == "self"
            ):
                found.add((target.attr, node.lineno))
    return found


def test_only_properties_are_written_as_attributes(root: Path) -> None:
    known = properties() | CTK_AND_SLICER | OUR_OBJECTS
    library = root / "SOARSSegmentation" / "SOARSSegmentationLib"
    seen, wrong = 0, []
    for folder in ("panels", "sections", "run", "session", "."):
        for path in sorted((library / folder).glob("*.py")):
            for name, line in written(path):
                seen += 1
                if name not in known:
                    wrong.append(
                        f"{path.relative_to(library)}:{line}: {name} is no property: call its setter"
                    )
    assert not wrong, "\n".join(wrong)
    assert seen > 100


def test_a_setter_without_a_property_is_no_property() -> None:
    assert "headerLabels" not in properties() and "stretchLastSection" in properties()
