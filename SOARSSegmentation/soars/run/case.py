"""One case from the CT on disk to the four files of its results: the work of `soars segment` without its arguments."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path

from soars.bundle.card import card_sections
from soars.bundle.manifest import Bundle
from soars.cascade.engine import OpenEngines
from soars.cascade.preprocess import find_body
from soars.catalogue import CATALOGUE, SOARS42
from soars.ct.images import CtScan, read_ct
from soars.dicom.rtstruct import MODEL_HASH_TAG, MODEL_TAG, check_reference, write_rtstruct
from soars.errors import InputError
from soars.files import write_text
from soars.formats.segnrrd import write_seg_nrrd
from soars.mr.boards import checkerboards, side_by_side
from soars.mr.images import read_mr
from soars.mr.laid import LaidMr, lay_mr
from soars.mr.registration import MisfitError
from soars.progress import Progress, Reporter
from soars.report.outputs import OUTPUTS, RECORD, REPORT, RTSTRUCT, SEGMENTATION
from soars.report.page import write_report
from soars.report.pictures import png
from soars.report.record import (
    ABSENT,
    NOT_COVERED,
    NOT_REQUESTED,
    PRESENT,
    BundleRecord,
    CtRecord,
    EngineRecord,
    ModelRecord,
    MrRecord,
    OrganRecord,
    RunRecord,
    library_versions,
    orientation_of,
    utc_now,
)
from soars.run.segment import SegmentOptions, SegmentResult, segment, wanted_organs
from soars.structures import Geometry, StructureSet
from soars.systems.interface import Source
from soars.texts import read_json

CARD_NOTES = ("Trained on", "What it cannot do")
"""Sections of the model card that are quoted in the report."""


DEFINITION_TAG = "SOARS.definition"
"""Tag of a structure whose extent differs from the consensus guideline's: how."""


@dataclass(frozen=True)
class Request:
    """What to do. ``organs`` in any spelling; None for all that the bundle covers."""

    ct: Path
    bundle: str
    device: str = "auto"
    engine: str = "auto"
    organs: tuple[str, ...] | None = None
    series: str | None = None
    mr: Path | None = None
    mr_series: str | None = None


@dataclass(frozen=True)
class Case:
    """A segmented CT: the content of its folder, for callers that use it further."""

    ct: CtScan
    structures: StructureSet
    record: RunRecord


@dataclass(frozen=True)
class AtHand:
    """What a batch has ready before a case, so that it is neither loaded nor read again; None for what it has not.

    ``bundle`` is the request's, ``ct`` what `read_case` gave in ``read_s`` seconds, ``engines`` the networks that stay
    open. ``threads`` is how many to compute with, all processors if None.
    """

    bundle: Bundle | None = None
    ct: CtScan | None = None
    read_s: float = 0.0
    engines: OpenEngines | None = None
    threads: int | None = None


NOTHING = AtHand()


def check_places(ct: Path, output: Path) -> None:
    """Raise `InputError` when there is no CT, or when the results would end up among its files."""
    if not ct.exists():
        raise InputError(f"{ct}: there is no such file or folder")
    folder = ct.resolve()
    target = output.resolve()
    if folder.is_dir() and (target == folder or folder in target.parents):
        raise InputError(f"output {output} is inside the CT's folder {ct}; choose a folder beside it")
    if target == folder:
        raise InputError(f"output {output} is the CT itself; choose another --output")


def is_own_result(folder: Path) -> bool:
    """Whether the results in a folder are those of an earlier run, of any version: its record lies among them."""
    try:
        return isinstance(read_json(folder / RECORD), dict)
    except (OSError, ValueError, InputError):
        return False


def read_case(request: Request) -> CtScan:
    """The CT of a request, with contours of which an RTSTRUCT can be made if it is DICOM. Raises `InputError`."""
    ct = read_ct(request.ct, request.series)
    if ct.series is not None:
        check_reference(Geometry.of(ct.image), ct.series)
    return ct


