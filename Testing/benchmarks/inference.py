"""The whole 42-organ cascade against one nnU-Net prediction on the same CT: time and peak memory.

    python Testing/benchmarks/inference.py                       # a full-field phantom, networks of 31 M parameters
    python Testing/benchmarks/inference.py --ct FOLDER           # a real CT
    python Testing/benchmarks/inference.py --quick               # small networks on a coarse phantom: does it run?

Every network has random weights and the same plain 3D U-Net (nnU-Net's own for 3d_fullres: 32 to 320 features, 31 M
parameters). nnU-Net: `nnUNetPredictor`, default settings, mirroring off, one network of 43 classes at the CT's own
spacing. The cascade: four such networks (anchor, detection, mid-level, small and hard) at the same spacing, detection
at twice the in-plane spacing, every VOI segmented (random heat maps have no peaks, so their floor is lifted). Both
start from the CT in memory with weights on disk and end with label masks on the CT's grid; each runs in a process of
its own.

Needs the extra ``benchmark`` (nnunetv2), in this environment or in another named by --nnunet-python.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np

PEOPLE = ("cascade", "nnunet")
TARGET_TIME, TARGET_MEMORY = 1 / 4, 0.6


def main() -> int:
    args = parse()
    if args.child:
        child = {"ct": make_ct, "bundle": make_bundle, "cascade": run_cascade, "nnunet": run_nnunet}[
            args.child
        ]
        child(args)
        return 0
    with tempfile.TemporaryDirectory(prefix="soars-benchmark-") as folder:
        work = Path(folder)
        start_child(args, work, "ct", sys.executable)
        start_child(args, work, "bundle", sys.executable)
        results = {}
        for name in PEOPLE:
            python = args.nnunet_python if name == "nnunet" else sys.executable
            start_child(args, work, name, python)
            results[name] = json.loads((work / f"{name}.json").read_text())
    report(args, results)
    time_ratio, memory_ratio = ratios(results)
    return 0 if args.quick or (time_ratio <= TARGET_TIME and memory_ratio <= TARGET_MEMORY) else 1


def parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--ct", type=Path, help="DICOM folder or image file; a phantom when left out")
    parser.add_argument("--threads", type=int, default=len(os.sched_getaffinity(0)))
    parser.add_argument("--device", choices=("cpu", "cuda"), default="cpu", help="of both")
    parser.add_argument(
        "--engine", choices=("auto", "torch", "onnxruntime"), default="auto", help="of the cascade"
    )
    parser.add_argument("--quick", action="store_true", help="small networks on a coarse phantom")
    parser.add_argument("--json", type=Path, help="also write the figures there")
    parser.add_argument("--nnunet-python", default=sys.executable, help="interpreter that has nnunetv2")
    parser.add_argument("--child", choices=("ct", "bundle", *PEOPLE), help=argparse.SUPPRESS)
    parser.add_argument("--work", type=Path, help=argparse.SUPPRESS)
    return parser.parse_args()


def start_child(args: argparse.Namespace, work: Path, name: str, python: str) -> None:
    options = ["--threads", str(args.threads), "--device", args.device, "--engine", args.engine]
    options += ["--quick"] if args.quick else []
    options += ["--ct", str(args.ct)] if args.ct else []
    root = Path(__file__).resolve().parents[2]
    path = os.pathsep.join([str(root / "SOARSSegmentation"), os.environ.get("PYTHONPATH", "")])
    environment = {
        **os.environ,
        "PYTHONPATH": path.rstrip(os.pathsep),
        "OMP_NUM_THREADS": str(args.threads),
        "nnUNet_raw": str(work), "nnUNet_preprocessed": str(work), "nnUNet_results": str(work),
    }  # fmt: skip
    command = [python, __file__, "--child", name, "--work", str(work), *options]
    print(f"{name} ...", file=sys.stderr, flush=True)
    done = subprocess.run(command, env=environment, stdout=subprocess.DEVNULL)
    if done.returncode:
        raise SystemExit(f"{name} failed (exit code {done.returncode})")


def network_size(quick: bool) -> tuple[tuple[int, ...], tuple[int, int, int]]:
    """Features and window (z, y, x)."""
    return ((8, 16, 32), (32, 48, 48)) if quick else ((32, 64, 128, 256, 320, 320), (64, 128, 128))


def make_ct(args: argparse.Namespace) -> None:
    import SimpleITK as sitk

    if args.ct:
        from soars.ct.images import read_ct

        image = read_ct(args.ct).image
    else:
        from soars.phantom import make_phantom

        spacing = (4.0, 4.0, 4.0) if args.quick else (1.0, 1.0, 3.0)
        image = make_phantom(1, spacing_mm=spacing, field_of_view="full").ct
    sitk.WriteImage(image, str(args.work / "ct.nrrd"))


def make_bundle(args: argparse.Namespace) -> None:
    """Random weights for four branches that cover the 42 OARs."""
    import SimpleITK as sitk
    import torch
    from safetensors.torch import save_file

    from soars.bundle.store import CARD_SECTIONS, BranchSpec, write_manifest
    from soars.catalogue import by_stratum
    from soars.networks.architecture import Architecture
    from soars.networks.names import Activation, Branch, Input, WeightKind
    from soars.networks.unet import UNet

    reader = sitk.ImageFileReader()
    reader.SetFileName(str(args.work / "ct.nrrd"))
    reader.ReadImageInformation()
    x, y, z = reader.GetSpacing()
    features, patch = network_size(args.quick)
    folder = args.work / "bundle"
    folder.mkdir()
    anchors, mid, small = (
        tuple(o.name for o in by_stratum(s)) for s in ("anchor", "mid_level", "small_hard")
    )
    groups = tuple(dict.fromkeys(o.detection_group or o.name for o in by_stratum("small_hard")))
    plan: dict[Branch, tuple[tuple[Input, ...], tuple[str, ...], Activation, tuple[float, float, float]]] = {
        "anchor": (("ct",), anchors, "softmax", (x, y, z)),
        "mid_level": (("ct", "anchor"), mid, "softmax", (x, y, z)),
        "detection": (("ct", "anchor"), groups, "heatmap", (2 * x, 2 * y, z)),
        "small_hard": (("ct",), small, "sigmoid", (x, y, z)),
    }
    branches = {}
    for name, (inputs, classes, activation, spacing) in plan.items():
        channels = 1 + len(anchors) * ("anchor" in inputs)
        outputs = len(classes) + (activation == "softmax")
        architecture = Architecture.plain(channels, outputs, features)
        network = UNet(architecture)
        save_file(network.state_dict(), folder / f"{name}.safetensors")
        files: dict[WeightKind, str] = {"safetensors": f"{name}.safetensors"}
        if args.engine == "onnxruntime":
            files["onnx"] = f"{name}.onnx"
            axes = {2: "z", 3: "y", 4: "x"}
            example = torch.zeros(1, channels, *(2 * d for d in architecture.divisor))
            torch.onnx.export(
                network, (example,), folder / files["onnx"], input_names=["x"], output_names=["y"],
                dynamic_axes={"x": axes, "y": axes}, opset_version=17, dynamo=False,
            )  # fmt: skip
        branches[name] = BranchSpec(
            name, inputs, classes, activation, spacing, patch, architecture, files
        ).to_dict()
    text = "".join(f"\n## {title}\nRandom weights of `inference.py`.\n" for title in CARD_SECTIONS)
    (folder / "card.md").write_text(text)
    fields = {
        "name": "random", "version": "0", "description": "random weights", "licence": "none",
        "window_hu": [-500, 1000], "branches": branches, "voi_mm": {g: [60.0, 60.0, 60.0] for g in groups},
    }  # fmt: skip
    write_manifest(folder, fields)


def run_cascade(args: argparse.Namespace) -> None:
    import SimpleITK as sitk

    from soars.bundle.store import load_bundle
    from soars.cascade import branches
    from soars.ct.images import CtScan
    from soars.run.segment import SegmentOptions, segment

    image = sitk.ReadImage(str(args.work / "ct.nrrd"))
    bundle = load_bundle(args.work / "bundle")
    branches.HEATMAP_FLOOR, branches.EDGE_MM = -1.0, -np.inf
    options = SegmentOptions(device=args.device, engine=args.engine, threads=args.threads)
    start = time.perf_counter()
    result = segment(CtScan(image, args.work), bundle, options)
    seconds = time.perf_counter() - start
    present = sum(d.absent is None for d in result.detections)
    write_result(
        args, "cascade", seconds, image,
        what=f"{result.engine.engine} {result.engine.precision} on {result.engine.device}, {present} VOIs",
        stages={k: round(v, 2) for k, v in result.timings_s.items()},
    )  # fmt: skip


def run_nnunet(args: argparse.Namespace) -> None:
    import SimpleITK as sitk
    import torch
    from nnunetv2.inference.predict_from_raw_data import nnUNetPredictor
    from nnunetv2.utilities.get_network_from_plans import get_network_from_plans
    from nnunetv2.utilities.plans_handling.plans_handler import PlansManager

    torch.set_num_threads(args.threads)
    image = sitk.ReadImage(str(args.work / "ct.nrrd"))
    array = sitk.GetArrayFromImage(image).astype(np.float32)[None]
    spacing = list(image.GetSpacing()[::-1])
    features, patch = network_size(args.quick)
    plans, labels = nnunet_plans(features, patch, spacing, array.shape[1:])
    manager = PlansManager(plans)
    configuration = manager.get_configuration("3d_fullres")
    network = get_network_from_plans(
        configuration.network_arch_class_name, configuration.network_arch_init_kwargs,
        configuration.network_arch_init_kwargs_req_import, 1, len(labels["labels"]), deep_supervision=False,
    )  # fmt: skip
    torch.save(network.state_dict(), args.work / "nnunet.pt")
    millions = sum(p.numel() for p in network.parameters()) / 1e6
    start = time.perf_counter()
    weights = torch.load(args.work / "nnunet.pt", weights_only=True)
    predictor = nnUNetPredictor(use_mirroring=False, device=torch.device(args.device), allow_tqdm=False)
    predictor.manual_initialization(network, manager, configuration, [weights], labels, "nnUNetTrainer", None)
    segmentation: Any = predictor.predict_single_npy_array(array, {"spacing": spacing}, None, None, False)
    seconds = time.perf_counter() - start
    assert segmentation.shape == array.shape[1:]
    write_result(
        args, "nnunet", seconds, image, what=f"{millions:.0f} M parameters, {args.device}", stages={}
    )


def nnunet_plans(
    features: tuple[int, ...], patch: tuple[int, int, int], spacing: list[float], shape: tuple[int, ...]
) -> tuple[dict[str, Any], dict[str, Any]]:
    """Plans and dataset description as nnU-Net's planner writes them for a CT, with the same levels as ours."""
    levels = len(features)
    resampling = {"is_seg": False, "order": 3, "order_z": 0, "force_separate_z": None}
    architecture = {
        "network_class_name": "dynamic_network_architectures.architectures.unet.PlainConvUNet",
        "arch_kwargs": {
            "n_stages": levels,
            "features_per_stage": list(features),
            "conv_op": "torch.nn.modules.conv.Conv3d",
            "kernel_sizes": [[3, 3, 3]] * levels,
            "strides": [[1, 1, 1]] + [[2, 2, 2]] * (levels - 1),
            "n_conv_per_stage": [2] * levels,
            "n_conv_per_stage_decoder": [2] * (levels - 1),
            "conv_bias": True,
            "norm_op": "torch.nn.modules.instancenorm.InstanceNorm3d",
            "norm_op_kwargs": {"eps": 1e-5, "affine": True},
            "dropout_op": None,
            "dropout_op_kwargs": None,
            "nonlin": "torch.nn.LeakyReLU",
            "nonlin_kwargs": {"inplace": True},
        },
        "_kw_requires_import": ["conv_op", "norm_op", "dropout_op", "nonlin"],
    }
    configuration = {
        "data_identifier": "benchmark",
        "preprocessor_name": "DefaultPreprocessor",
        "batch_size": 2,
        "patch_size": list(patch),
        "median_image_size_in_voxels": list(shape),
        "spacing": spacing,
        "normalization_schemes": ["CTNormalization"],
        "use_mask_for_norm": [False],
        "resampling_fn_data": "resample_data_or_seg_to_shape",
        "resampling_fn_seg": "resample_data_or_seg_to_shape",
        "resampling_fn_data_kwargs": resampling,
        "resampling_fn_seg_kwargs": {**resampling, "is_seg": True, "order": 1},
        "resampling_fn_probabilities": "resample_data_or_seg_to_shape",
        "resampling_fn_probabilities_kwargs": {**resampling, "order": 1},
        "batch_dice": True,
        "architecture": architecture,
    }
    intensity = {
        "max": 3000.0, "mean": 50.0, "median": 40.0, "min": -1000.0, "percentile_00_5": -900.0,
        "percentile_99_5": 1500.0, "std": 250.0,
    }  # fmt: skip
    plans = {
        "dataset_name": "Dataset999_Benchmark",
        "plans_name": "nnUNetPlans",
        "original_median_spacing_after_transp": spacing,
        "original_median_shape_after_transp": list(shape),
        "image_reader_writer": "SimpleITKIO",
        "transpose_forward": [0, 1, 2],
        "transpose_backward": [0, 1, 2],
        "configurations": {"3d_fullres": configuration},
        "experiment_planner_used": "ExperimentPlanner",
        "label_manager": "LabelManager",
        "foreground_intensity_properties_per_channel": {"0": intensity},
    }
    labels = {"background": 0, **{f"organ{i}": i for i in range(1, 43)}}
    dataset = {"channel_names": {"0": "CT"}, "labels": labels, "numTraining": 1, "file_ending": ".nrrd"}
    return plans, dataset


