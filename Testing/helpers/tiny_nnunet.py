"""A small nnU-Net model in the very folders that nnU-Net's training leaves, with weights that nobody trained."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

PATCH = (16, 32, 32)
SPACING_ZYX = (4.0, 4.0, 4.0)


def plans(configuration: str = "3d_fullres", reader: str = "SimpleITKIO") -> dict[str, Any]:
    """plans.json as nnU-Net 2.8 writes it, for a network of two stages."""
    data_resampling = {"is_seg": False, "order": 3, "order_z": 0, "force_separate_z": None}
    seg_resampling = {"is_seg": True, "order": 1, "order_z": 0, "force_separate_z": None}
    logits_resampling = {"is_seg": False, "order": 1, "order_z": 0, "force_separate_z": None}
    resample = "resample_data_or_seg_to_shape"
    return {
        "dataset_name": "Dataset001_Tiny",
        "plans_name": "nnUNetPlans",
        "image_reader_writer": reader,
        "transpose_forward": [0, 1, 2],
        "transpose_backward": [0, 1, 2],
        "original_median_spacing_after_transp": list(SPACING_ZYX),
        "original_median_shape_after_transp": [40, 40, 40],
        "experiment_planner_used": "ExperimentPlanner",
        "label_manager": "LabelManager",
        "foreground_intensity_properties_per_channel": {
            "0": {
                "max": 1000.0,
                "mean": 20.0,
                "median": 30.0,
                "min": -500.0,
                "percentile_00_5": -200.0,
                "percentile_99_5": 500.0,
                "std": 120.0,
            }
        },
        "configurations": {
            configuration: {
                "data_identifier": "nnUNetPlans_3d_fullres",
                "preprocessor_name": "DefaultPreprocessor",
                "batch_size": 2,
                "patch_size": list(PATCH),
                "median_image_size_in_voxels": [40, 40, 40],
                "spacing": list(SPACING_ZYX),
                "normalization_schemes": ["CTNormalization"],
                "use_mask_for_norm": [False],
                "resampling_fn_data": resample,
                "resampling_fn_seg": resample,
                "resampling_fn_data_kwargs": data_resampling,
                "resampling_fn_seg_kwargs": seg_resampling,
                "resampling_fn_probabilities": resample,
                "resampling_fn_probabilities_kwargs": logits_resampling,
                "architecture": {
                    "network_class_name": "dynamic_network_architectures.architectures.unet.PlainConvUNet",
                    "arch_kwargs": {
                        "n_stages": 2,
                        "features_per_stage": [4, 8],
                        "conv_op": "torch.nn.modules.conv.Conv3d",
                        "kernel_sizes": [[3, 3, 3], [3, 3, 3]],
                        "strides": [[1, 1, 1], [2, 2, 2]],
                        "n_conv_per_stage": [1, 1],
                        "n_conv_per_stage_decoder": [1],
                        "conv_bias": True,
                        "norm_op": "torch.nn.modules.instancenorm.InstanceNorm3d",
                        "norm_op_kwargs": {"eps": 1e-05, "affine": True},
                        "dropout_op": None,
                        "dropout_op_kwargs": None,
                        "nonlin": "torch.nn.LeakyReLU",
                        "nonlin_kwargs": {"inplace": True},
                    },
                    "_kw_requires_import": ["conv_op", "norm_op", "dropout_op", "nonlin"],
                },
                "batch_dice": True,
            }
        },
    }


def write_model(
    folder: Path,
    labels: Mapping[str, int | list[int]],
    *,
    folds: tuple[int, ...] = (0,),
    trainer: str = "nnUNetTrainer",
    configuration: str = "3d_fullres",
    reader: str = "SimpleITKIO",
    mirroring: tuple[int, ...] = (),
    dataset: Mapping[str, Any] | None = None,
    favour: Sequence[int] = (),
) -> Path:
    """Write plans.json, dataset.json and a checkpoint for each fold; returns `folder`.

    ``favour``: labels of which every voxel gets one, whatever the network's other outputs are.
    """
    import torch
    from nnunetv2.utilities.get_network_from_plans import get_network_from_plans

    folder.mkdir(parents=True)
    written = plans(configuration, reader)
    (folder / "plans.json").write_text(json.dumps(written))
    description = {
        "channel_names": {"0": "CT"},
        "labels": {"background": 0, **labels},
        "numTraining": 3,
        "file_ending": ".nii.gz",
        **(dataset or {}),
    }
    (folder / "dataset.json").write_text(json.dumps(description))
    regions = any(isinstance(value, list) for value in labels.values())
    outputs = len(labels) + (0 if regions else 1)
    architecture = written["configurations"][configuration]["architecture"]
    for fold in folds:
        torch.manual_seed(fold)
        network = get_network_from_plans(
            architecture["network_class_name"],
            architecture["arch_kwargs"],
            architecture["_kw_requires_import"],
            1,
            outputs,
            deep_supervision=False,
        )
        with torch.no_grad():
            for value in favour:
                network.decoder.seg_layers[-1].bias[value] += 1000.0
        home = folder / f"fold_{fold}"
        home.mkdir()
        checkpoint = {
            "network_weights": network.state_dict(),
            "optimizer_state": {},
            "grad_scaler_state": None,
            "logging": {"ema_fg_dice": [0.1]},
            "_best_ema": 0.1,
            "current_epoch": 1,
            "init_args": {"plans": written, "configuration": configuration, "fold": fold, "dataset_json": {}},
            "trainer_name": trainer,
            "inference_allowed_mirroring_axes": mirroring or None,
        }
        torch.save(checkpoint, home / "checkpoint_final.pth")
    return folder
