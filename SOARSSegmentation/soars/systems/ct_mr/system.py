"""Running a bundle of the CT and MR network (early fusion; Podobnik et al., Radiother Oncol 2024).

The network's channels are the CT, the MR's values and where the MR has any. It has learned from cases whose MR was
hidden now and then, so it runs without an MR, too. It runs in torch only: its bundles hold no ONNX graph.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from soars.bundle.fields import get_field, get_numbers
from soars.bundle.manifest import CT_MR, BranchSpec
from soars.cascade.engine import EngineInfo
from soars.cascade.preprocess import Body, Grid, network_input
from soars.cascade.windows import CtChannel, slide
from soars.ct.images import CtScan
from soars.errors import BundleError
from soars.mr.laid import CHANNELS
from soars.networks.architecture import Architecture
from soars.systems.interface import SegmentOptions
from soars.systems.trained import Finder, Found, Step, TrainedSystem

if TYPE_CHECKING:
    import torch

NAME = CT_MR
IN_CHANNELS = 1 + CHANNELS


class CtMrSystem(TrainedSystem):
    """A bundle of the CT and MR network, ready to run; see `soars.systems.interface.System`."""

    name = NAME
    title = "the CT and MR network"
    setting_keys = ("network", "patch")

    def read_settings(self, given: Mapping[str, Any]) -> None:
        architecture = Architecture.from_dict(get_field(given, "network", dict, ""))
        if architecture.in_channels != IN_CHANNELS:
            raise BundleError(f"network.in_channels: {architecture.in_channels}, it must be {IN_CHANNELS}")
        classes = len(self.bundle.organs) + 1
        if architecture.out_channels != classes:
            raise BundleError(
                f"network.out_channels: {architecture.out_channels}, it must be {classes} with the background"
            )
        patch = [int(n) for n in get_numbers(given, "patch", 3, "")]
        if any(n < d or n % d for n, d in zip(patch, architecture.divisor, strict=True)):
            raise BundleError(f"patch: {patch} is not a multiple of {list(architecture.divisor)}")
        self.spec = window_spec(
            self.bundle.organs, architecture, (patch[0], patch[1], patch[2]), self.spacing_mm
        )

    def network(self) -> torch.nn.Module:
        from soars.networks.build import build

        return build(self.spec.architecture)

    def open(self, options: SegmentOptions) -> tuple[EngineInfo, Finder]:
        info, network = self.in_torch(options)

        def find(channels: np.ndarray, organs: Collection[str], step: Step) -> Found:
            return find_organs(network, self.spec, channels, organs, step)

        return info, find

    def volume(self, ct: CtScan, body: Body, grid: Grid, options: SegmentOptions) -> np.ndarray:
        seen = network_input(ct.image, body, grid, [self.window_hu])
        if options.mr is None:
            return np.concatenate([seen, np.zeros((CHANNELS, *grid.shape), np.float32)])
        return np.concatenate([seen, options.mr.channels(grid, body)])


def window_spec(
    organs: Sequence[str],
    architecture: Architecture,
    patch: tuple[int, int, int],
    spacing_mm: tuple[float, float, float],
) -> BranchSpec:
    """The network as `soars.cascade.windows.slide` runs it: over the whole patient, the organs excluding each other."""
    return BranchSpec(
        name="anchor",
        inputs=("ct",),
        classes=tuple(organs),
        activation="softmax",
        spacing_mm=spacing_mm,
        patch=patch,
        architecture=architecture,
        files={},
    )


def find_organs(
    network: torch.nn.Module, spec: BranchSpec, channels: np.ndarray, organs: Collection[str], step: Step
) -> Found:
    """The organs that are the most probable class anywhere; see `soars.systems.trained.Finder`.

    Args:
        channels: float32 [3, z, y, x]: CT in [-1, 1], MR, where the MR has a value.

    An organ's value is its share of its own and the best other class's probability: above one half where it wins.
    """
    import torch

    from soars.cascade.torch_engine import NetworkEngine

    device = next(network.parameters()).device
    _, z, y, x = channels.shape
    grid = Grid.of((0.0, 0.0, 0.0), spec.spacing_mm, (x, y, z))
    sources = [CtChannel(channels[0]), *(CtChannel(one, outside=0.0) for one in channels[1:])]
    engine = NetworkEngine(network, spec, device, torch.float32)
    values = slide(engine, spec, grid, sources, step).values.astype(np.float32)
    first, second = values[0].copy(), np.zeros_like(values[0])  # the two best classes
    for one in values[1:]:
        second = np.maximum(second, np.minimum(first, one))
        first = np.maximum(first, one)
    found = {}
    for k, organ in enumerate(spec.classes, start=1):
        if organ not in organs:
            continue
        mine = values[k]
        other = np.where(mine >= first, second, first)
        if (mine > other).any():
            found[organ] = ((0, 0, 0), mine / np.maximum(mine + other, 1.0))
    return found
