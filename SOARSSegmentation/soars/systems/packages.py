"""The packages that models' systems need: from which version on, and which of them are missing."""

from __future__ import annotations

import importlib.metadata
import re
from collections.abc import Iterable
from functools import cache
from pathlib import Path

REQUIREMENTS = Path(__file__).with_name("requirements.txt")
"""Its lines are comments or ``name>=version``; `pip install soars-segmentation` and its extras ask for the same."""
_NAME = re.compile(r"[A-Za-z0-9._-]+")


@cache
def oldest_versions() -> dict[str, str]:
    """The oldest version of each package in `REQUIREMENTS` that will do."""
    lines = (line.partition("#")[0].strip() for line in REQUIREMENTS.read_text(encoding="utf-8").splitlines())
    return {name: version for name, _, version in (line.partition(">=") for line in lines if line)}


def requirements(*names: str) -> tuple[str, ...]:
    """Packages with their oldest versions, as pip takes them ("nnunetv2>=2.5")."""
    return tuple(f"{name}>={oldest_versions()[name]}" for name in names)


def missing_packages(wanted: Iterable[str]) -> tuple[str, ...]:
    """Requirements ("nnunetv2>=2.5") that are not met here.

    A version below the floor counts as missing.
    """
    return tuple(requirement for requirement in wanted if not _is_met(requirement))


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
