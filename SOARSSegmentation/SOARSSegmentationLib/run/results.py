"""Loads the results of a run from their folder into the scene."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from soars.errors import InputError
from soars.findings.finding import SERIOUS
from SOARSSegmentationLib.scene import proposal
from SOARSSegmentationLib.scene.building import add_segmentation, remove_segmentation
from SOARSSegmentationLib.scene.findings import FINDINGS_TAG, packed
from SOARSSegmentationLib.scene.grids import grid_of
from SOARSSegmentationLib.scene.label_maps import no_voxels
from SOARSSegmentationLib.scene.segments import (
    BUNDLE_HASH_TAG,
    BUNDLE_TAG,
    FLAGGED,
    NOT_STARTED,
    STATUS_TAG,
    WARNING_TAG,
)

if TYPE_CHECKING:
    from soars.report.record import OrganRecord, RunRecord
    from soars.structures import Geometry


@dataclass(frozen=True)
class Result:
    """A run's segmentation in the scene, the proposal it keeps, and the record of the run."""

    segmentation_node: Any
    proposal: proposal.Proposal
    record: RunRecord


def add_result(mrml_scene: Any, volume_node: Any, folder: Path, *, grid: Geometry | None = None) -> Result:
    """Add the segmentation of a run's folder to the scene, and keep it as the proposal.

    ``grid`` is the CT's when the run began (None: it is the same as now).
    There is a segment for every organ that was looked for, in the catalogue's order, those that were not found without
    voxels; why is in its tag "SOARS.warning", what the checks found in "SOARS.findings". `InputError` when the CT is no
    longer in the scene or on that grid, or the folder cannot be read; the scene is then as it was.
    """
    from soars.formats.segnrrd import read_seg_nrrd
    from soars.report.outputs import RECORD, SEGMENTATION
    from soars.report.record import ABSENT, PRESENT, read_run
    from soars.structures import StructureInfo, StructureSet

    if volume_node is None or volume_node.GetScene() is not mrml_scene or volume_node.GetImageData() is None:
        raise InputError("the CT was removed from the scene while it was segmented: nothing was added")
    if grid is not None and grid_of(volume_node) != grid:
        raise InputError(
            "the CT was moved or cropped while it was segmented: nothing was added; segment it again"
        )
    record = read_run(folder / RECORD)
    found = read_seg_nrrd(folder / SEGMENTATION)
    structures = StructureSet(found.geometry)
    for organ in record.organs:
        if organ.state not in (PRESENT, ABSENT):
            continue
        info = found.info[organ.name] if organ.name in found else StructureInfo()
        info = replace(info, tags={**info.tags, **_tags_of(organ)})
        mask = found.crop(organ.name) if organ.name in found else no_voxels()
        structures.add_mask(organ.name, mask, info)
    tags = {
        BUNDLE_TAG: _plain(f"{record.bundle.name} {record.bundle.version}"),
        BUNDLE_HASH_TAG: record.bundle.sha256,
        "SOARS.version": record.soars_version,
        "SOARS.made_utc": record.finished_utc.replace(":", ""),
    }
    node = add_segmentation(
        mrml_scene, volume_node, structures, f"{volume_node.GetName()} organs at risk", tags=tags
    )
    try:
        kept = proposal.keep_proposal(node, volume_node=volume_node)
    except BaseException:
        remove_segmentation(node)
        raise
    return Result(node, kept, record)


def _tags_of(organ: OrganRecord) -> dict[str, str]:
    """What the run says about an organ, for its segment."""
    # The file says of every segment that work on it is in progress.
    tags = {STATUS_TAG: NOT_STARTED, FINDINGS_TAG: packed(organ.findings, organ.expected_dsc)}
    words = "; ".join(text for text in (organ.reason, *organ.warnings) if text)
    if words:
        tags[WARNING_TAG] = _plain(words)
    if any(finding.severity == SERIOUS for finding in organ.findings):
        tags[STATUS_TAG] = FLAGGED
    return tags


def _plain(text: str) -> str:
    """Text that a .seg.nrrd file can keep in a tag."""
    return " ".join(text.replace("|", "/").split())
