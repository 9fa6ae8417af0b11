"""The initial weights of a run that continues from another one."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from soars.errors import InputError
from soars.networks.build import Network
from soars_training.fitting.options import FittedRun
from soars_training.windows.task import BranchTask


def start_from(network: Network, folder: Path, task: BranchTask) -> None:
    """Load the weights of a finished run into a network, as far as the two match.

    The layers between are taken whole; of the first convolution the channels that both see (the CT's, and the anchors'
    where they are the same), the others start at zero, so that the network answers as before; of the head the classes
    that both have. Raises `InputError` when the layers in between differ.
    """
    before = FittedRun.load(folder)
    old, new = before.architecture, network.architecture
    if replace(old, in_channels=1, out_channels=1) != replace(new, in_channels=1, out_channels=1):
        raise InputError(f"{folder}: its network has different layers; cannot start from it")
    if before.windows_hu != task.windows_hu:
        raise InputError(f"{folder}: was trained with different CT windows; cannot start from it")
    weights, own = before.network(folder).state_dict(), network.state_dict()
    shared = len(task.windows_hu)
    if (before.inputs, before.anchors) == (task.inputs, task.anchors):
        shared = old.in_channels
    heads = [f"{head}.{part}" for head in network.heads for part in ("weight", "bias")]
    for name in (n for n in own if n not in heads and own[n].shape != weights[n].shape):
        widened = own[name].clone()
        if own[name].ndim > 1:  # the first convolution; the batch norm before it begins as a new one does
            widened.zero_()
            widened[:, :shared] = weights[name][:, :shared]
        else:
            widened[:shared] = weights[name][:shared]
        weights[name] = widened
    offset = 1 if task.softmax else 0
    rows = {name: i + offset for i, name in enumerate(task.classes)} | ({"": 0} if offset else {})
    theirs = {name: i + offset for i, name in enumerate(before.classes)} | ({"": 0} if offset else {})
    for key in heads:
        head = own[key].clone()
        for name in rows.keys() & theirs.keys():
            head[rows[name]] = weights[key][theirs[name]]
        weights[key] = head
    network.load_state_dict(weights)
