"""A cached case in memory with what a branch's task needs from it."""

from __future__ import annotations

import zipfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from soars.errors import InputError
from soars.texts import read_json
from soars_training.cohorts.cache import CachedCase, IndexEntry, group_members
from soars_training.cohorts.regions import Region, UsualRegions
from soars_training.windows.task import BranchTask

GUIDE_SUFFIX, GUIDE_FILE = ".guide.npz", "guide.json"
"""In a folder of guides: one a case; and of which network they are, whom it had held out, from whom it learned."""
BODY_HU = -500


@dataclass(frozen=True)
class LoadedCase:
    """One case for one task.

    Attributes:
        data, group: the case; the VOI's heat-map group, None for a whole scan.
        known: bool [K], which classes are annotated.
        target: uint8 labels [1, z, y, x] (softmax; [2, z, y, x] of joined branches), masks of the known classes
            (small_hard), else empty.
        points: per class the voxels [n, 3] to centre windows on; none of an unknown class.
        centres: per heat map the organs' centre, None where there is none.
        guide: uint8 [A, z, y, x], the anchors' probabilities times 255.
        body: voxels [n, 3] in the body; middle_yx [z, 2] its centre per slice; back its last index along y.
        regions: per class the box where it may be, None for anywhere.
    """

    data: CachedCase
    group: str | None
    known: np.ndarray
    target: np.ndarray
    points: list[np.ndarray]
    centres: list[np.ndarray | None]
    guide: np.ndarray
    body: np.ndarray
    middle_yx: np.ndarray
    back: float
    regions: list[Region | None]


def load(
    data: CachedCase,
    entry: IndexEntry,
    task: BranchTask,
    regions: UsualRegions,
    guide_folder: Path | None,
    cohort: frozenset[str],
) -> LoadedCase:
    """`cohort`: the organs that anybody in the cohort annotates (`CacheIndex.annotated`).

    Raises `InputError` when the task takes the anchors and there is no guide of this case.
    """
    target, points = np.zeros((0, 1, 1, 1), np.uint8), []
    centres: list[np.ndarray | None] = []
    if task.branch == "detection":
        known, centres = group_centres(data, task.classes, cohort)
        points = [
            np.zeros((0, 3)) if c is None or not k else c[None] for c, k in zip(centres, known, strict=True)
        ]
    elif task.branch == "small_hard":
        # Every small organ inside the VOI is learned, not only the VOI's own: that is several times as much to learn
        # from.
        here = {*group_members(entry.group or ""), *data.masks}
        known = np.array([o in here and o in data.annotated for o in task.classes])
        masks = [data.full_mask(o) for o in np.asarray(task.classes)[known]]
        target = np.asarray(masks, np.uint8).reshape(len(masks), *data.ct_hu.shape)
    else:
        known = np.array([o in data.annotated for o in task.classes])
        target = _label_maps(data, task)
        points = [
            np.argwhere((target == k + 1).any(0)).astype(np.int16) if known[k] else np.zeros((0, 3))
            for k in range(len(known))
        ]
    guide = np.zeros((0, *data.ct_hu.shape), np.uint8)
    if "anchor" in task.inputs:
        if guide_folder is None:
            raise InputError(
                f"branch {task.branch} takes the anchor's probabilities: run soars-train guide first"
            )
        guide = _read_guide(guide_folder / f"{entry.name}{GUIDE_SUFFIX}", task.anchors, data.ct_hu.shape)
    body = np.argwhere(data.ct_hu[::4, ::4, ::4] > BODY_HU).astype(np.int16) * 4
    back = float(body[:, 1].max()) if len(body) else float(data.ct_hu.shape[1])
    boxes = [None if k else regions.box(data, o) for o, k in zip(task.classes, known, strict=True)]
    return LoadedCase(
        data, entry.group, known, target, points, centres, guide, body, _middle(data.ct_hu), back, boxes
    )


def _label_maps(data: CachedCase, task: BranchTask) -> np.ndarray:
    """uint8 [1 or 2, z, y, x]: 1 + position in the task's classes, of each joined branch by itself."""
    first, second = task.classes[: task.joined], task.classes[task.joined :]
    if not task.joined:
        return data.label_map(second)[None]
    labels = data.label_map(second)
    return np.stack((data.label_map(first), np.where(labels > 0, labels + len(first), 0).astype(np.uint8)))


def group_centres(
    case: CachedCase, groups: Sequence[str], cohort: frozenset[str]
) -> tuple[np.ndarray, list[np.ndarray | None]]:
    """Of each heat map whether its organs are annotated (bool [K]), and their centre in voxels (z, y, x), None
    when the case shows none of them.

    Needed are those of its organs that the `cohort` has: one with cochleas and no inner ears has ears all the same, but
    in one with both a cochlea alone would be another centre.
    """
    members = [group_members(group) for group in groups]
    known = np.array(
        [any(o in cohort for o in m) and case.annotated.issuperset(cohort & {*m}) for m in members]
    )
    return known, [_centre_of(case, organs) for organs in members]


def _centre_of(case: CachedCase, organs: Sequence[str]) -> np.ndarray | None:
    points = [np.argwhere(case.masks[o][1]) + case.masks[o][0] for o in organs if o in case.masks]
    return np.concatenate(points).mean(0) if points else None


def _middle(ct_hu: np.ndarray) -> np.ndarray:
    """The body's centre (y, x) in each slice, the scan's centre where a slice is empty."""
    middle = np.tile((np.asarray(ct_hu.shape[1:]) - 1) / 2, (len(ct_hu), 1))
    for z, inside in enumerate(ct_hu > BODY_HU):
        points = np.argwhere(inside)
        if len(points):
            middle[z] = points.mean(0)
    return middle


def guide_learned(guide_folder: Path) -> list[str]:
    """The patients from whom the anchors' network has learned, so that it draws them better than new ones; none where a
    guide of an earlier version does not say."""
    path = guide_folder / GUIDE_FILE
    return list(read_json(path).get("learned") or ()) if path.exists() else []


def guide_network(guide_folder: Path) -> str | None:
    """The fingerprint of the anchors' network that drew the guides; None where an earlier version does not say."""
    path = guide_folder / GUIDE_FILE
    return read_json(path).get("network") if path.exists() else None


def _read_guide(path: Path, anchors: tuple[str, ...], shape: tuple[int, ...]) -> np.ndarray:
    try:
        with np.load(path) as data:
            names, values = tuple(data["anchors"].tolist()), data["probabilities"]
    except (OSError, KeyError, ValueError, zipfile.BadZipFile) as error:
        raise InputError(f"{path}: no anchor probabilities ({error}); run soars-train guide") from error
    if names != anchors or values.shape[1:] != shape:
        raise InputError(f"{path}: made for other anchors or another cache; run soars-train guide again")
    return values
