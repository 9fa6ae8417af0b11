"""What a plan suggests: strata by volume and contrast, windows by the memory that a step needs."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from soars.errors import InputError
from soars.networks.architecture import Architecture
from soars.networks.build import build
from soars_training.cohorts.proposals import propose_stratum, propose_window, training_gb, weights
from soars_training.fitting.models import BranchModel
from soars_training.fitting.options import FitOptions
from soars_training.windows.task import BranchTask


def test_a_stratum_is_suggested_by_volume_and_contrast() -> None:
    assert propose_stratum(0.1, 300)[0] == "small_hard"
    assert propose_stratum(40, -400) == ("anchor", "400 HU from its surroundings")
    assert propose_stratum(25, 20) == ("mid_level", "only 20 HU from its surroundings")


def test_windows_grow_with_the_memory_up_to_the_scan() -> None:
    network = Architecture.plain(1, 9, (16, 32, 64))
    size = (40, 90, 64)
    found = [propose_window(size, network, gb) for gb in (0.02, 0.2, 1.0, 100.0)]
    voxels = [int(np.prod(w.patch)) * w.batch for w in found]
    assert voxels == sorted(voxels) and voxels[0] < voxels[-1]
    assert all(n % 4 == 0 for window in found for n in window.patch)
    assert all(w.memory_gb <= gb for w, gb in zip(found, (0.02, 0.2, 1.0, 100.0), strict=True))
    assert found[-1].patch == (40, 92, 64) and found[-1].batch == 4
    with pytest.raises(InputError, match=r"0\.0001 GB are too few"):
        propose_window(size, network, 1e-4)


@pytest.mark.parametrize("kind", ["unet", "phnn"])
def test_the_memory_of_a_step_is_about_what_torch_keeps_for_the_gradient(kind: str) -> None:
    """Counted by hooks on every tensor that is saved in a forward pass in bfloat16, within a factor of two."""
    network = Architecture.plain(2, 9, (8, 16, 32), kind)  # type: ignore[arg-type]
    options = FitOptions(
        BranchTask("anchor", tuple("abcdefgh"), ("ct",), (), ((-500, 1000), (-160, 240))),
        network=network.network, features=network.features, supervised=1,
    )  # fmt: skip
    model, kept = BranchModel(options), {}

    def keep(tensor: torch.Tensor) -> torch.Tensor:
        kept[tensor.untyped_storage().data_ptr()] = tensor.untyped_storage().nbytes()
        return tensor

    patch = (16, 32, 32)
    labels = torch.zeros((1, *patch), dtype=torch.uint8)
    known, possible = torch.ones(1, 8, dtype=torch.bool), torch.ones(1, 8, *patch, dtype=torch.bool)
    with torch.autograd.graph.saved_tensors_hooks(keep, lambda t: t), torch.autocast("cpu", torch.bfloat16):
        loss = model.loss((torch.randn(1, 2, *patch), labels, known, possible), 0.0)
    assert loss.requires_grad
    ratio = training_gb(network, patch, 1) / (sum(kept.values()) / 1e9)
    assert 1 <= ratio < 3, ratio


def test_weights_are_those_of_the_convolutions() -> None:
    network = Architecture.plain(2, 9, (8, 16, 32))
    there = sum(p.numel() for name, p in build(network).named_parameters() if p.ndim == 5 and "coder" in name)
    assert weights(network) == there
