"""UaNet as a system that can be trained (Tang et al., Nature Machine Intelligence 2019)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from torch import Tensor, nn

from soars.errors import BundleError, InputError
from soars.networks.region_net import RegionNet
from soars.networks.regions import DIVISOR, PAPER_BASES, PAPER_SHAPES, RegionArchitecture
from soars.systems.trained import Found
from soars.systems.uanet.detection import find_organs
from soars.systems.uanet.system import NAME
from soars_training.cohorts.cache import CachedCase
from soars_training.fitting.models import Model
from soars_training.systems.interface import SystemOptions
from soars_training.systems.loop_system import LoopSystem, unwatched
from soars_training.systems.uanet.data import CropDataset
from soars_training.systems.uanet.model import UaNetModel
from soars_training.windows.augment import Augmentation
from soars_training.windows.task import TrainingData, scaled_ct

PAPER_EPOCHS = 200
BOXES_FROM, MASKS_FROM = 40 / PAPER_EPOCHS, 45 / PAPER_EPOCHS
"""The authors' box head begins in epoch 40 of 200, their mask head in epoch 45."""


@dataclass(frozen=True)
class UaNetOptions(SystemOptions):
    """A run of UaNet.

    Attributes:
        crop: size (z, y, x) of a training crop in voxels.
        widths, fused, hidden, pooled, dense, mask, bases, shapes, normalised: see
            `RegionArchitecture`.
        margin: by how many voxels (z, y, x) true boxes are longer than their organs.
        boxes_from, masks_from: shares of the steps after which these heads learn.
        sampled: boxes of an image that the box head learns from.
        drawn: organs of an image that the mask head learns from, 0 for all of them.
        every_organ: the mask head also learns from organs that were not detected, each in a box of those that the box
            head saw; else, as the authors' does, from detected ones alone. In a short run the box head would keep it
            waiting.
        logarithm: masks learn from -log of the Dice, not from one minus it; see `mask_loss`.
        strength: of the cascade's augmentation.
        every_box: draw an organ in all of its boxes and take the union (the article), not in the best one alone (the
            authors' code).
        elastic: share of the crops that are augmented as the authors' are (`soars_training.systems.uanet.elastic`).
    """

    crop: tuple[int, int, int] = (160, 240, 240)
    widths: tuple[int, ...] = (24, 32, 64, 64, 64)
    fused: int = 128
    hidden: int = 64
    pooled: int = 6
    dense: tuple[int, ...] = (512, 256)
    mask: int = 64
    bases: tuple[float, ...] = PAPER_BASES
    shapes: tuple[tuple[float, ...], ...] = PAPER_SHAPES
    normalised: bool = False
    margin: tuple[float, ...] = (4.0, 8.0, 8.0)
    boxes_from: float = BOXES_FROM
    masks_from: float = MASKS_FROM
    sampled: int = 128
    drawn: int = 0
    every_organ: bool = False
    logarithm: bool = False
    window_hu: tuple[float, float] = (-1024.0, 3076.0)
    strength: Augmentation = field(default_factory=Augmentation.none)
    elastic: float = 0.5
    every_box: bool = False

    def architecture(self) -> RegionArchitecture:
        return RegionArchitecture(
            len(self.organs), self.widths, self.fused, self.hidden, self.pooled, self.dense, self.mask, self.bases,
            self.shapes, self.normalised,
        )  # fmt: skip

    def check(self) -> None:
        super().check()
        if len(self.crop) != 3 or any(n < DIVISOR or n % DIVISOR for n in self.crop) or len(self.margin) != 3:
            raise InputError(
                f"crop must be three multiples of {DIVISOR} (z, y, x), margin three numbers of voxels"
            )
        if not 0 <= self.boxes_from <= self.masks_from or self.sampled < 1 or self.drawn < 0:
            raise InputError(
                "boxes_from may not come after masks_from; sampled is at least 1, drawn at least 0"
            )
        try:
            self.architecture()
        except BundleError as error:
            raise InputError(str(error)) from error


