"""An nnU-Net's plans are data: whatever they name, nothing runs that is not nnU-Net's own."""

from __future__ import annotations

import copy
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from tiny_nnunet import plans

from soars.bundle.store import CARD_SECTIONS, load_bundle, write_manifest
from soars.cli import main
from soars.errors import BundleError
from soars.systems.nnunet.model_folder import read_model_folder
from soars.systems.nnunet.plans import check_plans, check_trainer
from soars.systems.registry import system_of

Plans = dict[str, Any]


def changed(*keys: str, to: object) -> Callable[[Plans], None]:
    def change(made: Plans) -> None:
        *outer, last = keys
        for key in outer:
            made = made[key]
        made[last] = to

    return change


CONFIGURATION = ("configurations", "3d_fullres")
NETWORK = (*CONFIGURATION, "architecture")
EVIL: dict[str, Callable[[Plans], None]] = {
    "a program as the network": changed(*NETWORK, "network_class_name", to="subprocess.Popen"),
    "a module that acts when it is imported": changed(*NETWORK, "network_class_name", to="antigravity"),
    "a program that a network's module imports": changed(
        *NETWORK, "network_class_name", to="dynamic_network_architectures.architectures.unet.os.system"
    ),
    "a program as the activation": changed(*NETWORK, "arch_kwargs", "nonlin", to="subprocess.Popen"),
    "a program as a layer of torch": changed(
        *NETWORK, "arch_kwargs", "conv_op", to="torch.nn.modules.os.system"
    ),
    "a further import": changed(*NETWORK, "_kw_requires_import", to=["n_stages"]),
    "a function as the preprocessor": changed(*CONFIGURATION, "preprocessor_name", to="run_command"),
    "a function for resampling": changed(*CONFIGURATION, "resampling_fn_data", to="exec"),
    "a normalisation": changed(*CONFIGURATION, "normalization_schemes", to=["os"]),
    "a label manager": changed("label_manager", to="os"),
    "a patch of a terabyte": changed(*CONFIGURATION, "patch_size", to=[100_000, 10_000, 1000]),
    "voxels of a nanometre": changed(*CONFIGURATION, "spacing", to=[1e-6, 1e-6, 1e-6]),
    "voxels of no size": changed(*CONFIGURATION, "spacing", to=[0, float("nan"), 1]),
    "ten million features": changed(*NETWORK, "arch_kwargs", "features_per_stage", to=[10_000_000]),
    "a thousand stages": changed(*NETWORK, "arch_kwargs", "n_stages", to=1000),
    "no architecture": changed(*NETWORK, to=None),
    "no configuration": changed(*CONFIGURATION, to=[]),
    "no configurations": changed("configurations", to=None),
}


def made(change: Callable[[Plans], None]) -> Plans:
    found = copy.deepcopy(plans())
    change(found)
    return found


def test_what_nnunet_writes_passes() -> None:
    check_plans(plans(), "plans.json")
    check_trainer("nnUNetTrainer_4000epochs_NoMirroring", "")
    residual = changed(
        *NETWORK,
        "network_class_name",
        to="dynamic_network_architectures.architectures.unet.ResidualEncoderUNet",
    )
    check_plans(made(residual), "plans.json")
    check_plans({"configurations": {"3d_lowres": {"inherits_from": "3d_fullres", "spacing": [3, 2, 2]}}}, "")


@pytest.mark.parametrize("kind", EVIL)
def test_plans_that_are_not_are_refused(kind: str, tmp_path: Path) -> None:
    """When a model folder is imported, and again when a bundle is checked or run."""
    evil = made(EVIL[kind])
    with pytest.raises(BundleError):
        check_plans(evil, "plans.json")
    (tmp_path / "fold_0").mkdir()
    (tmp_path / "fold_0" / "checkpoint_final.pth").write_bytes(b"")
    (tmp_path / "plans.json").write_text(json.dumps(evil))
    dataset = {
        "channel_names": {"0": "CT"},
        "labels": {"background": 0, "Brainstem": 1},
        "file_ending": ".nii.gz",
    }
    (tmp_path / "dataset.json").write_text(json.dumps(dataset))
    with pytest.raises(BundleError):
        read_model_folder(tmp_path)


@pytest.mark.parametrize("name", ["os", "", 3, None, "nnUNetTrainer.os"])
def test_a_trainer_is_named_as_one(name: object) -> None:
    with pytest.raises(BundleError, match="no trainer"):
        check_trainer(name, "settings")


def test_a_bundle_with_such_plans_is_refused_by_every_command(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = tmp_path / "evil"
    folder.mkdir()
    (folder / "card.md").write_text("\n".join(f"# {title}\n`x`\n" for title in CARD_SECTIONS))
    (folder / "plans.json").write_text(json.dumps(made(EVIL["a program as the activation"])))
    (folder / "dataset.json").write_text("{}")
    (folder / "fold_0.safetensors").write_bytes(b"")
    settings = {
        "trainer": "nnUNetTrainer", "configuration": "3d_fullres", "mirroring_axes": [], "orientation": "LPS",
        "folds": {"0": "fold_0.safetensors"},
        "labels": [{"label": "Brainstem", "values": [1], "organs": ["Brainstem"]}],
    }  # fmt: skip
    fields = {"name": "evil", "version": "1", "description": "d", "licence": "l", "system": "nnunet",
              "organs": ["Brainstem"], "settings": settings}  # fmt: skip
    write_manifest(folder, fields)
    with pytest.raises(BundleError, match="no layer of torch"):
        system_of(load_bundle(folder))
    assert main(["bundle", "verify", str(folder)]) == 2
    assert "subprocess.Popen" in capsys.readouterr().err
