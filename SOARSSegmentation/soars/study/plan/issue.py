"""Handing out a study: worklists, what readers' programs need to know, and the pre-registration sheet."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from soars.errors import InputError
from soars.files import write_json, write_text
from soars.study.desk import SCHEMA_VERSION, SESSIONS, STUDY_JSON, WORKLISTS
from soars.study.plan.assign import Assignment, assign
from soars.study.plan.model import Plan, Reader
from soars.study.plan.places import (
    REGISTRATION_FILE,
    ct_path,
    proposal_path,
    read_json,
    share_of,
    worklist_path,
)
from soars.study.plan.prepare import Prepared, arm_codes, read_prepared
from soars.study.plan.registration import registration_sheet


def issue(plan: Plan, folder: Path) -> dict[str, tuple[Assignment, ...]]:
    """Write every reader's worklist, ``study.json`` and the registration sheet; returns the assignment.

    Issuing again what was issued changes nothing. `InputError` when the cases were not prepared for this study file,
    and when readers have begun with other worklists: a study must not change while it is being read.
    """
    prepared = read_prepared(plan, folder)
    found = assign(plan)
    share = share_of(folder)
    lists = {reader.name: _worklist(plan, prepared, reader, found[reader.name]) for reader in plan.readers}
    if _has_begun(share, plan.name):
        _check_unchanged(share, lists)
    (share / WORKLISTS).mkdir(parents=True, exist_ok=True)
    for name, worklist in lists.items():
        write_json(share / worklist_path(name), worklist)
    write_json(
        share / STUDY_JSON,
        {"schema": SCHEMA_VERSION, "study": plan.name, "title": plan.title, "readers": sorted(lists)},
    )
    (share / SESSIONS / plan.name).mkdir(parents=True, exist_ok=True)
    write_text(folder / REGISTRATION_FILE, registration_sheet(plan, found))
    return found


def _worklist(
    plan: Plan, prepared: Prepared, reader: Reader, sessions: Sequence[Assignment]
) -> dict[str, Any]:
    codes = arm_codes(plan)
    return {
        "schema": SCHEMA_VERSION,
        "study": plan.name,
        "reader": reader.name,
        "organs": list(reader.organs),
        "idle_s": plan.idle_s,
        "washout_days": plan.washout_days,
        "scores": plan.scores,
        "items": [_item(plan, prepared, reader, codes, session) for session in sessions],
    }


def _item(
    plan: Plan, prepared: Prepared, reader: Reader, codes: Mapping[str, str], session: Assignment
) -> dict[str, Any]:
    code = codes[session.arm]
    scratch = plan.arm(session.arm).from_scratch
    proposal = None if scratch else prepared.proposals[session.case, session.arm]
    return {
        "number": session.number,
        "case": session.case,
        "arm": code,
        "phase": session.phase,
        "repeat": session.repeat,
        "ct": ct_path(session.case),
        "ct_sha256": prepared.cases[session.case].ct_sha256,
        "proposal": None if proposal is None else proposal_path(session.case, code),
        "proposal_sha256": None if proposal is None else proposal.sha256[reader.name],
    }


def _has_begun(share: Path, study: str) -> bool:
    home = share / SESSIONS / study
    return home.is_dir() and any(path.is_dir() for path in home.iterdir())


def _check_unchanged(share: Path, lists: Mapping[str, dict[str, Any]]) -> None:
    for name, worklist in lists.items():
        path = share / worklist_path(name)
        if path.exists() and read_json(path, "restore it from your backup") != worklist:
            raise InputError(
                f"readers have started, and the worklist of {name} would change now: restore the study file and the "
                "proposals, or begin a new study"
            )
