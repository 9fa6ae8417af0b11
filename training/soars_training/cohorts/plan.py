"""The fingerprint of a cache and the plan that follows from it: sizes, HU, volumes, strata, volumes of interest."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass, replace
from pathlib import Path

import numpy as np
import scipy

from soars.catalogue import CATALOGUE
from soars.errors import InputError
from soars.files import write_json
from soars.networks.names import Branch
from soars.structures.box import Box
from soars_training.cohorts.cache import CachedCase, CacheIndex, group_members, read_case
from soars_training.cohorts.proposals import propose_stratum
from soars_training.cohorts.regions import misplaced

PLAN_FILE, VOI_FILE = "plan.json", "voi.json"
VOI_TIMES = 3.0
"""A volume of interest is this many times the organ's largest extent (SOARS, CVPR 2020, section 3.1)."""
SHELL_MM = 6.0
VOXEL_BYTES = 4
"""Of a case in memory: its CT in 16 bits, its labels, and the places to draw windows from, about as much again."""
ODD_TIMES = 3.0
"""A volume that differs from the median by this factor should be looked at."""


@dataclass(frozen=True)
class OrganFacts:
    """Statistics of an organ over the cases that have it.

    `cases` were annotated, `present` have a voxel; volumes in cc; `largest_mm` is the largest extent (x, y, z) in any
    case; `median_hu` that of all its voxels, and `contrast_hu` how far that is from the median of what surrounds it by
    `SHELL_MM`; `proposed` is the stratum that volume and contrast suggest, with the `reason`, where the catalogue has
    another or none (see `proposals`); `odd` are cases whose volume is `ODD_TIMES` off the median; `misplaced` those in
    which it lies elsewhere among the other organs (see `regions`).
    """

    stratum: str
    cases: int
    present: int
    median_cc: float
    smallest_cc: float
    largest_cc: float
    largest_mm: tuple[float, float, float]
    median_hu: float
    odd: tuple[str, ...]
    contrast_hu: float
    proposed: Branch
    reason: str
    misplaced: tuple[str, ...] = ()


@dataclass(frozen=True)
class Plan:
    """`median_size` and `largest_size` are voxels (z, y, x); `voi_mm` (x, y, z) per heat-map group; `cases_gb` is what
    all cases take in the memory of a run."""

    spacing_mm: tuple[float, float, float]
    cases: int
    median_size: tuple[int, int, int]
    largest_size: tuple[int, int, int]
    organs: Mapping[str, OrganFacts]
    voi_mm: Mapping[str, tuple[float, float, float]]
    cases_gb: float

    def save(self, folder: Path) -> None:
        """`plan.json`, and `voi.json` as `soars-train prepare --voi` and `fit --voi` take it."""
        _write(folder / PLAN_FILE, asdict(self))
        _write(folder / VOI_FILE, dict(self.voi_mm))


def make_plan(cache: Path) -> Plan:
    """Look at every case of a cache of whole scans. Raises `InputError` for a cache of volumes of interest."""
    index = CacheIndex.load(cache)
    if any(entry.group for entry in index.cases):
        raise InputError(f"{cache} holds volumes of interest; a plan is made of a cache of whole scans")
    if not index.cases:
        raise InputError(f"{cache} holds no case")
    sizes: list[tuple[int, ...]] = []
    seen: dict[str, list[_Seen]] = {}
    annotated: dict[str, int] = {}
    centres: dict[str, dict[str, np.ndarray]] = {}
    for entry in index.cases:
        case = read_case(cache / entry.file)
        sizes.append(case.ct_hu.shape)
        for organ in case.annotated:
            annotated[organ] = annotated.get(organ, 0) + 1
        for organ in case.masks:
            seen.setdefault(organ, []).append(_look(case, organ))
            centres.setdefault(case.name, {})[organ] = _middle_mm(case, organ)
    elsewhere = misplaced(centres)
    organs = {
        organ: replace(_facts(organ, annotated[organ], seen[organ]), misplaced=elsewhere[organ])
        for organ in sorted(annotated, key=list(CATALOGUE).index)
        if organ in seen
    }
    return Plan(
        index.spacing_mm,
        len(index.cases),
        _whole(np.median(sizes, axis=0)),
        _whole(np.max(sizes, axis=0)),
        organs,
        _vois(organs),
        round(sum(float(np.prod(size)) for size in sizes) * VOXEL_BYTES / 1e9, 3),
    )


