"""Which of the packages that a system needs are missing."""

from __future__ import annotations

import importlib.metadata
import re
from collections.abc import Iterable

_NAME = re.compile(r"[A-Za-z0-9._-]+")


def missing_packages(requirements: Iterable[str]) -> tuple[str, ...]:
    """Requirements ("nnunetv2>=2.5") that are not met here.

    A version below the floor counts as missing.
    """
    return tuple(requirement for requirement in requirements if not _is_met(requirement))


def _is_met(requirement: str) -> bool:
    match = _NAME.match(requirement)
    if match is None:
        raise ValueError(f"{requirement!r} is not a requirement")
    try:
        version = importlib.metadata.version(match[0])
    except importlib.metadata.PackageNotFoundError:
        return False
    floor = requirement[match.end() :].removeprefix(">=")
    return _numbers(version) >= _numbers(floor)


def _numbers(version: str) -> tuple[int, ...]:
    return tuple(int(n) for n in re.findall(r"\d+", version.split("+")[0])[:3])
