"""`segment`: a CT in, named organ masks out.

The command line, Slicer and the training package all use it::

    from soars.bundle.store import load_bundle
    from soars.ct.images import read_ct
    from soars.run.segment import segment

    result = segment(read_ct("folder of DICOM files"), load_bundle("starter"))
    result.structures.volume_cc("Parotid_L"), result.absent, result.warnings
"""

from __future__ import annotations

import logging
import time
from collections.abc import Mapping
from dataclasses import dataclass, field, replace

import SimpleITK as sitk

from soars.bundle.manifest import Bundle
from soars.cascade.branches import Detection
from soars.cascade.engine import EngineInfo
from soars.catalogue import CATALOGUE, resolve
from soars.ct.images import CtScan
from soars.errors import InputError, keeping_warnings
from soars.findings.finding import ExpectedDsc, Finding
from soars.findings.order import by_need, in_order
from soars.parallel import available_processors
from soars.progress import Reporter, ignore
from soars.structures import StructureInfo, StructureSet
from soars.systems.interface import SegmentOptions, Source
from soars.systems.registry import system_of

log = logging.getLogger(__name__)

__all__ = ["SegmentOptions", "SegmentResult", "segment", "wanted_organs"]

_DEFAULTS = SegmentOptions()


@dataclass(frozen=True)
class SegmentResult:
    """What a run gives.

    Attributes:
        structures: the organs found, on the CT's own grid, in the catalogue's order, with label and colour in `info`.
        absent: organs looked for and not there -> why.
        findings: what the checks found (absent organs too), organs that most need a look first.
        confidence: organ -> soft Dice confidence, 0 to 1 (`soars.cascade.confidence`), uncalibrated.
        spill: organ -> share of its probability that its contour leaves out, 0 to 1.
        expected_dsc: organ -> the DSC that contours of its confidence reached; only where the bundle is calibrated.
        look_order: the organs looked for, those that most need a look first.
        warnings: all warnings as sentences: the CT's, the bundle's, those about single organs with their names.
        engine: what ran the networks, and why it was chosen.
        timings_s: seconds per stage, which differ between systems; total.
        detections: centres of the small organs' heat maps (LPS mm) with their peaks; the cascade's alone.
        sources: organ found -> the model that drew it.
        sha256: what decides the result apart from the CT and the options: the bundle's hash, a composite's with those
            of the sources that could run.
        models: the models that the bundle consists of, whether or not they drew anything.
        system_warnings: anything unusual about the run as a whole; also among ``warnings``.
    """

    structures: StructureSet
    absent: dict[str, str]
    findings: tuple[Finding, ...]
    look_order: tuple[str, ...]
    warnings: list[str]
    engine: EngineInfo
    timings_s: dict[str, float]
    confidence: dict[str, float] = field(default_factory=dict)
    spill: dict[str, float] = field(default_factory=dict)
    expected_dsc: dict[str, ExpectedDsc] = field(default_factory=dict)
    detections: list[Detection] = field(default_factory=list)
    sources: Mapping[str, Source] = field(default_factory=dict)
    sha256: str = ""
    models: tuple[Source, ...] = ()
    system_warnings: tuple[str, ...] = ()


def segment(
    ct: CtScan, bundle: Bundle, options: SegmentOptions = _DEFAULTS, progress: Reporter = ignore
) -> SegmentResult:
    """Segment the organs at risk in a CT.

    Raises `UnknownOrganError` or `InputError` for organs that the catalogue or the bundle does not have or a scan
    without a patient, `EngineError` when the engine or device cannot be used, `BundleError` for weights that do not
    fit, and `CancelledError`.
    """
    start = time.perf_counter()
    organs = wanted_organs(bundle, options.organs)
    threads = options.threads or available_processors()
    before = sitk.ProcessObject.GetGlobalDefaultNumberOfThreads()
    sitk.ProcessObject.SetGlobalDefaultNumberOfThreads(threads)
    try:
        with keeping_warnings([*ct.warnings, *bundle.warnings]):
            system = system_of(bundle)
            sha256 = system.sha256
            drawn = system.draw(ct, organs, replace(options, threads=threads), progress)
    finally:
        sitk.ProcessObject.SetGlobalDefaultNumberOfThreads(before)
    for name in drawn.structures.names:
        oar = CATALOGUE[name]
        drawn.structures.info[name] = StructureInfo(label=oar.label, colour=oar.colour)
    warnings = [*ct.warnings, *bundle.warnings, *drawn.warnings]
    order = by_need([n for n in CATALOGUE if n in organs], drawn.findings, dict(drawn.expected_dsc))
    findings = in_order(drawn.findings, order)
    warnings += [f"{finding.organ}: {finding.sentence()}" for finding in findings]
    for warning in warnings:
        log.info("%s", warning)
    return SegmentResult(
        structures=drawn.structures,
        absent=drawn.absent,
        findings=findings,
        look_order=order,
        warnings=warnings,
        engine=drawn.engine,
        confidence=dict(drawn.confidence),
        spill=dict(drawn.spill),
        expected_dsc=dict(drawn.expected_dsc),
        timings_s={**drawn.timings_s, "total": time.perf_counter() - start},
        detections=drawn.detections,
        sources=drawn.sources,
        sha256=sha256,
        models=system.sources,
        system_warnings=tuple(drawn.warnings),
    )


def wanted_organs(bundle: Bundle, names: tuple[str, ...] | None) -> tuple[str, ...]:
    """Catalogue names to segment, in the bundle's order; raises for names that catalogue or bundle do not have."""
    if names is None:
        return bundle.organs
    if not names:
        raise InputError("no organs were named; omit the option for all that the bundle covers")
    asked = {resolve(name).name for name in names}
    missing = sorted(asked - set(bundle.organs))
    if missing:
        raise InputError(
            f"bundle {bundle.name} does not cover {', '.join(missing)}; it covers {', '.join(bundle.organs)}"
        )
    return tuple(name for name in bundle.organs if name in asked)
