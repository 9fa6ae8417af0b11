"""How editing sessions begin: their organs, header and folder, and resuming after an interruption."""

from __future__ import annotations

import sys
from collections.abc import Collection, Iterable
from contextlib import suppress
from dataclasses import dataclass, replace
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

import slicer

import soars
from soars.catalogue import CATALOGUE, SOARS42
from soars.effort.identity import contours_sha256, image_sha256
from soars.effort.log import (
    PROPOSAL_FILE,
    RESULT_FILE,
    interrupted_sessions,
    read_log,
    session_folder,
    session_logs,
)
from soars.effort.records import REVISE, Header, validate
from soars.effort.review import ACCEPTED, IN_PROGRESS
from soars.errors import InputError
from SOARSSegmentationLib.protocols import Protocol
from SOARSSegmentationLib.scene import proposal
from SOARSSegmentationLib.scene.building import (
    add_segmentation,
    empty_segmentation,
    on_grid_of,
    remove_segmentation,
)
from SOARSSegmentationLib.scene.ct import voxel_values
from SOARSSegmentationLib.scene.grids import grid_of
from SOARSSegmentationLib.scene.reading import structures_of
from SOARSSegmentationLib.scene.segments import (
    BUNDLE_HASH_TAG,
    BUNDLE_TAG,
    MODEL_HASH_TAG,
    MODEL_TAG,
    add_empty_segments,
    segment_ids,
    tag_of,
)
from SOARSSegmentationLib.session.editing import EditingSession


@dataclass(frozen=True)
class Interrupted:
    """A session that was not finished, and its folder."""

    folder: Path
    header: Header


def organs_of(protocol: Protocol, segmentation_node: Any = None) -> tuple[str, ...]:
    """The organs to review, in the catalogue's order: the protocol's; without one, the 42 and any others present."""
    if protocol.organs is not None:
        wanted = set(protocol.organs)
    else:
        there = segment_ids(segmentation_node) if segmentation_node is not None else ()
        wanted = {*SOARS42, *there}
    return tuple(organ for organ in CATALOGUE if organ in wanted)


def header_of(
    segmentation_node: Any, organs: Iterable[str], *, study: str, case: str, reader: str, arm: str
) -> Header:
    """The header of a session on a segmentation; `InputError` when a name is not valid."""
    name, sha256 = _bundle_of(segmentation_node) if arm == REVISE else (None, None)
    version = getattr(getattr(slicer, "app", None), "applicationVersion", None)
    header = Header(
        study=study,
        case=case,
        reader=reader,
        arm=arm,
        organs=tuple(organs),
        bundle=name,
        bundle_sha256=sha256,
        software={
            "soars": soars.__version__,
            "slicer": str(version or "unknown"),
            "python": sys.version.split()[0],
        },
        started_utc=datetime.now(timezone.utc).strftime("%Y-%m-%dT%H:%M:%SZ"),
    )
    for field, what in (("study", "Study"), ("case", "Case"), ("reader", "Reader")):
        if not getattr(header, field):
            raise InputError(f"{what} is empty: give it a name made of letters, digits and . _ -")
    validate(header.to_json())
    return header


def begin(
    segmentation_node: Any,
    volume_node: Any,
    header: Header,
    root: Path,
    *,
    editor_node: Any,
    idle_s: float,
) -> EditingSession:
    """Start a new session in a folder of its own below ``root``.

    Organs without a segment get an empty one, so that they can be drawn. What the header does not say about CT and
    proposal is filled in. Other segmentations are hidden from readers who draw from scratch. `InputError` when the
    session cannot begin, also when it is to begin from other contours than its header names.
    """
    known = None
    if not header.from_scratch:
        known = proposal.proposal_of(segmentation_node, volume_node)
        if known is None:
            known = proposal.keep_proposal(segmentation_node, volume_node=volume_node)
    header = described(header, volume_node, known)
    _check_untouched(header, segmentation_node, volume_node)
    add_empty_segments(segmentation_node, header.organs)
    folder = session_folder(root, header)
    try:
        session = EditingSession.begin(
            segmentation_node,
            volume_node,
            {organ: mask for organ, mask in known.masks.items() if organ in header.organs} if known else None,
            folder,
            header,
            editor_node=editor_node,
            idle_s=idle_s,
        )
    except BaseException:
        with suppress(OSError):  # its contents stay
            folder.rmdir()
        raise
    if header.from_scratch:
        hide_others(segmentation_node)
    return session


