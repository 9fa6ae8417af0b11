"""How well the networks of an experiment do on patients that none of them has seen: DSC, HD and ASD of each organ."""

from __future__ import annotations

import csv
import math
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, fields, replace
from pathlib import Path

import numpy as np
import torch

from soars.bundle.manifest import BranchSpec
from soars.cascade.branches import find_centres
from soars.cascade.preprocess import Grid
from soars.cascade.sides import BODY_MARGIN_MM, Midline
from soars.cascade.torch_engine import NetworkEngine
from soars.cascade.windows import UNIT, ProbabilityMap
from soars.cells import HarmlessWriter, original
from soars.files import replacing_file
from soars.metrics.scores import score_masks
from soars.metrics.tolerances import catalogue_tolerances
from soars.structures import Geometry
from soars_training.cohorts.cache import CachedCase, CacheIndex, IndexEntry, group_of, read_case
from soars_training.cohorts.regions import UsualRegions
from soars_training.experiments.cost import Meter
from soars_training.experiments.pictures.drawn import Drawn
from soars_training.experiments.settings import stratum_of
from soars_training.fitting.loop import training_device, training_precision
from soars_training.fitting.options import FittedRun
from soars_training.fitting.validate import whole_patient_maps
from soars_training.release.export import branch_spec
from soars_training.windows.augment import AIR_HU, Window, sample
from soars_training.windows.loaded import LoadedCase, load
from soars_training.windows.task import ct_channels
from soars_training.windows.whole import grid_of

TOP_VOXELS = 1000
"""Heat maps are compared by their so many largest voxels (SOARS, CVPR 2020, table 7)."""


@dataclass(frozen=True)
class OrganRow:
    """One organ of one patient; distances are infinite where it was not found.

    The last two are nan in scores of an earlier version, and the surface DSC of an organ without a tolerance is.
    """

    setting: str
    seed: int
    stratum: str
    case: str
    organ: str
    dsc: float
    hd_mm: float
    asd_mm: float
    hd95_mm: float = math.nan
    surface_dsc: float = math.nan


@dataclass(frozen=True)
class CentreRow:
    """One heat map of one patient: how far its peak is from the organs' centre, and the Hausdorff distance between the
    `TOP_VOXELS` largest voxels of the map and of the ideal one."""

    setting: str
    seed: int
    case: str
    group: str
    distance_mm: float
    top_hd_mm: float


def write_rows(rows: Sequence[OrganRow] | Sequence[CentreRow], kind: type, path: Path) -> None:
    """As a CSV with the fields of `kind` as columns."""
    with replacing_file(path) as temporary, temporary.open("w", newline="", encoding="utf-8") as stream:
        writer = HarmlessWriter(stream)
        writer.writerow(f.name for f in fields(kind))
        for row in rows:
            writer.writerow(f"{v:.6g}" if isinstance(v, float) else v for v in vars(row).values())


def read_rows(path: Path, kind: type) -> list:
    """What `write_rows` has written."""
    with path.open(newline="", encoding="utf-8") as stream:
        table = list(csv.DictReader(stream))
    there = [f for f in fields(kind) if not table or f.name in table[0]]
    return [kind(**{f.name: _READERS[str(f.type)](row[f.name]) for f in there}) for row in table]


def _number(text: str) -> float:
    value = float(text)
    return math.nan if math.isnan(value) else value  # the one that rows have by default, and equal to it


_READERS: Mapping[str, Callable[[str], object]] = {"int": int, "float": _number, "str": original}


@dataclass(frozen=True)
class Centre:
    """A heat map's peak (x, y, z) in mm, and the map itself with the channel it is in."""

    at_mm: tuple[float, float, float]
    maps: ProbabilityMap
    channel: int


