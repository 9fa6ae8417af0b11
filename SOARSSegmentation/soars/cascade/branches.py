"""The branches of the cascade and what they pass on to each other (paper: SOARS, CVPR 2020, section 3).

anchor:      CT -> probabilities of the anchor organs.
detection:   CT and anchors -> a heat map per small organ (cochlea and inner ear share one) -> the organ's centre.
mid_level:   CT and anchors -> probabilities of the mid-level organs.
small_hard:  a volume of interest (VOI) of the original CT around each centre -> masks, which may overlap.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import scipy
import SimpleITK as sitk

from soars.bundle.manifest import BranchSpec
from soars.cascade.confidence import SoftOrgan, soft_organs
from soars.cascade.engine import Engine
from soars.cascade.placement import Placed, place_sigmoid, place_softmax
from soars.cascade.preprocess import Body, Grid, network_input
from soars.cascade.sides import Midline, all_paired, mirrored_channels, side_sign
from soars.cascade.windows import (
    UNIT,
    CtChannel,
    Exchange,
    Foreground,
    ProbabilityMap,
    Source,
    Step,
    slide,
)
from soars.catalogue import CATALOGUE
from soars.findings.pairs import PROBABLY_OUTSIDE
from soars.headers.memory import check_memory
from soars.structures import Geometry

HEATMAP_SD_MM = 8.0
"""Standard deviation of the Gaussian that a heat map has at its organ's centre (CVPR 2020, section 3.2)."""
HEATMAP_FLOOR = 0.2
"""A peak below this is not an organ. Targets peak at 1; a network that sees no organ stays near 0."""
EDGE_MM = 4.0
"""A centre this near to the scan's edge (half the heat map's standard deviation) is that of an organ cut off by it."""


Windows = tuple[tuple[float, float], ...]
"""Windows in HU, (low, high) each."""


@dataclass
class Scan:
    """The CT (HU, any orientation), the patient in it, and its network channels per working grid.

    ``anchors``: the anchor branch's classes, in the order of its channels.
    """

    image: sitk.Image
    body: Body
    window_hu: tuple[float, float]
    anchors: tuple[str, ...] = ()
    _last: tuple[Grid, Windows, list[CtChannel]] | None = None

    @property
    def geometry(self) -> Geometry:
        return Geometry.of(self.image)

    def channels(self, grid: Grid, spec: BranchSpec) -> list[CtChannel]:
        """The CT as a branch sees it on a grid, one channel per window; the latest are cached, since branches mostly
        share them."""
        windows = spec.windows_hu or (self.window_hu,)
        if self._last is None or self._last[:2] != (grid, windows):
            self._last = None
            values = network_input(self.image, self.body, grid, windows)
            self._last = (grid, windows, [CtChannel(channel) for channel in values])
        return self._last[2]

    def release(self) -> None:
        self._last = None


@dataclass(frozen=True)
class Detection:
    """Where a heat map has its peak.

    ``centre_mm`` (x, y, z) in LPS; ``peak`` the heat map's value there; ``absent`` says why there is no such organ in
    the scan, and is None when there is one; ``note`` what is odd about it.
    """

    group: str
    centre_mm: tuple[float, float, float]
    peak: float
    absent: str | None
    note: str | None = None


def segment_whole(
    scan: Scan, spec: BranchSpec, engine: Engine, anchors: ProbabilityMap | None, step: Step
) -> ProbabilityMap:
    """Run a branch that looks at the whole patient: anchor, mid_level, or detection (heat maps)."""
    grid = scan.body.grid(spec.spacing_mm)
    architecture = spec.architecture
    wanted = int(np.prod(grid.size, dtype=np.int64)) * (
        4 * architecture.in_channels + 2 * architecture.out_channels
    )
    check_memory(wanted, f"branch {spec.name} of the bundle")
    sources: list[Source] = [*scan.channels(grid, spec)]
    if "anchor" in spec.inputs:
        assert anchors is not None
        sources.append(Foreground(anchors.resampled(grid)))
    exchange = exchange_of(spec, scan.anchors)
    return slide(engine, spec, grid, sources, step, scan.body.middle(grid), exchange)


