"""From raw cases to the training cache: the same preprocessing as at inference, done once.

Three sources: the OpenKBP folder layout (NIfTI CT, one label map, `cases.json`), generated phantoms, and a list of
the user's own cases (JSON: `{"cases": [{"name", "ct", "structures", "annotated": [...], "split", "patient"}]}`).
"""

from __future__ import annotations

import json
import logging
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np
import SimpleITK as sitk
from tqdm import tqdm

from soars import catalogue
from soars.cascade.preprocess import Body, Grid, extent_mm, find_body, patient_hu, resample, whole_hu
from soars.ct.images import read_ct
from soars.errors import InputError
from soars.files import staged_folder
from soars.formats.reading import read_structures
from soars.mr.images import MrScan, read_mr
from soars.mr.laid import lay_mr
from soars.structures import Geometry, Mask, StructureSet, tight_mask
from soars_training.cohorts.cache import (
    INDEX_FILE,
    CachedCase,
    CacheIndex,
    as_written,
    entry_of,
    group_members,
    write_case,
)
from soars_training.cohorts.leaks import without_leaking_slices
from soars_training.cohorts.listing import ListedCase, read_listing, teachable

log = logging.getLogger(__name__)

Spacing = tuple[float, float, float]

UNSPLIT_MANDIBLE = "Bone_Mandible"
MANDIBLE_HALVES = ("Bone_Mandible_L", "Bone_Mandible_R")
VOI_MARGIN_MM = 16.0
"""Kept around a cached VOI so that training can shift and rotate the window without leaving the crop."""


@dataclass(frozen=True)
class SourceCase:
    """A case before preprocessing; `annotated` are catalogue names (see `CachedCase`), and so are `sparse`, organs that
    were contoured on some slices only: on those where they have voxels. ``mr`` is an MR of the patient, in whatever
    position; ``patient`` as `IndexEntry` has it."""

    name: str
    split: str
    ct: sitk.Image
    structures: StructureSet
    annotated: frozenset[str]
    sparse: frozenset[str] = frozenset()
    mr: MrScan | None = None
    patient: str = ""


def openkbp_cases(
    folder: Path, splits: Iterable[str] = ("train-pats", "validation-pats")
) -> Iterator[SourceCase]:
    """The cases of an OpenKBP folder, mandible split into halves at the patient's midline.

    Raises `InputError` when `cases.json` is missing.
    """
    wanted = set(splits)
    for case in openkbp_listing(folder):
        if case.split in wanted:
            yield openkbp_case(case)


@dataclass(frozen=True)
class OpenKbpCase:
    """An entry of OpenKBP's `cases.json`: its files begin with `stem`; `values` are what the annotated organs, by the
    data set's names, have in the label map."""

    patient: str
    split: str
    stem: str
    values: Mapping[str, int]


def openkbp_listing(folder: Path) -> list[OpenKbpCase]:
    """Every case of an OpenKBP folder. Raises `InputError` when `cases.json` is missing or damaged."""
    listing = folder / "cases.json"
    if not listing.is_file():
        raise InputError(
            f"{folder}: no cases.json; expected the OpenKBP folder with train-pats and validation-pats"
        )
    found = []
    with as_written(listing, "convert the data again"):
        data = json.loads(listing.read_text())
        for key, facts in data["cases"].items():
            split, patient = key.split("/")
            values = {theirs: int(data["labels"][theirs]) for theirs in facts["annotated"]}
            found.append(OpenKbpCase(patient, split, str(folder / key), values))
    return found


def openkbp_case(case: OpenKbpCase) -> SourceCase:
    """Read one case. Raises `InputError` for files that cannot be read, or that do not lie on one grid."""
    names = catalogue.label_map("OpenKBP")
    try:
        ct, drawn = (sitk.ReadImage(f"{case.stem}_{what}.nii.gz") for what in ("ct", "oars"))
    except RuntimeError as error:
        raise InputError(f"{case.stem}: its CT or label map is missing or damaged") from error
    if not Geometry.of(drawn).same_as(Geometry.of(ct)):
        raise InputError(f"{case.stem}: its label map is not on the grid of its CT")
    labels = sitk.GetArrayFromImage(drawn)
    structures = StructureSet(Geometry.of(ct))
    for theirs, value in case.values.items():
        for ours, part in split_mandible(str(names[theirs]), labels == value, structures.geometry).items():
            structures.add(ours, part)
    return SourceCase(case.patient, case.split, ct, structures, frozenset(structures.names))