def write_result(args: argparse.Namespace, name: str, seconds: float, image: Any, **more: Any) -> None:
    """Peak memory is the process's largest resident set, the interpreter and its libraries included."""
    scale = 1 if platform.system() == "Darwin" else 1024
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * scale / 1e6
    facts = {
        "seconds": seconds,
        "peak_mb": peak,
        "size": image.GetSize(),
        "spacing": image.GetSpacing(),
        **more,
    }
    if args.device == "cuda":
        import torch

        facts["device_peak_mb"] = torch.cuda.max_memory_allocated() / 1e6
    (args.work / f"{name}.json").write_text(json.dumps(facts))


def ratios(results: dict[str, Any]) -> tuple[float, float]:
    ours, theirs = (results[name] for name in PEOPLE)
    return ours["seconds"] / theirs["seconds"], ours["peak_mb"] / theirs["peak_mb"]


def report(args: argparse.Namespace, results: dict[str, Any]) -> None:
    ours, theirs = (results[name] for name in PEOPLE)
    time_ratio, memory_ratio = ratios(results)
    spacing = " x ".join(f"{s:g}" for s in ours["spacing"])
    print(f"machine: {machine()}, {args.threads} threads")
    print(
        f"CT: {' x '.join(map(str, ours['size']))} voxels of {spacing} mm ({args.ct.name if args.ct else 'phantom'})"
    )
    for name in PEOPLE:
        r = results[name]
        print(f"{name:8} {r['seconds']:8.1f} s  {r['peak_mb']:8.0f} MB  {r['what']}")
    print(f"         stages: {ours['stages']}")
    print(f"ratio of wall time   {time_ratio:.3f} (at most {TARGET_TIME:g})")
    print(f"ratio of peak memory {memory_ratio:.3f} (at most {TARGET_MEMORY:g})")
    if args.json:
        args.json.write_text(json.dumps({"cascade": ours, "nnunet": theirs, "machine": machine()}, indent=1))


def machine() -> str:
    """Processor and what it has for bfloat16."""
    name, flags = platform.processor() or platform.machine(), ""
    cpuinfo = Path("/proc/cpuinfo")
    if cpuinfo.exists():
        lines = dict(line.split(":", 1) for line in cpuinfo.read_text().splitlines() if ":" in line)
        facts = {key.strip(): value.strip() for key, value in lines.items()}
        name, flags = facts.get("model name", name), facts.get("flags", "")
    units = [u for u in ("amx_bf16", "avx512_bf16", "avx512f", "avx2") if u in flags.split()]
    return f"{name} ({', '.join(units) or 'no vector units known'})"


if __name__ == "__main__":
    sys.exit(main())
