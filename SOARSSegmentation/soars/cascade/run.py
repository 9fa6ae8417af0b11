"""The whole cascade on one CT: which branches are needed, their order, what they pass on, and what is reported."""

from __future__ import annotations

import time
from collections.abc import Callable, Collection, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field

import numpy as np
import SimpleITK as sitk

from soars.bundle.manifest import Bundle
from soars.cascade import branches, postprocess
from soars.cascade.branches import Detection, Scan
from soars.cascade.confidence import SoftOrgan, soft_dice, soft_organs, spill
from soars.cascade.engine import Engine, EngineInfo, OpenEngines, open_engine
from soars.cascade.placement import Placed
from soars.cascade.preprocess import find_body
from soars.cascade.sides import find_midline
from soars.cascade.windows import ProbabilityMap, Step
from soars.catalogue import CATALOGUE, partner
from soars.errors import CancelledError
from soars.findings.checks import alone_findings, check_contours, unsure_findings
from soars.findings.evidence import evidence_of
from soars.findings.finding import CHECK, ExpectedDsc, Finding, Locator
from soars.findings.pairs import PROBABLY_OUTSIDE, absent_halves
from soars.findings.review import ReviewTables
from soars.networks.names import BRANCHES, Branch
from soars.progress import Progress, Reporter
from soars.structures import StructureSet

NOT_FOUND = f"not found{PROBABLY_OUTSIDE}"


@dataclass
class CascadeResult:
    """Masks on the CT's grid and the findings about them; see `soars.run.segment.SegmentResult`."""

    structures: StructureSet
    absent: dict[str, str] = field(default_factory=dict)
    findings: list[Finding] = field(default_factory=list)
    confidence: dict[str, float] = field(default_factory=dict)
    spill: dict[str, float] = field(default_factory=dict)
    expected_dsc: dict[str, ExpectedDsc] = field(default_factory=dict)
    detections: list[Detection] = field(default_factory=list)
    timings_s: dict[str, float] = field(default_factory=dict)


@dataclass
class Run:
    """What the stages of one run share."""

    bundle: Bundle
    info: EngineInfo
    threads: int | None
    report: Reporter
    cancelled: Callable[[], bool]
    tables: ReviewTables = field(default_factory=ReviewTables)
    timings_s: dict[str, float] = field(default_factory=dict)
    engines: OpenEngines | None = None

    @contextmanager
    def stage(self, name: str, message: str = "") -> Iterator[Step]:
        """Time a stage; gives the function to call at each step, which reports progress and honours a cancel."""

        def step(done: int, of: int) -> None:
            if self.cancelled():
                raise CancelledError("cancelled; nothing was written")
            self.report(Progress(name, done, of, message))

        step(0, 0)
        start = time.perf_counter()
        try:
            yield step
        finally:
            self.timings_s[name] = self.timings_s.get(name, 0.0) + time.perf_counter() - start

    def engine(self, branch: Branch) -> Engine:
        """Open the branch's network, as a stage of its own."""
        with self.stage("load", f"loading the {branch} network"):
            opening = open_engine if self.engines is None else self.engines.open
            return opening(self.bundle, branch, self.info, self.threads, self.cancelled)


def needed_branches(bundle: Bundle, organs: Collection[str]) -> tuple[Branch, ...]:
    """The branches that must run for these organs, in the order of the cascade."""
    needed: set[Branch] = {
        b.name for b in bundle.branches.values() if b.name != "detection" and set(b.classes) & set(organs)
    }
    if "small_hard" in needed:
        needed.add("detection")
    if any("anchor" in bundle.branches[b].inputs for b in needed):
        needed.add("anchor")
    return tuple(b for b in BRANCHES if b in needed)


