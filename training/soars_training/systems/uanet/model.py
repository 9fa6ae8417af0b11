"""UaNet with its losses, and the order in which its heads begin to learn."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from soars.networks.region_net import Features, RegionNet, Slices
from soars.networks.regions import STRIDE, RegionArchitecture
from soars.systems.uanet.boxes import clip, decode, encode, make_anchors, on_map
from soars.systems.uanet.detection import proposals
from soars_training.fitting.models import Model
from soars_training.systems.uanet.losses import anchor_weights, class_loss, code_loss, focal_loss, mask_loss
from soars_training.systems.uanet.targets import UnknownRegions, sample_boxes
from soars_training.windows.task import Batch

RARE = -4.0
"""The bias at the start of the heads of proposals and masks: an anchor holds an organ, and a voxel of a box is one's,
with probability 0.02. At one half, a Dice of an organ that fills a thousandth of its box has hardly a gradient."""


class UaNetModel(Model):
    """The network and the sum of its losses.

    The proposal head learns from the first step; the box head from the share ``boxes_from`` of the steps on, the mask
    head from ``masks_from`` on. All weigh alike.
    """

    def __init__(
        self,
        architecture: RegionArchitecture,
        *,
        boxes_from: float,
        masks_from: float,
        sampled: int,
        drawn: int,
        seed: int,
        every_organ: bool = False,
        logarithm: bool = False,
    ) -> None:
        super().__init__()
        self.net = RegionNet(architecture)
        self.boxes_from, self.masks_from, self.sampled, self.drawn = boxes_from, masks_from, sampled, drawn
        self.every_organ, self.logarithm, self.seed = every_organ, logarithm, seed
        self.done = 0.0
        self.rng = np.random.default_rng([seed, 0])
        for head in (self.net.objectness, self.net.mask_class):
            assert head.bias is not None
            torch.nn.init.constant_(head.bias, RARE)

    def begin(self, step: int, steps: int) -> None:
        self.done = step / steps
        self.rng = np.random.default_rng([self.seed, step])

    def loss(self, batch: Batch, balance: float) -> Tensor:
        image, labels, codes, boxes, organs, masks, matrix, regions = batch
        features = self.net.encode(image)
        logits, deltas = self.net.propose(features.shared)
        counted, positive = labels >= 0, labels == 1
        total = focal_loss(logits[counted], labels[counted], anchor_weights(labels)[counted])
        total = total + code_loss(deltas[positive], codes[positive])
        if self.done < self.boxes_from:
            return total
        truth = boxes.cpu().numpy()
        unknown = UnknownRegions(matrix.cpu().numpy(), regions.cpu().numpy())
        chosen, owners = self._sampled(features, logits, deltas, truth, unknown)
        if not len(chosen):
            return total
        scores, refinements = self.net.classify(
            features.shared, [on_map(b, features.shared.shape[2:]) for b in chosen]
        )
        organ_of = organs.cpu().numpy()
        classes = np.array([0 if k < 0 else 1 + organ_of[k] for k in owners])
        total = total + class_loss(scores, torch.from_numpy(classes).to(scores.device))
        rows = np.flatnonzero(owners >= 0)
        wanted = torch.from_numpy(encode(truth[owners[rows]], chosen[rows]).astype(np.float32))
        total = total + code_loss(refinements[rows, classes[rows]], wanted.to(scores.device))
        if self.done < self.masks_from:
            return total
        return total + self._masks(features, chosen, owners, classes, scores, refinements, masks)

    def _sampled(
        self,
        features: Features,
        logits: Tensor,
        deltas: Tensor,
        truth: np.ndarray,
        unknown: UnknownRegions,
    ) -> tuple[np.ndarray, np.ndarray]:
        """The boxes [n, 6] that the box head sees, and the true box of each (-1: background)."""
        shape, a = features.image.shape[2:], self.net.architecture
        anchors = make_anchors(features.shared.shape[2:], a.bases, a.shapes)
        found = proposals(logits.detach().cpu().numpy(), deltas.detach().cpu().numpy(), anchors, shape)
        boxes = np.concatenate((clip(truth, shape), found)) if len(truth) else found
        positions, owners = sample_boxes(boxes, truth, unknown, self.sampled, self.rng)
        return boxes[positions], owners

    def _masks(
        self,
        features: Features,
        chosen: np.ndarray,
        owners: np.ndarray,
        classes: np.ndarray,
        scores: Tensor,
        refinements: Tensor,
        masks: Tensor,
    ) -> Tensor:
        """The Dice-like losses of the organs that were detected, one random box of each, summed; with ``every_organ``
        also of those that were not, in a box that overlaps theirs, as it was proposed."""
        predicted = scores.detach().argmax(1).cpu().numpy()
        codes = refinements.detach().cpu().numpy()
        total = scores.sum() * 0
        detected = np.unique(owners[(owners >= 0) & (predicted == classes)])
        wanted = np.unique(owners[owners >= 0]) if self.every_organ else detected
        if self.drawn:
            wanted = self.rng.permutation(wanted)[: self.drawn]
        alike: dict[tuple[int, ...], list[tuple[Slices, int, Tensor]]] = {}
        for k in wanted:
            found = k in detected
            row = int(self.rng.choice(np.flatnonzero((owners == k) & ((predicted == classes) | (not found)))))
            drawn = chosen[row : row + 1]
            if found:
                drawn = decode(codes[row : row + 1, classes[row]], drawn)
            box = on_map(clip(drawn, features.image.shape[2:])[0], features.shared.shape[2:])
            mask = masks[int(k)][tuple(slice(STRIDE * s.start, STRIDE * s.stop) for s in box)]
            alike.setdefault(tuple(mask.shape), []).append((box, int(classes[row]) - 1, mask))
        for group in alike.values():
            same_size, named, truths = zip(*group, strict=True)
            probabilities = torch.sigmoid(self.net.draw_alike(features, same_size, named))
            for one, truth in zip(probabilities, truths, strict=True):
                # Not an `if`, for which a GPU would stop and wait at every organ.
                total = total + truth.any() * mask_loss(one, truth, self.logarithm)
        return total
