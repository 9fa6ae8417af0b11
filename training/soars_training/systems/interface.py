"""What a trainable system offers, whatever it is made of.

A *system* is a way of segmenting organs: here how it is trained on a cache and becomes a bundle, in `soars.systems` how
the bundle is run. `soars-train fit-system`, `soars-train export` and the comparison of systems know nothing else.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import torch

from soars.bundle.manifest import Bundle
from soars.errors import InputError
from soars.files import write_json
from soars.networks.names import EngineName
from soars.texts import read_json
from soars_training.cohorts.cache import CachedCase, as_written
from soars_training.fitting.options import RUN_FILE, RunOptions

Predict = Callable[[CachedCase], Mapping[str, np.ndarray]]
"""Organ -> bool mask [z, y, x] on the case's own grid; organs that were not found are left out."""

Compared = tuple[EngineName, np.ndarray, np.ndarray]
"""An engine, what it makes of noise with a bundle's weights, and what the network makes of it that was trained; a
network with several outputs is compared output by output."""


class Described(Protocol):
    """A network's description, as manifests have it."""

    def to_dict(self) -> dict[str, Any]: ...


@dataclass(frozen=True)
class SystemOptions(RunOptions):
    """A run of a system; each system has its own subclass with settings of its own.

    Attributes:
        organs: catalogue names, in the order of the network's classes.
        window_hu: the CT is clipped to it and scaled linearly to [-1, 1].
    """

    organs: tuple[str, ...]
    window_hu: tuple[float, float] = (-500.0, 1000.0)

    def architecture(self) -> Described:
        """The network's description; raises `BundleError` for one that makes no sense."""
        raise NotImplementedError


@dataclass(frozen=True)
class SystemRun:
    """What `run.json` says of a finished run of a system.

    Attributes:
        system: its name.
        organs: what it learned.
        source: the cohort's name, from the cache.
        spacing_mm: of the working grid, (x, y, z).
        cases: how many it learned from; held_out: patients kept for validation.
        validation: organ -> mean DSC of the held-out patients at the last step, on the working grid.
        settings: the system's own, as its bundle's manifest will have them.
        summary: one sentence on network and training, for the model card.
        options: the run's, for the record.
        seconds: spent on training steps.
        parameters: numbers that were learned.
    """

    system: str
    organs: tuple[str, ...]
    source: str
    spacing_mm: tuple[float, float, float]
    cases: int
    held_out: tuple[str, ...]
    validation: dict[str, float]
    settings: dict[str, Any]
    summary: str
    options: dict[str, Any]
    seconds: float
    parameters: int

    @staticmethod
    def load(folder: Path) -> SystemRun:
        """Raises `InputError` for a folder without a finished run of a system."""
        try:
            data = read_json(folder / RUN_FILE)
        except (OSError, ValueError) as error:
            raise InputError(f"{folder}: not a finished training run ({error})") from error
        with as_written(folder / RUN_FILE, "train it again"):
            missing = sorted({f.name for f in fields(SystemRun)} - set(data))
            if missing:
                raise InputError(
                    f"{folder / RUN_FILE}: lacks {', '.join(missing)}; made by another version, train it again"
                )
            for key in ("organs", "spacing_mm", "held_out"):
                data[key] = tuple(data[key])
            return SystemRun(**data)

    def save(self, folder: Path) -> None:
        write_json(folder / RUN_FILE, asdict(self))


def system_of_run(folder: Path) -> str | None:
    """The system that a finished run trained; None for a branch of the cascade, or where there is no run."""
    try:
        data = read_json(folder / RUN_FILE)
    except (OSError, ValueError):
        return None
    return data.get("system") if isinstance(data, dict) else None


class TrainingSystem(Protocol):
    """A system that can be trained."""

    @property
    def name(self) -> str:
        """As manifests have it."""

    @property
    def presets(self) -> tuple[str, ...]:
        """Names of its presets."""

    def options(self, preset: str, organs: tuple[str, ...]) -> Any:
        """The settings of a preset, one of `presets`: `SystemOptions` with the system's own; the caller replaces
        fields, and `fit` checks them."""

    def fit(
        self,
        cache: Path,
        output: Path,
        options: Any,
        *,
        resume: bool = False,
        overwrite: bool = False,
    ) -> SystemRun:
        """Train on a cache with options of the kind that `options` makes; writes checkpoints, tables and `run.json`
        into `output`.

        Raises `InputError` for settings or a cache that do not fit, or when `output` holds a run already and neither
        `resume` nor `overwrite` is set; `CancelledError` after SIGTERM or SIGINT, with a checkpoint written.
        """

    @property
    def weights(self) -> str:
        """The file of the weights in a bundle of one network."""

    def finished(self, folder: Path, options: Any, device: torch.device) -> Predict:
        """What a finished run of these options learned, as a function that draws the organs of a whole patient."""

    def write_member(self, folder: Path, path: Path) -> None:
        """Write the weights of a finished run alone, as one of several networks that vote."""

    def write_weights(self, run: SystemRun, folder: Path, bundle: Path) -> None:
        """Put what the bundle needs beside manifest and card from a finished run's folder into the bundle's folder."""

    def compared(self, run: SystemRun, folder: Path, bundle: Bundle, weights: str) -> Iterator[Compared]:
        """A file of the bundle's weights beside the finished run in `folder` that they are from, on every engine that
        users run."""