def segment_case(request: Request, folder: Path, report: Reporter, ready: AtHand = NOTHING) -> Case:
    """Read, segment and write one case.

    Args:
        folder: where the files called `OUTPUTS` go; exists, and holds none of them. The RTSTRUCT is written only for
            a DICOM CT. When this raises, files may be left there: see `soars.files.staged_folder`.
        ready: what need not be loaded or read again.

    Errors in the bundle, the organs or the CT are found before the long work begins. Raises `SoarsError`, and of these
    `MisfitError` with a picture for an MR that does not fit the CT.
    """
    from soars.bundle.store import load_bundle

    started = utc_now()
    clock = _Clock()
    report(Progress("check", message="checking the bundle"))
    bundle = ready.bundle or load_bundle(request.bundle)
    wanted = wanted_organs(bundle, request.organs)
    report(Progress("read", message="reading the CT"))
    with clock.stage("read"):
        ct = ready.ct or read_case(request)
    clock.seconds["read"] += ready.read_s
    laid = None
    if request.mr is not None:
        with clock.stage("register"):
            laid = _laid_mr(request.mr, request.mr_series, bundle, ct, report)
    options = SegmentOptions(
        device=request.device,
        engine=request.engine,
        organs=request.organs,
        engines=ready.engines,
        threads=ready.threads,
        mr=laid,
    )
    result = segment(ct, bundle, options, report)
    clock.seconds.update({stage: s for stage, s in result.timings_s.items() if stage != "total"})

    structures = _made_by(bundle, result)
    outputs = [name for name in OUTPUTS if name != RTSTRUCT or ct.series is not None]
    record = RunRecord(
        ct=_ct_record(ct),
        bundle=_bundle_record(bundle, result),
        organs=_organ_records(bundle, wanted, result),
        engine=EngineRecord(
            result.engine.engine, result.engine.device, result.engine.precision, result.engine.reason
        ),
        options={
            "bundle": Path(request.bundle).name,
            "device": request.device,
            "engine": request.engine,
            "organs": list(wanted) if request.organs is not None else None,
            "series": request.series,
            "mr": request.mr.name if request.mr else None,
        },
        warnings=(
            *(_without_folder(text, request.ct) for text in (*ct.warnings, *bundle.warnings)),
            *(laid.scan.warnings if laid else ()),
            *result.system_warnings,
            *(f"{CATALOGUE[finding.organ].label}: {finding.sentence()}" for finding in result.findings),
        ),
        findings=result.findings,
        look_order=result.look_order,
        outputs=tuple(outputs),
        started_utc=started,
        libraries=library_versions(),
        mr=_mr_record(laid) if laid else None,
    )
    report(Progress("write", 0, len(outputs), "writing the contours"))
    with clock.stage("write"):
        write_seg_nrrd(structures, folder / SEGMENTATION)
        if ct.series is not None:
            write_rtstruct(structures, folder / RTSTRUCT, ct.series)
    report(Progress("write", len(outputs) - 2, len(outputs), "drawing the report"))
    record = replace(record, timings_s=dict(clock.seconds), finished_utc=utc_now())
    with clock.stage("report"):
        boards = [(b.view, png(b.grey, (0, 1))) for b in checkerboards(ct.image, laid)] if laid else []
        write_report(folder / REPORT, record, ct.image, structures, boards)
    record = replace(record, timings_s=dict(clock.seconds), finished_utc=utc_now())
    write_text(folder / RECORD, record.to_json())
    report(Progress("write", len(outputs), len(outputs)))
    return Case(ct, structures, record)


def _laid_mr(path: Path, series: str | None, bundle: Bundle, ct: CtScan, report: Reporter) -> LaidMr:
    """An MR on the CT. Raises `InputError` when MR, bundle and CT do not fit together, with a picture where the MR was
    laid onto the CT."""
    if not bundle.takes_mr:
        raise InputError(
            f"the model bundle {bundle.name} does not use an MR; leave out --mr, or choose a bundle that was trained "
            "on CT and MR"
        )
    progress = Progress("register", message="laying the MR onto the CT")
    report(progress)
    mr = read_mr(path, ct, series)
    frame = ct.series.frame_of_reference_uid if ct.series else ""
    try:
        return lay_mr(mr, ct.image, find_body(ct.image), lambda: report(progress), frame)
    except MisfitError as error:
        error.picture = png(side_by_side(checkerboards(ct.image, LaidMr(mr, error.found))), (0, 1))
        raise


