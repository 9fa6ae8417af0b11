"""The user's own list of cases (JSON), checked whole before any long work, and the organs that its cases can teach.

``{"cases": [{"name": "a", "ct": "ct/a", "structures": "a.dcm", "annotated": ["Brainstem"], "split": "train"}]}``;
paths are relative to the list, ``annotated`` and ``split`` may be left out. ``sparse``, as an option, lists organs that
were contoured on some slices only, and ``patient`` names whom the case is of: cases without it are of one patient if
they are one CT, or if their CTs have the same Patient ID (see `soars_training.cohorts.layouts.patients_of`).
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from soars import catalogue
from soars.ct.dicom_files import is_dicom, read_header
from soars.errors import InputError, UnknownOrganError
from soars.structures import StructureSet
from soars.texts import read_json
from soars_training.cohorts.cache import parted
from soars_training.cohorts.layouts import Whose, patients_of

_NEEDED = {"name", "ct", "structures"}
_KNOWN = {*_NEEDED, "annotated", "mr", "patient", "sparse", "split"}
_MOST_NAME_BYTES = 120
_FORBIDDEN = '/\\:*?"<>|'
_RESERVED = {"con", "prn", "aux", "nul", *(f"{d}{n}" for d in ("com", "lpt") for n in range(1, 10))}


@dataclass(frozen=True)
class ListedCase:
    """One entry. ``annotated`` are catalogue names, None when the entry leaves them to the structures; ``place`` says
    which entry it is, for messages; ``sparse`` are organs that were contoured on some slices only; ``mr`` is an MR of
    the patient, None without; ``patient`` is whom the case is of, by a name that other cases may have as well."""

    name: str
    ct: Path
    structures: Path
    annotated: frozenset[str] | None
    split: str
    place: str
    sparse: frozenset[str] = frozenset()
    mr: Path | None = None
    patient: str = ""


def read_listing(listing: Path) -> list[ListedCase]:
    """The cases of a list. Raises `InputError`, with the entry's place, for anything wrong with it: missing or unknown
    keys, names that cannot be file names or occur twice, files that do not exist, a CT or a patient in two splits, a CT
    of two patients."""
    try:
        content = read_json(listing)
    except OSError as error:
        raise InputError(f"{listing}: cannot be read ({error.strerror or error})") from error
    except ValueError as error:
        raise InputError(f"{listing}: is not a JSON file ({error})") from error
    entries = content.get("cases") if isinstance(content, dict) else None
    if not isinstance(entries, list):
        raise InputError(f'{listing}: is not a list of cases: {{"cases": [{{"name", "ct", "structures"}}]}}')
    if not entries:
        raise InputError(f"{listing}: there are no cases in it")
    cases = [
        _entry(entry, listing, f"{listing}, entry {number}") for number, entry in enumerate(entries, start=1)
    ]
    taken: dict[str, ListedCase] = {}
    for case in cases:
        other = taken.setdefault(case.name.casefold(), case)
        if other is not case:
            raise InputError(
                f"{case.place}: the name {case.name!r} is that of {other.place.rpartition(', ')[2]} as well; each case "
                "needs its own, in whichever split it is"
            )
    scanned: dict[Path, ListedCase] = {}
    for case in cases:
        first = scanned.setdefault(case.ct.resolve(), case)
        if first.split != case.split:
            raise InputError(
                f"{case.place} ({case.name}): its CT is that of {first.place.rpartition(', ')[2]} ({first.name}), "
                f"which is in another split ({first.split}, not {case.split}); a patient belongs to one"
            )
        if first.patient and case.patient and first.patient.casefold() != case.patient.casefold():
            raise InputError(
                f"{case.place} ({case.name}): its CT is that of {first.place.rpartition(', ')[2]} ({first.name}), "
                f"which is of another patient ({first.patient}, not {case.patient})"
            )
        if not first.patient:  # the next one of this CT is compared with whoever names a patient
            scanned[case.ct.resolve()] = case
    return _with_patients(cases)


def _with_patients(cases: Sequence[ListedCase]) -> list[ListedCase]:
    """The cases with whom each is of. Raises `InputError` for a patient in two splits."""
    whose = [Whose(case.name, case.patient, str(case.ct.resolve()), patient_id(case.ct)) for case in cases]
    found = [replace(case, patient=patient) for case, patient in zip(cases, patients_of(whose), strict=True)]
    apart = parted(found)
    if apart is not None:
        first, case = apart
        raise InputError(
            f"{case.place} ({case.name}): is of the same patient as {first.place.rpartition(', ')[2]} "
            f"({first.name}), by the list or the Patient ID of its CT, and in another split ({first.split}, not "
            f"{case.split}); a patient belongs to one; where they are two people, give each entry its patient"
        )
    return found


def patient_id(ct: Path) -> str:
    """The Patient ID of a DICOM CT, "" where there is none; a damaged file is reported when it is read whole."""
    try:
        for path in sorted(ct.iterdir()) if ct.is_dir() else [ct]:
            if path.is_file() and is_dicom(path):
                return read_header(path).text("PatientID")
    except (InputError, OSError):
        pass
    return ""


def teachable(found: StructureSet, case: ListedCase) -> tuple[StructureSet, frozenset[str], list[str]]:
    """The organs of a case under their catalogue names, those of them that count as annotated, and what was left out.

    ``found`` has the names of its file. Structures that the catalogue does not know, such as targets and helpers, are
    left out, and so are those without a voxel unless the entry lists them: in the template of a clinic they mean "not
    drawn", and an organ that nobody drew must not be taught as background. Where several structures are one organ, the
    one of exactly the catalogue's name is taken. Raises `InputError` when none has it, or when none can teach.
    """
    by_organ, unknown = _by_organ(found)
    notes = [f"left out, no organs of the catalogue: {', '.join(unknown)}"] if unknown else []
    out = StructureSet(found.geometry)
    undrawn = []
    for organ, names in by_organ.items():
        chosen = organ if organ in names else names[0]
        if len(names) > 1:
            if organ not in names:
                raise InputError(
                    f"{' and '.join(map(repr, names))} are both {organ}; rename the one that is not"
                )
            notes.append(
                f"left out, since {organ} is there: {', '.join(repr(n) for n in names if n != chosen)}"
            )
        if found.is_empty(chosen) and organ not in (case.annotated or ()):
            undrawn.append(chosen)
            continue
        out.add_mask(organ, found.crop(chosen), found.info[chosen])
    if undrawn:
        notes.append(f"not annotated, since nobody drew them: {', '.join(undrawn)}")
    annotated = frozenset(out.names) if case.annotated is None else case.annotated
    without = sorted(organ for organ in annotated if organ not in out or out.is_empty(organ))
    if without and case.annotated is not None:
        notes.append(f"listed as annotated, but without a voxel: {', '.join(without)}; taught as absent")
    if not annotated:
        raise InputError("it has no structure that is an organ of the catalogue and was drawn")
    return out, annotated, notes


def _by_organ(found: StructureSet) -> tuple[dict[str, list[str]], list[str]]:
    by_organ: dict[str, list[str]] = {}
    unknown = []
    for name in found:
        oar = catalogue.find(name)
        if oar is None:
            unknown.append(name)
        else:
            by_organ.setdefault(oar.name, []).append(name)
    return by_organ, unknown


def _entry(entry: Any, listing: Path, place: str) -> ListedCase:
    if not isinstance(entry, dict):
        raise InputError(f"{place}: is no case with name, ct and structures")
    missing, unknown = sorted(_NEEDED - entry.keys()), sorted(entry.keys() - _KNOWN)
    if missing:
        raise InputError(f"{place}: has no {', '.join(missing)}")
    if unknown:
        raise InputError(
            f"{place}: has {', '.join(unknown)}, which is not known; known are {', '.join(sorted(_KNOWN))}"
        )
    for key in (*_NEEDED, "mr", "patient", "split"):
        if key in entry and not (isinstance(entry[key], str) and entry[key].strip()):
            raise InputError(f"{place}: {key} is {entry[key]!r}, not a text")
    name = entry["name"]
    _check_name(name, place)
    paths = {key: listing.parent / entry[key] for key in ("ct", "structures", "mr") if key in entry}
    for key, path in paths.items():
        if not path.exists():
            raise InputError(f"{place} ({name}): {key}: there is no file or folder {path}")
    return ListedCase(
        name,
        paths["ct"],
        paths["structures"],
        _organs(entry, "annotated", place),
        entry.get("split", "train"),
        place,
        _organs(entry, "sparse", place) or frozenset(),
        paths.get("mr"),
        entry.get("patient", "").strip(),
    )


def _check_name(name: str, place: str) -> None:
    """Refuse a name that cannot be that of a file everywhere."""
    stem = name.partition(".")[0].casefold()
    if any(c in _FORBIDDEN or not c.isprintable() for c in name) or name != name.strip(" ."):
        raise InputError(
            f"{place}: the name {name!r} cannot be the name of a file; leave out {' '.join(_FORBIDDEN)}"
        )
    if stem in _RESERVED:
        raise InputError(f"{place}: the name {name!r} is reserved on Windows; choose another")
    if len(name.encode()) > _MOST_NAME_BYTES:
        raise InputError(f"{place}: the name is longer than {_MOST_NAME_BYTES} bytes; choose a shorter one")


def _organs(entry: dict[str, Any], key: str, place: str) -> frozenset[str] | None:
    listed = entry.get(key)
    if listed is None:
        return None
    if not isinstance(listed, list) or not all(isinstance(name, str) for name in listed):
        raise InputError(f"{place}: {key} is not a list of organs")
    return frozenset(_resolved(listed, key, place))


def _resolved(names: Iterable[str], key: str, place: str) -> list[str]:
    try:
        return [catalogue.resolve(name).name for name in names]
    except UnknownOrganError as error:
        raise InputError(f"{place}: {key}: {error}") from error
