"""A CT series from an archive's DICOMweb: found by QIDO-RS, fetched by WADO-RS (PS3.18 10.4 and 10.6)."""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from soars.archive.nodes import Node
from soars.errors import InputError
from soars.progress import Progress, Reporter, ignore

TOKEN = "SOARS_DICOMWEB_TOKEN"
"""Environment variable with the bearer token of an archive that wants one."""
TIMEOUT_S = 30.0
_FIELDS = ("Modality", "SeriesDescription", "NumberOfSeriesRelatedInstances", "StudyDate", "PatientID")


@dataclass(frozen=True)
class SeriesEntry:
    """A series as the archive lists it; ``instances`` is None where it does not count them."""

    study_uid: str
    series_uid: str
    patient_id: str
    date: str
    description: str
    instances: int | None


def find_series(node: Node, *, patient_id: str = "", study_uid: str = "") -> list[SeriesEntry]:
    """The CT series of a patient or a study, newest first (QIDO-RS). `InputError` when the archive cannot tell."""
    if not (patient_id or study_uid):
        raise InputError("say whose series: give a patient ID or a study UID")
    client = _client(node)
    filters = {"Modality": "CT"} | ({"PatientID": patient_id} if patient_id else {})
    with _telling(node):
        found = client.search_for_series(
            study_instance_uid=study_uid or None, search_filters=filters, fields=list(_FIELDS)
        )
    entries = [entry for item in found if (entry := _entry(item)) is not None and entry[0] == "CT"]
    return sorted((entry for _, entry in entries), key=lambda one: (one.date, one.series_uid), reverse=True)


def fetch_series(
    node: Node, study_uid: str, series_uid: str, folder: Path, *, report: Reporter = ignore
) -> list[Path]:
    """Fetch a series into a folder that is new or empty, one file an instance, all or nothing (WADO-RS).

    `InputError` when the archive does not have it, gives fewer instances than it lists, or cannot be reached.
    """
    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise InputError(f"{folder}: there is something already; choose a new folder")
    listed = {entry.series_uid: entry for entry in find_series(node, study_uid=study_uid)}
    if series_uid not in listed:
        raise InputError(f"{node.name} has no CT series {series_uid} in study {study_uid}")
    expected = listed[series_uid].instances
    folder.parent.mkdir(parents=True, exist_ok=True)
    staging = Path(tempfile.mkdtemp(prefix=".soars-", dir=folder.parent))
    try:
        names: list[str] = []
        with _telling(node):
            for dataset in _client(node).iter_series(study_uid, series_uid):
                name = f"{len(names) + 1:05d}.dcm"
                dataset.save_as(staging / name, enforce_file_format=True)
                names.append(name)
                report(Progress("fetch", len(names), expected or 0))
        if not names or (expected is not None and len(names) < expected):
            raise InputError(
                f"{node.name} gave {len(names)} of the {expected if expected is not None else 'promised'} images of "
                f"series {series_uid}; try again"
            )
        staging.chmod(0o755)
        if folder.exists():
            folder.rmdir()
        staging.rename(folder)
    except BaseException:
        shutil.rmtree(staging, ignore_errors=True)
        raise
    return [folder / name for name in names]


def _entry(item: dict[str, Any]) -> tuple[str, SeriesEntry] | None:
    """Modality and series of one answer in DICOM JSON; None where it has no identifiers."""

    def value(tag: str) -> str:
        values = item.get(tag, {}).get("Value") or [""]
        first = values[0]
        return str(first.get("Alphabetic", "") if isinstance(first, dict) else first)

    study, series, count = value("0020000D"), value("0020000E"), value("00201209")
    if not (study and series):
        return None
    return value("00080060"), SeriesEntry(
        study,
        series,
        value("00100020"),
        value("00080020"),
        value("0008103E"),
        int(count) if count.isdigit() else None,
    )


def _client(node: Node) -> Any:
    if not node.web:
        raise InputError(
            f"{node.name} has no DICOMweb address: add it with soars network add --web URL --overwrite"
        )
    try:
        from dicomweb_client.api import DICOMwebClient
    except ImportError as error:
        raise InputError("dicomweb-client is missing: pip install 'soars-segmentation[network]'") from error
    token = os.environ.get(TOKEN)
    headers = {"Authorization": f"Bearer {token}"} if token else None
    client = DICOMwebClient(node.web, headers=headers, timeout=TIMEOUT_S)
    client.set_http_retry_params(
        retry=False
    )  # it would try for half a minute before it says that nobody is there
    return client


@contextmanager
def _telling(node: Node) -> Iterator[None]:
    """What goes wrong between us and the archive, in one sentence."""
    import requests

    try:
        yield
    except requests.HTTPError as error:
        code = error.response.status_code if error.response is not None else 0
        if code in (401, 403):
            raise InputError(
                f"{node.name} wants to know who asks (HTTP {code}): set {TOKEN} to a token"
            ) from error
        raise InputError(f"{node.name} cannot answer (HTTP {code}) at {node.web}") from error
    except requests.Timeout as error:
        raise InputError(f"{node.name} does not answer within {TIMEOUT_S:g} s at {node.web}") from error
    except requests.RequestException as error:
        raise InputError(f"{node.name} cannot be reached at {node.web}") from error
    except (ValueError, KeyError) as error:
        raise InputError(f"what answers at {node.web} is no DICOMweb ({error})") from error