def listed_cases(listing: Path, split: str | None = None) -> Iterator[SourceCase]:
    """The user's own cases (see `soars_training.cohorts.listing`), those of one split or all, each checked as the
    command line checks it: the CT's patient and frame of reference, and the organs that somebody drew.

    The list is checked whole at once. A case that cannot be read then is named in a warning and left out; `InputError`
    when that leaves none, or the list has no such split.
    """
    cases = read_listing(listing)
    meant = [case for case in cases if split in (None, case.split)]
    if not meant:
        there = ", ".join(sorted({case.split for case in cases}))
        raise InputError(f"{listing}: has no cases of the split {split}; its splits are {there}")
    return _read_listed(listing, meant)


def _read_listed(listing: Path, cases: Sequence[ListedCase]) -> Iterator[SourceCase]:
    read = 0
    for case in cases:
        try:
            found, notes = read_listed(case)
        except InputError as error:
            log.warning("%s (%s): left out: %s", case.place, case.name, error)
            continue
        for note in notes:
            log.warning("%s: %s", case.name, note)
        read += 1
        yield found
    if not read:
        raise InputError(f"{listing}: none of its cases can be used; the warnings say why")
    if read < len(cases):
        log.warning(
            "%s: %d of %d cases were left out; the warnings say why", listing, len(cases) - read, len(cases)
        )


def read_listed(case: ListedCase) -> tuple[SourceCase, list[str]]:
    """One case of a list, and what is odd about it. Raises `InputError`."""
    ct = read_ct(case.ct)
    found = read_structures(
        case.structures, Geometry.of(ct.image), reference=ct.series, catalogue_names=False
    )
    structures, annotated, notes = teachable(found, case)
    annotated |= _complete(structures, annotated - case.sparse)
    mr = read_mr(case.mr, ct) if case.mr else None
    sparse = case.sparse & set(structures.names)
    for warning in ct.warnings:
        log.warning("%s: the CT: %s", case.name, warning)
    read = SourceCase(case.name, case.split, ct.image, structures, annotated, sparse, mr, case.patient)
    return read, notes


def _complete(structures: StructureSet, annotated: frozenset[str]) -> set[str]:
    """Add the halves of a mandible that was drawn in one piece, and organs of which all parts were drawn and they
    themselves not; returns what was added. Of organs that are not ``annotated`` nothing is made."""
    drawn = {organ for organ in structures.names if organ in annotated and not structures.is_empty(organ)}
    added = set()
    if UNSPLIT_MANDIBLE in drawn and not set(MANDIBLE_HALVES).intersection(annotated, structures.names):
        whole = structures.full(UNSPLIT_MANDIBLE)
        halves = split_mandible(UNSPLIT_MANDIBLE, whole, structures.geometry)
        for half in halves if all(part.any() for part in halves.values()) else ():
            structures.add(half, halves[half])
            added.add(half)
    for organ in catalogue.CATALOGUE.values():
        known = organ.name in annotated or organ.name in structures
        if organ.parts and not known and drawn.issuperset(organ.parts):
            structures.add_mask(organ.name, structures.union(organ.parts))
            added.add(organ.name)
    return added


def split_at_midline(mask: np.ndarray, geometry: Geometry) -> tuple[np.ndarray, np.ndarray]:
    """The patient's (left, right) half of a mandible [z, y, x] on any grid, whichever way its axes run.

    The midsagittal plane is estimated from the bone itself: its normal is the principal axis nearest to left-right,
    its position the middle between the outermost ends along that axis, both in LPS mm.
    """
    voxels = np.argwhere(mask)
    if len(voxels) < 10:
        return np.zeros_like(mask), np.zeros_like(mask)
    points = geometry.to_physical(voxels)
    _, axes = np.linalg.eigh(np.cov(points.T))
    normal = axes[:, np.argmax(np.abs(axes[0]))]
    normal = normal * np.sign(normal[0])
    along = points @ normal
    low, high = np.percentile(along, (0.5, 99.5))
    is_left = along > (low + high) / 2
    left = np.zeros_like(mask)
    left[tuple(voxels[is_left].T)] = True
    return left, mask & ~left


def split_mandible(organ: str, mask: np.ndarray, geometry: Geometry) -> dict[str, np.ndarray]:
    """A mandible in one piece [z, y, x] as its two halves, by name; any other organ as it is."""
    if organ != UNSPLIT_MANDIBLE:
        return {organ: mask}
    return dict(zip(MANDIBLE_HALVES, split_at_midline(mask, geometry), strict=True))