def exchange_of(spec: BranchSpec, anchors: Sequence[str]) -> Exchange | None:
    """How the branch's channels change places in a mirror image; `anchors`: the anchor branch's classes.

    None for a branch that did not learn from mirror images: one that does not say so, or that has an organ without its
    other half, which a mirror image would show on the wrong side.
    """
    seen = (*spec.classes, *anchors) if "anchor" in spec.inputs else spec.classes
    if not spec.mirror or not all_paired(seen):
        return None
    windows = max(1, len(spec.windows_hu))
    inputs: list[int] = []
    for name in spec.inputs:
        change = {"ct": list(range(windows)), "anchor": mirrored_channels(anchors), "heatmap": [0]}[name]
        inputs += [len(inputs) + channel for channel in change]
    background = [0] if spec.activation == "softmax" else []
    classes = mirrored_channels(spec.classes)
    return Exchange(tuple(inputs), (*background, *(len(background) + channel for channel in classes)))


def masks_on_ct(
    map: ProbabilityMap, spec: BranchSpec, geometry: Geometry, wanted: Collection[str], step: Step
) -> Placed:
    """The wanted organs of a whole-patient branch on the CT's grid; organs without a voxel are left out."""
    if spec.activation == "softmax":
        return place_softmax(map, spec.classes, geometry, wanted, step)
    chosen = [k for k, name in enumerate(spec.classes) if name in wanted]
    placed = {}
    for done, k in enumerate(chosen):
        step(done, len(chosen))
        found = place_sigmoid(map, k, geometry)
        if found is not None:
            placed[spec.classes[k]] = found
    return placed


def find_centres(
    heatmaps: ProbabilityMap, spec: BranchSpec, geometry: Geometry, midline: Midline, wanted: Collection[str]
) -> list[Detection]:
    """The place of each wanted heat map's Gaussian, on the patient's side that the group is named for."""
    return [
        _find_centre(heatmaps, channel, group, geometry, midline)
        for channel, group in enumerate(spec.classes)
        if group in wanted
    ]


def segment_vois(
    scan: Scan,
    spec: BranchSpec,
    engine: Engine,
    detections: list[Detection],
    voi_mm: Mapping[str, tuple[float, float, float]],
    wanted: Collection[str],
    anchors: ProbabilityMap | None,
    heatmaps: tuple[ProbabilityMap, tuple[str, ...]],
    step: Step,
) -> tuple[Placed, dict[str, SoftOrgan]]:
    """Segment the small organs, one VOI per detected group; the network's other channels are ignored there.

    Returns their masks, and the probabilities that these were made from.
    """
    placed: Placed = {}
    soft: dict[str, SoftOrgan] = {}
    present = [d for d in detections if d.absent is None]
    for done, detection in enumerate(present):
        step(done, len(present))
        extent = voi_mm[detection.group]
        grid = Grid.around(
            np.asarray(detection.centre_mm), extent, spec.spacing_mm, spec.architecture.divisor
        )
        windows = spec.windows_hu or (scan.window_hu,)
        channels = [network_input(scan.image, scan.body, grid, windows)]
        for name in spec.inputs[1:]:
            if name == "anchor":
                assert anchors is not None
                channels.append(Foreground(anchors.resampled(grid)).window((slice(None),) * 3))
            else:
                channels.append(heatmaps[0].interpolated(heatmaps[1].index(detection.group), grid)[None])
        values = _one_window(engine, spec, scan.anchors, np.concatenate(channels)[None], detection.group)
        background = spec.activation == "softmax"
        voi = ProbabilityMap(grid, values, UNIT, background)
        organs = [o for o in organs_of(detection.group, spec) if o in wanted]
        soft.update(soft_organs(voi, spec.classes, organs))
        if background:
            placed.update(place_softmax(voi, spec.classes, scan.geometry, organs))
        else:
            for organ in organs:
                found = place_sigmoid(voi, spec.classes.index(organ), scan.geometry)
                if found is not None:
                    placed[organ] = found
    step(len(present), len(present))
    return placed, soft


def _one_window(
    engine: Engine, spec: BranchSpec, anchors: Sequence[str], window: np.ndarray, group: str
) -> np.ndarray:
    """The network on a VOI; that of a right organ is shown as its mirror image, as the left one that it looks like."""
    units = np.full(window.shape[2:], UNIT, np.float32)
    exchange = exchange_of(spec, anchors)
    if exchange is not None and side_sign(group) < 0:
        return exchange.run(engine, window, units)
    return engine.run_fixed(window, units)


def organs_of(group: str, spec: BranchSpec) -> list[str]:
    """The small_hard branch's organs that share this heat map."""
    return [name for name in spec.classes if CATALOGUE[name].detection_group == group]


