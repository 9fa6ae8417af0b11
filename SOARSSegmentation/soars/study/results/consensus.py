"""Each person's contours against the consensus of all others, by STAPLE.

Warfield, Zou and Wells, IEEE Trans Med Imaging 2004;23:903-921, as SimpleITK has it, on the joint bounding box of the
contours with a margin; a voxel is of the consensus where its probability is at least a half. A larger box has more
background on which everybody agrees, which raises everybody's specificity; the margin is fixed so that this share stays
the same.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path

import numpy as np

from soars.ct.images import read_ct
from soars.errors import InputError
from soars.formats import read_structures
from soars.metrics.scores import score_masks
from soars.metrics.tolerances import catalogue_tolerances, tolerance_of
from soars.parallel import in_processes
from soars.progress import Progress, Reporter, ignore
from soars.structures import Geometry, Mask, StructureSet, tight_mask
from soars.study.load import Opened
from soars.study.results.agreement import CONSENSUS, Scored
from soars.study.results.sets import PROPOSAL, ContourSet, cts

MARGIN_VOXELS = 5
LEAST = 2
"""People whose consensus somebody is compared with."""


def score_against_consensus(
    opened: Opened, sets: Sequence[ContourSet], *, processes: int = 1, progress: Reporter = ignore
) -> list[Scored]:
    """Every person's contours against the consensus of the others who answered the same question (the same arm;
    observers among themselves). Nothing where fewer than three people drew a case."""
    organs = opened.plan.organs if opened.plan is not None else ()
    work = []
    for question in dict.fromkeys((one.kind, one.arm) for one in sets if one.kind != PROPOSAL):
        people = [one for one in sets if (one.kind, one.arm) == question]
        for case in sorted({case for one in people for case in one.paths}):
            drawn = {one.name: one.paths[case] for one in people if case in one.paths}
            if len(drawn) > LEAST:
                work.append((case, drawn, cts(opened).get(case)))
    found: dict[int, list[Scored]] = {}
    for done, (index, scores) in enumerate(
        in_processes(partial(_score_case, organs=organs), work, processes), 1
    ):
        found[index] = scores
        progress(Progress("consensus", done, len(work), work[index][0]))
    return [one for index in range(len(work)) for one in found[index]]


def staple(masks: Sequence[Mask]) -> Mask:
    """The consensus of masks on one grid; that of one mask, or of equal ones, is the mask itself."""
    import SimpleITK as sitk

    filled = [mask for mask in masks if not mask.is_empty]
    if 2 * len(filled) < len(masks):  # most say that the organ is absent
        return tight_mask(np.zeros((0, 0, 0), dtype=bool))
    if all(mask.equals(masks[0]) for mask in masks[1:]):
        return masks[0]
    start = [min(m.start[a] for m in filled) - MARGIN_VOXELS for a in range(3)]
    shape = [max(m.stop[a] for m in filled) + MARGIN_VOXELS - start[a] for a in range(3)]
    images = [sitk.GetImageFromArray(mask.box(start, shape).astype(np.uint8)) for mask in masks]
    probability = sitk.GetArrayFromImage(sitk.STAPLE(images, 1.0))
    return tight_mask(probability >= 0.5, start)


def _score_case(work: tuple[str, Mapping[str, Path], Path | None], organs: Sequence[str]) -> list[Scored]:
    case, drawn, ct = work
    geometry = Geometry.of(read_ct(ct).image) if ct is not None else None
    read: dict[str, StructureSet] = {}
    for name, path in drawn.items():
        structures = read_structures(path, geometry)
        geometry = geometry or structures.geometry
        read[name] = structures
    if geometry is None:
        raise InputError(f"case {case} has no contours")
    scores = []
    for organ in organs:
        have = {name: structures.crop(organ) for name, structures in read.items() if organ in structures}
        for name, mask in have.items():
            others = [other for n, other in have.items() if n != name]
            if len(others) < LEAST:
                continue
            tolerance = tolerance_of(organ, catalogue_tolerances())
            score = score_masks(mask, staple(others), geometry, organ=organ, tolerance=tolerance)
            scores.append(Scored(case, name, CONSENSUS, score))
    return scores
