"""Training cases from generated phantoms: whole scans, and fine VOIs of the small organs."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import replace
from pathlib import Path

import numpy as np
from tqdm import tqdm

from soars import catalogue
from soars.cascade.preprocess import Grid
from soars.mr.images import MrScan
from soars.phantom import Phantom, make_phantom, organ_boxes
from soars.phantom.mr import make_mr
from soars_training.cohorts.cache import CacheIndex, IndexEntry, group_members, write_case
from soars_training.cohorts.prepare import SourceCase, group_centre_mm, preprocess, whole_region, with_margin

Spacing = tuple[float, float, float]

MR_SHIFT_MM, MR_TURN_DEGREES = 30.0, 10.0
SCAN_IN_PLANE_MM = (0.9, 1.2)
SCAN_SLICE_MM = (1.0, 2.0, 2.5, 3.0)


def phantom_cases(
    seeds: range, spacing_mm: Spacing, field_of_view: str = "random", *, mr: bool = False
) -> Iterator[SourceCase]:
    """Whole phantoms with all 42 OARs known (an organ outside the field is known to be absent).

    With ``mr`` each has a synthetic T1-weighted MR, in which the patient lies up to `MR_SHIFT_MM` and `MR_TURN_DEGREES`
    off; their CTs all show head and neck then.
    """
    for seed in seeds:
        phantom = make_phantom(
            seed, spacing_mm=spacing_mm, field_of_view="head_neck" if mr else field_of_view
        )
        case = _case(phantom, seed)
        if mr:
            rng = np.random.default_rng([seed, 1])
            scan = make_mr(
                phantom,
                seed=seed,
                rotation_degrees=rng.uniform(-MR_TURN_DEGREES, MR_TURN_DEGREES, 3).tolist(),
                shift_mm=rng.uniform(-MR_SHIFT_MM, MR_SHIFT_MM, 3).tolist(),
            )
            case = replace(case, mr=MrScan(scan.image, Path(f"phantom{seed}")))
        yield case


def write_phantom_vois(
    seeds: range, folder: Path, spacing_mm: Spacing, voi_mm: Mapping[str, Spacing]
) -> CacheIndex:
    """Cache the VOIs of small and hard organs of phantoms, each scanned only around the organ.

    The scan's voxels differ from case to case as planning CTs do (`SCAN_IN_PLANE_MM`, `SCAN_SLICE_MM`); the VOI is
    resampled from it to `spacing_mm`, as at inference.
    """
    folder.mkdir(parents=True, exist_ok=True)
    index = CacheIndex(spacing_mm, "phantom")
    for seed in tqdm(seeds, desc="prepare phantom VOIs", unit="case"):
        rng = np.random.default_rng(seed)
        boxes = organ_boxes(seed)
        for group, extent in voi_mm.items():
            corners = np.array([boxes[organ] for organ in group_members(group)])
            centre = (corners[:, 0].min(0) + corners[:, 1].max(0)) / 2
            wide = with_margin(extent)
            scan_mm = np.array([rng.uniform(*SCAN_IN_PLANE_MM)] * 2 + [rng.choice(SCAN_SLICE_MM)])
            half = np.asarray(wide) / 2 + 2 * scan_mm
            scan = make_phantom(seed, spacing_mm=scan_mm.tolist(), region=(centre - half, centre + half))
            case = _case(scan, seed)
            true_centre = group_centre_mm(case.structures, group)
            if true_centre is None:
                continue
            grid = Grid.around(true_centre, wide, spacing_mm)
            cached = preprocess(case, grid, whole_region(scan.ct), f"phantom{seed}.{group}")
            write_case(folder / f"{cached.name}.npz", cached)
            index.cases.append(
                IndexEntry(cached.name, f"{cached.name}.npz", "train", tuple(sorted(cached.annotated)), group)
            )
    index.save(folder)
    return index


def _case(phantom: Phantom, seed: int) -> SourceCase:
    return SourceCase(f"phantom{seed}", "train", phantom.ct, phantom.structures, frozenset(catalogue.SOARS42))
