"""DeepMind's U-Net as a system that can be trained (Nikolov et al., J Med Internet Res 2021)."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from safetensors.torch import load_file
from torch import Tensor, nn

from soars.bundle.integrity import read_network
from soars.bundle.manifest import Bundle
from soars.errors import BundleError, InputError
from soars.networks.slice_net import SliceNet
from soars.networks.slices import CONTEXT, SliceArchitecture
from soars.systems.deepmind.system import NAME, SLAB, find_organs, torch_runner
from soars.systems.trained import Found
from soars_training.cohorts.cache import CachedCase
from soars_training.fitting.models import Model
from soars_training.release.export import write_graph
from soars_training.systems.deepmind.data import SlabDataset
from soars_training.systems.deepmind.loss import organ_loss, top_k_loss
from soars_training.systems.deepmind.warp import PlaneAugmentation
from soars_training.systems.interface import Compared, SystemOptions, SystemRun
from soars_training.systems.loop_system import LoopSystem, noise, unwatched
from soars_training.windows.task import Batch, TrainingData, scaled_ct

GRAPH = f"{NAME}.onnx"
PAPER_STAIRS = ((0.2, 1 / 2), (0.5, 1 / 8), (0.9, 1 / 64), (0.95, 1 / 256))
"""Of 120,000 steps: at 24,000, 60,000, 108,000 and 114,000."""
RARE = -4.0
"""The output's bias at the start: a pixel is an organ's with probability 0.02."""


@dataclass(frozen=True)
class DeepMindOptions(SystemOptions):
    """A run of DeepMind's U-Net.

    Attributes:
        size: rows and columns that the network sees, about the middle of the body.
        channels, lost, hidden: see `SliceArchitecture`.
        slab: neighbouring slices in a sample; the paper's are single ones.
        worst: share of the pixels of a slice that the loss counts.
        organs_weigh: what `organ_loss` weighs beside the cross-entropy of the worst pixels; the article has none.
        foreground: share of samples drawn about an organ.
        plane: strength of the augmentation.
    """

    size: int = 512
    channels: tuple[int, ...] = (32, 32, 64, 64, 128, 128, 256)
    lost: tuple[int, ...] = (4, 2, 2, 2, 2, 4, 4)
    hidden: int = 1024
    slab: int = 1
    worst: float = 0.1
    organs_weigh: float = 0.0
    foreground: float = 0.7
    plane: PlaneAugmentation = field(default_factory=PlaneAugmentation)

    def architecture(self) -> SliceArchitecture:
        return SliceArchitecture(len(self.organs), self.size, self.channels, self.lost, self.hidden)

    def check(self) -> None:
        super().check()
        if not 0 < self.worst <= 1 or self.slab < 1 or not self.organs_weigh >= 0:
            raise InputError(
                "worst must be a share above 0 and at most 1, slab at least 1, organs_weigh not negative"
            )
        try:
            self.architecture()
        except BundleError as error:
            raise InputError(str(error)) from error


class SliceModel(Model):
    """The network with its loss."""

    def __init__(self, options: DeepMindOptions) -> None:
        super().__init__()
        self.worst, self.organs_weigh = options.worst, options.organs_weigh
        self.net = SliceNet(options.architecture())
        assert self.net.head.bias is not None
        nn.init.constant_(self.net.head.bias, RARE)

    def loss(self, batch: Batch, balance: float) -> Tensor:
        ct, masks, known = batch
        logits = self.net(ct)
        loss = top_k_loss(logits, masks, known, self.worst)
        if self.organs_weigh:
            loss = loss + self.organs_weigh * organ_loss(logits, masks, known)
        return loss


class DeepMindTraining(LoopSystem[DeepMindOptions]):
    """See `soars_training.systems.interface.TrainingSystem`."""

    name = NAME
    presets = ("laptop", "paper")

    def options(self, preset: str, organs: tuple[str, ...]) -> DeepMindOptions:
        """`paper`: 120,000 steps of 32 slices of 512 x 512, Adam at 1e-4 with the paper's stairs, L2 penalty 1e-6 (a
        coupled weight decay of twice that), no averaged weights. `laptop`: 128 x 128 pixels, which at 3 mm is the
        neck with the shoulders cut off, five blocks instead of seven, eight neighbouring slices a sample, the worst 2 %
        of the pixels, about as many as an organ has in a slice, and a Dice for every organ beside them, without which
        small ones take tens of thousands of steps."""
        if preset == "paper":
            return DeepMindOptions(
                organs=organs,
                steps=120_000,
                batch=32,
                learning_rate=1e-4,
                optimiser="adam",
                weight_decay=2e-6,
                schedule="stairs",
                stairs=PAPER_STAIRS,
                ema=0.0,
            )
        return DeepMindOptions(
            organs=organs,
            steps=3000,
            batch=1,
            learning_rate=2e-3,
            optimiser="adam",
            weight_decay=2e-6,
            ema=0.995,
            size=128,
            channels=(16, 32, 32, 64, 64),
            lost=(4, 4, 4, 4, 4),
            hidden=256,
            slab=8,
            worst=0.02,
            organs_weigh=0.1,
            plane=PlaneAugmentation(translation_px=10.0),
        )

    def data(
        self, options: DeepMindOptions, cases: Sequence[CachedCase], spacing_mm: Sequence[float]
    ) -> TrainingData:
        return SlabDataset(
            cases,
            options.organs,
            size=options.size,
            slab=options.slab,
            window_hu=options.window_hu,
            strength=options.plane,
            foreground=options.foreground,
            seed=options.seed,
        )

    def model(self, options: DeepMindOptions) -> Model:
        return SliceModel(options)

    def untrained(self, settings: Mapping[str, Any]) -> nn.Module:
        return SliceNet(SliceArchitecture.from_dict(settings["network"]))

    def example_shape(self, settings: Mapping[str, Any]) -> tuple[int, ...]:
        size = SliceArchitecture.from_dict(settings["network"]).size
        return (1, 1, SLAB + CONTEXT - 1, size, size)

    def find(self, network: nn.Module, options: DeepMindOptions, case: CachedCase) -> Found:
        ct = scaled_ct(case.ct_hu, options.window_hu)
        return find_organs(
            torch_runner(network), options.architecture(), options.organs, ct, options.organs, unwatched
        )

    def own_settings(self, options: DeepMindOptions) -> dict[str, Any]:
        return {"onnx": GRAPH}

    def summary(self, options: DeepMindOptions) -> str:
        shown = "-".join(map(str, options.channels))
        return (
            f"DeepMind's residual U-Net of {shown} channels draws one slice of {options.size} x {options.size} "
            "pixels from 21."
        )

    def write_weights(self, run: SystemRun, folder: Path, bundle: Path) -> None:
        super().write_weights(run, folder, bundle)
        network = self.untrained(run.settings).eval()
        network.load_state_dict(
            {name: tensor.float() for name, tensor in load_file(bundle / self.weights).items()}
        )
        write_graph(network, self.example_shape(run.settings), bundle / GRAPH, self.weights)

    def compared(self, run: SystemRun, folder: Path, bundle: Bundle, weights: str) -> Iterator[Compared]:
        for engine, found, wanted in super().compared(run, folder, bundle, weights):
            yield engine, found, wanted
            if "onnx" in bundle.settings:
                from soars.cascade.onnx_engine import OnnxSession

                session = OnnxSession(read_network(bundle, GRAPH, "onnx"), 1, NAME)
                window = noise(self.example_shape(run.settings))
                yield "onnxruntime", session.run(window.numpy(), wanted.shape), wanted
