"""Prepares what readers are given: every CT without its DICOM header, every arm's proposal, checked and hashed.

Readers must not learn which model an arm is: proposals carry masks, names and colours only, and are called by the arm's
code, a pair of characters that the study's seed draws.
"""

from __future__ import annotations

import logging
import string
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from soars.catalogue import CATALOGUE
from soars.effort.identity import contours_sha256, image_sha256
from soars.errors import InputError
from soars.files import replacing_file, write_json
from soars.progress import Progress, Reporter, ignore
from soars.study.plan.assign import random_of
from soars.study.plan.model import Arm, Case, Plan
from soars.study.plan.places import (
    KEY_FILE,
    PREPARED_FILE,
    ct_path,
    proposal_path,
    read_json,
    share_of,
)

if TYPE_CHECKING:
    from soars.ct.images import CtScan
    from soars.structures import StructureSet

log = logging.getLogger(__name__)

SCHEMA_VERSION = 1


@dataclass(frozen=True)
class PreparedCase:
    """A CT on the share: its hash, voxel size in mm (x, y, z), and any warnings about it."""

    case: str
    ct_sha256: str
    voxel_size_mm: tuple[float, float, float]
    warnings: tuple[str, ...]


@dataclass(frozen=True)
class PreparedProposal:
    """A proposal on the share. ``organs`` have a voxel, ``absent`` are of the study and have none; the hashes are by
    reader, because each has their own organs."""

    case: str
    arm: str
    organs: tuple[str, ...]
    absent: tuple[str, ...]
    sha256: Mapping[str, str]
    bundle: str | None
    bundle_version: str | None
    bundle_sha256: str | None
    warnings: tuple[str, ...]


@dataclass(frozen=True)
class Prepared:
    """Everything that was prepared for a study file with this hash."""

    plan_sha256: str
    cases: Mapping[str, PreparedCase]
    proposals: Mapping[tuple[str, str], PreparedProposal]


def arm_codes(plan: Plan) -> dict[str, str]:
    """Arm -> its code: a letter and a digit, drawn by the seed, no two alike."""
    letters = [c for c in string.ascii_uppercase if c not in "IO"]
    codes = [f"{letter}{digit}" for letter in letters for digit in range(2, 10)]
    drawn = random_of(plan, "codes").permutation(len(codes))
    if len(plan.arms) > len(codes):
        raise InputError(f"a study can have {len(codes)} arms at most")
    return {arm.name: codes[i] for arm, i in zip(plan.arms, drawn, strict=False)}


def prepare(plan: Plan, folder: Path, *, device: str = "auto", progress: Reporter = ignore) -> Prepared:
    """Make ``share/cases`` and write the key and the list of what was prepared.

    Preparing again for the same study file gives the same result. ``device`` is that of segmenting. `InputError` when a
    CT, a bundle or contours cannot be used; nothing of that case is written then.
    """
    codes = arm_codes(plan)
    write_json(folder / KEY_FILE, _key(plan, codes))
    segmenters = {arm.name: _Segmenter(arm.bundle, device) for arm in plan.arms if arm.bundle is not None}
    cases: dict[str, PreparedCase] = {}
    proposals: dict[tuple[str, str], PreparedProposal] = {}
    for done, case in enumerate(plan.cases):
        progress(Progress("prepare", done, len(plan.cases), case.name))
        for result in _prepare_case(plan, folder, case, codes, segmenters):
            if isinstance(result, PreparedCase):
                cases[case.name] = result
            else:
                proposals[case.name, result.arm] = result
            for warning in result.warnings:
                log.warning("%s: %s", case.name, warning)
    progress(Progress("prepare", len(plan.cases), len(plan.cases)))
    prepared = Prepared(plan.sha256, cases, proposals)
    write_json(folder / PREPARED_FILE, _prepared_json(prepared))
    return prepared


def read_prepared(plan: Plan, folder: Path) -> Prepared:
    """What `prepare` wrote; `InputError` when it was for another study file."""
    hint = f"run `soars study prepare {folder}`"
    raw = read_json(folder / PREPARED_FILE, hint)
    try:
        cases = {
            one["case"]: PreparedCase(
                **{**one, "voxel_size_mm": tuple(one["voxel_size_mm"]), "warnings": tuple(one["warnings"])}
            )
            for one in raw["cases"]
        }
        proposals = {
            (one["case"], one["arm"]): PreparedProposal(
                **{**one, **{name: tuple(one[name]) for name in ("organs", "absent", "warnings")}}
            )
            for one in raw["proposals"]
        }
        prepared = Prepared(raw["plan_sha256"], cases, proposals)
    except (KeyError, TypeError) as error:
        raise InputError(f"{folder / PREPARED_FILE} is damaged ({error}): {hint}") from None
    if prepared.plan_sha256 != plan.sha256:
        raise InputError(f"the study file has changed since its cases were prepared: {hint} again")
    return prepared


def read_key(folder: Path) -> dict[str, str]:
    """Code -> arm, from the key; empty when there is none (a blinded analysis)."""
    path = folder / KEY_FILE
    if not path.exists():
        return {}
    raw = read_json(path, "restore it from your backup")
    try:
        return {str(one["code"]): str(one["arm"]) for one in raw["arms"]}
    except (KeyError, TypeError):
        raise InputError(f"{path} is damaged: restore it from your backup") from None


def _key(plan: Plan, codes: Mapping[str, str]) -> dict[str, Any]:
    return {
        "schema": SCHEMA_VERSION,
        "study": plan.name,
        "plan_sha256": plan.sha256,
        "arms": [
            {
                "code": codes[arm.name],
                "arm": arm.name,
                "bundle": arm.bundle,
                "contours": None if arm.contours is None else str(arm.contours),
            }
            for arm in plan.arms
        ],
    }


