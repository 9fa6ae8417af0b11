"""From a description to the network (torch)."""

from __future__ import annotations

from soars.networks.architecture import Architecture
from soars.networks.blocks import MakeBlock
from soars.networks.phnn import PHnn
from soars.networks.unet import UNet

Network = UNet | PHnn


def build(architecture: Architecture, make: MakeBlock | None = None) -> Network:
    """The network that the architecture names, with random weights; `make` builds the blocks, as named when None."""
    return PHnn(architecture, make) if architecture.network == "phnn" else UNet(architecture, make)
