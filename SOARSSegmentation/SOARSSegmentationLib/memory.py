"""What the module remembers between scenes and restarts of the application: Slicer's user settings."""

from __future__ import annotations

import slicer

_GROUP = "SOARSSegmentation/"


def recall(key: str, otherwise: str = "") -> str:
    value = slicer.app.userSettings().value(_key(key))
    return str(value) if value is not None else otherwise


def remember(key: str, value: str) -> None:
    slicer.app.userSettings().setValue(_key(key), value)


def _key(key: str) -> str:
    return key if key.startswith(_GROUP) else _GROUP + key
