"""What one segmentation run did and produced: the content of `run.json`, from which the report is written.

The record holds no patient name or ID, and only software versions about the machine, so that it can be passed on
with the contours.
"""

from __future__ import annotations

import dataclasses
import importlib.metadata
import json
import math
import platform
from collections.abc import Iterable
from dataclasses import dataclass, field
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

from soars import __version__
from soars.errors import InputError
from soars.findings.finding import CHECK, ExpectedDsc, Finding
from soars.texts import read_json

SCHEMA_VERSION = 2
"""Increases when a field changes its meaning or disappears; new fields alone do not change it.

2: findings, expected DSC and the order to look in; the warnings of organs stand among the run's own too.
"""

RESEARCH_NOTICE = (
    "For research. Not a medical device. Every contour must be reviewed and corrected by a qualified person "
    "before it is used for anything."
)

PRESENT, ABSENT, NOT_COVERED, NOT_REQUESTED = "present", "absent", "not_covered", "not_requested"
"""States of an organ: contoured; looked for and not there; unknown to the bundle; not asked for."""

LIBRARIES = (
    *("numpy", "scipy", "SimpleITK", "pydicom", "torch", "onnxruntime", "safetensors"),
    *("nnunetv2", "TotalSegmentator"),
)
"""Distributions whose versions can change a result."""


@dataclass(frozen=True)
class OrganRecord:
    """One organ of a run. ``name`` is the TG-263 name, ``label`` the readable one, ``volume_cc`` in cm3 (0 if
    absent), ``reason`` why it is absent. ``findings`` is what the checks found, the most severe first, ``warnings`` the
    same as sentences. ``expected_dsc`` is None where the bundle holds no calibration for the organ, ``confidence``
    (soft Dice, 0 to 1) where its system gives none. ``source`` is the model that drew it, ``definition`` how its extent
    differs from the consensus guideline's, as far as is known."""

    name: str
    label: str
    stratum: str
    state: str
    colour: tuple[int, int, int] = (128, 128, 128)
    voxels: int = 0
    volume_cc: float = 0.0
    reason: str = ""
    warnings: tuple[str, ...] = ()
    findings: tuple[Finding, ...] = ()
    expected_dsc: ExpectedDsc | None = None
    confidence: float | None = None
    source: str = ""
    definition: str = ""


@dataclass(frozen=True)
class CtRecord:
    """The CT that was segmented; lengths in mm, directions in LPS. UIDs are None when it is not DICOM."""

    source: str
    size: tuple[int, int, int]
    spacing_mm: tuple[float, float, float]
    origin_mm: tuple[float, float, float]
    direction: tuple[float, ...]
    orientation: str
    description: str = ""
    series_uid: str | None = None
    study_uid: str | None = None
    frame_of_reference_uid: str | None = None


@dataclass(frozen=True)
class MrRecord:
    """The MR that was used beside the CT, and how its registration ended; see `soars.mr.registration.Registration`."""

    source: str
    description: str
    moved_mm: float
    rotated_degrees: float
    information: float
    shared_cc: float


@dataclass(frozen=True)
class ModelRecord:
    """A model that a bundle consists of: its own bundle with version and hash."""

    bundle: str
    version: str
    sha256: str = ""


@dataclass(frozen=True)
class BundleRecord:
    """The model bundle that was used.

    ``sha256`` changes with anything that decides what the bundle draws, so a composite's changes with its sources,
    which ``models`` lists. ``notes``: sections of its card worth reading beside the contours. ``system``: what ran
    it, as manifests name it ("cascade", "uanet"); "" in records of earlier versions.
    """

    name: str
    version: str
    sha256: str = ""
    format_version: int = 1
    licence: str = ""
    description: str = ""
    models: tuple[ModelRecord, ...] = ()
    notes: dict[str, str] = field(default_factory=dict)
    system: str = ""


@dataclass(frozen=True)
class EngineRecord:
    """What ran the networks, on which device, in which precision, and why."""

    name: str
    device: str
    precision: str
    reason: str = ""


@dataclass(frozen=True)
class RunRecord:
    """Everything a reader of the contours may want to know about how they were made.

    ``warnings`` are all of them as sentences: the CT's, the bundle's, then the organs', each with its organ's label.
    ``findings`` are the organs', and ``look_order`` the names of the organs that were looked for, both with those that
    most need a look first.
    """

    ct: CtRecord
    bundle: BundleRecord
    organs: tuple[OrganRecord, ...]
    engine: EngineRecord
    options: dict[str, Any] = field(default_factory=dict)
    timings_s: dict[str, float] = field(default_factory=dict)
    warnings: tuple[str, ...] = ()
    findings: tuple[Finding, ...] = ()
    look_order: tuple[str, ...] = ()
    outputs: tuple[str, ...] = ()
    started_utc: str = ""
    finished_utc: str = ""
    soars_version: str = __version__
    python_version: str = field(default_factory=platform.python_version)
    libraries: dict[str, str] = field(default_factory=dict)
    notice: str = RESEARCH_NOTICE
    mr: MrRecord | None = None
    schema_version: int = SCHEMA_VERSION

    def in_state(self, state: str) -> tuple[OrganRecord, ...]:
        return tuple(organ for organ in self.organs if organ.state == state)

    @property
    def general_warnings(self) -> tuple[str, ...]:
        """The warnings that are not about an organ: the CT's and the bundle's."""
        about_organs = {f"{organ.label}: {text}" for organ in self.organs for text in organ.warnings}
        return tuple(text for text in self.warnings if text not in about_organs)

    def to_json(self) -> str:
        """The text of `run.json`: JSON without NaN, keys in the order of the fields."""
        return (
            json.dumps(_plain(dataclasses.asdict(self)), indent=2, ensure_ascii=False, allow_nan=False) + "\n"
        )


