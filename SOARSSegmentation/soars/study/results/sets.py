"""The contour sets of a study: proposals, what readers made of them, contours from scratch, and observers'."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from soars.effort.log import RESULT_FILE
from soars.errors import InputError
from soars.metrics.cases import CasePair
from soars.study.load import Opened
from soars.study.plan.places import proposal_path, share_of
from soars.study.plan.prepare import arm_codes, contours_of
from soars.study.sessions import Collection

log = logging.getLogger(__name__)

PROPOSAL, RESULT, OBSERVER = "proposal", "result", "observer"


@dataclass(frozen=True)
class ContourSet:
    """Contours of one origin: ``name`` for people, ``kind`` one of `PROPOSAL`, `RESULT`, `OBSERVER`; ``arm`` and
    ``reader`` "" where there is none; case -> file or folder. ``organs`` are those that were to be drawn, None for all:
    where readers share out the organs, another's are not missing from their contours."""

    name: str
    kind: str
    arm: str
    reader: str
    paths: Mapping[str, Path]
    organs: tuple[str, ...] | None = None

    def asked_for(self, organ: str) -> bool:
        return self.organs is None or organ in self.organs


def contour_sets(opened: Opened, collection: Collection) -> list[ContourSet]:
    """Every set of the study: first the proposals, then results by arm and reader, then observers."""
    plan = opened.plan
    if plan is None:
        return []
    sets = []
    main = {case.name for case in plan.main_cases}
    codes = arm_codes(plan)
    for arm in plan.arms:
        paths = {c: share_of(opened.folder) / proposal_path(c, codes[arm.name]) for c in sorted(main)}
        there = {case: path for case, path in paths.items() if path.is_file()}
        if there and not arm.from_scratch:
            sets.append(ContourSet(f"{arm.name}, proposed", PROPOSAL, arm.name, "", there))
    for arm in plan.arms:
        for reader in plan.readers:
            results = _results(collection, arm.name, reader.name)
            if results:
                name = f"{arm.name}, {reader.name}"
                sets.append(ContourSet(name, RESULT, arm.name, reader.name, results, reader.organs))
    for observer in plan.observers:
        drawn = {}
        for case in sorted(main):
            try:
                drawn[case] = contours_of(observer.contours, case)
            except InputError as error:
                log.warning("%s: %s", observer.name, error)
        if not drawn:
            raise InputError(f"observer {observer.name}: {observer.contours} holds the contours of no case")
        sets.append(ContourSet(observer.name, OBSERVER, "", observer.name, drawn))
    return sets


def pairs_of(first: ContourSet, second: Mapping[str, Path], cts: Mapping[str, Path | None]) -> list[CasePair]:
    """The cases that both have, ``second`` as the reference."""
    return [
        CasePair(case, path, second[case], cts.get(case))
        for case, path in sorted(first.paths.items())
        if case in second
    ]


def references(opened: Opened) -> dict[str, Path]:
    """Case -> its reference contours, of the main cases that have them."""
    if opened.plan is None:
        return {}
    return {case.name: case.reference for case in opened.plan.main_cases if case.reference is not None}


def cts(opened: Opened) -> dict[str, Path | None]:
    """Case -> its CT; None where the plan has none."""
    return {} if opened.plan is None else {case.name: case.ct for case in opened.plan.cases}


def _results(collection: Collection, arm: str, reader: str) -> dict[str, Path]:
    found = {}
    for session in collection.sessions:
        row = session.rows[0] if session.rows else None
        if row is None or not session.finished or (row.arm, row.reader) != (arm, reader):
            continue
        path = session.folder / RESULT_FILE
        if row.phase == "main" and row.repeat == 1 and path.is_file():
            found[row.case] = path
    return found


def human_pairs(sets: Sequence[ContourSet]) -> list[tuple[ContourSet, ContourSet]]:
    """Sets by different people that answer the same question: results in the same arm, and observers with observers and
    with results from any arm."""
    people = [one for one in sets if one.kind != PROPOSAL]
    pairs = []
    for index, first in enumerate(people):
        for second in people[index + 1 :]:
            same_arm = first.kind == second.kind == RESULT and first.arm == second.arm
            if same_arm or OBSERVER in (first.kind, second.kind):
                pairs.append((first, second))
    return pairs
