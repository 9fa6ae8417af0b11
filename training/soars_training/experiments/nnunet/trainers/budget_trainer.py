"""nnU-Net's trainer with a budget in steps and a seed, both from the environment: its command line has neither."""

from __future__ import annotations

import json
import math
import os
import random
from typing import Any

import numpy as np
import torch
from nnunetv2.training.nnUNetTrainer.variants.data_augmentation.nnUNetTrainerNoMirroring import (
    nnUNetTrainerNoMirroring,
)

STEPS_PER_EPOCH = 250
"""nnU-Net's own."""


class BudgetTrainer(nnUNetTrainerNoMirroring):
    """Without mirroring, which its authors advise where left and right are different labels. The schedule, loss,
    network and all else are nnU-Net's."""

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
        random.seed(seed)
        np.random.seed(seed)
        torch.manual_seed(seed)

    def on_train_end(self) -> None:
        super().on_train_end()
        learned = sum(p.numel() for p in self.network.parameters())
        with open(os.path.join(self.output_folder, "learned.json"), "w", encoding="utf-8") as stream:
            json.dump({"parameters": learned}, stream)