def read_run(path: Path) -> RunRecord:
    """Read a `run.json`. Raises `InputError` when it is not one, or one of a newer version."""
    try:
        data = read_json(path)
    except (OSError, ValueError) as error:
        raise InputError(f"{path}: cannot be read as a run record: {error}") from error
    version = data.get("schema_version") if isinstance(data, dict) else None
    if not isinstance(version, int):
        raise InputError(f"{path}: is not a run record of soars (it has no schema_version)")
    if version > SCHEMA_VERSION:
        raise InputError(f"{path}: run record version {version} is newer than this soars knows; update soars")
    try:
        organs = tuple(_organ(organ) for organ in data["organs"])
        findings = [Finding.from_dict(f) for f in data["findings"]] if version > 1 else _findings_of(organs)
        return _from_dict(
            RunRecord,
            data,
            findings=tuple(findings),
            ct=_from_dict(CtRecord, data["ct"]),
            bundle=_bundle(data["bundle"]),
            engine=_from_dict(EngineRecord, data["engine"]),
            organs=organs,
            mr=_from_dict(MrRecord, data["mr"]) if data.get("mr") else None,
        )
    except (KeyError, TypeError, ValueError) as error:
        raise InputError(f"{path}: run record is incomplete: {error!r}") from error


def library_versions() -> dict[str, str]:
    """Versions of those distributions among `LIBRARIES` that are installed, without importing them."""
    versions = {}
    for name in LIBRARIES:
        try:
            versions[name] = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            continue
    return versions


def utc_now() -> str:
    return datetime.now(timezone.utc).isoformat(timespec="seconds").replace("+00:00", "Z")


def orientation_of(direction: Iterable[float]) -> str:
    """Where the image axes i, j, k point, as three of the letters L/R, P/A, S/I, e.g. ``LPS``.

    `direction` is SimpleITK's: row-major 3x3, its columns being the axes in LPS. A star is added when an axis
    is more than half a degree away from the patient's.
    """
    values = [float(v) for v in direction]
    letters, oblique = "", False
    for column in range(3):
        axis = [values[3 * row + column] for row in range(3)]
        row = max(range(3), key=lambda r: abs(axis[r]))
        letters += ("LPS" if axis[row] > 0 else "RAI")[row]
        oblique |= abs(axis[row]) < math.cos(math.radians(0.5))
    return letters + ("*" if oblique else "")


def _plain(value: Any) -> Any:
    """Numpy's numbers and NaN do not belong in JSON."""
    if isinstance(value, dict):
        return {str(key): _plain(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(item) for item in value]
    if isinstance(value, bool | str) or value is None:
        return value
    if isinstance(value, Path):
        return str(value)
    if hasattr(value, "item"):
        value = value.item()
    if isinstance(value, float):
        return round(value, 6) if math.isfinite(value) else None
    return value


def _organ(data: dict[str, Any]) -> OrganRecord:
    """An organ of a record; in version 1 findings were sentences only."""
    if "findings" in data:
        findings = [Finding.from_dict(finding) for finding in data["findings"]]
    else:
        advice = "Look at the whole organ."
        findings = [Finding(data["name"], "other", CHECK, text, advice) for text in data.get("warnings", ())]
    expected = data.get("expected_dsc")
    organ: OrganRecord = _from_dict(
        OrganRecord,
        data,
        findings=tuple(findings),
        expected_dsc=None if expected is None else ExpectedDsc(**expected),
    )
    return organ


def _bundle(data: dict[str, Any]) -> BundleRecord:
    models = tuple(_from_dict(ModelRecord, model) for model in data.get("models", ()))
    bundle: BundleRecord = _from_dict(BundleRecord, data, models=models)
    return bundle


def _findings_of(organs: Iterable[OrganRecord]) -> list[Finding]:
    return [finding for organ in organs for finding in organ.findings]


def _from_dict(kind: Any, data: dict[str, Any], **replaced: Any) -> Any:
    known = {f.name for f in dataclasses.fields(kind)}
    values = {
        key: tuple(item) if isinstance(item, list) else item for key, item in data.items() if key in known
    }
    return kind(**{**values, **replaced})
