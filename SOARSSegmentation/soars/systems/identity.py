"""One SHA-256 for everything that decides what a system draws."""

from __future__ import annotations

import hashlib
import json


def combined_sha256(parts: object) -> str:
    """SHA-256 of plain values (texts, numbers, lists, dictionaries), the same whatever a dictionary's order."""
    return hashlib.sha256(json.dumps(parts, sort_keys=True).encode()).hexdigest()
