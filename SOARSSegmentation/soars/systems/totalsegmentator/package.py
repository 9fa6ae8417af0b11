"""The calls into the installed TotalSegmentator package, checked against its signatures by a test; those that contact
its publishers are in `downloads`.

Run on its own, it would send anonymous statistics and fetch missing weights. Here it does neither: statistics are
switched off for the run, and it is called only when all weights are on disk.
"""

from __future__ import annotations

import contextlib
import importlib.metadata
import io
import logging
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import SimpleITK as sitk

from soars.errors import EngineError
from soars.systems.interface import Weights
from soars.systems.nnunet.predictor import Steps, predictor_class
from soars.systems.packages import requirements
from soars.systems.totalsegmentator.settings import Task

log = logging.getLogger(__name__)

REQUIREMENTS = requirements("TotalSegmentator")
"""The packages of the extra; a test compares them with pyproject.toml."""
CROP_MODEL, ROBUST_CROP_MODEL, BODY_CROP_MODEL = 298, 297, 300
"""Models of "total" and "body" that the package runs first to find the region of other tasks."""


def installed_version() -> str | None:
    """Of the package; None when it is not installed."""
    try:
        return importlib.metadata.version("TotalSegmentator")
    except importlib.metadata.PackageNotFoundError:
        return None


def weights_of(task: Task, *, fast: bool) -> tuple[Weights, ...]:
    """Everything on disk that a task reads, the models that only find its region included."""
    found = []
    for number in model_numbers(task.name, fast=fast, subset=True):
        folder, entry = model_folder(number)
        own = number in _own_models(task.name, fast)
        found.append(
            Weights(
                name=f"{number} {entry['foldername']}",
                present=is_model(folder),
                licence=task.licence if own else "Apache-2.0",
                url=_url(entry),
                needs_number=task.needs_number and own,
            )
        )
    return tuple(found)


def model_folder(number: int) -> tuple[Path, dict[str, Any]]:
    """Where the package looks for a model, and its entry in the package's table."""
    from totalsegmentator.config import get_weights_dir
    from totalsegmentator.map_tasks_config import TASK_ID_WEIGHTS_CONFIGS

    entry = TASK_ID_WEIGHTS_CONFIGS[number]
    return Path(get_weights_dir()) / (entry.get("rel_path") or "") / entry["foldername"], entry


def is_model(folder: Path) -> bool:
    """Whether a folder holds a trained nnU-Net; one that was unpacked in part only does not."""
    return any(
        (home.parent / "plans.json").is_file() for home in folder.glob("*/fold_*") if any(home.iterdir())
    )


def model_numbers(task: str, *, fast: bool, subset: bool) -> tuple[int, ...]:
    """Numbers of the models that a task reads; ``subset``: only some of its classes are asked for."""
    config = _config(task, fast)
    numbers = list(_own_models(task, fast))
    crop = config.get("crop")
    if config.get("crop_model"):
        numbers += model_numbers(config["crop_model"], fast=False, subset=False)
    elif crop is not None and any(part.startswith("body_") for part in crop):
        numbers.append(BODY_CROP_MODEL)
    elif crop is not None or (subset and task == "total"):
        numbers.append(ROBUST_CROP_MODEL if config.get("robust_crop") else CROP_MODEL)
    return tuple(dict.fromkeys(numbers))


def has_licence_number() -> bool:
    """Whether the package has a licence number; contacts nobody."""
    from totalsegmentator.config import has_valid_license_offline

    return bool(has_valid_license_offline()[0] == "yes")


def check_classes(task: Task) -> None:
    """Raise `EngineError` when the installed package numbers the task's classes otherwise than the bundle says."""
    from totalsegmentator.config import get_version
    from totalsegmentator.map_to_binary import class_map

    known = class_map.get(task.name, {})
    for rule in task.rules:
        for name, value in zip(rule.label.split("+"), rule.values, strict=True):
            if known.get(value) != name:
                raise EngineError(
                    f"TotalSegmentator {get_version()} has {known.get(value, 'nothing')!r} as class {value} of "
                    f"{task.name}, where this bundle expects {name!r}; use a version that it was made for"
                )


