"""A small CT, and trained-looking models of other people's systems."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import SimpleITK as sitk
from tiny_nnunet import write_model
from without_timm import STAND_INS


@pytest.fixture(autouse=True)
def without_timm(monkeypatch: pytest.MonkeyPatch) -> None:
    for name, module in STAND_INS.items():
        monkeypatch.setitem(sys.modules, name, module)


@pytest.fixture(autouse=True)
def own_places(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Bundles and TotalSegmentator's files go nowhere near the user's; torch uses one thread, as CI's cores are few."""
    import torch

    home = tmp_path_factory.mktemp("home")
    monkeypatch.setenv("SOARS_BUNDLES", str(home / "bundles"))
    monkeypatch.setenv("TOTALSEG_HOME_DIR", str(home / "totalsegmentator"))
    monkeypatch.setenv("TOTALSEG_WEIGHTS_PATH", str(home / "weights"))
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture(scope="session")
def ct_image() -> sitk.Image:
    """A head-shaped piece of soft tissue and bone, 3 mm, LPS, in the units and the type of a CT."""
    _z, y, x = np.indices((32, 44, 40))
    inside = ((x - 20) / 17) ** 2 + ((y - 22) / 19) ** 2 < 1
    hu = np.where(inside, 40, -1000) + np.where(
        inside & (((x - 20) / 14) ** 2 + ((y - 22) / 16) ** 2 > 1), 700, 0
    )
    hu += np.random.default_rng(1).normal(0, 12, hu.shape).astype(int) * inside
    image = sitk.GetImageFromArray(hu.astype(np.int16))
    image.SetSpacing((3.0, 3.0, 3.0))
    image.SetOrigin((-60.0, -66.0, -48.0))
    return image


@pytest.fixture(scope="session")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An nnU-Net of two folds with a paired organ, a structure of both sides, and a label that is no organ."""
    home = tmp_path_factory.mktemp("nnUNet_results") / "Dataset001_Tiny"
    labels = {"Brainstem": 1, "mandible": 2, "parotid_left": 3, "tumour": 4}
    return write_model(
        home / "nnUNetTrainer__nnUNetPlans__3d_fullres", labels, folds=(0, 1), mirroring=(0, 1)
    )