def run_cascade(image: sitk.Image, organs: Collection[str], run: Run) -> CascadeResult:
    """Segment the organs (catalogue names, all of them the bundle's) in a CT in HU.

    Raises `CancelledError` when cancelled, `EngineError` when a network fails, `InputError` when there is no patient.
    """
    specs = {name: run.bundle.branches[name] for name in needed_branches(run.bundle, organs)}
    with run.stage("prepare", "finding the patient"):
        anchors_of = specs["anchor"].classes if "anchor" in specs else ()
        scan = Scan(image, find_body(image), run.bundle.window_hu, anchors_of)
    # Anchors that were not requested still show where the patient's middle is.
    wanted = set(organs) | set(specs["anchor"].classes if "anchor" in specs else ())
    structures = StructureSet(scan.geometry)
    result = CascadeResult(structures, timings_s=run.timings_s)

    anchors: ProbabilityMap | None = None
    soft: dict[str, SoftOrgan] = {}
    if "anchor" in specs:
        anchors = _whole(run, scan, "anchor", None)
        soft.update(soft_organs(anchors, specs["anchor"].classes, organs))
        _add(structures, _place(run, scan, "anchor", anchors, wanted))
    groups = {
        CATALOGUE[o].detection_group
        for o in organs
        if "small_hard" in specs and o in specs["small_hard"].classes
    }
    if groups:
        heatmaps = _whole(run, scan, "detection", anchors)
        with run.stage("detection"):
            midline = find_midline(structures, scan.body)
            result.detections = branches.find_centres(
                heatmaps, specs["detection"], scan.geometry, midline, groups
            )
        engine = run.engine("small_hard")
        with run.stage("small_hard", "segmenting the small organs") as step:
            placed, soft_vois = branches.segment_vois(
                scan, specs["small_hard"], engine, result.detections, run.bundle.voi_mm, set(organs),
                anchors, (heatmaps, specs["detection"].classes), step,
            )  # fmt: skip
        del engine, heatmaps
        soft.update(soft_vois)
        _add(structures, placed)
    if "mid_level" in specs:
        mid_level = _whole(run, scan, "mid_level", anchors)
        anchors = None
        scan.release()
        soft.update(soft_organs(mid_level, specs["mid_level"].classes, organs))
        _add(structures, _place(run, scan, "mid_level", mid_level, wanted))
        del mid_level

    with run.stage("check", "checking sides and volumes"):
        midline = find_midline(structures, scan.body)
        settled = postprocess.settle(structures, midline)
        locator = Locator(scan.geometry, midline.left_mm)
        settled.findings.extend(check_contours(structures, locator, run.tables.norms))
        exchanged = {finding.organ for finding in settled.findings if finding.kind == "sides_exchanged"}
        soft = {(partner(name) or name) if name in exchanged else name: part for name, part in soft.items()}
        _conclude(result, organs, settled, locator)
        _expect(result, soft, run.tables, locator)
    return result


def _whole(run: Run, scan: Scan, branch: Branch, anchors: ProbabilityMap | None) -> ProbabilityMap:
    engine = run.engine(branch)
    with run.stage(branch, f"{branch.replace('_', '-')} branch") as step:
        return branches.segment_whole(scan, run.bundle.branches[branch], engine, anchors, step)


def _place(run: Run, scan: Scan, branch: Branch, map: ProbabilityMap, wanted: Collection[str]) -> Placed:
    with run.stage("contours", f"{branch.replace('_', '-')} organs on the CT's grid") as step:
        return branches.masks_on_ct(map, run.bundle.branches[branch], scan.geometry, wanted, step)


def _add(structures: StructureSet, placed: Placed) -> None:
    for name, (start, mask) in placed.items():
        structures.add_crop(name, start, mask)


def _expect(
    result: CascadeResult, soft: Mapping[str, SoftOrgan], tables: ReviewTables, locator: Locator
) -> None:
    """How confident the networks are of each organ, and the DSC that contours like it reached."""
    structures = result.structures
    result.confidence = {
        name: soft_dice(structures, name, soft[name]) for name in structures.names if name in soft
    }
    result.spill = {name: spill(soft[name]) for name in result.confidence}
    if tables.calibration is not None:
        evidence = evidence_of(structures, result.confidence, tables.norms, result.spill)
        for name, known in evidence.items():
            expected = tables.calibration.expected(name, known)
            if expected is not None:
                result.expected_dsc[name] = expected
    result.findings += unsure_findings(structures, result.expected_dsc, locator)


def _conclude(
    result: CascadeResult, organs: Collection[str], settled: postprocess.Settled, locator: Locator
) -> None:
    """Keep the requested organs, in the catalogue's order, and give a reason for every missing one."""
    by_group = {d.group: d for d in result.detections}
    order = [name for name in CATALOGUE if name in organs]
    result.findings = [finding for finding in settled.findings if finding.organ in organs]
    for name in order:
        detection = by_group.get(CATALOGUE[name].detection_group)
        if name in result.structures:
            if detection is not None and detection.note is not None:
                where = locator.at_point(np.asarray(detection.centre_mm))
                advice = "Check whether this is the organ of this side."
                result.findings.append(Finding(name, "detection", CHECK, detection.note, advice, where))
        elif name in settled.absent:
            result.absent[name] = settled.absent[name]
        else:
            result.absent[name] = (
                detection.absent if detection is not None and detection.absent else NOT_FOUND
            )
    result.findings += absent_halves(result.structures, result.absent, locator)
    result.structures = result.structures.subset(name for name in order if name in result.structures)
    result.findings += alone_findings(result.structures, result.absent, locator)
