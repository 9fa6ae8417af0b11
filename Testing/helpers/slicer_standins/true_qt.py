"""``import qt``, as in Slicer, over PySide6: one flat module, and properties that are read and written as attributes.

PythonQt gives ``label.text`` where PySide6 has ``label.text()``; calling a property fails here as it does there.
"""

from __future__ import annotations

from types import ModuleType
from typing import Any

from PySide6 import QtCore, QtGui, QtWidgets

KEPT = {"sizeHint", "minimumSizeHint", "default"}
"""Properties that Qt itself, or PySide6, calls as methods."""


class _Property:
    """A meta-property of a class as an attribute; what the class itself has of that name stays reachable on it."""

    def __init__(self, name: str, on_class: Any) -> None:
        self.name = name
        self.on_class = on_class
        self._reading = False

    def __get__(self, instance: Any, owner: type) -> Any:
        if instance is None:
            return self.on_class
        if (
            self._reading
        ):  # PySide6 looks whether Python overrides the virtual function that reads the property
            return self.on_class.__get__(instance, owner)
        self._reading = True
        try:
            return instance.property(self.name)
        finally:
            self._reading = False

    def __set__(self, instance: Any, value: Any) -> None:
        instance.setProperty(self.name, value)


def make_qt() -> ModuleType:
    """The module, to be put into ``sys.modules``; changes PySide6's classes for the whole process."""
    qt = ModuleType("qt")
    for part in (QtCore, QtGui, QtWidgets):
        for name in dir(part):
            if name.startswith("Q") or name in ("Signal", "Slot"):
                thing = getattr(part, name)
                setattr(qt, name, thing)
                if isinstance(thing, type) and issubclass(thing, QtCore.QObject):
                    _use_properties(thing)
    QtCore.QObject.name = _Property("objectName", None)  # type: ignore[attr-defined]
    return qt


def _use_properties(kind: type) -> None:
    meta = kind.staticMetaObject  # type: ignore[attr-defined]
    if meta.className() != kind.__name__:
        return
    for index in range(meta.propertyCount()):
        name = meta.property(index).name()
        known = getattr(kind, name, None)
        own = index >= meta.propertyOffset() or name in kind.__dict__
        if own and name not in KEPT and not isinstance(kind.__dict__.get(name), _Property):
            setattr(kind, name, _Property(name, known))
