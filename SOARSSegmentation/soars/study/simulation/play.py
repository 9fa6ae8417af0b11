"""A simulated reader works through a session: the log is written by the real recorder on a clock set by hand."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace
from datetime import datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from soars.effort.change import OrganChange, organ_change
from soars.effort.log import PROPOSAL_FILE, RESULT_FILE, new_log_path, session_folder
from soars.effort.recorder import Recorder
from soars.effort.records import Header
from soars.effort.timing import IDLE_S, NS
from soars.effort.writer import LogWriter
from soars.study.desk import Item, Worklist, header_of_item
from soars.study.ledger import write_checksums
from soars.study.simulation.truth import SessionWork

if TYPE_CHECKING:
    from soars.structures import Mask, StructureSet

GAP_S = 4.0
"""Longest time between two acts of a working reader."""
_LOOKS_LONG = 0.05
"""In this share of organs the reader looks longer than the idle threshold without touching anything."""
_PAUSES = 0.3


class HandClock:
    """A clock in nanoseconds that advances only when told to."""

    def __init__(self) -> None:
        self.ns = 0

    def __call__(self) -> int:
        return self.ns

    def step(self, seconds: float) -> None:
        self.ns += round(seconds * NS)


def play_session(
    worklist: Worklist,
    item: Item,
    work: SessionWork,
    proposal: StructureSet | None,
    wanted: StructureSet,
    started: datetime,
    *,
    skill: float,
    seed: int,
) -> datetime:
    """Write a whole session and return when it ended, UTC.

    ``proposal`` is what the reader is given (None: from scratch), ``wanted`` what they think right.
    """
    from soars.formats import write_seg_nrrd
    from soars.structures import StructureSet

    rng = np.random.default_rng([seed, item.number])
    voxel = wanted.geometry.spacing
    header = replace(
        header_of_item(worklist, item, {"soars": "simulated"}),
        started_utc=started.strftime("%Y-%m-%dT%H:%M:%SZ"),
        voxel_size_mm=(float(voxel[0]), float(voxel[1]), float(voxel[2])),
    )
    folder = session_folder(worklist.sessions, header)
    result = StructureSet(wanted.geometry)
    for organ, one in work.organs.items():
        before = None if proposal is None or organ not in proposal else proposal.crop(organ)
        after = result_of(before, wanted.crop(organ), one.category, skill, rng)
        result.add_mask(organ, after)
    if proposal is not None:
        write_seg_nrrd(proposal.subset([o for o in header.organs if o in proposal]), folder / PROPOSAL_FILE)
    write_seg_nrrd(result, folder / RESULT_FILE)
    seconds = _write_log(folder, header, work, proposal, result, rng)
    write_checksums(folder)
    return started + timedelta(seconds=seconds)


def result_of(
    before: Mask | None, wanted: Mask, category: str, skill: float, rng: np.random.Generator
) -> Mask:
    """The organ as a reader leaves it: as proposed where nothing is to be done, else as wanted in a share ``skill`` of
    its slices. An organ that is edited differs from its proposal in at least one voxel."""
    from soars.structures import tight_mask

    if category == "none" and before is not None:
        return before
    box = wanted.bounds if before is None else wanted.bounds | before.bounds
    right = wanted.within(box)
    given = right if before is None else before.within(box)
    taken = rng.random(len(right)) < skill
    out = np.where(taken[:, None, None], right, given if before is not None else _shifted(right))
    if before is not None and np.array_equal(out, given):
        out = right.copy()
        if np.array_equal(out, given):  # the proposal was right: one voxel of it goes
            out[tuple(np.argwhere(out)[0])] = False
    return tight_mask(out, box.start)


def _shifted(array: np.ndarray) -> np.ndarray:
    """Shift by one voxel towards the patient's left: how one hand differs from another."""
    out = np.zeros_like(array)
    out[:, :, :-1] = array[:, :, 1:]
    return out


def _write_log(
    folder: Path,
    header: Header,
    work: SessionWork,
    proposal: StructureSet | None,
    result: StructureSet,
    rng: np.random.Generator,
) -> float:
    clock = HandClock()
    recorder = Recorder(LogWriter.create(new_log_path(folder), header, clock))
    clock.step(2.0)
    changes = {organ: _change(organ, proposal, result) for organ in header.organs}
    for organ, one in work.organs.items():
        recorder.select(organ)
        _act(recorder, clock, one.active_s, rng)
        if changes[organ].changed:
            recorder.edit(organ)
        recorder.judge(organ, 5 if not changes[organ].changed else int(rng.integers(2, 5)))
        recorder.accept(organ, changes[organ])
        clock.step(0.5)
        if rng.random() < _PAUSES / len(work.organs):
            recorder.pause()
            clock.step(float(rng.uniform(60, 900)))
            recorder.resume()
    with recorder.busy("save"):
        clock.step(1.0)
        for organ, change in changes.items():
            recorder.snapshot(organ, change)
        recorder.saved(RESULT_FILE)
    recorder.end()
    return clock.ns / NS


def _act(recorder: Recorder, clock: HandClock, active_s: float, rng: np.random.Generator) -> None:
    """Active time, in acts that are never `GAP_S` apart, now and then with one long look of which `IDLE_S` count."""
    left = active_s
    if left > IDLE_S + GAP_S and rng.random() < _LOOKS_LONG:
        clock.step(IDLE_S + float(rng.uniform(5, 60)))
        recorder.interaction("wheel")
        left -= IDLE_S
    while left > 0:
        step = min(left, float(rng.uniform(0.5, 1)) * GAP_S)
        clock.step(step)
        left -= step
        recorder.interaction("wheel" if left > 0 else "press")


def _change(organ: str, proposal: StructureSet | None, result: StructureSet) -> OrganChange:
    from soars.structures import tight_mask

    after = result.crop(organ)
    empty = tight_mask(np.zeros((0, 0, 0), dtype=bool))
    before = empty if proposal is None or organ not in proposal else proposal.crop(organ)
    return organ_change(before, after, result.geometry.voxel_cc)


def voxel_error(reference: StructureSet, organs: Iterable[str], rng: np.random.Generator) -> StructureSet:
    """A model's contours: each organ of the reference moved by up to one voxel along each axis, never by none."""
    from soars.structures import StructureSet, tight_mask

    out = StructureSet(reference.geometry)
    for organ in organs:
        mask = reference.crop(organ)
        if mask.is_empty:
            out.add_mask(organ, mask)
            continue
        while True:
            move = [int(v) for v in rng.integers(-1, 2, 3)]
            start = [a + m for a, m in zip(mask.start, move, strict=True)]
            stop = [b + m for b, m in zip(mask.stop, move, strict=True)]
            fits = min(start) >= 0 and all(
                b <= n for b, n in zip(stop, reference.geometry.shape, strict=True)
            )
            if any(move) and fits:
                break
        out.add_mask(organ, tight_mask(mask.array, start))
    return out
