"""Slicer's translation of user-visible text; outside the application, text is returned unchanged."""

from __future__ import annotations

try:
    from slicer.i18n import tr as _
except ImportError:

    def _(text: str) -> str:
        return text


__all__ = ["_"]
