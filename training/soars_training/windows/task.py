"""What a branch learns, and one training window of it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
import torch
from torch import Tensor

from soars.cascade.sides import all_paired
from soars.errors import InputError
from soars.networks.names import Activation, Branch, Input, channels
from soars_training.cohorts.cache import group_members

WINDOWS_HU = ((-500.0, 1000.0),)
"""The papers' CT window, the one channel of a network that asks for nothing else."""
ACTIVATION_OF: Mapping[Branch, Activation] = {
    "anchor": "softmax",
    "mid_level": "softmax",
    "detection": "heatmap",
    "small_hard": "sigmoid",
}
"""What a branch's network is trained for, and its bundle says."""


@dataclass(frozen=True)
class BranchTask:
    """What a branch learns: which outputs from which inputs.

    `classes` are catalogue names, for detection the heat-map
    groups; `anchors` names the guide's channels when `inputs` holds "anchor"; `windows_hu` the CT's channels. `joined`:
    that many classes at the front are one softmax branch and the others another, trained as one; each branch has a
    label map of its own, since an organ of one may lie over an organ of the other.
    """

    branch: Branch
    classes: tuple[str, ...]
    inputs: tuple[Input, ...]
    anchors: tuple[str, ...] = ()
    windows_hu: tuple[tuple[float, float], ...] = WINDOWS_HU
    joined: int = 0

    @property
    def in_channels(self) -> int:
        return channels(self.inputs, windows=len(self.windows_hu), anchors=len(self.anchors))

    @property
    def activation(self) -> Activation:
        return ACTIVATION_OF[self.branch]

    @property
    def softmax(self) -> bool:
        """Whether the classes exclude one another, beside a background."""
        return self.activation == "softmax"

    @property
    def out_channels(self) -> int:
        return len(self.classes) + (1 if self.softmax else 0)

    @property
    def members(self) -> tuple[str, ...]:
        """The organs that must be annotated: the classes, for detection those of its groups."""
        if self.branch == "detection":
            return tuple(o for group in self.classes for o in group_members(group))
        return self.classes

    @property
    def paired(self) -> bool:
        """Whether every lateral class and anchor has its other side, so that a mirror image can be labelled."""
        return all(all_paired(names) for names in (self.classes, self.anchors))

    def mirrors(self, share: float) -> bool:
        """Whether a branch with this task learns from mirror images when `share` of the windows are to be mirrored."""
        return share > 0 and self.paired


@dataclass(frozen=True)
class Sample:
    """One window: inputs [C, z, y, x], target (labels [z, y, x], of joined branches
    [2, z, y, x], or channels [K, z, y, x]), known bool [K], possible
    bool [K, z, y, x]: where a class that is not known may be (softmax branches)."""

    inputs: Tensor
    target: Tensor
    known: Tensor
    possible: Tensor


Batch = tuple[Tensor, ...]
"""What a model's loss takes; for a branch of the cascade inputs, targets, known and possible, stacked."""


class TrainingData(Protocol):
    """Samples by number, which the loop draws in order; `data[n]` depends on the seed and n alone.

    Attributes:
        title: what is trained, for the progress bar.
        stackable: whether samples have one shape; else the loop takes one at a time and adds up gradients.
    """

    title: str
    stackable: bool

    @property
    def cases(self) -> Sequence[object]:
        """What the samples are drawn from."""

    def __getitem__(self, n: int) -> Any: ...

    def collate(self, samples: Sequence[Any]) -> Batch:
        """Samples as one batch."""


def require_taught(missing: Sequence[str], cases: int) -> None:
    """Raise `InputError` for classes that none of so many cases teaches: a network would draw them at random, and
    nobody would be told."""
    if missing:
        raise InputError(
            f"none of the {cases} cases to learn from annotates {', '.join(missing)}; leave out what nobody drew "
            "(--organs)"
        )


def collate(samples: Sequence[Sample]) -> Batch:
    """Stack samples of one shape to (inputs, targets, known, possible)."""
    return (
        torch.stack([s.inputs for s in samples]),
        torch.stack([s.target for s in samples]),
        torch.stack([s.known for s in samples]),
        torch.stack([s.possible for s in samples]),
    )


def ct_channels(hu: Tensor, windows_hu: Sequence[tuple[float, float]]) -> Tensor:
    """HU [1, z, y, x] as the networks take it: a channel a window, clipped to it and scaled linearly to [-1, 1]."""
    return torch.cat([torch.from_numpy(scaled_ct(hu.numpy(), window)) for window in windows_hu])


def scaled_ct(hu: np.ndarray, window_hu: tuple[float, float]) -> np.ndarray:
    """HU clipped to the window and scaled linearly to [-1, 1], float32."""
    low, high = window_hu
    return (np.clip(hu, low, high).astype(np.float32) - np.float32(low)) * np.float32(
        2 / (high - low)
    ) - np.float32(1)
