"""nnU-Net's trainer with a budget in steps and a seed, both from the environment: its command line has neither. And one
for small budgets."""

from __future__ import annotations

import json
import math
import os
import random
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import torch
from nnunetv2.training.loss.deep_supervision import DeepSupervisionWrapper
from nnunetv2.training.loss.dice import MemoryEfficientSoftDiceLoss
from nnunetv2.training.nnUNetTrainer.variants.data_augmentation.nnUNetTrainerNoMirroring import (
    nnUNetTrainerNoMirroring,
)
from nnunetv2.training.nnUNetTrainer.variants.loss.nnUNetTrainerTopkLoss import nnUNetTrainerDiceTopK10Loss
from nnunetv2.training.nnUNetTrainer.variants.optimizer.nnUNetTrainerAdam import nnUNetTrainerAdam1en3
from torch import Tensor, nn

from soars.cascade.torch_engine import cpu_has_bf16

STEPS_PER_EPOCH = 250
"""nnU-Net's own."""
Outputs = Tensor | Sequence[Tensor]


class BudgetTrainer(nnUNetTrainerNoMirroring):
    """Without mirroring, which its authors advise where left and right are different labels. The schedule, loss,
    network and all else are nnU-Net's.

    On a processor that multiplies in bfloat16 the network does so, as it computes in half precision on a card.
    """

    def __init__(
        self,
        plans: dict[str, Any],
        configuration: str,
        fold: int,
        dataset_json: dict[str, Any],
        device: torch.device = torch.device("cuda"),  # noqa: B008 - the signature is nnU-Net's
    ) -> None:
        super().__init__(plans, configuration, fold, dataset_json, device)
        steps, seed = int(os.environ["SOARS_NNUNET_STEPS"]), int(os.environ["SOARS_NNUNET_SEED"])
        self.num_epochs = math.ceil(steps / STEPS_PER_EPOCH)
        self.num_iterations_per_epoch = math.ceil(steps / self.num_epochs)
        self.num_val_iterations_per_epoch = 1
        self.save_every = 1
        # nnU-Net's command takes every processor there is, which on a busy computer wait for one another.
        if device.type == "cpu" and os.environ.get("OMP_NUM_THREADS", "").isdigit():
            torch.set_num_threads(int(os.environ["OMP_NUM_THREADS"]))
        random.seed(seed)
        np.random.seed(seed)
        torch.manual_seed(seed)

    def initialize(self) -> None:
        super().initialize()
        if self.device.type == "cpu" and cpu_has_bf16():
            use_bfloat16(self.network)

    def perform_actual_validation(self, save_probabilities: bool = False) -> None:
        """Nothing: all cases are one fold, so this would draw every one that was learned from, at length."""

    def on_train_end(self) -> None:
        super().on_train_end()
        learned = sum(p.numel() for p in self.network.parameters())
        with open(os.path.join(self.output_folder, "learned.json"), "w", encoding="utf-8") as stream:
            json.dump({"parameters": learned, "steps": int(os.environ["SOARS_NNUNET_STEPS"])}, stream)


class LaptopTrainer(nnUNetTrainerDiceTopK10Loss, nnUNetTrainerAdam1en3, BudgetTrainer):
    """For some thousand steps instead of 250,000, of variants that nnU-Net brings: Adam at 1e-3 in place of SGD, and
    beside Dice the cross entropy of the hardest tenth of the voxels, since among all of them small organs hardly count.
    """

    def _build_loss(self) -> nn.Module:
        """The variant's, with the computation of Dice that nnU-Net's other losses have, which holds fewer copies."""
        loss: nn.Module = super()._build_loss()
        one_level: Any = loss.loss if isinstance(loss, DeepSupervisionWrapper) else loss
        dice = one_level.dc
        one_level.dc = MemoryEfficientSoftDiceLoss(
            dice.apply_nonlin, dice.batch_dice, dice.do_bg, dice.smooth, dice.ddp
        )
        return loss


def use_bfloat16(network: nn.Module) -> None:
    """Have a network's convolutions computed in bfloat16 on the processor; what comes out, and so the loss, is float32.

    Those of one voxel stay in float32: see `soars.networks.pointwise`.
    """
    for layer in network.modules():
        if isinstance(layer, nn.Conv2d | nn.Conv3d) and set(layer.kernel_size) == {1}:
            layer.forward = _within(layer.forward, torch.float32)  # type: ignore[method-assign, assignment]
    network.forward = _within(network.forward, torch.bfloat16)


def _within(forward: Callable[[Tensor], Outputs], precision: torch.dtype) -> Callable[[Tensor], Outputs]:
    """The same `forward`, computed in this precision; float32 in and out."""

    def run(x: Tensor) -> Outputs:
        with torch.autocast("cpu", torch.bfloat16, enabled=precision == torch.bfloat16):
            found = forward(x.float())
        return found.float() if isinstance(found, Tensor) else [part.float() for part in found]

    return run
