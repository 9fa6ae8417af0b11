"""The systems that can be trained, by name."""

from __future__ import annotations

from collections.abc import Callable

from soars.errors import InputError
from soars_training.systems.ct_mr.system import CtMrTraining
from soars_training.systems.deepmind.system import DeepMindTraining
from soars_training.systems.interface import TrainingSystem
from soars_training.systems.uanet.system import UaNetTraining

SYSTEMS: dict[str, Callable[[], TrainingSystem]] = {
    "ct_mr": CtMrTraining,
    "deepmind": DeepMindTraining,
    "uanet": UaNetTraining,
}
"""Name, as manifests have it -> what makes the system. Heavy packages are imported where a system needs them."""


def training_system(name: str) -> TrainingSystem:
    """The system of that name; raises `InputError` for an unknown one."""
    if name not in SYSTEMS:
        raise InputError(f"unknown system {name!r}; there are: {', '.join(SYSTEMS)}")
    return SYSTEMS[name]()
