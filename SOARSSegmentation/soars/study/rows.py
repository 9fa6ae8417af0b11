"""One row per session and organ: everything that a study's analysis knows about it, as a dataclass and as a line of a
table."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import astuple, dataclass, fields
from pathlib import Path

from soars.cells import HarmlessWriter
from soars.effort.review import ACCEPTED
from soars.files import replacing_file

THRESHOLDS_S = (10.0, 20.0, 30.0, 60.0, 120.0, math.inf)
"""Idle thresholds at which active time is computed besides the study's own."""


@dataclass(frozen=True)
class EditAmount:
    """How much an organ was edited: its proposal compared with its result, by `soars.metrics.score_masks`
    (definition of surface-distance). Nothing changed: DSC and surface DSC 1, the rest 0. Drawn from scratch: nan but
    for the volumes."""

    dsc: float
    hd_mm: float
    hd95_mm: float
    asd_mm: float
    surface_dsc: float
    apl_mm: float
    proposal_cc: float
    result_cc: float


@dataclass(frozen=True)
class OrganRow:
    """One organ in one session.

    Attributes:
        session: name of its folder; study, reader, site, case as the plan says.
        arm: its name, or its code in an analysis without the key; ``arm_code`` as the log says.
        from_scratch: whether there was no proposal.
        phase, repeat, sequence: see `soars.effort.records`; started_utc of the session's first log.
        finished: the session came to its end.
        organ, stratum: of the catalogue.
        state: "not_reviewed", "in_progress" or "accepted".
        active_s ... paused_s: the organ's times at the study's idle threshold; wall_s is their sum.
        edits, undos, redos: counted from the log.
        category: "none", "minor", "moderate", "major", or "" for an organ drawn from scratch or never compared.
        voxels_added, voxels_removed: against the proposal; -1 where the log holds no comparison.
        edited_cc: volume of both.
        edit_*, proposal_cc, result_cc: see `EditAmount`; nan where proposal or result is not beside the log.
        score, reason, comment: the reader's judgement; score 0 when there is none.
        session_active_s, session_unattributed_s, session_wall_s: of the whole session, the same in all its rows.
        active_10_s ...: active time at other idle thresholds.
    """

    study: str
    session: str
    reader: str
    site: str
    case: str
    arm: str
    arm_code: str
    from_scratch: bool
    phase: str
    repeat: int
    sequence: int
    started_utc: str
    finished: bool
    organ: str
    stratum: str
    state: str
    active_s: float
    idle_s: float
    busy_s: float
    paused_s: float
    wall_s: float
    edits: int
    undos: int
    redos: int
    category: str
    voxels_added: int
    voxels_removed: int
    edited_cc: float
    edit_dsc: float
    edit_hd_mm: float
    edit_hd95_mm: float
    edit_asd_mm: float
    edit_surface_dsc: float
    edit_apl_mm: float
    proposal_cc: float
    result_cc: float
    score: int
    reason: str
    comment: str
    session_active_s: float
    session_unattributed_s: float
    session_wall_s: float
    active_10_s: float
    active_20_s: float
    active_30_s: float
    active_60_s: float
    active_120_s: float
    active_all_s: float
    proposal_sha256: str
    ct_sha256: str
    voxel_x_mm: float
    voxel_y_mm: float
    voxel_z_mm: float
    bundle: str
    bundle_version: str
    bundle_sha256: str
    software: str

    @property
    def is_reading(self) -> bool:
        """False for an organ that was neither proposed nor drawn, and neither accepted as absent nor judged: it took no
        time because nothing was done."""
        nothing = self.voxels_added == self.voxels_removed == 0 and self.result_cc == 0
        return not nothing or self.state == ACCEPTED or bool(self.score or self.reason)

    def active_at(self, threshold_s: float) -> float:
        """Active seconds at one of `THRESHOLDS_S`."""
        return float(getattr(self, threshold_field(threshold_s)))


def threshold_field(threshold_s: float) -> str:
    """The field of a threshold: "active_30_s"; "active_all_s" without one."""
    return "active_all_s" if math.isinf(threshold_s) else f"active_{threshold_s:g}_s"


COLUMNS = tuple(field.name for field in fields(OrganRow))


def write_rows(rows: Sequence[OrganRow], path: Path, *, overwrite: bool = True) -> None:
    """Write the rows as CSV, all or nothing."""
    write_table(path, COLUMNS, (astuple(row) for row in rows), overwrite=overwrite)


def write_table(
    path: Path, columns: Sequence[str], lines: Iterable[Sequence[object]], *, overwrite: bool = True
) -> None:
    """Write a CSV file, all or nothing: numbers to six digits, nan as an empty cell, and texts of readers so that no
    spreadsheet takes them for a formula."""
    with (
        replacing_file(path, overwrite=overwrite) as temporary,
        temporary.open("w", newline="", encoding="utf-8") as file,
    ):
        writer = HarmlessWriter(file)
        writer.writerow(columns)
        writer.writerows([cell(value) for value in line] for line in lines)


def cell(value: object) -> str:
    """A value as written in a table."""
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, float):
        return "" if math.isnan(value) else f"{value:.6g}"
    return "" if value is None else str(value)
