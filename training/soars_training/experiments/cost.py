"""What drawing a patient costs: seconds, and the most memory that the process held meanwhile."""

from __future__ import annotations

import re
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field, fields
from pathlib import Path

import numpy as np
import torch

from soars.files import write_json
from soars.texts import read_json

COSTS = "costs"
STATUS, RESET = Path("/proc/self/status"), Path("/proc/self/clear_refs")
NOT_KNOWN = float("nan")


@dataclass(frozen=True)
class Cost:
    """Of a setting and seed.

    Attributes:
        device: what it ran on. patients: so many were drawn, in ``seconds`` together.
        memory_mb: the largest resident memory of the process on a processor (Linux), of the tensors on a GPU; nan where
            it is not known.
        steps, training_s, parameters: of its training, 0 where each of its networks says so itself.
    """

    device: str
    patients: int
    seconds: float
    memory_mb: float
    steps: int = 0
    training_s: float = 0.0
    parameters: int = 0

    def save(self, path: Path) -> None:
        path.parent.mkdir(exist_ok=True)
        values = asdict(self)
        values["memory_mb"] = None if np.isnan(self.memory_mb) else self.memory_mb
        write_json(path, values)

    @staticmethod
    def load(path: Path) -> Cost:
        values = read_json(path)
        values["memory_mb"] = NOT_KNOWN if values["memory_mb"] is None else values["memory_mb"]
        return Cost(**{f.name: values[f.name] for f in fields(Cost)})


@dataclass
class Meter:
    """Adds up what happens in `running`."""

    device: torch.device
    seconds: float = 0.0
    memory_mb: float = field(default=NOT_KNOWN)

    @contextmanager
    def running(self) -> Iterator[None]:
        _forget_peak(self.device)
        start = time.perf_counter()
        yield
        if self.device.type == "cuda":
            torch.cuda.synchronize(self.device)
        self.seconds += time.perf_counter() - start
        self.memory_mb = float(np.fmax(self.memory_mb, _peak_mb(self.device)))

    def cost(self, patients: int) -> Cost:
        return Cost(self.device.type, patients, round(self.seconds, 2), self.memory_mb)


def _forget_peak(device: torch.device) -> None:
    """From here on the peak is counted anew."""
    if device.type == "cuda":
        torch.cuda.reset_peak_memory_stats(device)
    elif RESET.exists():
        RESET.write_text("5")  # proc(5): resets the peak resident set size, VmHWM


def _peak_mb(device: torch.device) -> float:
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device) / 2**20
    found = re.search(r"VmHWM:\s*(\d+) kB", STATUS.read_text()) if STATUS.exists() else None
    return int(found[1]) / 1024 if found else NOT_KNOWN
