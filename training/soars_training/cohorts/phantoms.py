"""Training cases from generated phantoms: whole scans, and fine VOIs of the small organs."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import replace
from functools import partial
from pathlib import Path

import numpy as np

from soars import catalogue
from soars.cascade.preprocess import Grid
from soars.mr.images import MrScan
from soars.phantom import Phantom, make_phantom, organ_boxes
from soars.phantom.mr import make_mr
from soars_training.cohorts.cache import group_members
from soars_training.cohorts.many import Job, Made, volumes_of
from soars_training.cohorts.prepare import (
    SourceCase,
    Spacing,
    group_centre_mm,
    preprocess,
    whole_region,
    with_margin,
)
from soars_training.cohorts.reading import LeftOut

MR_SHIFT_MM, MR_TURN_DEGREES = 30.0, 10.0
SCAN_IN_PLANE_MM = (0.9, 1.2)
SCAN_SLICE_MM = (1.0, 2.0, 2.5, 3.0)


def phantom_cases(
    seeds: Iterable[int], spacing_mm: Spacing, field_of_view: str = "random", *, mr: bool = False
) -> Iterator[SourceCase]:
    """Whole phantoms with all 42 OARs known (an organ outside the field is known to be absent).

    With ``mr`` each has a synthetic T1-weighted MR, in which the patient lies up to `MR_SHIFT_MM` and `MR_TURN_DEGREES`
    off; their CTs all show head and neck then.
    """
    for seed in seeds:
        yield phantom_case(seed, spacing_mm, field_of_view, mr=mr)


def phantom_case(
    seed: int,
    spacing_mm: Spacing,
    field_of_view: str = "random",
    *,
    mr: bool = False,
    artefact: bool | None = None,
) -> SourceCase:
    """One of `phantom_cases`; `artefact` as in `make_phantom`."""
    phantom = make_phantom(
        seed,
        spacing_mm=spacing_mm,
        field_of_view="head_neck" if mr else field_of_view,
        artefact=artefact,
    )
    case = _case(phantom, seed)
    if not mr:
        return case
    rng = np.random.default_rng([seed, 1])
    scan = make_mr(
        phantom,
        seed=seed,
        rotation_degrees=rng.uniform(-MR_TURN_DEGREES, MR_TURN_DEGREES, 3).tolist(),
        shift_mm=rng.uniform(-MR_SHIFT_MM, MR_SHIFT_MM, 3).tolist(),
    )
    return replace(case, mr=MrScan(scan.image, Path(f"phantom{seed}")))


def phantom_jobs(seeds: Iterable[int], *, mr: bool = False) -> list[Job]:
    """Whole phantoms, scanned with the cache's voxels."""
    return [Job(f"phantom{seed}", partial(_whole, seed, mr)) for seed in seeds]


def phantom_voi_jobs(seeds: Iterable[int], voi_mm: Mapping[str, Spacing]) -> list[Job]:
    """The VOIs of small and hard organs of phantoms, each scanned only around the organ.

    The scan's voxels differ from case to case as planning CTs do (`SCAN_IN_PLANE_MM`, `SCAN_SLICE_MM`); the VOI is
    resampled from it to the cache's voxels, as at inference.
    """
    return [Job(f"phantom{seed}", partial(_vois, seed, dict(voi_mm))) for seed in seeds]


def phantom_voi_scans(seed: int, voi_mm: Mapping[str, Spacing]) -> Iterator[tuple[str, SourceCase]]:
    """A scan of each heat map's organs of one phantom, somewhat wider than the VOI with its margin."""
    rng = np.random.default_rng(seed)
    boxes = organ_boxes(seed)
    for group, extent in voi_mm.items():
        corners = np.array([boxes[organ] for organ in group_members(group)])
        centre = (corners[:, 0].min(0) + corners[:, 1].max(0)) / 2
        scan_mm = np.array([rng.uniform(*SCAN_IN_PLANE_MM)] * 2 + [rng.choice(SCAN_SLICE_MM)])
        half = np.asarray(with_margin(extent)) / 2 + 2 * scan_mm
        region = (centre - half, centre + half)
        yield group, _case(make_phantom(seed, spacing_mm=scan_mm.tolist(), region=region), seed)


def voi_of_scan(case: SourceCase, group: str, extent_mm: Spacing, spacing_mm: Spacing) -> Made | None:
    """The VOI about the true centre in a scan that lies inside the patient; None when that shows none of its organs."""
    centre = group_centre_mm(case.structures, group)
    if centre is None:
        return None
    grid = Grid.around(centre, with_margin(extent_mm), spacing_mm)
    volume = preprocess(case, grid, whole_region(case.ct), f"{case.name}.{group}")
    return Made(case.split, group, volume, case.patient)


def _whole(seed: int, mr: bool, spacing_mm: Spacing, _left_out: LeftOut) -> Iterator[Made]:
    yield from volumes_of(phantom_case(seed, spacing_mm, mr=mr), None, spacing_mm)


def _vois(
    seed: int, voi_mm: Mapping[str, Spacing], spacing_mm: Spacing, _left_out: LeftOut
) -> Iterator[Made]:
    for group, case in phantom_voi_scans(seed, voi_mm):
        made = voi_of_scan(case, group, voi_mm[group], spacing_mm)
        if made is not None:
            yield made


def _case(phantom: Phantom, seed: int) -> SourceCase:
    return SourceCase(f"phantom{seed}", "train", phantom.ct, phantom.structures, frozenset(catalogue.SOARS42))