def changed_before(segmentation_node: Any, volume_node: Any, organs: Iterable[str]) -> tuple[str, ...]:
    """The organs that differ from the proposal that the segmentation keeps: edited without a session, or in an earlier
    one, perhaps by somebody else."""
    known = proposal.proposal_of(segmentation_node, volume_node)
    if known is None:
        return ()
    kept = [organ for organ in organs if organ in known]
    now = structures_of(segmentation_node, kept, volume_node)
    return tuple(organ for organ in kept if not now.crop(organ).equals(known.masks[organ]))


def described(header: Header, volume_node: Any, known: proposal.Proposal | None) -> Header:
    """The header with the hashes of CT and proposal, the voxel size, and where the proposal is from, unless a study's
    worklist has said so already."""
    if header.proposal_source is not None:
        return header
    source = "none" if header.from_scratch else "contours" if header.bundle is None else "bundle"
    return replace(
        header,
        proposal_source=source,
        proposal_sha256=None if known is None else contours_sha256(known.masks, header.organs),
        ct_sha256=image_sha256(voxel_values(volume_node)),
        voxel_size_mm=grid_of(volume_node).spacing,
    )


def _check_untouched(header: Header, segmentation_node: Any, volume_node: Any) -> None:
    """Check that in a study the contours are still those that the worklist names, and not another reader's edits of
    them."""
    if header.proposal_source != "study":
        return
    ids = segment_ids(segmentation_node)
    structures = structures_of(segmentation_node, [o for o in header.organs if o in ids], volume_node)
    masks = {organ: structures.crop(organ) for organ in structures}
    if contours_sha256(masks, header.organs) != header.proposal_sha256:
        raise InputError(
            f"the contours {segmentation_node.GetName()} are not those that the study proposes for this session: "
            "somebody has changed them; ask the study's lead"
        )


def hide_others(segmentation_node: Any) -> None:
    """Hide all other segmentations of the scene."""
    nodes = segmentation_node.GetScene().GetNodesByClass("vtkMRMLSegmentationNode")
    nodes.UnRegister(None)
    for index in range(nodes.GetNumberOfItems()):
        node = nodes.GetItemAsObject(index)
        display = node.GetDisplayNode()
        if node is not segmentation_node and display is not None:
            display.SetVisibility(False)


# --- after an interruption ---------------------------------------------------------------------------------------
def find_interrupted(root: Path, *, study: str, case: str, reader: str) -> Interrupted | None:
    """The newest interrupted session of this reader on this case; None when there is none."""

    def wanted(
        folder: Path,
    ) -> bool:  # the window asks often, and there may be many long logs of other readers
        return folder.parent.name == study and folder.name.startswith(f"{case}_{reader}_")

    for folder in reversed(interrupted_sessions(root, wanted)):
        header = read_log(session_logs(folder)[-1]).header
        if (header.study, header.case, header.reader) == (study, case, reader):
            return Interrupted(folder, header)
    return None


def check_same_ct(interrupted: Interrupted, volume_node: Any) -> None:
    """`InputError`, which names the CT to choose, when the session was begun on another CT than this one; logs that
    name no CT fit any."""
    header = interrupted.header
    if header.ct_sha256 is None or image_sha256(voxel_values(volume_node)) == header.ct_sha256:
        return
    kind = "vtkMRMLScalarVolumeNode"
    right = next(
        (
            one
            for one in slicer.util.getNodesByClass(kind, volume_node.GetScene())
            if one.GetClassName() == kind  # not label maps and colours, which are kinds of it
            and one.GetImageData() is not None
            and image_sha256(voxel_values(one)) == header.ct_sha256
        ),
        None,
    )
    what = f"choose {right.GetName()}" if right is not None else f"load the CT of {header.case} and choose it"
    raise InputError(f"the session was begun on another CT than {volume_node.GetName()}: {what}")


