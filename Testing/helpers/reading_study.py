"""A study of two tiny patients, planned and given out, for a reader before the window."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import SimpleITK as sitk
from tiny_study import tiny_patient

from soars.formats import write_seg_nrrd
from soars.study.plan.issue import issue
from soars.study.plan.model import read_plan
from soars.study.plan.prepare import prepare
from soars.study.simulation.make import SimulationOptions

ORGANS = ("Brainstem", "Eye_L", "Lens_L", "Parotid_L")
STUDY = """\
schema: 1
name: pilot
seed: 3
organs: [Brainstem, Eye_L, Lens_L, Parotid_L]
washout_days: 14
arms:
  - {name: model, contours: model}
  - {name: hand, proposal: none}
readers:
  - {name: R1}
cases:
  - {name: practice, ct: cts/practice.nrrd, phase: training}
  - {name: case-01, ct: cts/case-01.nrrd}
"""


def make_lead(folder: Path) -> Path:
    """The lead's folder: one case to practise, one to read, the model's contours of both, and R1's worklist."""
    for part in ("cts", "model"):
        (folder / part).mkdir(parents=True)
    for number, name in enumerate(("practice", "case-01"), start=1):
        ct, structures, _ = tiny_patient(number, folder, SimulationOptions(dose=False))
        sitk.WriteImage(ct, str(folder / "cts" / f"{name}.nrrd"), True)
        write_seg_nrrd(structures.subset(ORGANS), folder / "model" / f"{name}.seg.nrrd")
    (folder / "study.yaml").write_text(STUDY)
    plan = read_plan(folder)
    prepare(plan, folder)
    issue(plan, folder)
    return folder


def finish(visit: Any) -> None:
    """As the button does; the tests' user says yes."""
    visit.window.timing.panel.finish.click()
    assert visit.window.desk.running_session is None
