"""From a CT to boxes of organs, and from boxes to probabilities."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from soars.cascade.activations import no_numbers
from soars.networks.regions import DIVISOR, STRIDE, RegionArchitecture
from soars.systems.trained import Found, Step
from soars.systems.uanet.boxes import clip, decode, make_anchors, on_map, suppress

if TYPE_CHECKING:
    from soars.networks.region_net import Features, RegionNet

AIR = -1.0
SURE = 0.5
"""An anchor whose probability passes this is a proposal."""
MOST_OVERLAP = 0.5
"""Of two boxes that are both kept."""
MOST_PROPOSALS = 400
"""The best proposals that suppression looks at; an untrained network has tens of thousands."""


@dataclass(frozen=True)
class Detection:
    """An organ's best box, and how sure the network is of it (0 to 1)."""

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


def detect(network: RegionNet, features: Features, architecture: RegionArchitecture) -> dict[int, Detection]:
    """Class (counted from 0) -> its best box in the image."""
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
            # The best box of a class survives any suppression, so none is needed to find it.
            best = mine[int(probabilities[mine, label].argmax())]
            box = clip(decode(refinements[best : best + 1, label], boxes[best : best + 1]), shape)[0]
            found[label - 1] = Detection(box, float(probabilities[best, label]))
    return found


def find_organs(
    network: RegionNet,
    architecture: RegionArchitecture,
    classes: Sequence[str],
    ct: np.ndarray,
    organs: Collection[str],
    step: Step,
) -> Found:
    """The organs that are detected, each with its probabilities in its box; see `TrainedSystem.find`."""
    import torch

    device = next(network.parameters()).device
    with torch.no_grad():
        step(0, 1 + len(organs))
        image = torch.from_numpy(np.ascontiguousarray(padded(ct), np.float32))[None, None].to(device)
        features = network.encode(image)
        detections = detect(network, features, architecture)
        found = {}
        for done, (k, detection) in enumerate(detections.items(), start=1):
            if classes[k] not in organs:
                continue
            step(done, 1 + len(detections))
            box = on_map(detection.box, features.shared.shape[2:])
            values = torch.sigmoid(network.draw(features, box, k)).cpu().numpy()
            start = (box[0].start * STRIDE, box[1].start * STRIDE, box[2].start * STRIDE)
            inside = tuple(slice(0, max(n - s, 0)) for n, s in zip(ct.shape, start, strict=True))
            values = values[inside]
            if (values > 0.5).any():
                found[classes[k]] = (start, values)
    return found
