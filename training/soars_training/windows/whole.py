"""A branch's network over a whole patient of the cache, by the rules of inference."""

from __future__ import annotations

import numpy as np

from soars.bundle.manifest import BranchSpec
from soars.cascade.branches import exchange_of
from soars.cascade.engine import Engine
from soars.cascade.preprocess import Grid, middle_of_head
from soars.cascade.windows import CtChannel, ProbabilityMap, Source, slide
from soars_training.cohorts.cache import CachedCase
from soars_training.windows.task import BranchTask, scaled_ct


def whole_patient(
    engine: Engine, spec: BranchSpec, task: BranchTask, case: CachedCase, guide: Source | None = None
) -> ProbabilityMap:
    """Probabilities or heat maps on the case's grid, from the same windows, seen mirrored where inference sees them so.

    Args:
        guide: the anchors' probabilities on that grid, for a branch that takes them.
    """
    grid = grid_of(case)
    sources: list[Source] = [CtChannel(scaled_ct(case.ct_hu, window)) for window in task.windows_hu]
    if guide is not None:
        sources.append(guide)
    middle = None if case.head_mm is None else middle_of_head(np.asarray(case.head_mm), grid)
    exchange = exchange_of(spec, task.anchors)
    return slide(engine, spec, grid, sources, lambda _done, _of: None, middle, exchange)


def grid_of(case: CachedCase) -> Grid:
    """Where the case's voxels lie."""
    z, y, x = case.ct_hu.shape
    return Grid(case.origin_mm, case.spacing_mm, (x, y, z))
