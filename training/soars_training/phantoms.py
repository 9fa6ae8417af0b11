"""Training cases from generated phantoms: whole scans, and fine VOIs of the small organs."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path

import numpy as np
from soars import oars
from soars.cascade.preprocess import Grid, find_body
from soars.phantom import Phantom, make_phantom
from tqdm import tqdm

from soars_training.cache import CacheIndex, IndexEntry, write_case
from soars_training.prepare import VOI_MARGIN_MM, SourceCase, group_centre_mm, preprocess

Spacing = tuple[float, float, float]


def phantom_cases(seeds: range, spacing_mm: Spacing) -> Iterator[SourceCase]:
    """Whole phantoms with all 42 OARs known (an organ outside the field is known to be absent)."""
    for seed in seeds:
        yield _case(make_phantom(seed, spacing_mm=spacing_mm), seed)


def write_phantom_vois(
    seeds: range, folder: Path, spacing_mm: Spacing, voi_mm: Mapping[str, Spacing], coarse_mm: float = 3.0
) -> CacheIndex:
    """Cache the VOIs of small and hard organs; each phantom is made coarse once, and fine only around the organs."""
    folder.mkdir(parents=True, exist_ok=True)
    index = CacheIndex(spacing_mm, "phantom")
    for seed in tqdm(seeds, desc="prepare phantom VOIs", unit="case"):
        coarse = _case(make_phantom(seed, spacing_mm=(coarse_mm,) * 3), seed)
        body = find_body(coarse.ct)
        for group, extent in voi_mm.items():
            centre = group_centre_mm(coarse.structures, group)
            if centre is None:
                continue
            wide = tuple(e + 2 * VOI_MARGIN_MM for e in extent)
            grid = Grid.around(centre, wide, spacing_mm)  # type: ignore[arg-type]
            half = np.asarray(wide) / 2 + 2 * np.asarray(spacing_mm)
            fine = make_phantom(seed, spacing_mm=spacing_mm, region=(centre - half, centre + half))
            cached = preprocess(_case(fine, seed), grid, body, f"phantom{seed}.{group}")
            write_case(folder / f"{cached.name}.npz", cached)
            index.cases.append(
                IndexEntry(cached.name, f"{cached.name}.npz", "train", tuple(sorted(cached.annotated)), group)
            )
    index.save(folder)
    return index


def _case(phantom: Phantom, seed: int) -> SourceCase:
    return SourceCase(f"phantom{seed}", "train", phantom.ct, phantom.structures, frozenset(oars.SOARS42))
