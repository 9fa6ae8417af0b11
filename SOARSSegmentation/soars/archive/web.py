"""A CT series from an archive's DICOMweb: found by QIDO-RS, fetched by WADO-RS (PS3.18 10.4 and 10.6)."""

from __future__ import annotations

import json
import re
import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pydicom.filereader import read_partial
from pydicom.tag import BaseTag, Tag

from soars.archive.http import get
from soars.archive.multipart import save_parts
from soars.archive.nodes import Node
from soars.errors import InputError
from soars.files import cannot_write
from soars.progress import Progress, Reporter, ignore
from soars.staging import staging_folder

LARGEST_LIST = 64 << 20
"""Bytes of a list of series or instances."""
LARGEST_IMAGE = 4 << 30
"""Bytes of one image; an enhanced CT holds a whole scan."""
LARGEST_SERIES = 64 << 30
MOST_INSTANCES = 50_000
MOST_SERIES = 100_000
_PAGE = 1000
_SMALLEST_PAGE = 25
"""Results that any archive gives at once: with fewer there are no others, and it is not asked again."""
_UID = re.compile(r"[0-9.]{1,64}")
_FIELDS = ("Modality", "SeriesDescription", "NumberOfSeriesRelatedInstances", "StudyDate", "PatientID")
_LAST_IDENTIFIER = Tag("SeriesInstanceUID")
_CT_CLASSES = (
    "1.2.840.10008.5.1.4.1.1.2",  # CT Image
    "1.2.840.10008.5.1.4.1.1.2.1",  # Enhanced CT Image
    "1.2.840.10008.5.1.4.1.1.2.2",  # Legacy Converted Enhanced CT Image
)


@dataclass(frozen=True)
class SeriesEntry:
    """A series as the archive lists it; ``instances`` is None where it does not count them."""

    study_uid: str
    series_uid: str
    patient_id: str
    date: str
    description: str
    instances: int | None


def find_series(
    node: Node, *, patient_id: str = "", study_uid: str = "", since: str = ""
) -> list[SeriesEntry]:
    """The CT series of a patient or a study, or of all studies ``since`` a date (YYYYMMDD), newest first (QIDO-RS).

    `InputError` when the archive cannot answer.
    """
    if not (patient_id or study_uid or since):
        raise InputError("say whose series: give a patient ID or a study UID")
    path = f"/studies/{_uid(study_uid)}/series" if study_uid else "/series"
    params = {"Modality": "CT", "includefield": ",".join(_FIELDS)}
    params |= {"PatientID": patient_id} if patient_id else {}
    params |= {"StudyDate": f"{since}-"} if since else {}
    found: dict[str, tuple[str, SeriesEntry]] = {}
    listed = 0
    while True:
        page = _list(node, path, params | ({"offset": str(listed)} if listed else {}))
        entries = [entry for item in page if (entry := _entry(item)) is not None]
        new = {entry[1].series_uid: entry for entry in entries if entry[1].series_uid not in found}
        found |= new
        listed += len(page)
        # archives give as many as they like at a time; one that does not know offsets gives the same again
        if not new or listed < _SMALLEST_PAGE:
            break
        if listed > MOST_SERIES:
            raise InputError(f"{node.name} lists more than {MOST_SERIES} series; stopped")
    cts = [entry for modality, entry in found.values() if modality == "CT"]
    return sorted(cts, key=lambda one: (one.date, one.series_uid), reverse=True)


def fetch_series(
    node: Node, study_uid: str, series_uid: str, folder: Path, *, report: Reporter = ignore
) -> list[Path]:
    """Fetch a series into a folder that is new or empty, one file an instance, all or nothing (WADO-RS).

    The archive is asked first which instances the series has, and each that comes is compared with that: its study,
    series, SOP class and instance, and that all are of one patient. The folder can be read by this user only.

    `InputError` when the archive does not have the series, gives other instances than it lists, fewer, or one twice, or
    cannot be reached.
    """
    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise InputError(f"{folder}: there is something already; choose a new folder")
    path = f"/studies/{_uid(study_uid)}/series/{_uid(series_uid)}"
    if series_uid not in {entry.series_uid for entry in find_series(node, study_uid=study_uid)}:
        raise InputError(f"{node.name} has no CT series {series_uid} in study {study_uid}")
    listed = _instances(node, path)
    folder.parent.mkdir(parents=True, exist_ok=True)
    staging = staging_folder(folder.parent, folder)
    try:
        check = _Check(node, study_uid, series_uid, listed)
        accept = 'multipart/related; type="application/dicom"'
        with get(node, path, accept, {}, LARGEST_SERIES) as answer:
            places = (staging / f"{n:05d}.dcm" for n in range(1, MOST_INSTANCES + 1))
            for file in save_parts(
                answer.content_type, answer.chunks(), lambda _: next(places), LARGEST_IMAGE
            ):
                check.one(file)
                report(Progress("fetch", len(check.seen), len(listed)))
        check.all()
        if folder.exists():
            folder.rmdir()
        staging.rename(folder)
    except OSError as error:
        shutil.rmtree(staging, ignore_errors=True)
        raise cannot_write(folder, error) from error
    except BaseException:
        shutil.rmtree(staging, ignore_errors=True)
        raise
    return sorted(folder.iterdir())


