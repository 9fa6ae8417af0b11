"""How much each organ was edited, from the proposal and the result beside a session's log."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from soars.effort.identity import contours_sha256
from soars.effort.log import PROPOSAL_FILE, RESULT_FILE
from soars.effort.records import Header
from soars.errors import InputError
from soars.study.rows import EditAmount

if TYPE_CHECKING:
    from soars.structures import Geometry, Mask, StructureSet

_NAN = float("nan")


def edit_amounts(folder: Path, header: Header) -> tuple[dict[str, EditAmount], list[str]]:
    """Organ -> how much it was edited, and what is wrong with the files.

    Organs are left out where proposal or result cannot be read. The proposal beside the log must be the one that the
    log names by its hash.
    """
    from soars.formats import read_seg_nrrd

    problems: list[str] = []
    try:
        result = read_seg_nrrd(folder / RESULT_FILE) if (folder / RESULT_FILE).is_file() else None
        proposal = read_seg_nrrd(folder / PROPOSAL_FILE) if (folder / PROPOSAL_FILE).is_file() else None
    except InputError as error:
        return {}, [str(error)]
    if result is None:
        return {}, [f"there is no {RESULT_FILE}"]
    if proposal is not None and header.proposal_sha256 is not None:
        masks = {organ: proposal.crop(organ) for organ in proposal}
        if contours_sha256(masks, header.organs) != header.proposal_sha256:
            problems.append(f"{PROPOSAL_FILE} is not the proposal that the log names")
    if proposal is None and header.proposal_sha256 is not None:
        problems.append(f"there is no {PROPOSAL_FILE}")
    if proposal is not None and not proposal.geometry.same_as(result.geometry, 0.01):
        return {}, [*problems, "proposal and result lie on different grids"]
    found = {}
    for organ in header.organs:
        if organ in result:
            found[organ] = _amount(organ, proposal, result, header.from_scratch)
    return found, problems


def _amount(organ: str, proposal: StructureSet | None, result: StructureSet, scratch: bool) -> EditAmount:
    from soars.structures import tight_mask

    after, voxel_cc = result.crop(organ), result.geometry.voxel_cc
    result_cc = after.voxels * voxel_cc
    if scratch:
        return EditAmount(_NAN, _NAN, _NAN, _NAN, _NAN, _NAN, 0.0, result_cc)
    if proposal is None:
        return EditAmount(_NAN, _NAN, _NAN, _NAN, _NAN, _NAN, _NAN, result_cc)
    # An organ that was not proposed began as an empty segment.
    before = proposal.crop(organ) if organ in proposal else tight_mask(after.array[:0])
    proposal_cc = before.voxels * voxel_cc
    if before.equals(after):
        return EditAmount(1.0, 0.0, 0.0, 0.0, 1.0, 0.0, proposal_cc, result_cc)
    return _scored(organ, before, after, result.geometry)


def _scored(organ: str, before: Mask, after: Mask, geometry: Geometry) -> EditAmount:
    from soars.metrics.scores import score_masks
    from soars.metrics.tolerances import catalogue_tolerances, tolerance_of

    score = score_masks(
        before, after, geometry, organ=organ, tolerance=tolerance_of(organ, catalogue_tolerances())
    )
    return EditAmount(
        score.dsc,
        score.hd_mm,
        score.hd95_mm,
        score.asd_mm,
        score.surface_dsc,
        score.apl_mm,
        score.volume_cc,
        score.reference_volume_cc,
    )
