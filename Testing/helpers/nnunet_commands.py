"""nnU-Net's own commands, on data sets of phantoms: what they train is as real as a model can be without patients."""

from __future__ import annotations

import importlib.metadata
import json
import math
import os
import subprocess
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import SimpleITK as sitk

from soars.phantom import make_phantom, organ_boxes
from soars.structures import StructureSet


@dataclass(frozen=True)
class Workplace:
    """nnU-Net's three folders and imported bundles, in one folder."""

    home: Path

    def folder(self, kind: str) -> Path:
        """``kind``: "raw", "preprocessed" or "results"."""
        return self.home / f"nnUNet_{kind}"

    def run(self, command: str, *words: str) -> None:
        """Run one of nnU-Net's commands ("nnUNetv2_train") on one thread of the CPU; fails when it fails."""
        (entry,) = importlib.metadata.entry_points(group="console_scripts", name=command)
        call = (
            f"import sys; sys.path.append({str(Path(__file__).parent)!r}); sys.argv[0] = {command!r}; "
            f"import without_timm; without_timm.install(); from {entry.module} import {entry.attr}; "
            f"sys.exit({entry.attr}())"
        )
        # Training augments in its own process, planning wants one at least.
        workers = "0" if command == "nnUNetv2_train" else "1"
        done = subprocess.run(
            [sys.executable, "-c", call, *words],
            env={**os.environ, **self.environment, "nnUNet_n_proc_DA": workers},
            capture_output=True,
            text=True,
        )
        assert done.returncode == 0, f"{command} {' '.join(words)}:\n{(done.stdout + done.stderr)[-4000:]}"

    @property
    def environment(self) -> dict[str, str]:
        """Where nnU-Net finds its folders and `soars` its bundles; one thread."""
        places = {f"nnUNet_{kind}": str(self.folder(kind)) for kind in ("raw", "preprocessed", "results")}
        places |= {
            "SOARS_BUNDLES": str(self.home / "bundles"),
            "nnUNet_extTrainer": str(self.home / "trainers"),
        }
        return {**places, "nnUNet_def_n_proc": "1", "OMP_NUM_THREADS": "1"}

    def short_trainer(self, iterations: int) -> str:
        """A trainer of so many iterations, where nnU-Net looks for trainers of others; returns its name."""
        name = f"nnUNetTrainer_{iterations}iterations"
        (self.home / "trainers").mkdir(parents=True, exist_ok=True)
        (self.home / "trainers" / f"{name}.py").write_text(
            "from nnunetv2.training.nnUNetTrainer.variants.training_length.nnUNetTrainer_Xepochs import *\n"
            f"class {name}(nnUNetTrainer_1epoch):\n"
            "    def __init__(self, plans, configuration, fold, dataset_json, device):\n"
            "        super().__init__(plans, configuration, fold, dataset_json, device)\n"
            f"        self.num_iterations_per_epoch, self.num_val_iterations_per_epoch = {iterations}, 1\n"
        )
        return name

    def model(self, dataset: str, trainer: str, configuration: str) -> Path:
        """The folder that training leaves."""
        return self.folder("results") / dataset / f"{trainer}__nnUNetPlans__{configuration}"


def write_dataset(
    place: Workplace,
    dataset: str,
    labels: Mapping[str, int | Sequence[int]],
    painted: Mapping[str, int],
    seeds: Sequence[int],
    spacing_mm: float,
    margin_mm: float,
) -> Path:
    """A data set in nnU-Net's layout, one phantom a case, cut to the organs' region; returns its folder.

    ``labels`` is dataset.json's entry; ``painted``: organ -> its value in the label map, later ones over earlier
    ones.
    """
    home = place.folder("raw") / dataset
    for part in ("imagesTr", "labelsTr"):
        (home / part).mkdir(parents=True)
    for seed in seeds:
        ct, structures = phantom_of(seed, list(painted), spacing_mm, margin_mm)
        values = np.zeros(structures.geometry.shape, dtype=np.uint8)
        for organ, value in painted.items():
            values[structures.full(organ)] = value
        truth = sitk.GetImageFromArray(values)
        truth.CopyInformation(ct)
        sitk.WriteImage(ct, str(home / "imagesTr" / f"case{seed}_0000.nii.gz"))
        sitk.WriteImage(truth, str(home / "labelsTr" / f"case{seed}.nii.gz"))
    description = {
        "channel_names": {"0": "CT"},
        "labels": {"background": 0, **labels},
        "numTraining": len(seeds),
        "file_ending": ".nii.gz",
    }
    if any(not isinstance(value, int) for value in labels.values()):
        description["regions_class_order"] = list(dict.fromkeys(painted.values()))
    (home / "dataset.json").write_text(json.dumps(description))
    return home


def phantom_of(
    seed: int, organs: Sequence[str], spacing_mm: float, margin_mm: float
) -> tuple[sitk.Image, StructureSet]:
    """The part of a phantom around these organs: its CT and its structures."""
    boxes = organ_boxes(seed)
    low = np.min([boxes[organ][0] for organ in organs], axis=0) - margin_mm
    high = np.max([boxes[organ][1] for organ in organs], axis=0) + margin_mm
    phantom = make_phantom(seed, spacing_mm=(spacing_mm,) * 3, region=(low, high))
    return phantom.ct, phantom.structures


def shrink_plans(place: Workplace, dataset: str, features: int = 4) -> None:
    """Narrow the networks of the plans and let a window hold a whole image, so that training and prediction take
    seconds of one core: nnU-Net's plans may be edited."""
    path = place.folder("preprocessed") / dataset / "nnUNetPlans.json"
    plans = json.loads(path.read_text())
    for configuration in plans["configurations"].values():
        if "architecture" in configuration:
            arguments = configuration["architecture"]["arch_kwargs"]
            stages = range(len(arguments["features_per_stage"]))
            arguments["features_per_stage"] = [features * 2**stage for stage in stages]
            configuration["batch_size"] = 2
            sizes = configuration["median_image_size_in_voxels"]
            configuration["patch_size"] = [8 * math.ceil((size + 4) / 8) for size in sizes]
    path.write_text(json.dumps(plans))
