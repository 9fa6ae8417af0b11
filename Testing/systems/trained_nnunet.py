"""Models that nnU-Net's own commands train on phantoms, imported and run: the same label maps, voxel for voxel.

    .venv/bin/python Testing/systems/trained_nnunet.py /tmp/nnunet

trains, one epoch each, in some minutes of one core (what is there already is not trained again):

- ``neck``: 3d_fullres, folds 0 and 1, with the mandible as one label of both sides;
- ``low``: 3d_lowres of the same plans, all cases in one fold;
- 3d_cascade_fullres of the same plans, which refines ``low`` and has to be refused;
- ``eyes``: regions, a lens within its eye.

Each is imported by ``soars bundle import-nnunet`` and compared with ``nnUNetv2_predict`` on a phantom that no model has
seen; then ``soars segment`` draws the organs from it. The tests beside this file cover the same ways with small models
that nobody trained, in seconds.
"""

from __future__ import annotations

import argparse
import contextlib
import csv
import io
import json
import os
import sys
import time
from collections.abc import Mapping
from pathlib import Path

import numpy as np
import SimpleITK as sitk
import torch

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "helpers"))

import without_timm
from nnunet_commands import Workplace, phantom_of, shrink_plans, write_dataset

from soars import cli
from soars.bundle.store import load_bundle
from soars.formats import read_seg_nrrd
from soars.progress import ignore
from soars.run.segment import SegmentOptions
from soars.systems.nnunet.predictor import Steps
from soars.systems.nnunet.system import parse_settings, predict_labels

NECK, EYES = "Dataset701_Neck", "Dataset702_Eyes"
LABELS = {
    NECK: {"Brainstem": 1, "Parotid_L": 2, "Parotid_R": 3, "mandible": 4},
    EYES: {"Eye_L": [1, 2], "Lens_L": [2], "Eye_R": [3, 4], "Lens_R": [4]},
}
PAINTED: Mapping[str, Mapping[str, int]] = {
    NECK: {"Brainstem": 1, "Parotid_L": 2, "Parotid_R": 3, "Bone_Mandible_L": 4, "Bone_Mandible_R": 4},
    EYES: {"Eye_L": 1, "Lens_L": 2, "Eye_R": 3, "Lens_R": 4},
}
SPACING_MM = {NECK: 4.0, EYES: 2.0}
MARGIN_MM = {NECK: 12.0, EYES: 10.0}
MEMORY_GB = {NECK: "0.02", EYES: "0.03"}
"""What the planner may use; so little that the neck gets a second, coarser resolution."""
SEEN, UNSEEN = range(5), 40


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("folder", type=Path, help="where data, models and results go")
    parser.add_argument(
        "--iterations",
        type=int,
        help="of each training, by a trainer of our own (default: one epoch of nnU-Net's, 250)",
    )
    args = parser.parse_args()
    place = Workplace(args.folder.resolve())
    without_timm.install()
    os.environ.update(place.environment)
    torch.set_num_threads(1)
    trainer = place.short_trainer(args.iterations) if args.iterations else "nnUNetTrainer_1epoch"
    for dataset in (NECK, EYES):
        plan(place, dataset)
    for fold in ("0", "1"):
        train(place, trainer, NECK, "3d_fullres", fold)
    model = place.model(NECK, trainer, "3d_fullres")
    refused("there is no fold 4", str(model), "--folds", "0,4")
    compare(place, "neck", NECK, model, ["0", "1"])
    train(place, trainer, EYES, "3d_fullres", "all")
    compare(place, "eyes", EYES, place.model(EYES, trainer, "3d_fullres"), ["all"])
    for configuration in ("3d_lowres", "3d_cascade_fullres"):
        train(place, trainer, NECK, configuration, "all")
    refused("holds several models", str(place.folder("results") / NECK))
    refused("refines the result of '3d_lowres'", str(place.model(NECK, trainer, "3d_cascade_fullres")))
    compare(place, "low", NECK, place.model(NECK, trainer, "3d_lowres"), ["all"])
    return 0


def soars(*words: str) -> tuple[int, str]:
    """The command in this process: its exit code and what it said on standard error."""
    said = io.StringIO()
    with contextlib.redirect_stderr(said), contextlib.redirect_stdout(io.StringIO()):
        code = cli.main(list(words))
    return code, said.getvalue()