def run_task(
    image: sitk.Image, task: Task, classes: list[str], *, device: str, fast: bool, steps: Steps
) -> npt.NDArray[np.integer[Any]]:
    """The task's label map [z, y, x] on the image's own grid.

    Raises `EngineError` when the package fails, `CancelledError` when ``steps`` does.
    """
    from totalsegmentator.python_api import totalsegmentator

    given = to_nifti(image)
    with _no_statistics(), _stepping(steps), quiet(task.name):
        try:
            result = totalsegmentator(
                given,
                None,
                ml=True,
                fast=fast,
                task=task.name,
                roi_subset=classes if task.name == "total" else None,
                device=device.replace("cuda", "gpu"),
                quiet=True,
                nr_thr_resamp=1,
                nr_thr_saving=1,
            )
        except (RuntimeError, ValueError, OSError, KeyError, AssertionError) as error:
            raise EngineError(
                f"TotalSegmentator failed in {task.name}: {type(error).__name__}: {error}"
            ) from error
    if result.shape != given.shape or not np.allclose(result.affine, given.affine, atol=1e-3):
        raise EngineError(f"TotalSegmentator gave {task.name} on another grid than the CT's")
    return np.asarray(result.dataobj).astype(np.uint8).transpose(2, 1, 0)


def to_nifti(image: sitk.Image) -> Any:
    """The image as nibabel's, in memory: the same voxels in the same order, with RAS coordinates."""
    import nibabel

    affine = np.eye(4)
    affine[:3, :3] = np.array(image.GetDirection()).reshape(3, 3) * image.GetSpacing()
    affine[:3, 3] = image.GetOrigin()
    affine[:2] *= -1
    return nibabel.Nifti1Image(sitk.GetArrayFromImage(image).transpose(2, 1, 0), affine)


def _config(task: str, fast: bool) -> dict[str, Any]:
    from totalsegmentator.map_tasks_config import DEFAULT_CONFIG, TASK_CONFIGS

    raw = TASK_CONFIGS[task]
    modes = raw.get("sub_modes")
    return {**DEFAULT_CONFIG, **(modes["fast" if fast else "default"] if modes else raw)}


def _own_models(task: str, fast: bool) -> tuple[int, ...]:
    number = _config(task, fast)["task_id"]
    return tuple(number) if isinstance(number, list) else (number,)


def _url(entry: dict[str, Any]) -> str:
    if entry.get("commercial") or entry.get("version") in (None, "TODO"):
        return "TotalSegmentator's licence server"
    return (
        "https://github.com/wasserth/TotalSegmentator/releases/download/"
        f"{entry['version']}/{entry['foldername']}.zip"
    )


@contextlib.contextmanager
def _no_statistics() -> Iterator[None]:
    """The package reports each run to its publishers unless its settings say no; for our runs it never does."""
    from totalsegmentator import python_api

    before = python_api.send_usage_stats
    python_api.send_usage_stats = lambda *_: None
    try:
        yield
    finally:
        python_api.send_usage_stats = before


@contextlib.contextmanager
def _stepping(steps: Steps) -> Iterator[None]:
    """Let the package use a predictor that reports progress and can be cancelled."""
    from totalsegmentator import nnunet

    before = nnunet.nnUNetPredictor
    nnunet.nnUNetPredictor = predictor_class(steps)
    try:
        yield
    finally:
        nnunet.nnUNetPredictor = before


@contextlib.contextmanager
def quiet(what: str) -> Iterator[None]:
    """Log what the package prints, and turn what would end the program into an `EngineError`."""
    printed = io.StringIO()
    try:
        with contextlib.redirect_stdout(printed):
            yield
    except SystemExit as error:
        said = " ".join(printed.getvalue().split())
        raise EngineError(f"TotalSegmentator refused ({what}): {said or error}") from error
    finally:
        for line in printed.getvalue().splitlines():
            log.info("TotalSegmentator: %s", line)
