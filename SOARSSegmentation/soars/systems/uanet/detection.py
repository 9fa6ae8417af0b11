"""From a CT to boxes of organs, and from boxes to probabilities."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from soars.cascade.activations import no_numbers
from soars.networks.regions import DIVISOR, STRIDE, RegionArchitecture
from soars.structures.box import Box
from soars.systems.trained import Found, Step
from soars.systems.uanet.boxes import clip, decode, make_anchors, on_map, suppress
from soars.systems.votes import Part

if TYPE_CHECKING:
    from soars.networks.region_net import Features, RegionNet

AIR = -1.0
SURE = 0.5
"""An anchor whose probability passes this is a proposal."""
MOST_OVERLAP = 0.5
"""Of two boxes that are both kept."""
MOST_PROPOSALS = 6000
"""The best proposals that suppression looks at, for an untrained network has tens of thousands. Those of large organs
come in hundreds and are the surest, so a lower number would leave small organs without any."""


@dataclass(frozen=True)
class Detection:
    """An organ's box, and how sure the network is of it (0 to 1)."""

    box: np.ndarray
    score: float


def padded(ct: np.ndarray) -> np.ndarray:
    """The CT [z, y, x] with air at its ends, so that the sides are multiples of 16."""
    return np.pad(ct, [(0, -n % DIVISOR) for n in ct.shape], constant_values=AIR)


def proposals(
    logits: np.ndarray,
    codes: np.ndarray,
    anchors: np.ndarray,
    shape: Sequence[int],
    most: int = MOST_PROPOSALS,
) -> np.ndarray:
    """Boxes [n, 6] inside an image of that shape where an organ seems to be, best first."""
    likely = np.flatnonzero(logits > np.log(SURE / (1 - SURE)))
    likely = likely[np.argsort(-logits[likely], kind="stable")[:most]]
    boxes = clip(decode(codes[likely], anchors[likely]), shape)
    return boxes[suppress(boxes, logits[likely], MOST_OVERLAP)]


def detect(
    network: RegionNet, features: Features, architecture: RegionArchitecture
) -> dict[int, list[Detection]]:
    """Class (counted from 0) -> its boxes in the image, best first; none is left out for overlapping another."""
    shape, map_shape = features.image.shape[2:], features.shared.shape[2:]
    logits, codes = (t.cpu().numpy() for t in network.propose(features.shared))
    if not (np.isfinite(logits.sum()) and np.isfinite(codes.sum())):
        raise no_numbers("UaNet", features.image.device.type, "fp32")
    anchors = make_anchors(map_shape, architecture.bases, architecture.shapes)
    boxes = proposals(logits, codes, anchors, shape)
    if not len(boxes):
        return {}
    scores, deltas = network.classify(features.shared, [on_map(b, map_shape) for b in boxes])
    probabilities, refinements = scores.softmax(1).cpu().numpy(), deltas.cpu().numpy()
    winner = probabilities.argmax(1)
    found = {}
    for label in range(1, architecture.classes + 1):
        mine = np.flatnonzero(winner == label)
        if len(mine):
            mine = mine[np.argsort(-probabilities[mine, label], kind="stable")]
            refined = clip(decode(refinements[mine, label], boxes[mine]), shape)
            found[label - 1] = [
                Detection(box, float(probabilities[k, label])) for k, box in zip(mine, refined, strict=True)
            ]
    return found


def kept_boxes(detections: Sequence[Detection], every: bool) -> list[np.ndarray]:
    """The boxes of an organ that are drawn: the best one, or with ``every`` all that no better one overlaps by half."""
    if not every:
        # The best box of a class survives any suppression, so none is needed to find it.
        return [detections[0].box]
    boxes = np.stack([d.box for d in detections])
    kept = suppress(boxes, np.array([d.score for d in detections]), MOST_OVERLAP)
    return list(boxes[kept])


def union(parts: Sequence[Part]) -> Part:
    """Of every voxel the largest of the probabilities that parts give it, 0 where none does."""
    parts = [part for part in parts if part[1].size]
    whole = Box.around(Box.at(start, values.shape) for start, values in parts)
    values = np.zeros(whole.shape, np.float32)
    for start, part in parts:
        there = values[Box.at(start, part.shape).slices_in(whole)]
        np.maximum(there, part, out=there)
    return whole.start, values


def find_organs(
    network: RegionNet,
    architecture: RegionArchitecture,
    classes: Sequence[str],
    ct: np.ndarray,
    organs: Collection[str],
    step: Step,
    every: bool = False,
) -> Found:
    """The organs that are detected, each with its probabilities in its best box, or with ``every`` in all of its
    boxes; see `TrainedSystem.find`."""
    import torch

    device = next(network.parameters()).device
    with torch.no_grad():
        step(0, 1 + len(organs))
        image = torch.from_numpy(np.ascontiguousarray(padded(ct), np.float32))[None, None].to(device)
        features = network.encode(image)
        detections = detect(network, features, architecture)
        found = {}
        for done, (k, detected) in enumerate(detections.items(), start=1):
            if classes[k] not in organs:
                continue
            step(done, 1 + len(detections))
            drawn = union(
                [_drawn(network, features, box, k, ct.shape) for box in kept_boxes(detected, every)]
            )
            if (drawn[1] > 0.5).any():
                found[classes[k]] = drawn
    return found


def _drawn(network: RegionNet, features: Features, box: np.ndarray, organ: int, shape: Sequence[int]) -> Part:
    """One organ's probabilities in one box, as far as the scan [z, y, x] of that shape reaches."""
    import torch

    at = on_map(box, features.shared.shape[2:])
    values = torch.sigmoid(network.draw(features, at, organ)).cpu().numpy()
    start = (at[0].start * STRIDE, at[1].start * STRIDE, at[2].start * STRIDE)
    return start, values[tuple(slice(0, max(n - s, 0)) for n, s in zip(shape, start, strict=True))]