@dataclass(frozen=True)
class Trained:
    """A finished run with its network in memory, ready to answer for patients of a cache."""

    run: FittedRun
    engine: NetworkEngine
    meter: Meter

    @staticmethod
    def load(folder: Path, device_name: str, meter: Meter | None = None) -> Trained:
        """``meter`` is told of all that the network draws."""
        run = FittedRun.load(folder)
        device = training_device(device_name)
        network = run.network(folder).to(device)
        engine = NetworkEngine(network, branch_spec(run), device, training_precision(device))
        return Trained(run, engine, meter or Meter(device))

    @property
    def spec(self) -> BranchSpec:
        return branch_spec(self.run)

    def maps(
        self, cache: Path, entries: Iterable[IndexEntry], guide: Path | None, true_guide: bool = False
    ) -> Iterator[tuple[LoadedCase, ProbabilityMap]]:
        """The output for each case; with `true_guide` the anchors that somebody drew stand in the place of their
        probabilities."""
        task, cohort = self.run.task(), CacheIndex.load(cache).annotated
        for entry in entries:
            case = load(read_case(cache / entry.file), entry, task, UsualRegions({}), guide, cohort)
            if true_guide:
                case = replace(case, guide=_true_guide(case, task.anchors))
            with self.meter.running():
                found = list(whole_patient_maps(self.engine, self.spec, task, [case]))
            yield from found

    def masks_in_voi(
        self, voi: CachedCase, centre: Centre, extent_mm: tuple[float, float, float], organs: Sequence[str]
    ) -> dict[str, np.ndarray]:
        """The masks [z, y, x] on the grid of a cached VOI that the network draws in its own volume about a centre."""
        spec, task = self.spec, self.run.task()
        seen = Grid.around(np.asarray(centre.at_mm), extent_mm, voi.spacing_mm, spec.architecture.divisor)
        grid = grid_of(voi)
        window = Window(seen.shape, grid.points_to_index(seen.centre_mm), np.eye(3), False)
        hu = sample(voi.ct_hu[None], window, outside=AIR_HU, nearest=False)
        channels = [ct_channels(hu, task.windows_hu)]
        if "heatmap" in task.inputs:
            channels.append(torch.from_numpy(centre.maps.interpolated(centre.channel, seen))[None])
        with self.meter.running():
            values = self.engine.run_fixed(
                torch.cat(channels)[None].numpy(), np.full(seen.shape, UNIT, np.float32)
            )
        found = ProbabilityMap(seen, values, UNIT, False)
        return {organ: found.interpolated(task.classes.index(organ), grid) > 0.5 for organ in organs}


def whole_patient_rows(
    maps: Iterable[tuple[LoadedCase, ProbabilityMap]],
    classes: Sequence[str],
    organs: Sequence[str],
    drawn: Drawn | None = None,
) -> Iterator[OrganRow]:
    """Of those of a softmax branch's classes that are among `organs`, on the working grid; masks go into ``drawn``."""
    for case, probabilities in maps:
        labels = probabilities.labels()
        for organ in organs:
            if organ in case.data.annotated and organ in case.data.masks:
                mask = labels == classes.index(organ) + 1
                if drawn is not None:
                    drawn.add(case.data, organ, mask)
                yield organ_row(case.data, organ, mask)


def organ_row(case: CachedCase, organ: str, found: np.ndarray, name: str | None = None) -> OrganRow:
    """A mask [z, y, x] on a case's grid against the case's own; setting and seed are still to be filled in.

    The surface DSC is that at the catalogue's tolerance of the organ.
    """
    geometry = Geometry(case.ct_hu.shape[::-1], case.spacing_mm, case.origin_mm)
    score = score_masks(
        found, case.full_mask(organ), geometry, organ=organ, tolerance=catalogue_tolerances().get(organ)
    )
    return OrganRow(
        "", 0, stratum_of(organ), name or case.name, organ, score.dsc, score.hd_mm, score.asd_mm,
        score.hd95_mm, score.surface_dsc,
    )  # fmt: skip


def joint_voi_rows(
    probabilities: ProbabilityMap, classes: Sequence[str], vois: Iterable[tuple[IndexEntry, CachedCase]]
) -> Iterator[OrganRow]:
    """The small organs of a network for all organs, on the fine grid of the cached VOIs."""
    for entry, voi in vois:
        labels = probabilities.resampled(grid_of(voi)).labels()
        for organ in voi_organs(entry, voi):
            if organ in classes:
                yield organ_row(voi, organ, labels == classes.index(organ) + 1, entry.case)