def reload(
    interrupted: Interrupted, mrml_scene: Any, volume_node: Any, study_proposal: Path | None = None
) -> Any:
    """Load the segmentation of an interrupted session as it was last saved, with its proposal.

    ``study_proposal`` is the proposal in the study's folder, used when the session was killed before it saved its own.
    `InputError` when there is nothing to load or it does not fit the CT; the scene is then unchanged.
    """
    header, folder = interrupted.header, interrupted.folder
    name = f"{volume_node.GetName()} {header.case} resumed"
    tags = {BUNDLE_TAG: header.bundle or "", BUNDLE_HASH_TAG: header.bundle_sha256 or ""}
    proposed, result = folder / PROPOSAL_FILE, folder / RESULT_FILE
    if study_proposal is not None and not proposed.is_file():
        proposed = study_proposal
    if header.from_scratch:
        node = empty_segmentation(mrml_scene, volume_node, header.organs, name)
    elif proposed.is_file():
        node = add_segmentation(mrml_scene, volume_node, proposed, name, tags=tags)
    else:
        raise InputError(f"the folder {folder} has no {PROPOSAL_FILE}: the session cannot be resumed")
    try:
        only_organs(node, header.organs)
        add_empty_segments(node, header.organs)
        if not header.from_scratch:
            proposal.keep_proposal(node, volume_node=volume_node)
        if result.is_file():
            _put_contents(node, volume_node, result)
    except BaseException:
        remove_segmentation(node)
        raise
    return node


def only_organs(segmentation_node: Any, organs: Collection[str]) -> None:
    """Take away organs that are none of the session's, as those of another reader's part."""
    segmentation = segmentation_node.GetSegmentation()
    for organ, segment_id in segment_ids(segmentation_node).items():
        if organ not in organs:
            segmentation.RemoveSegment(segment_id)


def resume(
    interrupted: Interrupted,
    segmentation_node: Any,
    volume_node: Any,
    *,
    editor_node: Any,
    idle_s: float,
) -> EditingSession:
    """Resume an interrupted session on its segmentation; as at its beginning, others are hidden from readers who draw
    from scratch."""
    known = (
        proposal.proposal_of(segmentation_node, volume_node) if not interrupted.header.from_scratch else None
    )
    sha256 = interrupted.header.proposal_sha256
    organs = interrupted.header.organs
    if sha256 is not None and (known is None or contours_sha256(known.masks, organs) != sha256):
        raise InputError(
            f"the proposal in {interrupted.folder} is not the one that the session began from: it cannot be resumed"
        )
    session = EditingSession.begin(
        segmentation_node,
        volume_node,
        dict(known.masks) if known is not None else None,
        interrupted.folder,
        interrupted.header,
        editor_node=editor_node,
        idle_s=idle_s,
    )
    if session.header.from_scratch:
        hide_others(segmentation_node)
    return session


def summary(session: EditingSession) -> dict[str, int]:
    """A session's summary: how many organs are accepted, changed, and in each revision category, under these names."""
    reviews = session.review()
    counts = {"organs": len(reviews), "accepted": 0, "open": 0, "changed": 0}
    for one in reviews.values():
        counts["accepted"] += one.state == ACCEPTED
        counts["open"] += one.state == IN_PROGRESS
        counts["changed"] += bool(one.change is not None and one.change.changed)
        if one.category is not None and one.category != "none":
            counts[one.category] = counts.get(one.category, 0) + 1
    return counts


def _bundle_of(segmentation_node: Any) -> tuple[str | None, str | None]:
    """Name and hash of the bundle that made a segmentation, by its own tags."""
    segmentation = segmentation_node.GetSegmentation()
    for index in range(segmentation.GetNumberOfSegments()):
        segment = segmentation.GetNthSegment(index)
        for tag, hash_tag in ((BUNDLE_TAG, BUNDLE_HASH_TAG), (MODEL_TAG, MODEL_HASH_TAG)):
            if name := tag_of(segment, tag):
                return name, tag_of(segment, hash_tag) or None
    return None, None


def _put_contents(segmentation_node: Any, volume_node: Any, path: Path) -> None:
    """Set each organ's voxels to those in a file."""
    from soars.formats.segnrrd import read_seg_nrrd

    saved = on_grid_of(read_seg_nrrd(path), volume_node)
    organs = [organ for organ in segment_ids(segmentation_node) if organ in saved]
    before = structures_of(segmentation_node, organs, volume_node)
    contents = proposal.Proposal(saved.geometry, {organ: saved.crop(organ) for organ in organs})
    for organ in organs:
        if not contents.masks[organ].equals(before.crop(organ)):
            proposal.restore(segmentation_node, organ, contents)
