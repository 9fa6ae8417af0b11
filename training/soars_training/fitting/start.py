"""The initial weights of a run that continues from another one."""

from __future__ import annotations

from pathlib import Path

import torch

from soars.errors import InputError
from soars.networks.unet import UNet
from soars_training.fitting.options import FittedRun
from soars_training.windows.task import BranchTask


def start_from(network: UNet, folder: Path, task: BranchTask) -> None:
    """Load the weights of a finished run into a network, as far as the two match.

    The layers between are taken whole; of the first convolution the channels that both see (the CT's, and the anchors'
    where they are the same), the others start at zero, so that the network answers as before; of the head the classes
    that both have. Raises `InputError` when the layers in between differ.
    """
    before = FittedRun.load(folder)
    old, new = before.architecture, network.architecture
    if (old.features, old.strides, old.blocks) != (new.features, new.strides, new.blocks):
        raise InputError(f"{folder}: its network has different layers; cannot start from it")
    if before.windows_hu != task.windows_hu:
        raise InputError(f"{folder}: was trained with different CT windows; cannot start from it")
    weights, own = before.network(folder).state_dict(), network.state_dict()
    first = next(iter(weights))
    shared = len(task.windows_hu)
    if (before.inputs, before.anchors) == (task.inputs, task.anchors):
        shared = old.in_channels
    widened = torch.zeros_like(own[first])
    widened[:, :shared] = weights[first][:, :shared]
    weights[first] = widened
    offset = 1 if task.softmax else 0
    rows = {name: i + offset for i, name in enumerate(task.classes)} | ({"": 0} if offset else {})
    theirs = {name: i + offset for i, name in enumerate(before.classes)} | ({"": 0} if offset else {})
    for key in ("head.weight", "head.bias"):
        head = own[key].clone()
        for name in rows.keys() & theirs.keys():
            head[rows[name]] = weights[key][theirs[name]]
        weights[key] = head
    network.load_state_dict(weights)