class _Segmenter:
    """A bundle, loaded once for all cases; ``sha256`` of what drew the latest contours."""

    def __init__(self, bundle: str, device: str) -> None:
        from soars.bundle.store import load_bundle

        self.bundle = load_bundle(bundle)
        self.sha256: str | None = None
        self._device = device

    def contours(self, ct: CtScan, wanted: tuple[str, ...]) -> tuple[StructureSet, tuple[str, ...]]:
        """The wanted organs that the bundle covers, and its warnings."""
        from soars.run.segment import SegmentOptions, segment

        organs = tuple(organ for organ in wanted if organ in self.bundle.organs)
        if not organs:
            raise InputError(f"the bundle {self.bundle.name} covers none of the study's organs")
        result = segment(ct, self.bundle, SegmentOptions(device=self._device, organs=organs))
        self.sha256 = result.sha256
        return result.structures, tuple(result.warnings)


def _prepare_case(
    plan: Plan,
    folder: Path,
    case: Case,
    codes: Mapping[str, str],
    segmenters: Mapping[str, _Segmenter],
) -> Iterator[PreparedCase | PreparedProposal]:
    import SimpleITK as sitk

    from soars.ct.images import read_ct
    from soars.formats import write_seg_nrrd
    from soars.formats.imagefiles import write_image

    if case.ct is None:
        raise InputError(f"the case {case.name} has no ct: there is nothing to prepare for observers alone")
    ct = read_ct(case.ct)
    share = share_of(folder)
    (share / ct_path(case.name)).parent.mkdir(parents=True, exist_ok=True)
    with replacing_file(share / ct_path(case.name)) as temporary:
        write_image(_bare(ct.image), temporary)
    yield PreparedCase(
        case.name,
        image_sha256(sitk.GetArrayViewFromImage(ct.image)),
        ct.image.GetSpacing(),
        tuple(ct.warnings),
    )
    for arm in plan.arms:
        if arm.from_scratch:
            continue
        structures, warnings = _proposal(arm, case, ct, plan.organs, segmenters)
        bare = _without_origin(structures, plan.organs)
        write_seg_nrrd(bare, share / proposal_path(case.name, codes[arm.name]))
        yield _prepared_proposal(plan, case, arm, bare, warnings, segmenters)


def _prepared_proposal(
    plan: Plan,
    case: Case,
    arm: Arm,
    structures: StructureSet,
    warnings: tuple[str, ...],
    segmenters: Mapping[str, _Segmenter],
) -> PreparedProposal:
    masks = {organ: structures.crop(organ) for organ in structures}
    absent = tuple(o for o in plan.organs if o not in masks or masks[o].is_empty)
    segmenter = segmenters.get(arm.name)
    return PreparedProposal(
        case.name,
        arm.name,
        tuple(organ for organ in plan.organs if organ not in absent),
        absent,
        {reader.name: contours_sha256(masks, reader.organs) for reader in plan.readers},
        segmenter.bundle.name if segmenter else None,
        segmenter.bundle.version if segmenter else None,
        segmenter.sha256 if segmenter else None,
        warnings,
    )


def _proposal(
    arm: Arm, case: Case, ct: CtScan, organs: tuple[str, ...], segmenters: Mapping[str, _Segmenter]
) -> tuple[StructureSet, tuple[str, ...]]:
    if arm.name in segmenters:
        return segmenters[arm.name].contours(ct, organs)
    assert arm.contours is not None
    from soars.formats import read_structures
    from soars.structures import Geometry

    path = contours_of(arm.contours, case.name)
    structures = read_structures(path, Geometry.of(ct.image), reference=ct.series)
    return structures, tuple(structures.warnings)


def contours_of(folder: Path, case: str) -> Path:
    """The file or folder with the contours of a case, in a folder of contours named after the cases."""
    from soars.metrics.cases import structure_source

    named = [
        path
        for path in (sorted(folder.iterdir()) if folder.is_dir() else [])
        if not path.name.startswith(".") and (path.name == case or path.name.startswith(f"{case}."))
    ]
    if len(named) != 1:
        found = "several" if named else "no"
        raise InputError(f"{folder} holds {found} contours named after the case {case}")
    source = structure_source(named[0])
    if source is None:
        raise InputError(f"{named[0]} is neither a file of contours nor a folder with one, or with masks")
    return source


def _without_origin(structures: StructureSet, organs: tuple[str, ...]) -> StructureSet:
    """The study's organs, named and coloured by the catalogue, with nothing that shows who drew them."""
    from soars.structures.model import StructureInfo, StructureSet

    bare = StructureSet(structures.geometry)
    for organ in organs:
        if organ in structures:
            oar = CATALOGUE[organ]
            bare.add_mask(organ, structures.crop(organ), StructureInfo(label=oar.label, colour=oar.colour))
    return bare


def _bare(image: Any) -> Any:
    """The image without its metadata, which may identify the patient."""
    import SimpleITK as sitk

    bare = sitk.Image(image)
    for key in bare.GetMetaDataKeys():
        bare.EraseMetaData(key)
    return bare


def _prepared_json(prepared: Prepared) -> dict[str, Any]:
    return {
        "schema": SCHEMA_VERSION,
        "plan_sha256": prepared.plan_sha256,
        "cases": [asdict(one) for one in prepared.cases.values()],
        "proposals": [{**asdict(one), "sha256": dict(one.sha256)} for one in prepared.proposals.values()],
    }
