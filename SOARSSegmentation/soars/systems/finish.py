"""The last steps that models share: organs from labels, or from a working grid to the CT; sides, checks."""

from __future__ import annotations

import time
from collections.abc import Iterable, Mapping

import numpy as np

from soars.cascade.engine import EngineInfo
from soars.cascade.placement import place_sigmoid
from soars.cascade.postprocess import settle
from soars.cascade.preprocess import Body, Grid, find_body
from soars.cascade.run import NOT_FOUND
from soars.cascade.sides import find_midline
from soars.cascade.windows import UNIT, ProbabilityMap
from soars.catalogue import CATALOGUE
from soars.ct.images import CtScan
from soars.findings.checks import alone_findings, check_contours
from soars.findings.finding import Locator
from soars.findings.pairs import absent_halves
from soars.progress import Progress, Reporter
from soars.structures import Geometry, StructureSet
from soars.systems.interface import Drawn, Source
from soars.systems.labels import Labelled, structures_from_labels


def finish(
    ct: CtScan,
    label_maps: Iterable[Labelled],
    organs: tuple[str, ...],
    *,
    sources: Mapping[str, Source],
    engine: EngineInfo,
    timings_s: Mapping[str, float],
    progress: Reporter,
) -> Drawn:
    """The organs drawn in label maps [z, y, x] on the CT's grid: all are finished, those requested are returned."""
    body = find_body(ct.image)
    structures = structures_from_labels(label_maps, Geometry.of(ct.image), body)
    return finish_structures(
        structures, body, organs, sources=sources, engine=engine, timings_s=timings_s, progress=progress
    )


def finish_structures(
    structures: StructureSet,
    body: Body,
    organs: tuple[str, ...],
    *,
    sources: Mapping[str, Source],
    engine: EngineInfo,
    timings_s: Mapping[str, float],
    progress: Reporter,
) -> Drawn:
    """The same for organs that are masks on the CT's grid already."""
    start = time.perf_counter()
    progress(Progress("check", message="checking sides and volumes"))
    midline = find_midline(structures, body)
    settled = settle(structures, midline)
    locator = Locator(structures.geometry, midline.left_mm)
    findings = [*settled.findings, *check_contours(structures, locator)]
    order = [name for name in CATALOGUE if name in organs]
    found = structures.subset(name for name in order if name in structures)
    absent = {name: settled.absent.get(name, NOT_FOUND) for name in order if name not in structures}
    findings += absent_halves(structures, absent, locator)
    findings += alone_findings(found, absent, locator)
    return Drawn(
        structures=found,
        absent=absent,
        findings=[finding for finding in findings if finding.organ in organs],
        engine=engine,
        timings_s={**timings_s, "check": time.perf_counter() - start},
        sources={name: sources[name] for name in found},
    )


def place_part(
    start: tuple[int, int, int], values: np.ndarray, grid: Grid, geometry: Geometry
) -> tuple[tuple[int, int, int], np.ndarray] | None:
    """The mask on a CT of probabilities on a part of a working grid, 0 beyond it; None when it has no voxel.

    Args:
        start: of the part on the grid (z, y, x).
        values: probabilities [z, y, x], or a mask.

    Returns where the mask begins on the CT (z, y, x), and the mask, bool [z, y, x].
    """
    padded = np.pad(values, 1)
    part = Grid.of(grid.index_to_points(np.asarray(start) - 1), grid.spacing_mm, padded.shape[::-1])
    fixed = np.rint(np.clip(padded, 0, 1) * UNIT).astype(np.uint16)[None]
    return place_sigmoid(ProbabilityMap(part, fixed, UNIT, background=False), 0, geometry)
