"""Names of devices that networks run on: auto, cpu, cuda (the first graphics card) and cuda:1 (the second)."""

from __future__ import annotations

import re

_NAME = re.compile(r"auto|cpu|cuda(?::(0|[1-9][0-9]?))?")
EXPECTED = "auto, cpu, cuda or a numbered card such as cuda:1"


def is_device(name: str) -> bool:
    """Whether it is the name of a device, there or not."""
    return _NAME.fullmatch(name) is not None


def is_card(name: str) -> bool:
    """Whether a graphics card was asked for by name."""
    return is_device(name) and name.startswith("cuda")


def card_number(name: str) -> int:
    """Of "cuda:1" 1; of "cuda" and of "auto" 0."""
    found = _NAME.fullmatch(name)
    return int(found[1] or 0) if found else 0