def preprocess(case: SourceCase, grid: Grid, body: Body, name: str) -> CachedCase:
    """Put the CT and every mask of a case on a grid (masks: linear interpolation, threshold one half; those that were
    contoured on some slices only: the nearest voxel, since nothing is known between the slices).

    An organ that lies on the grid but is too small for its voxels is unknown there, not absent.
    """
    masks, slices, too_small = {}, {}, set()
    geometry = case.structures.geometry
    for organ in case.structures.names:
        mask = case.structures.crop(organ)
        placed = mask_on_grid(geometry, mask, grid, nearest=organ in case.sparse)
        if placed is not None:
            masks[organ] = placed
        elif not mask.is_empty and _is_on(grid, geometry, mask):
            too_small.add(organ)
        if organ in case.sparse:
            slices[organ] = contoured_slices(geometry, mask, grid)
    return CachedCase(
        name=name,
        ct_hu=whole_hu(patient_hu(case.ct, body, grid)),
        origin_mm=grid.origin_mm,
        spacing_mm=grid.spacing_mm,
        masks=masks,
        annotated=case.annotated - case.sparse - too_small,
        slices=slices,
        mr=_mr_on(grid, case, body),
        head_mm=(float(body.head_mm[0]), float(body.head_mm[1]), float(body.head_mm[2])),
    )


def _is_on(grid: Grid, geometry: Geometry, mask: Mask) -> bool:
    """Whether the middle of a mask lies within a grid."""
    middle = geometry.to_physical(np.argwhere(mask.array).mean(0) + mask.start)
    index = grid.points_to_index(middle)
    return bool((index >= -0.5).all() and (index <= np.asarray(grid.shape) - 0.5).all())


def _mr_on(grid: Grid, case: SourceCase, body: Body) -> np.ndarray | None:
    """`CachedCase.mr`; None, with a warning, for an MR that cannot be laid onto the CT."""
    if case.mr is None:
        return None
    try:
        return lay_mr(case.mr, case.ct, body).channels(grid, body).astype(np.float16)
    except InputError as error:
        log.warning("%s: its MR is left out: %s", case.name, error)
        return None


def whole_region(ct: sitk.Image) -> Body:
    """A body mask for a scan that lies inside the patient: nothing is cut away."""
    lo, hi = extent_mm(ct)
    head = np.array([*((lo + hi) / 2)[:2], hi[2]])
    return Body(sitk.Image(1, 1, 1, sitk.sitkUInt8), lo, hi, already_masked=True, head_mm=head)


def contoured_slices(geometry: Geometry, mask: Mask, grid: Grid) -> np.ndarray:
    """bool [z]: the grid's slices whose nearest slice of the CT has voxels of the mask.

    Raises `InputError` for a CT that is not axial: a slice of the grid is none of its slices then.
    """
    direction = np.asarray(geometry.direction, float).reshape(3, 3)
    if not np.allclose(np.abs(direction[:, 2]), (0, 0, 1), atol=1e-3):
        raise InputError("contours on some slices only need a CT of axial slices")
    middle = (np.asarray(grid.shape[1:]) - 1) / 2
    points = grid.index_to_points(np.array([(z, *middle) for z in range(grid.shape[0])]))
    nearest = np.rint(geometry.to_index(points)[:, 0]).astype(int) - mask.start[0]
    drawn = np.asarray(mask.array.any(axis=(1, 2)))
    inside = (nearest >= 0) & (nearest < len(drawn))
    return inside & drawn[np.clip(nearest, 0, len(drawn) - 1)]


def mask_on_grid(
    geometry: Geometry, mask: Mask, grid: Grid, *, nearest: bool = False
) -> tuple[tuple[int, int, int], np.ndarray] | None:
    """A cropped mask on another grid as (start (z, y, x), crop); None when no voxel of the grid is inside it."""
    if mask.array.size == 0 or not mask.array.any():
        return None
    pad = 2
    image = sitk.GetImageFromArray(np.pad(mask.array, pad).astype(np.float32))
    direction = np.asarray(geometry.direction, float).reshape(3, 3)
    start_xyz = np.asarray(mask.start[::-1], float) - pad
    image.SetOrigin(
        (np.asarray(geometry.origin) + direction @ (start_xyz * np.asarray(geometry.spacing))).tolist()
    )
    image.SetSpacing([float(s) for s in geometry.spacing])
    image.SetDirection(direction.ravel().tolist())
    corners = np.array(
        [
            image.TransformContinuousIndexToPhysicalPoint(
                [float(c * (n - 1)) for c, n in zip(k, image.GetSize(), strict=True)]
            )
            for k in np.ndindex(2, 2, 2)
        ]
    )
    index = grid.points_to_index(corners)
    lo = np.clip(np.floor(index.min(0)).astype(int), 0, None)
    hi = np.minimum(np.ceil(index.max(0)).astype(int) + 1, grid.shape)
    if np.any(hi <= lo):
        return None
    part = Grid.of(grid.index_to_points(lo), grid.spacing_mm, (hi - lo)[::-1])
    closest = resample(image, part, outside=0.0, nearest=True) > 0
    values = resample(image, part, outside=0.0, smooth=False)
    # Exactly between two voxels the nearer one decides: were a tie always inside, grids that fit each other (2 mm and
    # 3 mm, 3 mm and 4 mm) would make organs up to a tenth larger.
    ties = np.abs(values - 0.5) < 1e-4
    inside = closest if nearest else np.where(ties, closest, values > 0.5)
    if not inside.any():
        return None
    found = tight_mask(inside, [int(v) for v in lo])
    return found.start, found.array


