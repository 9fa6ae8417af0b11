"""Slicer's translation of what the user reads; outside the application text stays as it is."""

from __future__ import annotations

try:
    from slicer.i18n import tr as _
except ImportError:

    def _(text: str) -> str:
        return text


__all__ = ["_"]
