"""An opened study folder: its plan if there is one, what it expects of sessions, and where they are."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from soars.effort.timing import IDLE_S
from soars.errors import InputError
from soars.progress import Reporter, ignore
from soars.study.desk import SESSIONS, Worklist, read_worklist
from soars.study.plan.model import STUDY_FILE, Plan, read_plan
from soars.study.plan.places import share_of, worklist_path
from soars.study.plan.prepare import read_key
from soars.study.sessions import Collection, Expected, collect_sessions, find_sessions


@dataclass(frozen=True)
class Opened:
    """A folder given to a command: ``plan`` is None for a folder that only holds sessions; ``folders`` are where the
    sessions are."""

    folder: Path
    plan: Plan | None
    worklists: tuple[Worklist, ...]
    expected: Expected
    folders: tuple[Path, ...]


def open_study(folder: Path, more: Sequence[Path] = (), study: str | None = None) -> Opened:
    """Open a lead's folder, or a folder of sessions; ``more`` are other sites' folders of sessions.

    Without a study file, worklists and key nothing is checked against a plan, and arms keep the names that the logs
    have;
    ``study`` then says which study's sessions are meant.
    """
    if not (folder / STUDY_FILE).exists():
        return Opened(folder, None, (), Expected(study=study, idle_s=IDLE_S), (folder, *more))
    plan = read_plan(folder)
    if study is not None and study != plan.name:
        raise InputError(f"{folder} is the study {plan.name}, not {study}")
    share = share_of(folder)
    worklists = tuple(
        read_worklist(share / worklist_path(reader.name))
        for reader in plan.readers
        if (share / worklist_path(reader.name)).exists()
    )
    expected = Expected(
        study=plan.name,
        items={one.reader: one.items for one in worklists} if worklists else None,
        organs={reader.name: reader.organs for reader in plan.readers},
        sites={reader.name: reader.site for reader in plan.readers},
        arms=read_key(folder),
        idle_s=plan.idle_s,
        washout_days=plan.washout_days,
    )
    return Opened(folder, plan, worklists, expected, (share / SESSIONS, *more))


def collect_study(
    opened: Opened, *, idle_s: float | None = None, processes: int = 1, progress: Reporter = ignore
) -> Collection:
    """Every session of an opened study, none if nobody has started; ``idle_s`` overrides the plan's threshold, for
    sensitivity. `InputError` when a folder without a plan holds no session."""
    expected = opened.expected if idle_s is None else replace(opened.expected, idle_s=idle_s)
    present = [folder for folder in opened.folders if folder.is_dir()]
    if opened.plan is not None and not find_sessions(present):
        return Collection((), ())
    return collect_sessions(present, expected, processes=processes, progress=progress)
