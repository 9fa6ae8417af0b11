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

from soars.metrics.cases import join_parts, read_on_one_grid
from soars.metrics.scores import score_masks
from soars.metrics.tolerances import catalogue_tolerances, tolerance_of
from soars.parallel import in_processes
from soars.progress import Progress, Reporter, ignore
from soars.structures import Mask, StructureSet, tight_mask
from soars.structures.mask import EMPTY_MASK
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
    observers among themselves). Nothing where fewer than three people drew a case; in an organ of which two others have
    a structure, a person without one misses it, as against the reference."""
    organs = opened.plan.organs if opened.plan is not None else ()
    work, asked = [], set[tuple[str, str]]()
    for question in dict.fromkeys((one.kind, one.arm) for one in sets if one.kind != PROPOSAL):
        people = [one for one in sets if (one.kind, one.arm) == question]
        asked |= {(one.name, organ) for one in people for organ in organs if one.asked_for(organ)}
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
    everything = [one for index in range(len(work)) for one in found[index]]
    return [one for one in everything if (one.first, one.organ) in asked]


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
    read = dict(zip(drawn, read_on_one_grid(list(drawn.values()), ct), strict=True))
    geometry = next(iter(read.values())).geometry
    wanted = StructureSet(geometry)
    for organ in organs:
        wanted.add_mask(organ, EMPTY_MASK)
    for structures in read.values():
        join_parts(structures, wanted, drawn_only=True)
    scores = []
    for organ in organs:
        tolerance = tolerance_of(organ, catalogue_tolerances())
        for name, structures in read.items():
            others = [s.crop(organ) for other, s in read.items() if other != name and organ in s]
            if len(others) < LEAST:
                continue
            mask = structures.crop(organ) if organ in structures else EMPTY_MASK
            score = score_masks(mask, staple(others), geometry, organ=organ, tolerance=tolerance)
            scores.append(Scored(case, name, CONSENSUS, score))
    return scores
