"""The files of a study: the lead's folder, and ``share/`` in it, the only part that readers get.

::

    study.yaml            the plan                                   the lead's alone
    key.json              which code stands for which arm            the lead's alone
    prepared.json         what was prepared, with hashes             the lead's alone
    registration.md       the pre-registration sheet
    share/
      study.json          what readers' programs need to know about the study: no arm, no model worklists/R1.json   one
      a reader cases/CASE/ct.nrrd  the CT without its DICOM header cases/CASE/CODE.seg.nrrd   the proposal of the arm
      with this code sessions/NAME/...   what readers do: one folder a session
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from soars import texts
from soars.errors import InputError
from soars.study.desk import CASES, SHARE, WORKLISTS

KEY_FILE = "key.json"
PREPARED_FILE = "prepared.json"
REGISTRATION_FILE = "registration.md"
CT_FILE = "ct.nrrd"


def share_of(folder: Path) -> Path:
    return folder / SHARE


def ct_path(case: str) -> str:
    """Of a case's CT below ``share``."""
    return f"{CASES}/{case}/{CT_FILE}"


def proposal_path(case: str, code: str) -> str:
    """Of a proposal below ``share``."""
    return f"{CASES}/{case}/{code}.seg.nrrd"


def worklist_path(reader: str) -> str:
    """Of a reader's worklist below ``share``."""
    return f"{WORKLISTS}/{reader}.json"


def read_json(path: Path, what_to_do: str) -> Any:
    """A JSON file of ours; `InputError` with ``what_to_do`` when there is none, or it is damaged."""
    try:
        return texts.read_json(path)
    except FileNotFoundError:
        raise InputError(f"there is no {path}: {what_to_do}") from None
    except OSError as error:
        raise InputError(f"{path} cannot be read: {error.strerror or error}") from error
    except ValueError:
        raise InputError(f"{path} is damaged: {what_to_do}") from None
