"""Studies for tests: patients of a few voxels, so that whole studies are simulated in seconds."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import datetime, timedelta, timezone
from pathlib import Path
from typing import Any

import numpy as np
import SimpleITK as sitk

from soars.catalogue import SOARS42
from soars.formats import read_seg_nrrd, write_seg_nrrd
from soars.structures import Geometry, StructureSet
from soars.study.desk import read_worklist
from soars.study.plan.issue import issue
from soars.study.plan.model import Plan, read_plan
from soars.study.plan.prepare import prepare
from soars.study.simulation.make import SimulationOptions, simulate_study, voxel_error
from soars.study.simulation.play import play_session
from soars.study.simulation.truth import Truth, draw_revising

SIZE = (24, 24, 30)
"""x, y, z voxels of 3 mm."""


def tiny_patient(number: int, folder: Path, options: SimulationOptions) -> tuple[Any, StructureSet, Any]:
    """A block of tissue with 42 organs of 3 x 2 x 3 voxels, none over another; the dose falls off with x."""
    rng = np.random.default_rng([options.seed, number])
    array = np.full(SIZE[::-1], 40, dtype=np.int16)
    array[:, :2], array[:, -2:] = -1000, 700
    array += rng.integers(-5, 6, array.shape).astype(np.int16)
    ct = sitk.GetImageFromArray(array)
    ct.SetSpacing((3.0, 3.0, 3.0))
    structures = StructureSet(Geometry.of(ct))
    for index, organ in enumerate(SOARS42):
        z, rest = divmod(index, 9)
        y, x = divmod(rest, 3)
        box = np.ones((3, 2, 3), dtype=bool)
        box[0, 0, 0] = rng.random() < 0.5
        structures.add_crop(organ, (2 + 5 * z, 5 + 5 * y, 2 + 6 * x), box)
    dose = sitk.Cast(
        sitk.GetImageFromArray(np.broadcast_to(70.0 - 2 * np.arange(SIZE[0]), SIZE[::-1])), sitk.sitkFloat32
    )
    dose.CopyInformation(ct)
    return ct, structures, dose if options.dose else None


def tiny_study(folder: Path, **options: Any) -> Plan:
    """A simulated study of such patients; options are those of `SimulationOptions`, and of `Truth` by their names."""
    truth = {name: options.pop(name) for name in list(options) if name in Truth.__dataclass_fields__}
    return simulate_study(folder, SimulationOptions(**options, truth=Truth(**truth)), patient=tiny_patient)


def shared_out_study(folder: Path, parts: Mapping[str, Sequence[str]], cases: int = 3) -> None:
    """A study read to its end in which each reader has a part of the organs: all revised, one case from scratch too."""
    organs = tuple(organ for part in parts.values() for organ in part)
    options = SimulationOptions(organs=organs)
    for part in ("cts", "references", "doses", "model"):
        (folder / part).mkdir(parents=True)
    names = [f"case-{number}" for number in range(1, cases + 1)]
    for number, name in enumerate(names, start=1):
        ct, structures, dose = tiny_patient(number, folder, options)
        sitk.WriteImage(ct, str(folder / "cts" / f"{name}.nrrd"), True)
        sitk.WriteImage(dose, str(folder / "doses" / f"{name}.nrrd"), True)
        reference = structures.subset(organs)
        write_seg_nrrd(reference, folder / "references" / f"{name}.seg.nrrd")
        moved = voxel_error(reference, organs, np.random.default_rng(number))
        write_seg_nrrd(moved, folder / "model" / f"{name}.seg.nrrd")
    (folder / "study.yaml").write_text(
        f"schema: 1\nname: shared\nseed: 2\norgans: [{', '.join(organs)}]\nbalance: minimisation\narms:\n"
        "  - {name: revise, contours: model}\n  - {name: scratch, proposal: none, cases: 1}\nreaders:\n"
        + "".join(f"  - {{name: {reader}, organs: [{', '.join(part)}]}}\n" for reader, part in parts.items())
        + "cases:\n"
        + "".join(
            f"  - {{name: {n}, ct: cts/{n}.nrrd, reference: references/{n}.seg.nrrd, dose: doses/{n}.nrrd}}\n"
            for n in names
        )
    )
    plan = read_plan(folder)
    prepare(plan, folder)
    issue(plan, folder)
    for reader in parts:
        worklist = read_worklist(folder / "share" / "worklists" / f"{reader}.json")
        keys = [("revise", 0, item.number) for item in worklist.items]
        truth = Truth(revise_minutes=0.2 * len(worklist.organs))
        works = draw_revising(truth, keys, worklist.organs, [1.0], seed=5)
        began, read = datetime(2026, 1, 5, 8, tzinfo=timezone.utc), dict[str, datetime]()
        for item, key in zip(worklist.items, keys, strict=True):
            if item.case in read:
                began = max(began, read[item.case] + timedelta(days=worklist.washout_days))
            wanted = read_seg_nrrd(folder / "references" / f"{item.case}.seg.nrrd")
            proposal = read_seg_nrrd(worklist.share / item.proposal) if item.proposal else None
            began = read[item.case] = play_session(
                worklist, item, works[key], proposal, wanted, began, skill=1.0, seed=1
            )
            began += timedelta(hours=1)
