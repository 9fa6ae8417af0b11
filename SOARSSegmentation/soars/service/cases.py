"""The cases of a batch: from a tree of patients, or from a list in a CSV file."""

from __future__ import annotations

import csv
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from soars.cells import original
from soars.ct.image_file import IMAGE_SUFFIXES, is_image_name
from soars.dicom.patients import PatientFolder, find_patients
from soars.errors import InputError
from soars.service.where import CASE, Condition, all_hold, check_keys
from soars.texts import read_table

COLUMNS = (CASE, "ct")
"""A list has these columns; ``series`` chooses one, and any others are for ``--where``."""

_NOT_IN_NAMES = set('<>:"/\\|?*')


@dataclass(frozen=True)
class BatchCase:
    """One CT of a batch. ``name`` is that of its result folder; ``problem`` why it cannot be segmented, or ""."""

    name: str
    ct: Path
    series: str | None = None
    problem: str = ""


@dataclass(frozen=True)
class CaseList:
    """The cases that are meant, and how many the conditions leave out."""

    cases: tuple[BatchCase, ...]
    left_out: int

    def resolved(self) -> CaseList:
        """The same with absolute paths, for processes that run elsewhere."""
        return CaseList(tuple(replace(case, ct=case.ct.resolve()) for case in self.cases), self.left_out)


def find_cases(source: Path, conditions: Sequence[Condition] = ()) -> CaseList:
    """The cases of a folder of patients (a folder each, or an image file each) or of a CSV list.

    A patient with no CT, or several that the conditions do not tell apart, is a case with a ``problem``. Raises
    `InputError` when there is no case, or the list is wrong.
    """
    if source.is_dir():
        check_keys(conditions, ())
        found = _from_tree(source, conditions)
    elif source.is_file() and source.suffix.lower() == ".csv":
        found = _from_list(source, conditions)
    else:
        raise InputError(
            f"{source}: is neither a folder of patients nor a list (.csv with the columns case and ct)"
        )
    _check_names(found.cases, source)
    if not found.cases:
        hint = f"; --where leaves out all {found.left_out}" if found.left_out else ""
        raise InputError(f"{source}: holds no case{hint}")
    return found


def _from_tree(root: Path, conditions: Sequence[Condition]) -> CaseList:
    files = sorted(path for path in root.iterdir() if path.is_file() and _is_ct_name(path))
    folders = any(path.is_dir() and not path.name.startswith(".") for path in root.iterdir())
    found = [BatchCase(_stem(path), path) for path in files]
    kept = [case for case in found if all_hold(conditions, {CASE: case.name}, case.ct, None)]
    left_out = len(found) - len(kept)
    for patient in find_patients(root) if folders or not files else ():
        case = _of_patient(patient, conditions)
        left_out += case is None
        kept += [case] if case is not None else []
    return CaseList(tuple(kept), left_out)


def _of_patient(patient: PatientFolder, conditions: Sequence[Condition]) -> BatchCase | None:
    """The case of a patient's folder; None when all its CTs are left out."""
    scans: list[tuple[Path, str | None]] = [(folder, uid) for uid, folder in sorted(patient.series.items())]
    if not scans:
        images = sorted(p for p in patient.folder.rglob("*") if p.is_file() and _is_ct_name(p))
        scans = [(path, None) for path in images]
    if patient.problem or not scans:
        problem = patient.problem or f"{patient.folder}: there is no CT in it"
        return BatchCase(patient.name, patient.folder, problem=problem)
    meant = [(ct, uid) for ct, uid in scans if all_hold(conditions, {CASE: patient.name}, ct, uid)]
    if not meant:
        return None
    if len(meant) > 1:
        names = ", ".join(uid or path.name for path, uid in meant)
        problem = (
            f"{patient.folder}: holds {len(meant)} CTs ({names}); choose by --where, or name them in a list"
        )
        return BatchCase(patient.name, patient.folder, problem=problem)
    return BatchCase(patient.name, *meant[0])


def _from_list(path: Path, conditions: Sequence[Condition]) -> CaseList:
    try:
        reader = csv.DictReader(read_table(path))
        columns = tuple(reader.fieldnames or ())
        rows = [{key: original(value or "") for key, value in row.items() if key} for row in reader]
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise InputError(f"{path}: cannot be read as a CSV list in UTF-8: {error}") from error
    missing = [name for name in COLUMNS if name not in columns]
    if missing:
        raise InputError(
            f"{path}: has no column {' and '.join(missing)}; it has {', '.join(columns) or 'none'}"
        )
    check_keys(conditions, columns)
    cases = []
    for line, row in enumerate(rows, 2):
        if not row[CASE].strip() or not row["ct"].strip():
            raise InputError(f"{path}: row {line} has no case or no ct")
        ct, series = path.parent / row["ct"].strip(), row.get("series", "").strip() or None
        if all_hold(conditions, row, ct, series):
            cases.append(BatchCase(row[CASE].strip(), ct, series))
    return CaseList(tuple(cases), len(rows) - len(cases))


def _is_ct_name(path: Path) -> bool:
    """Whether a file may be a CT by its name; contours may be beside it."""
    name = path.name.lower()
    return is_image_name(path) and not name.startswith(".") and not name.endswith(".seg.nrrd")


def _stem(path: Path) -> str:
    ending = next(s for s in sorted(IMAGE_SUFFIXES, key=len, reverse=True) if path.name.lower().endswith(s))
    return path.name[: -len(ending)]


def _check_names(cases: Iterable[BatchCase], source: Path) -> None:
    """A name becomes a folder's: it must be possible everywhere, and no other case's."""
    seen: set[str] = set()
    for case in cases:
        name = case.name
        if not name.isprintable() or set(name) & _NOT_IN_NAMES or name.startswith(".") or name.endswith("."):
            raise InputError(f"{source}: the case {name!r} cannot give a folder its name; rename it")
        if name.casefold() in seen:
            raise InputError(f"{source}: two cases have the name {name}; results would be mixed up")
        seen.add(name.casefold())
