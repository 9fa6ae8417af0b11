"""The folder of a trained nnU-Net v2, read and checked: plans.json, dataset.json, fold_N/checkpoint_*.pth."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from soars.errors import BundleError
from soars.systems.nnunet.plans import check_plans
from soars.texts import read_json

PLANS, DATASET = "plans.json", "dataset.json"
CHECKPOINTS = ("checkpoint_final.pth", "checkpoint_best.pth")
"""The first one found in a fold is used."""
READERS: Mapping[str, str] = {
    "SimpleITKIO": "LPS",
    "NibabelIO": "LPS",
    "SimpleITKIOWithReorient": "RAS",
    "NibabelIOWithReorient": "RAS",
}
"""nnU-Net's readers of volumes, and the orientation of the array [z, y, x] that a model trained with them expects. The
two without reorientation take a file as it is; head-and-neck CTs are LPS in nearly all of them."""


@dataclass(frozen=True)
class ModelFolder:
    """A trained model.

    Attributes:
        folder: the folder with plans.json.
        plans, dataset: the two JSON files.
        checkpoints: fold ("0" ... "all") -> its checkpoint, in nnU-Net's order.
    """

    folder: Path
    plans: dict[str, Any]
    dataset: dict[str, Any]
    checkpoints: Mapping[str, Path]

    @property
    def labels(self) -> dict[str, tuple[int, ...]]:
        """Label -> its values in the label map, without the background and nnU-Net's "ignore"."""
        found = {}
        for label, value in self.dataset["labels"].items():
            values = tuple(int(v) for v in (value if isinstance(value, list) else [value]))
            if label.lower() != "ignore" and values != (0,):
                found[label] = values
        return found

    @property
    def orientation(self) -> str:
        """Orientation of the array that the model expects; see `READERS`."""
        return READERS[self.reader]

    @property
    def reader(self) -> str:
        """nnU-Net's class that read the training images."""
        return str(self.dataset.get("overwrite_image_reader_writer") or self.plans["image_reader_writer"])


def read_model_folder(folder: Path, folds: Sequence[str] | None = None) -> ModelFolder:
    """Read a model folder, or a folder that holds one ("Dataset005_Name").

    ``folds``: which; all that were trained when None. Raises `BundleError` for what is missing or cannot be run here:
    several input channels, an input that is no CT, a second stage of a cascade, an unknown reader.
    """
    home = _home(folder)
    plans, dataset = _json(home / PLANS), _json(home / DATASET)
    _check_dataset(dataset, home / DATASET)
    model = ModelFolder(home, plans, dataset, _checkpoints(home, folds))
    check_plans(plans, str(home / PLANS))
    if "image_reader_writer" not in plans:
        raise BundleError(f"{home / PLANS}: does not say how the images were read (image_reader_writer)")
    if model.reader not in READERS:
        raise BundleError(
            f"{home / PLANS}: the model's images were read by {model.reader}, which is not for CT volumes; "
            f"known: {', '.join(READERS)}"
        )
    return model


def _home(folder: Path) -> Path:
    if not folder.is_dir():
        raise BundleError(f"{folder}: there is no such folder")
    if (folder / PLANS).is_file():
        return folder
    inside = sorted(path.parent for path in folder.glob(f"*/{PLANS}"))
    if len(inside) == 1:
        return inside[0]
    if not inside:
        raise BundleError(
            f"{folder}: no {PLANS} in it; give the folder that nnU-Net trained, e.g. "
            "nnUNet_results/Dataset001_Name/nnUNetTrainer__nnUNetPlans__3d_fullres"
        )
    names = ", ".join(path.name for path in inside)
    raise BundleError(f"{folder} holds several models ({names}); give the folder of one")


def _json(path: Path) -> dict[str, Any]:
    try:
        data = read_json(path)
    except OSError as error:
        raise BundleError(f"{path}: cannot be read: {error.strerror or error}") from error
    except ValueError as error:
        raise BundleError(f"{path}: not valid JSON ({error})") from error
    if not isinstance(data, dict):
        raise BundleError(f"{path}: must be a JSON object")
    return data


def _check_dataset(dataset: Mapping[str, Any], path: Path) -> None:
    channels = dataset.get("channel_names", dataset.get("modality"))
    if not isinstance(channels, dict) or not channels:
        raise BundleError(f"{path}: has no channel_names; it is not nnU-Net v2's dataset.json")
    if len(channels) != 1:
        names = ", ".join(str(name) for name in channels.values())
        raise BundleError(
            f"{path}: the model needs {len(channels)} images ({names}); only CT alone can be run"
        )
    (channel,) = channels.values()
    if str(channel).strip().lower() != "ct":
        raise BundleError(f"{path}: the model's input is {channel!r}, not CT")
    labels = dataset.get("labels")
    if not isinstance(labels, dict) or not all(map(_is_label, labels.values())):
        raise BundleError(f"{path}: labels must give each name a whole number, or a list of them")


def _is_label(value: object) -> bool:
    values = value if isinstance(value, list) else [value]
    return bool(values) and all(type(v) is int and v >= 0 for v in values)


def _checkpoints(home: Path, folds: Sequence[str] | None) -> dict[str, Path]:
    found = {}
    for folder in sorted(home.glob("fold_*")):
        files = [folder / name for name in CHECKPOINTS if (folder / name).is_file()]
        if files:
            found[folder.name.removeprefix("fold_")] = files[0]
    if not found:
        raise BundleError(f"{home}: no fold has a {CHECKPOINTS[0]}; was the training finished?")
    if folds is None:
        return {fold: path for fold, path in found.items() if fold != "all" or len(found) == 1}
    missing = [fold for fold in folds if fold not in found]
    if missing:
        raise BundleError(f"{home}: there is no fold {missing[0]}; there are: {', '.join(found)}")
    return {fold: found[fold] for fold in folds}