def voi_organs(entry: IndexEntry, voi: CachedCase) -> list[str]:
    """The organs that a VOI was cut for, of those that were drawn."""
    return [o for o in voi.masks if o in voi.annotated and group_of(o) == entry.group]


def centres_of(
    maps: Iterable[tuple[LoadedCase, ProbabilityMap]], spec: BranchSpec
) -> tuple[dict[tuple[str, str], Centre], list[CentreRow]]:
    """Where the heat maps peak: by (case, group), and as rows. Groups without a true centre in a case are left out."""
    centres, rows = {}, []
    for case, found in maps:
        geometry = Geometry(case.data.ct_hu.shape[::-1], case.data.spacing_mm, case.data.origin_mm)
        detections = find_centres(found, spec, geometry, _middle(case), spec.classes)
        for channel, (detection, truth) in enumerate(zip(detections, case.centres, strict=True)):
            if truth is None or not case.known[channel]:
                continue
            at = np.asarray(detection.centre_mm)
            true_mm = found.grid.index_to_points(truth)
            centres[case.data.name, detection.group] = Centre(detection.centre_mm, found, channel)
            rows.append(
                CentreRow(
                    "",
                    0,
                    case.data.name,
                    detection.group,
                    float(np.linalg.norm(at - true_mm)),
                    _top_distance(found.probability(channel), truth, geometry),
                )
            )
    return centres, rows


def _top_distance(values: np.ndarray, centre_zyx: np.ndarray, geometry: Geometry) -> float:
    spacing = np.asarray(geometry.spacing)[::-1]
    away = sum(
        ((np.arange(n) - c) * s).reshape([-1 if a == axis else 1 for a in range(3)]) ** 2
        for axis, (n, c, s) in enumerate(zip(values.shape, centre_zyx, spacing, strict=True))
    )
    score = score_masks(_top(values), _top(-np.asarray(away, np.float32)), geometry)
    return score.hd_mm if math.isfinite(score.hd_mm) else float("nan")


def _top(values: np.ndarray) -> np.ndarray:
    """Bool: the `TOP_VOXELS` largest voxels."""
    kept = min(TOP_VOXELS, values.size)
    chosen = np.zeros(values.size, bool)
    chosen[np.argpartition(values.ravel(), values.size - kept)[values.size - kept :]] = True
    return chosen.reshape(values.shape)


def _middle(case: LoadedCase) -> Midline:
    """The midsagittal plane as the body's outline shows it."""
    x, _, _ = case.data.origin_mm
    middle = x + float(np.mean(case.middle_yx[:, 1])) * case.data.spacing_mm[0]
    return Midline(middle, 0.0, 0.0, (0.0, 0.0), BODY_MARGIN_MM, "the body's outline")


def _true_guide(case: LoadedCase, anchors: Sequence[str]) -> np.ndarray:
    guide = case.guide.copy()
    for channel, organ in enumerate(anchors):
        if organ in case.data.annotated:
            guide[channel] = case.data.full_mask(organ) * np.uint8(255)
    return guide


def read_vois(cache: Path, case: str, index: CacheIndex) -> list[tuple[IndexEntry, CachedCase]]:
    """The cached VOIs of a case."""
    mine = [entry for entry in index.cases if entry.case == case]
    return [(entry, read_case(cache / entry.file)) for entry in mine]


def voi_rows(
    trained: Trained,
    vois: Iterable[tuple[IndexEntry, CachedCase]],
    centres: Mapping[tuple[str, str], Centre],
) -> Iterator[OrganRow]:
    """The small organs as the cascade draws them, each VOI about the centre that was detected."""
    for entry, voi in vois:
        centre = centres.get((entry.case, str(entry.group)))
        organs = [o for o in voi_organs(entry, voi) if o in trained.run.classes]
        if centre is None or not organs:
            continue
        extent = trained.run.voi_mm[str(entry.group)]
        for organ, found in trained.masks_in_voi(voi, centre, extent, organs).items():
            yield organ_row(voi, organ, found, entry.case)
