"""Fetching weights that a bundle does not hold itself: only on request, by their own package's code."""

from __future__ import annotations

import urllib.error
import urllib.request
from collections.abc import Collection

from soars.errors import EngineError
from soars.progress import Progress, Reporter
from soars.systems.composite.system import CompositeSystem
from soars.systems.interface import System, Weights
from soars.systems.totalsegmentator import package
from soars.systems.totalsegmentator.system import TotalSegmentatorSystem, fast_by_default

_TIMEOUT_S = 10.0


def size_of(weights: Weights) -> int | None:
    """A download's size in bytes according to its server; None when it does not say, or cannot be reached."""
    if not weights.url.startswith("https://"):
        return None
    request = urllib.request.Request(weights.url, method="HEAD")
    try:
        with urllib.request.urlopen(request, timeout=_TIMEOUT_S) as answer:
            length = answer.headers.get("Content-Length")
    except (urllib.error.URLError, TimeoutError, OSError):
        return None
    return int(length) if length and length.isdecimal() else None


def fetch_weights(
    system: System, organs: Collection[str], licence_number: str | None, progress: Reporter
) -> None:
    """Download what these organs lack. Models that need a licence number are left out without one.

    Raises `EngineError` when a download fails or the number is refused.
    """
    if isinstance(system, CompositeSystem):
        for source, mine in system.by_source(organs).items():
            fetch_weights(source, mine, licence_number, progress)
        return
    if not isinstance(system, TotalSegmentatorSystem):
        return
    if licence_number is not None:
        package.enter_licence_number(licence_number)
        if not package.has_licence_number():
            raise EngineError(
                "the licence number was refused; check it, or ask TotalSegmentator's publishers"
            )
    tasks = [t for t in system.tasks_for(organs) if not t.needs_number or package.has_licence_number()]
    for i, task in enumerate(tasks):
        progress(Progress("download", i, len(tasks), task.name))
        package.fetch(task, fast=fast_by_default() and task.fast)
    progress(Progress("download", len(tasks), len(tasks)))