def write_volume_cache(
    cases: Iterable[SourceCase],
    folder: Path,
    spacing_mm: tuple[float, float, float],
    source: str,
    total: int | None = None,
) -> CacheIndex:
    """Preprocess whole scans (for the anchor, mid-level and detection branches)."""
    return _write_cache(cases, folder, spacing_mm, source, total, whole_scan)


def write_voi_cache(
    cases: Iterable[SourceCase],
    folder: Path,
    spacing_mm: tuple[float, float, float],
    voi_mm: Mapping[str, tuple[float, float, float]],
    source: str,
    total: int | None = None,
) -> CacheIndex:
    """Preprocess the VOIs of the small and hard organs (one cached case a VOI, `group` in the index)."""
    return _write_cache(cases, folder, spacing_mm, source, total, partial(cut_vois, voi_mm))


def cut_vois(
    voi_mm: Mapping[str, Spacing], case: SourceCase, body: Body, spacing: Spacing
) -> Iterator[tuple[str | None, CachedCase]]:
    """A volume about the centre of each heat map's organs that the case shows, with its group."""
    for group, extent in voi_mm.items():
        centre = group_centre_mm(case.structures, group)
        if centre is not None:
            grid = Grid.around(centre, with_margin(extent), spacing)
            yield group, preprocess(case, grid, body, f"{case.name}.{group}")


def with_margin(extent_mm: tuple[float, float, float]) -> tuple[float, float, float]:
    """A VOI's extent with `VOI_MARGIN_MM` on every side."""
    x, y, z = (e + 2 * VOI_MARGIN_MM for e in extent_mm)
    return x, y, z


def group_centre_mm(structures: StructureSet, group: str) -> np.ndarray | None:
    """LPS mm of the centre of mass of a heat map's organs together; None when none of them has a voxel."""
    organs = [o for o in group_members(group) if o in structures and structures.voxels(o)]
    if not organs:
        return None
    index = np.concatenate([np.argwhere(m.array) + m.start for m in map(structures.crop, organs)]).mean(0)
    geometry = structures.geometry
    direction = np.asarray(geometry.direction, float).reshape(3, 3)
    return np.asarray(geometry.origin) + direction @ (index[::-1] * np.asarray(geometry.spacing))


_Cutter = Callable[[SourceCase, Body, tuple[float, float, float]], Iterator[tuple[str | None, CachedCase]]]


def whole_scan(
    case: SourceCase, body: Body, spacing: tuple[float, float, float]
) -> Iterator[tuple[str | None, CachedCase]]:
    """The case on its body's grid, without end slices that leak an organ, and None for the group of a VOI."""
    cached = preprocess(case, body.grid(spacing), body, case.name)
    kept = without_leaking_slices(cached)
    gone = len(cached.ct_hu) - len(kept.ct_hu)
    if gone:
        log.info("%s: %d of %d slices show nothing but an organ; cut off", case.name, gone, len(cached.ct_hu))
    yield None, kept


def _write_cache(
    cases: Iterable[SourceCase],
    folder: Path,
    spacing_mm: tuple[float, float, float],
    source: str,
    total: int | None,
    cut: _Cutter,
) -> CacheIndex:
    index, names = CacheIndex(spacing_mm, source), [INDEX_FILE]
    with staged_folder(folder, names, overwrite=True) as staging:
        for case in tqdm(cases, total=total, desc=f"prepare {source}", unit="case"):
            body = find_body(case.ct)
            for group, cached in cut(case, body, spacing_mm):
                names.append(f"{cached.name}.npz")
                write_case(staging / names[-1], cached)
                index.cases.append(entry_of(cached, names[-1], case.split, group, case.patient))
        index.save(staging)
    return index