def _find_centre(
    heatmaps: ProbabilityMap, channel: int, group: str, geometry: Geometry, midline: Midline
) -> Detection:
    values = _matched(heatmaps.probability(channel), heatmaps.grid)
    sign, note, everywhere = side_sign(group), None, 0.0
    if sign:
        everywhere = float(values.max())
        values = _own_peaks(values, sign * _left_of(heatmaps.grid, midline) >= -midline.margin_mm)
        if everywhere > max(HEATMAP_FLOOR, 1.5 * float(values.max())):
            note = "the heat map peaked on the other side of the patient; the peak on its own side was taken"
    at = np.unravel_index(int(values.argmax()), values.shape)
    peak = float(values[at])
    centre = heatmaps.grid.index_to_points(_between_voxels(values, at))
    x, y, z = (float(v) for v in centre)
    absent = None
    if peak < HEATMAP_FLOOR:
        beyond = f", and {everywhere:.2f} on the other side" if everywhere >= HEATMAP_FLOOR else ""
        reached = f"its heat map reaches {peak:.2f}{beyond}, an organ needs {HEATMAP_FLOOR:g}"
        absent = f"not found ({reached}){PROBABLY_OUTSIDE}"
    elif _edge_distance_mm(geometry, centre) < EDGE_MM:
        absent = "its centre lies at the edge of the scan: cut off, or outside"
    return Detection(group, (x, y, z), peak, absent, note)


def _own_peaks(values: np.ndarray, own: np.ndarray) -> np.ndarray:
    """The heat map on the patient's `own` side (bool [z, y, x]), and 0 beyond.

    Where it is largest at the border, because a peak beyond slopes down to there, that is no organ: then only what is
    larger than all voxels about it remains.
    """
    here = np.where(own, values, np.float32(0))
    around = tuple(slice(max(int(i) - 1, 0), int(i) + 2) for i in np.unravel_index(here.argmax(), here.shape))
    if values[around].max() > here.max():
        here[values < scipy.ndimage.maximum_filter(values, 3)] = 0
    return here


def _between_voxels(values: np.ndarray, at: Sequence[np.intp]) -> np.ndarray:
    """The place (z, y, x) of a peak to a fraction of a voxel: that of the Gaussian through it and its neighbours.

    A peak that falls on whole voxels would move the volume of interest by a voxel for a hundredth of one.
    """
    place = np.asarray(at, float)
    for axis, n in enumerate(values.shape):
        if not 0 < at[axis] < n - 1:
            continue
        before, peak, after = (
            float(values[tuple(int(v) + (step if a == axis else 0) for a, v in enumerate(at))])
            for step in (-1, 0, 1)
        )
        if min(before, after) > 0:
            a, b, c = np.log((before, peak, after))
            if 2 * b - a - c > 1e-6:
                place[axis] += np.clip((c - a) / (2 * (2 * b - a - c)), -0.5, 0.5)
    return place


def _matched(heatmap: np.ndarray, grid: Grid) -> np.ndarray:
    """The heat map seen through a filter of the target's own shape, scaled so that the target still peaks at 1.

    The matched filter is the best way to find a known shape in noise: a peak that is narrower than the target, or half
    of one at a window's edge, no longer beats the organ's own complete peak.
    """
    sd_voxels = [HEATMAP_SD_MM / s for s in grid.spacing_mm[::-1]]
    return 2**1.5 * scipy.ndimage.gaussian_filter(heatmap, sd_voxels, mode="nearest")


def _left_of(grid: Grid, midline: Midline) -> np.ndarray:
    """`Midline.left_mm` of the grid's voxels, [z, y, x]."""
    z, y, x = (
        np.arange(n) * s + o
        for n, s, o in zip(grid.shape, grid.spacing_mm[::-1], grid.origin_mm[::-1], strict=True)
    )
    y0, z0 = midline.centre_yz
    tilt = midline.slope_y * (y - y0)[None, :] + midline.slope_z * (z - z0)[:, None]
    return (x[None, None, :] - midline.at - tilt[:, :, None]).astype(np.float32)


def _edge_distance_mm(geometry: Geometry, point: np.ndarray) -> float:
    """How far inside the scan a point lies; negative outside."""
    index = geometry.to_index(point)
    spacing = np.asarray(geometry.spacing)[::-1]
    inside = np.minimum(index + 0.5, np.asarray(geometry.shape) - 0.5 - index)
    return float((inside * spacing).min())