class UaNetTraining(LoopSystem[UaNetOptions]):
    """See `soars_training.systems.interface.TrainingSystem`."""

    name = NAME
    presets = ("laptop", "paper")
    few_shapes = False  # organs are drawn in boxes of any size

    def options(self, preset: str, organs: tuple[str, ...]) -> UaNetOptions:
        """`paper`: the authors' network, crops of 160 x 240 x 240 voxels, Adam at a constant 1e-3 with weight decay
        1e-4, gradients of any length, one crop a step; its anchors and margins are for voxels of about 2.5 x 1 x 1 mm
        (z, y, x), and its 200 epochs over 215 scans are 43,000 steps. `laptop`: half the channels or less, crops of
        64 voxels, and anchors of the same extent in mm for voxels of 3 mm. Its margins are not in mm but a stride of
        the anchors: of the phantoms' organs 41 % then overlap an anchor by half, and 7 % none by three tenths; with
        margins of 3 voxels it is 21 % each."""
        if preset == "paper":
            return UaNetOptions(
                organs=organs,
                steps=43_000,
                batch=1,
                learning_rate=1e-3,
                optimiser="adam",
                weight_decay=1e-4,
                schedule="constant",
                ema=0.0,
                max_gradient=0.0,
            )
        return UaNetOptions(
            organs=organs,
            steps=3000,
            batch=1,
            learning_rate=2e-3,
            optimiser="adam",
            weight_decay=1e-4,
            ema=0.99,
            crop=(64, 64, 64),
            widths=(16, 16, 32, 32, 32),
            fused=64,
            hidden=32,
            pooled=4,
            dense=(128, 128),
            mask=16,
            bases=(5.0, 9.0, 15.0, 26.0),
            shapes=((1.0, 1.0, 1.0), (1.0, 1.0, 2.0), (1.0, 2.0, 1.0)),
            normalised=True,
            margin=(8.0, 8.0, 8.0),
            sampled=48,
            drawn=6,
            every_organ=True,
            logarithm=True,
            boxes_from=0.05,
            masks_from=0.05,
            window_hu=(-500.0, 1000.0),
            strength=Augmentation(),
            elastic=0.0,
        )

    def data(
        self, options: UaNetOptions, cases: Sequence[CachedCase], spacing_mm: Sequence[float]
    ) -> TrainingData:
        return CropDataset(
            cases,
            options.organs,
            options.architecture(),
            crop=options.crop,
            margin=options.margin,
            window_hu=options.window_hu,
            strength=options.strength,
            elastic=options.elastic,
            seed=options.seed,
        )

    def model(self, options: UaNetOptions) -> Model:
        return UaNetModel(
            options.architecture(),
            boxes_from=options.boxes_from,
            masks_from=options.masks_from,
            sampled=options.sampled,
            drawn=options.drawn,
            seed=options.seed,
            every_organ=options.every_organ,
            logarithm=options.logarithm,
        )

    def untrained(self, settings: Mapping[str, Any]) -> nn.Module:
        return RegionNet(RegionArchitecture.from_dict(settings["network"]))

    def example_shape(self, settings: Mapping[str, Any]) -> tuple[int, ...]:
        return (1, 1, 2 * DIVISOR, 2 * DIVISOR, 2 * DIVISOR)

    def answers(self, network: nn.Module, window: Tensor) -> Sequence[Tensor]:
        """Proposals, the class of the whole map as a box, and every organ drawn in it."""
        assert isinstance(network, RegionNet)
        features = network.encode(window)
        z, y, x = (slice(0, n) for n in features.shared.shape[2:])
        organs = range(network.architecture.classes)
        drawn = network.draw_alike(features, [(z, y, x)] * len(organs), organs)
        return *network.propose(features.shared), *network.classify(features.shared, [(z, y, x)]), drawn

    def find(self, network: nn.Module, options: UaNetOptions, case: CachedCase) -> Found:
        assert isinstance(network, RegionNet)
        ct = scaled_ct(case.ct_hu, options.window_hu)
        return find_organs(
            network, options.architecture(), options.organs, ct, options.organs, unwatched, options.every_box
        )

    def own_settings(self, options: UaNetOptions) -> dict[str, Any]:
        return {"every_box": True} if options.every_box else {}

    def summary(self, options: UaNetOptions) -> str:
        shown = "-".join(map(str, options.widths))
        return f"UaNet of {shown} channels finds each organ as a box, and draws it inside."