class _Check:
    """Checks that what arrives is what was requested."""

    def __init__(self, node: Node, study_uid: str, series_uid: str, listed: dict[str, str]) -> None:
        self.seen: set[str] = set()
        self._node, self._study, self._series, self._listed = node, study_uid, series_uid, listed
        self._patient: str | None = None

    def one(self, file: Path) -> None:
        """Raise `InputError` for an instance that was not asked for."""
        header = self._header(file)
        uid, patient = header["SOPInstanceUID"], header["PatientID"]
        wrong = ""
        if header["StudyInstanceUID"] != self._study:
            wrong = f"of another study ({header['StudyInstanceUID'] or 'none'})"
        elif header["SeriesInstanceUID"] != self._series:
            wrong = f"of another series ({header['SeriesInstanceUID'] or 'none'})"
        elif uid not in self._listed:
            wrong = f"that the series does not have ({uid or 'without identifier'})"
        elif uid in self.seen:
            wrong = f"twice ({uid})"
        elif header["SOPClassUID"] not in _CT_CLASSES or self._listed[uid] not in ("", header["SOPClassUID"]):
            wrong = f"that is not the CT image it lists ({header['SOPClassUID'] or 'of no class'})"
        elif self._patient not in (None, patient):
            wrong = "of another patient"
        if wrong:
            raise InputError(
                f"{self._node.name} gave an image {wrong}: nothing was kept; inform its administrator"
            )
        self._patient = patient
        self.seen.add(uid)

    def all(self) -> None:
        """Raise `InputError` when an instance is missing."""
        if len(self.seen) < len(self._listed):
            raise InputError(
                f"{self._node.name} gave {len(self.seen)} of the {len(self._listed)} images of series {self._series}; "
                "try again"
            )

    def _header(self, file: Path) -> dict[str, str]:
        keywords = ("StudyInstanceUID", "SeriesInstanceUID", "SOPClassUID", "SOPInstanceUID", "PatientID")
        try:
            with file.open("rb") as stream:
                dataset = read_partial(stream, stop_when=_behind_identifiers)
            return {keyword: str(dataset.get(keyword) or "") for keyword in keywords}
        except Exception as error:  # whatever the parser raises over a damaged file
            raise InputError(
                f"{self._node.name} gave something that is not a DICOM file ({type(error).__name__}); try again"
            ) from error


def _behind_identifiers(tag: BaseTag, _vr: str | None, _length: int) -> bool:
    """Where to stop reading: after Series Instance UID, or at a tag that is out of order."""
    return tag > _LAST_IDENTIFIER or tag.group < 8


def _uid(text: str) -> str:
    if not _UID.fullmatch(text):
        raise InputError(f"{text!r} is not a UID: digits and dots, at most 64")
    return text


def _instances(node: Node, path: str) -> dict[str, str]:
    """SOP instance UID -> SOP class UID ("" where it is not said) of a series, by QIDO-RS, page by page."""
    found: dict[str, str] = {}
    while True:
        page = _list(node, f"{path}/instances", {"limit": str(_PAGE), "offset": str(len(found))})
        new = {_value(item, "00080018"): _value(item, "00080016") for item in page}
        new = {uid: kind for uid, kind in new.items() if uid and uid not in found}
        if not new:
            break
        found |= new
        if len(found) > MOST_INSTANCES:
            raise InputError(f"{node.name} lists more than {MOST_INSTANCES} images in one series; stopped")
    if not found:
        raise InputError(f"{node.name} lists no images of that series")
    return found


def _list(node: Node, path: str, params: dict[str, str]) -> list[dict[str, Any]]:
    """The results of a search, in DICOM JSON; `InputError` when the answer is something else."""
    with get(node, path, "application/dicom+json, application/json", params, LARGEST_LIST) as answer:
        body = answer.whole()
    try:
        found = json.loads(body) if body.strip() else []
    except (ValueError, RecursionError) as error:
        raise InputError(f"the server at {node.web} is not DICOMweb (its answer is not JSON)") from error
    found = [found] if isinstance(found, dict) else found
    if not isinstance(found, list) or not all(isinstance(item, dict) for item in found):
        raise InputError(f"the server at {node.web} is not DICOMweb (its JSON has another structure)")
    return found


def _value(item: dict[str, Any], tag: str) -> str:
    """The first value of an attribute as text, "" where it has none."""
    element = item.get(tag)
    values = element.get("Value") if isinstance(element, dict) else None
    first = values[0] if isinstance(values, list) and values else ""
    first = first.get("Alphabetic", "") if isinstance(first, dict) else first
    return "" if first is None else str(first)


def _entry(item: dict[str, Any]) -> tuple[str, SeriesEntry] | None:
    """Modality and series of one answer in DICOM JSON; None where it has no valid identifiers."""
    study, series, count = _value(item, "0020000D"), _value(item, "0020000E"), _value(item, "00201209")
    if not (_UID.fullmatch(study) and _UID.fullmatch(series)):
        return None
    return _value(item, "00080060"), SeriesEntry(
        study,
        series,
        _value(item, "00100020"),
        _value(item, "00080020"),
        _value(item, "0008103E"),
        int(count) if count.isascii() and count.isdigit() and len(count) < 10 else None,
    )
