"""Training crops: a piece of a scan with the boxes and masks of the organs in it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import Dataset

from soars.cascade.sides import all_paired, mirrored_channels
from soars.networks.regions import STRIDE, RegionArchitecture
from soars.systems.uanet.boxes import box_of_mask, make_anchors
from soars_training.cohorts.cache import CachedCase
from soars_training.cohorts.regions import UsualRegions
from soars_training.systems.uanet.elastic import Bend
from soars_training.systems.uanet.targets import UnknownRegions, anchor_targets
from soars_training.windows.augment import (
    AIR_HU,
    Augmentation,
    Window,
    augment_hu,
    random_window,
    sample,
)
from soars_training.windows.task import Batch, ct_channels

FEWEST_VOXELS = 4
"""Of an organ of which the crop holds less nothing is said."""


class CropSample(NamedTuple):
    """One crop.

    Attributes:
        image: float32 [1, 1, z, y, x] in [-1, 1].
        labels, codes: of the anchors, int8 [n] and float32 [n, 6]; see `anchor_targets`.
        boxes, organs: true boxes float32 [m, 6] and their classes, int64 [m], counted from 0.
        masks: bool [m, z, y, x].
        matrix, regions: of the organs that are unknown, see `UnknownRegions`.
    """

    image: Tensor
    labels: Tensor
    codes: Tensor
    boxes: Tensor
    organs: Tensor
    masks: Tensor
    matrix: Tensor
    regions: Tensor


class CropDataset(Dataset[CropSample]):
    """Augmented crops of the cases; `data[n]` depends on the seed and n alone.

    A crop lies about a random voxel of an organ that was contoured; the organ is drawn first, then a case that has it.
    Where the scan is smaller than the crop there is air about it.
    """

    title, stackable = "uanet", False

    def __init__(
        self,
        cases: Sequence[CachedCase],
        organs: Sequence[str],
        architecture: RegionArchitecture,
        *,
        crop: tuple[int, int, int],
        margin: Sequence[float],
        window_hu: tuple[float, float],
        strength: Augmentation,
        elastic: float = 0.0,
        seed: int,
    ) -> None:
        self.cases, self.organs, self.seed = list(cases), tuple(organs), seed
        self.elastic = elastic
        self.crop, self.margin, self.window_hu, self.strength = crop, margin, window_hu, strength
        self.swap = mirrored_channels(self.organs)
        if not all_paired(self.organs):
            self.strength = replace(strength, mirror=0.0)
        self.anchors = make_anchors([n // STRIDE for n in crop], architecture.bases, architecture.shapes)
        self.regions = UsualRegions.learn(self.cases)
        self.with_organ = {
            o: [c for c in self.cases if o in c.masks and o in c.annotated] for o in self.organs
        }
        self.drawable = [o for o in self.organs if self.with_organ[o]]

    def __getitem__(self, n: int) -> CropSample:
        return self.draw(np.random.default_rng([self.seed, n]))

    def collate(self, samples: Sequence[CropSample]) -> Batch:
        (one,) = samples
        return tuple(one)

    def draw(self, rng: np.random.Generator) -> CropSample:
        organ = self.drawable[int(rng.integers(len(self.drawable)))]
        case = self.with_organ[organ][int(rng.integers(len(self.with_organ[organ])))]
        start, mask = case.masks[organ]
        points = np.argwhere(mask)
        centre = points[int(rng.integers(len(points)))] + start + rng.uniform(-0.25, 0.25, 3) * self.crop
        # Inside the scan where that is larger than the crop, around it where it is smaller.
        ends = np.asarray(self.crop) / 2 - 0.5, np.asarray(case.ct_hu.shape) - np.asarray(self.crop) / 2 - 0.5
        centre = np.clip(centre, np.minimum(*ends), np.maximum(*ends))
        window = random_window(rng, self.crop, centre, self.strength, case.spacing_mm[::-1])
        return self.cut(case, window, rng)

    def cut(self, case: CachedCase, window: Window, rng: np.random.Generator) -> CropSample:
        """The crop at a window of a case."""
        bend = Bend(rng, self.crop) if rng.random() < self.elastic else None
        hu = sample(case.ct_hu[None], window, outside=AIR_HU, nearest=False)
        if bend is not None:
            hu = bend.apply(hu, outside=AIR_HU, nearest=False)
        hu = augment_hu(rng, hu, self.strength)
        boxes, classes, masks = [], [], []
        for k, organ in enumerate(self.organs):
            mask = _crop_of(case, organ, window)
            if mask is not None and bend is not None:
                mask = bend.apply(mask[None], outside=0.0, nearest=True)[0] > 0.5
            if mask is None or int(mask.sum()) < FEWEST_VOXELS:
                continue
            box = box_of_mask(mask.numpy(), self.margin)
            assert box is not None
            boxes.append(box)
            classes.append(self.swap[k] if window.mirrored else k)
            masks.append(mask)
        truth = np.array(boxes, np.float32).reshape(-1, 6)
        unknown = self._unknown(case, window)
        labels, codes = anchor_targets(self.anchors, truth, unknown, rng)
        return CropSample(
            ct_channels(hu, [self.window_hu])[None],
            torch.from_numpy(labels),
            torch.from_numpy(codes),
            torch.from_numpy(truth),
            torch.tensor(classes, dtype=torch.long),
            torch.stack(masks) if masks else torch.zeros((0, *self.crop), dtype=torch.bool),
            torch.from_numpy(unknown.matrix),
            torch.from_numpy(unknown.boxes),
        )

    def _unknown(self, case: CachedCase, window: Window) -> UnknownRegions:
        missing = [organ for organ in self.organs if organ not in case.annotated]
        boxes = np.zeros((len(missing), 2, 3))
        for box, organ in zip(boxes, missing, strict=True):
            usual = self.regions.box(case, organ)
            box[:] = ((-np.inf,) * 3, (np.inf,) * 3) if usual is None else usual
        middle = (np.asarray(self.crop) - 1) / 2
        offset = window.centre_zyx - window.matrix @ middle
        return UnknownRegions(np.concatenate((window.matrix, offset[:, None]), 1), boxes)


def _crop_of(case: CachedCase, organ: str, window: Window) -> Tensor | None:
    """An organ's mask in a window, bool [z, y, x]; None when it is not in the case, or was drawn on some slices only,
    which makes no box."""
    if organ not in case.masks or organ not in case.annotated:
        return None
    start, mask = case.masks[organ]
    # Only the part of the window that the organ's box reaches is sampled: most organs fill little of a crop.
    corners = np.array(start) - 1 + np.array(list(np.ndindex(2, 2, 2))) * (np.array(mask.shape) + 1)
    middle = (np.asarray(window.shape) - 1) / 2
    reached = (corners - window.centre_zyx) @ np.linalg.inv(window.matrix).T + middle
    low = np.maximum(np.floor(reached.min(0)).astype(int), 0)
    high = np.minimum(np.ceil(reached.max(0)).astype(int) + 1, window.shape)
    if (high <= low).any():
        return None
    z, y, x = (int(n) for n in high - low)
    centre = window.centre_zyx + window.matrix @ ((low + high - 1) / 2 - middle) - np.asarray(start)
    part = Window((z, y, x), centre, window.matrix, window.mirrored)
    found = torch.zeros(window.shape, dtype=torch.bool)
    found[tuple(slice(a, b) for a, b in zip(low, high, strict=True))] = (
        sample(mask[None].astype(np.uint8), part, outside=0.0, nearest=True)[0] > 0.5
    )
    return found
