"""Effort logs for tests: a header with few organs, and a clock that is set by hand."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

from soars.effort.recorder import Recorder
from soars.effort.records import Header
from soars.effort.writer import LogWriter

MS = 1_000_000
S = 1_000_000_000
ORGANS = ("Brainstem", "Eye_L", "Lens_L", "Parotid_L")
HEADER = Header(
    study="pilot",
    case="case-01",
    reader="R1",
    arm="revise",
    organs=ORGANS,
    bundle="starter",
    bundle_sha256="ab" * 32,
    software={"soars": "0.1.0", "slicer": "5.8.1"},
    started_utc="2026-11-21T08:30:00Z",
)


class HandClock:
    """Nanoseconds that pass only when told to."""

    def __init__(self, start_s: float = 1234.5) -> None:
        self.ns = round(start_s * S)

    def __call__(self) -> int:
        return self.ns

    def step(self, seconds: float) -> None:
        self.ns += round(seconds * S)


def recorder_at(path: Path, clock: HandClock, **header: Any) -> Recorder:
    """A recorder on a new log, whose header is `HEADER` but for the given fields."""
    return Recorder(LogWriter.create(path, replace(HEADER, **header), clock))