def plan_table(plan: Plan) -> str:
    """Markdown: a row an organ."""
    lines = [
        "| organ | stratum | cases | median cc | smallest | largest | largest extent mm | HU | look at | suggested |",
        "|---|---|---|---|---|---|---|---|---|---|",
    ]
    for organ, f in plan.organs.items():
        extent = " x ".join(f"{v:.0f}" for v in f.largest_mm)
        cells = [organ, f.stratum, str(f.cases), f"{f.median_cc:.2f}", f"{f.smallest_cc:.2f}"]
        cells += [f"{f.largest_cc:.2f}", extent, f"{f.median_hu:.0f}", _to_look_at(f)]
        cells.append("" if f.proposed == f.stratum else f"{f.proposed}: {f.reason}")
        lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines)


def _to_look_at(facts: OrganFacts) -> str:
    return ", ".join([*facts.odd, *(f"{case} (place)" for case in facts.misplaced)])


@dataclass(frozen=True)
class _Seen:
    case: str
    volume_cc: float
    extent_mm: tuple[float, float, float]
    hu: np.ndarray
    around_hu: float


def _look(case: CachedCase, organ: str) -> _Seen:
    start, crop = case.masks[organ]
    x, y, z = (float(n * s) for n, s in zip(crop.shape[::-1], case.spacing_mm, strict=True))
    box = case.ct_hu[Box.at(start, crop.shape).slices]
    volume_cc = crop.sum() * float(np.prod(case.spacing_mm)) / 1000
    return _Seen(case.name, volume_cc, (x, y, z), box[crop], _around_hu(case, organ))


def _middle_mm(case: CachedCase, organ: str) -> np.ndarray:
    """The middle of an organ's bounding box, (x, y, z)."""
    start, crop = case.masks[organ]
    index = np.asarray(start) + (np.asarray(crop.shape) - 1) / 2
    return np.asarray(case.origin_mm) + index[::-1] * np.asarray(case.spacing_mm)


def _around_hu(case: CachedCase, organ: str) -> float:
    """The median HU of what surrounds an organ by `SHELL_MM`; nan where the scan ends on all sides."""
    start, crop = case.masks[organ]
    margin = [max(1, round(SHELL_MM / s)) for s in case.spacing_mm[::-1]]
    wide = tuple(slice(max(0, s - m), s + n + m) for s, n, m in zip(start, crop.shape, margin, strict=True))
    inside = case.full_mask(organ)[wide]
    near = scipy.ndimage.maximum_filter(inside, size=[2 * m + 1 for m in margin])
    shell = case.ct_hu[wide][near & ~inside]
    return float(np.median(shell)) if shell.size else float("nan")


def _facts(organ: str, annotated: int, seen: list[_Seen]) -> OrganFacts:
    volumes = np.array([s.volume_cc for s in seen])
    median = float(np.median(volumes))
    x, y, z = (float(v) for v in np.max([s.extent_mm for s in seen], axis=0))
    odd = [s.case for s in seen if not median / ODD_TIMES <= s.volume_cc <= median * ODD_TIMES]
    hu = float(np.median(np.concatenate([s.hu for s in seen])))
    contrast = hu - float(np.nanmedian([s.around_hu for s in seen]))
    proposed, reason = propose_stratum(median, contrast)
    return OrganFacts(
        CATALOGUE[organ].stratum,
        annotated,
        len(seen),
        median,
        float(volumes.min()),
        float(volumes.max()),
        (x, y, z),
        hu,
        tuple(odd),
        contrast,
        proposed,
        reason,
    )


def _vois(organs: Mapping[str, OrganFacts]) -> dict[str, tuple[float, float, float]]:
    """Per heat-map group of the small and hard organs, the largest of its members' extents times `VOI_TIMES`."""
    small = [organ for organ, facts in organs.items() if facts.stratum == "small_hard"]
    vois = {}
    for group in dict.fromkeys(CATALOGUE[organ].detection_group for organ in small):
        extents = [organs[m].largest_mm for m in group_members(group) if m in organs]
        x, y, z = (float(v) * VOI_TIMES for v in np.max(extents, axis=0))
        vois[group] = (x, y, z)
    return vois


def _whole(values: Iterable[float]) -> tuple[int, int, int]:
    z, y, x = (round(float(v)) for v in values)
    return z, y, x


def _write(path: Path, data: object) -> None:
    write_json(path, data)
