"""A study's worklist at work: the next case is loaded and checked, and nothing else stays in the scene.

The reader chooses nothing and types nothing: study, case, reader, arm, CT and contours come from the worklist. A
session begins only on the study's CT and on exactly the contours that the arm proposes, both known by the hash of
their voxels: the CT is checked here, the contours where every session begins (`session.sessions.begin`).
"""

from __future__ import annotations

import sys
from collections.abc import Mapping
from dataclasses import dataclass, replace
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

import slicer

import soars
from soars.effort.identity import image_sha256
from soars.effort.log import read_log, session_logs
from soars.effort.records import Header
from soars.errors import InputError
from soars.study.desk import (
    Item,
    ItemState,
    Next,
    Worklist,
    header_of_item,
    next_session,
    read_worklist,
    states,
)
from SOARSSegmentationLib.reading.loading import load_ct
from SOARSSegmentationLib.scene.building import add_segmentation, empty_segmentation, remove_segmentation
from SOARSSegmentationLib.scene.ct import voxel_values
from SOARSSegmentationLib.scene.grids import grid_of
from SOARSSegmentationLib.session import sessions


@dataclass(frozen=True)
class Loaded:
    """What a session is begun or resumed on; ``interrupted`` is None for a new one."""

    item: Item
    volume_node: Any
    segmentation_node: Any
    header: Header
    interrupted: sessions.Interrupted | None


class ReadingDesk:
    """A reader's worklist, open."""

    def __init__(self, worklist: Worklist) -> None:
        self.worklist = worklist

    @classmethod
    def open(cls, path: Path) -> ReadingDesk:
        """Of a worklist file; `InputError` when it cannot be used."""
        return cls(read_worklist(path))

    def states(self) -> list[ItemState]:
        """Where every session of the worklist is, from the study's folder."""
        return states(self.worklist)

    def next(self, now: datetime | None = None) -> Next:
        """What comes next; `InputError` when it is open in another window."""
        return next_session(self.worklist, self.states(), now or datetime.now(timezone.utc))

    def load(self, following: Next, mrml_scene: Any) -> Loaded:
        """Load the CT and the contours of the next session into the scene, which should be empty.

        `InputError` when a file is missing or is not the study's; the scene is then unchanged.
        """
        item = following.item
        if item is None:
            raise InputError("there is no session to load")
        volume = load_ct(mrml_scene, self.worklist.share / item.ct, item.case)
        try:
            if image_sha256(voxel_values(volume)) != item.ct_sha256:
                raise InputError(f"the CT of {item.case} is not the study's: ask the study's lead")
            if following.folder is not None:
                return self._interrupted(item, following.folder, mrml_scene, volume)
            node = self._contours(item, mrml_scene, volume)
        except BaseException:
            _remove_volume(mrml_scene, volume)
            raise
        header = header_of_item(self.worklist, item, _software())
        spacing = grid_of(volume).spacing
        return Loaded(item, volume, node, replace(header, voxel_size_mm=spacing), None)

    def _contours(self, item: Item, mrml_scene: Any, volume: Any) -> Any:
        """The arm's proposal, checked; empty organs for an arm from scratch."""
        name = f"{item.case}, session {item.number}"
        if item.proposal is None:
            return empty_segmentation(mrml_scene, volume, self.worklist.organs, name)
        path = self.worklist.share / item.proposal
        if not path.is_file():
            raise InputError(
                f"the contours of {item.case} are missing from the study's folder: ask the study's lead"
            )
        node = add_segmentation(mrml_scene, volume, path, name)
        try:
            sessions.only_organs(node, self.worklist.organs)
        except BaseException:
            remove_segmentation(node)
            raise
        return node

    def _interrupted(self, item: Item, folder: Path, mrml_scene: Any, volume: Any) -> Loaded:
        header = read_log(session_logs(folder)[-1]).header
        interrupted = sessions.Interrupted(folder, header)
        proposed = self.worklist.share / item.proposal if item.proposal is not None else None
        node = sessions.reload(interrupted, mrml_scene, volume, proposed)
        return Loaded(item, volume, node, header, interrupted)


def _remove_volume(mrml_scene: Any, volume: Any) -> None:
    for node in (volume.GetDisplayNode(), volume.GetStorageNode(), volume):
        if node is not None:
            mrml_scene.RemoveNode(node)


def _software() -> Mapping[str, str]:
    version = getattr(getattr(slicer, "app", None), "applicationVersion", None)
    return {
        "soars": soars.__version__,
        "slicer": str(version or "unknown"),
        "python": sys.version.split()[0],
    }