def _mr_record(laid: LaidMr) -> MrRecord:
    found = laid.found
    return MrRecord(
        laid.scan.path.name,
        laid.scan.description,
        round(found.moved_mm, 1),
        round(found.rotated_degrees, 1),
        round(found.information, 3),
        round(found.shared_cc, 1),
    )


def _made_by(bundle: Bundle, result: SegmentResult) -> StructureSet:
    """Every structure with the model that proposed it, which .seg.nrrd and RTSTRUCT keep."""
    structures = result.structures
    whole = Source(bundle.system, bundle.name, bundle.version, result.sha256)
    for name in structures:
        source = result.sources.get(name, whole)
        tags = {MODEL_TAG: source.title, MODEL_HASH_TAG: source.sha256}
        if source.definition:
            tags[DEFINITION_TAG] = source.definition
        info = structures.info[name]
        structures.info[name] = replace(info, tags={**info.tags, **tags})
    return structures


class _Clock:
    """Seconds by stage, in the order of the stages."""

    def __init__(self) -> None:
        self.seconds: dict[str, float] = {}

    @contextmanager
    def stage(self, name: str) -> Iterator[None]:
        start = time.perf_counter()
        try:
            yield
        finally:
            self.seconds[name] = self.seconds.get(name, 0.0) + time.perf_counter() - start


def _ct_record(ct: CtScan) -> CtRecord:
    geometry = Geometry.of(ct.image)
    series = ct.series
    return CtRecord(
        source=ct.path.resolve().name,
        size=geometry.size,
        spacing_mm=geometry.spacing,
        origin_mm=geometry.origin,
        direction=geometry.direction,
        orientation=orientation_of(geometry.direction),
        description=series.description if series else "",
        series_uid=series.series_uid if series else None,
        study_uid=series.study_uid if series else None,
        frame_of_reference_uid=series.frame_of_reference_uid if series else None,
    )


def _bundle_record(bundle: Bundle, result: SegmentResult) -> BundleRecord:
    sections = card_sections(bundle.card)
    return BundleRecord(
        name=bundle.name,
        version=bundle.version,
        sha256=result.sha256,
        format_version=bundle.format_version,
        licence=bundle.licence,
        description=bundle.description,
        models=tuple(ModelRecord(one.bundle, one.version, one.sha256) for one in result.models),
        notes={title: sections[title.lower()] for title in CARD_NOTES if sections.get(title.lower())},
        system=bundle.system,
    )


def _organ_records(bundle: Bundle, wanted: tuple[str, ...], result: SegmentResult) -> tuple[OrganRecord, ...]:
    """The 42 OARs and whatever else the bundle covers, in the catalogue's order."""
    names = {*SOARS42, *bundle.organs}
    return tuple(_organ_record(name, bundle, wanted, result) for name in CATALOGUE if name in names)


def _organ_record(name: str, bundle: Bundle, wanted: tuple[str, ...], result: SegmentResult) -> OrganRecord:
    oar = CATALOGUE[name]
    structures = result.structures
    present = name in structures and not structures.is_empty(name)
    findings = tuple(finding for finding in result.findings if finding.organ == name)
    if name not in bundle.organs:
        state = NOT_COVERED
    elif name not in wanted:
        state = NOT_REQUESTED
    else:
        state = PRESENT if present else ABSENT
    return OrganRecord(
        name=name,
        label=oar.label,
        stratum=oar.stratum,
        state=state,
        colour=oar.colour,
        voxels=structures.voxels(name) if present else 0,
        volume_cc=structures.volume_cc(name) if present else 0.0,
        reason=result.absent.get(name, "") if state == ABSENT else "",
        warnings=tuple(finding.sentence() for finding in findings),
        findings=findings,
        expected_dsc=result.expected_dsc.get(name),
        confidence=result.confidence.get(name) if present else None,
        source=result.sources[name].title if present and name in result.sources else "",
        definition=result.sources[name].definition if present and name in result.sources else "",
    )


def _without_folder(text: str, path: Path) -> str:
    """A warning without the folders that lead to the CT, which may name people."""
    for folder in {str(path.parent), str(path.resolve().parent)} - {".", "/"}:
        text = text.replace(folder + "/", "").replace(folder + "\\", "")
    return text