def plan(place: Workplace, dataset: str) -> None:
    """Write the phantoms and let nnU-Net plan and preprocess them."""
    if (place.folder("preprocessed") / dataset / "nnUNetPlans.json").is_file():
        return
    start = time.perf_counter()
    write_dataset(
        place, dataset, LABELS[dataset], PAINTED[dataset], SEEN, SPACING_MM[dataset], MARGIN_MM[dataset]
    )
    configurations = ["3d_fullres", "3d_lowres"] if dataset == NECK else ["3d_fullres"]
    place.run(
        "nnUNetv2_plan_and_preprocess", "-d", dataset[7:10], "-npfp", "1", "-c", *configurations,
        "-np", *["1"] * len(configurations), "-gpu_memory_target", MEMORY_GB[dataset],
    )  # fmt: skip
    shrink_plans(place, dataset)
    plans = json.loads((place.folder("preprocessed") / dataset / "nnUNetPlans.json").read_text())
    patches = {name: entry.get("patch_size") for name, entry in plans["configurations"].items()}
    print(f"{dataset}: planned {patches} in {time.perf_counter() - start:.0f} s", flush=True)


def train(place: Workplace, trainer: str, dataset: str, configuration: str, fold: str) -> None:
    """Train a fold, unless that is done."""
    model = place.model(dataset, trainer, configuration)
    if (model / f"fold_{fold}" / "checkpoint_final.pth").is_file():
        return
    start = time.perf_counter()
    place.run("nnUNetv2_train", dataset[7:10], configuration, fold, "-tr", trainer, "-device", "cpu")
    seconds = time.perf_counter() - start
    print(f"{dataset} {configuration}, fold {fold}: trained in {seconds:.0f} s", flush=True)


def done(*words: str) -> None:
    code, said = soars(*words)
    assert code == 0, said


def refused(reason: str, *words: str) -> None:
    """An import that has to fail with one sentence."""
    code, said = soars("bundle", "import-nnunet", *words, "--progress", "none")
    (line,) = said.strip().splitlines()
    assert code == 2 and reason in line, (code, said)
    print(f"refused: {line}", flush=True)


def compare(place: Workplace, name: str, dataset: str, model: Path, folds: list[str]) -> None:
    """Import a model, and compare its results with those of nnU-Net's own command."""
    ct, structures = phantom_of(UNSEEN, list(PAINTED[dataset]), SPACING_MM[dataset], MARGIN_MM[dataset])
    work = place.home / name
    (work / "in").mkdir(parents=True, exist_ok=True)
    sitk.WriteImage(ct, str(work / "in" / "case_0000.nii.gz"))
    place.run(
        "nnUNetv2_predict_from_modelfolder", "-i", str(work / "in"), "-o", str(work / "out"), "-m", str(model),
        "-f", *folds, "-device", "cpu", "-npp", "1", "-nps", "1",
    )  # fmt: skip
    theirs = sitk.GetArrayFromImage(sitk.ReadImage(str(work / "out" / "case.nii.gz")))
    table = work / "map.csv"
    table.unlink(missing_ok=True)
    done("bundle", "import-nnunet", str(model), "--write-map", str(table))
    rows = {row["label"]: row["organ"] for row in csv.DictReader(table.open())}
    assert set(rows) == set(LABELS[dataset]), rows
    done("bundle", "import-nnunet", str(model), "--map", str(table), "--name", name, "--overwrite")
    bundle = load_bundle(str(place.home / "bundles" / name))
    steps = Steps("nnunet", "", ignore, lambda: False)
    ours = predict_labels(
        bundle, parse_settings(bundle), ct, torch.device("cpu"), SegmentOptions(threads=1), steps
    )
    assert np.array_equal(ours, theirs), f"{name}: {np.sum(ours != theirs)} voxels differ"
    assert len(np.unique(theirs)) > 2, "the model found too little to compare"
    print(f"{name}: {ours.size} voxels, {np.sum(ours > 0)} of them in organs, all as nnUNetv2_predict gives")
    done(
        "segment", str(work / "in" / "case_0000.nii.gz"), "--bundle", name, "--device", "cpu",
        "--output", str(work / "segmented"), "--overwrite", "--progress", "none",
    )  # fmt: skip
    found = read_seg_nrrd(work / "segmented" / "segmentation.seg.nrrd")
    for organ in PAINTED[dataset]:
        drawn = found.full(organ) if organ in found else np.zeros_like(theirs, dtype=bool)
        # Stray pieces go and what lies on the wrong side changes sides; nothing else is added.
        assert not (drawn & ~np.isin(theirs, _values(dataset, organ))).any(), organ
        truth = structures.full(organ)
        dsc = 2 * np.sum(drawn & truth) / (drawn.sum() + truth.sum())
        print(f"  {organ}: {drawn.sum()} voxels, DSC {dsc:.2f}", flush=True)


def _values(dataset: str, organ: str) -> list[int]:
    """Of an organ and its other half in the label map."""
    painted = PAINTED[dataset]
    pair = [painted[name] for name in painted if name[:-2] == organ[:-2] or name == organ]
    inside = [painted[name] for name in painted if organ.startswith("Eye") and name.startswith("Lens")]
    return [*pair, *inside]


if __name__ == "__main__":
    sys.exit(main())
