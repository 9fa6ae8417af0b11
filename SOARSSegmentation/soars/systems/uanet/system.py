"""Running a bundle of UaNet (Tang et al., Nature Machine Intelligence 2019)."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from typing import TYPE_CHECKING, Any

import numpy as np

from soars.bundle.fields import get_field
from soars.cascade.engine import EngineInfo
from soars.errors import BundleError
from soars.networks.regions import RegionArchitecture
from soars.systems.interface import SegmentOptions
from soars.systems.trained import Finder, Found, Step, TrainedSystem
from soars.systems.uanet.detection import find_organs

if TYPE_CHECKING:
    import torch

NAME = "uanet"


class UaNetSystem(TrainedSystem):
    """A bundle of UaNet, ready to run; see `soars.systems.interface.System`."""

    name = NAME
    title = "UaNet"
    setting_keys = ("network", "every_box")

    def read_settings(self, given: Mapping[str, Any]) -> None:
        self.architecture = RegionArchitecture.from_dict(get_field(given, "network", dict, ""))
        if self.architecture.classes != len(self.bundle.organs):
            raise BundleError(
                f"network.classes: {self.architecture.classes} for {len(self.bundle.organs)} organs"
            )
        self.every_box = get_field(given, "every_box", bool, "") if "every_box" in given else False

    def network(self) -> torch.nn.Module:
        from soars.networks.region_net import RegionNet

        return RegionNet(self.architecture)

    def open(self, options: SegmentOptions) -> tuple[EngineInfo, Finder]:
        from soars.networks.region_net import RegionNet

        info, network = self.in_torch(options)
        assert isinstance(network, RegionNet)

        def find(ct: np.ndarray, organs: Collection[str], step: Step) -> Found:
            return find_organs(
                network, self.architecture, self.bundle.organs, ct, organs, step, self.every_box
            )

        return info, find
