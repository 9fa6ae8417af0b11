"""A cohort that a bundle has labelled: a site's own CTs with the contours that it is sure of.

What the teacher did not draw, or is not sure of, is left out, so the cohort is partly labelled, and a network that is
trained on it is not told that such an organ is absent. Each contour keeps the model that drew it and its definition.
"""

from __future__ import annotations

import shutil
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import asdict, astuple, dataclass, fields
from pathlib import Path

from soars import __version__
from soars.cells import HarmlessWriter
from soars.ct.images import read_ct
from soars.errors import InputError
from soars.files import replacing_file, staged_folder, write_json
from soars.findings.finding import SERIOUS
from soars.formats.imagefiles import write_image
from soars.formats.segnrrd import read_seg_nrrd, write_seg_nrrd
from soars.report.outputs import RECORD, SEGMENTATION
from soars.report.record import PRESENT, BundleRecord, OrganRecord, read_run
from soars.service.batch import FAILED, Outcome
from soars.service.cases import BatchCase
from soars.texts import read_json
from soars_training.cohorts.layouts import PATIENTS_FILE, Whose, patients_of
from soars_training.cohorts.listing import patient_id

CASES, TEACHER = "cases", "teacher"
"""Folders of a cohort: what `soars-train prepare --layout folders` reads, and the teacher's own results."""
TEACHER_FILE, TABLE = "teacher.json", "organs.csv"
CT, STRUCTURES = "ct.nrrd", "structures.seg.nrrd"


@dataclass(frozen=True)
class Rule:
    """Which contours are used.

    Attributes:
        at_least: lowest expected DSC, or lowest confidence where the teacher is not calibrated; 0 to 1.
        known_only: also leave out contours of models that give neither.
    """

    at_least: float
    known_only: bool = False

    def __post_init__(self) -> None:
        if not 0 <= self.at_least <= 1:
            raise InputError(f"--at-least must be between 0 and 1, not {self.at_least:g}")

    def why_not(self, organ: OrganRecord) -> str:
        """Why a contour is left out; "" when it is used."""
        if organ.state != PRESENT:
            return organ.reason or f"the teacher did not draw it ({organ.state.replace('_', ' ')})"
        serious = [finding.sentence() for finding in organ.findings if finding.severity == SERIOUS]
        if serious:
            return f"probably wrong: {serious[0]}"
        if organ.expected_dsc is not None:
            low = organ.expected_dsc.value < self.at_least
            return f"expected DSC {organ.expected_dsc.value:.2f} below {self.at_least:g}" if low else ""
        if organ.confidence is not None:
            low = organ.confidence < self.at_least
            return f"confidence {organ.confidence:.2f} below {self.at_least:g}" if low else ""
        return "the teacher does not say how sure it is" if self.known_only else ""


@dataclass(frozen=True)
class Row:
    """A line of the cohort's table: an organ of a case (a whole case has organ ""), and what became of it."""

    case: str
    organ: str
    used: str
    why_not: str
    source: str = ""
    definition: str = ""
    confidence: str = ""
    expected_dsc: str = ""


def write_cohort(
    cases: Sequence[BatchCase], outcomes: Iterable[Outcome], folder: Path, rule: Rule
) -> list[Row]:
    """Write the cohort from the teacher's results in ``folder``/teacher; returns its table, which is also written.

    Raises `InputError` when the folder holds other cases, or no contour can be used.
    """
    _check_folder(cases, folder)
    failed = {outcome.case: outcome.message for outcome in outcomes if outcome.state == FAILED}
    rows: list[Row] = []
    used: list[BatchCase] = []
    teacher: BundleRecord | None = None
    for case in cases:
        if case.name in failed:
            rows.append(Row(case.name, "", "no", failed[case.name]))
            continue
        record = read_run(folder / TEACHER / case.name / RECORD)
        teacher = record.bundle
        mine = list(_rows(case.name, record.organs, rule))
        rows += mine
        organs = [row.organ for row in mine if row.used == "yes"]
        _write_case(case, folder, organs)
        used += [case] if organs else []
    if teacher is None or not any(row.used == "yes" for row in rows):
        raise InputError(
            f"{folder}: no contour of the {len(cases)} CTs can be used; look at {TEACHER}/*/report.html for the reasons"
        )
    about = {"soars": __version__, "at_least": rule.at_least, "known_only": rule.known_only}
    write_json(folder / CASES / TEACHER_FILE, {**about, "teacher": asdict(teacher)})
    whose = [
        Whose(c.name, scan=f"{c.ct.resolve()} {c.series or ''}", patient_id=patient_id(c.ct)) for c in used
    ]
    patients = {case.name: patient for case, patient in zip(used, patients_of(whose), strict=True)}
    write_json(folder / CASES / PATIENTS_FILE, patients)
    with (
        replacing_file(folder / TABLE) as temporary,
        temporary.open("w", newline="", encoding="utf-8") as stream,
    ):
        table = HarmlessWriter(stream)
        table.writerow([field.name for field in fields(Row)])
        table.writerows(astuple(row) for row in rows)
    return rows


def labelled_by(data: Path) -> str | None:
    """The teacher of a folder of cases in a few words, for the cache and the model card; None when there is none."""
    if not (data / TEACHER_FILE).is_file():
        return None
    try:
        teacher = read_json(data / TEACHER_FILE)["teacher"]
        return (
            f"contours drawn by the model {teacher['name']} {teacher['version']} ({teacher['sha256'][:12]})"
        )
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise InputError(
            f"{data / TEACHER_FILE}: is damaged ({error}); run soars-train distil again"
        ) from error


def _check_folder(cases: Sequence[BatchCase], folder: Path) -> None:
    there = folder / CASES
    names = {case.name for case in cases}
    others = [path.name for path in there.iterdir() if path.is_dir()] if there.is_dir() else []
    strange = sorted(set(others) - names)
    if strange:
        raise InputError(f"{there} holds {strange[0]}, which is not among the CTs; choose another folder")


def _rows(case: str, organs: Iterable[OrganRecord], rule: Rule) -> Iterator[Row]:
    for organ in organs:
        why = rule.why_not(organ)
        yield Row(
            case,
            organ.name,
            "no" if why else "yes",
            why,
            organ.source,
            organ.definition,
            "" if organ.confidence is None else f"{organ.confidence:.4f}",
            "" if organ.expected_dsc is None else f"{organ.expected_dsc.value:.4f}",
        )


def _write_case(case: BatchCase, folder: Path, organs: Sequence[str]) -> None:
    """The CT without its metadata, and the contours that are used with their tags; no folder where there are none."""
    home = folder / CASES / case.name
    if not organs:
        shutil.rmtree(home, ignore_errors=True)
        return
    structures = read_seg_nrrd(folder / TEACHER / case.name / SEGMENTATION).subset(organs)
    image = read_ct(case.ct, case.series).image
    for key in image.GetMetaDataKeys():
        image.EraseMetaData(key)
    with staged_folder(home, (CT, STRUCTURES), overwrite=True, ours=_is_ours) as staging:
        write_image(image, staging / CT)
        write_seg_nrrd(structures, staging / STRUCTURES)


def _is_ours(folder: Path) -> bool:
    return (folder / STRUCTURES).is_file()
