"""Running a bundle of DeepMind's U-Net (Nikolov et al., J Med Internet Res 2021)."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from typing import TYPE_CHECKING, Any

import numpy as np

from soars.bundle.fields import get_field
from soars.errors import BundleError
from soars.networks.slices import SliceArchitecture
from soars.systems.deepmind.slabs import probabilities, window_yx
from soars.systems.trained import Found, Step, TrainedSystem

if TYPE_CHECKING:
    import torch

NAME = "deepmind"
SLAB = 8
"""Slices that are drawn together."""


class DeepMindSystem(TrainedSystem):
    """A bundle of DeepMind's U-Net, ready to run; see `soars.systems.interface.System`."""

    name = NAME
    title = "DeepMind's U-Net"
    setting_keys = ("network",)

    def read_settings(self, given: Mapping[str, Any]) -> None:
        self.architecture = SliceArchitecture.from_dict(get_field(given, "network", dict, ""))
        if self.architecture.classes != len(self.bundle.organs):
            raise BundleError(
                f"network.classes: {self.architecture.classes} for {len(self.bundle.organs)} organs"
            )

    def network(self) -> torch.nn.Module:
        from soars.networks.slice_net import SliceNet

        return SliceNet(self.architecture)

    def find(self, network: torch.nn.Module, ct: np.ndarray, organs: Collection[str], step: Step) -> Found:
        return find_organs(network, self.architecture, self.bundle.organs, ct, organs, step)


def find_organs(
    network: torch.nn.Module,
    architecture: SliceArchitecture,
    classes: Collection[str],
    ct: np.ndarray,
    organs: Collection[str],
    step: Step,
) -> Found:
    """The organs whose probability passes one half anywhere; see `TrainedSystem.find`."""
    import torch

    device = next(network.parameters()).device

    def run(slab: np.ndarray) -> np.ndarray:
        with torch.no_grad():
            logits = network(torch.from_numpy(slab)[None, None].to(device))[0]
            return torch.sigmoid(logits.float()).cpu().numpy()

    size = architecture.size
    values = probabilities(run, ct, architecture.classes, size, SLAB, step)
    top, left = window_yx(ct.shape, size)
    return {
        organ: ((0, top, left), values[k])
        for k, organ in enumerate(classes)
        if organ in organs and (values[k] > 0.5).any()
    }
