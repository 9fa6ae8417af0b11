"""Fetching weights that a bundle does not hold itself: only on request, by their own package's code."""

from __future__ import annotations

import time
import urllib.error
import urllib.request
from collections.abc import Collection

from soars.errors import EngineError
from soars.progress import Progress, Reporter
from soars.systems.composite.system import CompositeSystem
from soars.systems.interface import System, Weights
from soars.systems.totalsegmentator import downloads, package
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
        downloads.enter_licence_number(licence_number)
        if not package.has_licence_number():
            raise EngineError(
                "the licence number was refused; check it, or ask TotalSegmentator's publishers"
            )
    tasks = [t for t in system.tasks_for(organs) if not t.needs_number or package.has_licence_number()]
    fast = fast_by_default()
    numbers = list(
        dict.fromkeys(
            number
            for task in tasks
            for number in package.model_numbers(task.name, fast=fast and task.fast, subset=True)
        )
    )
    for i, number in enumerate(numbers):
        progress(Progress("download", i, len(numbers), f"model {number}"))
        downloads.fetch_model(number, _watch(progress, i, len(numbers), number))
    progress(Progress("download", len(numbers), len(numbers)))


def _watch(progress: Reporter, i: int, of: int, number: int) -> downloads.Watch:
    """Reports a model's bytes, ten times a second at most."""
    said = 0.0

    def watch(done: int, total: int) -> None:
        nonlocal said
        now = time.monotonic()
        if now - said >= 0.1:
            said = now
            size = f" of {total / 1e6:.0f}" if total else ""
            progress(Progress("download", i, of, f"model {number}: {done / 1e6:.0f}{size} MB"))

    return watch
