"""From a CT to a reviewed, exported structure set, folder by folder, with the real child process on the real core."""

from __future__ import annotations

import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import SimpleITK as sitk

pytest.importorskip("slicer", reason="slicer-core is not installed")
import pydicom
from mrml_core import CoreDesk
from tiny_bundle import ABSENT, FOUND, patient, write_tiny_bundle

from soars.ct.series import read_series
from soars.dicom.rtstruct import read_rtstruct
from soars.dicom.write import write_ct_series
from soars.effort.log import read_session, session_logs
from soars.effort.records import Header
from soars.effort.timing import session_timing
from soars.errors import InputError
from soars.formats.segnrrd import read_seg_nrrd
from soars.structures import Geometry
from SOARSSegmentationLib.export.rtstruct import export_rtstruct
from SOARSSegmentationLib.export.session_log import export_log
from SOARSSegmentationLib.run import results
from SOARSSegmentationLib.run.runner import Runner, RunOptions
from SOARSSegmentationLib.scene import proposal
from SOARSSegmentationLib.scene.ct import ct_file
from SOARSSegmentationLib.session.editing import ABSENT as ABSENT_STATE
from SOARSSegmentationLib.session.editing import EditingSession

FREE = np.s_[2:5, 20:24, 20:24]


@pytest.fixture
def ct_files(tmp_path: Path) -> list[Path]:
    return write_ct_series(patient().image, tmp_path / "dicom", patient_id="P", patient_name="N")


def segmented(core: Any, ct: Any, folder: Path) -> results.Result:
    made: list[results.Result] = []
    runner = Runner(
        sys.executable,
        folder / "temporary",
        on_finished=lambda output: made.append(results.add_result(core.scene, ct, output)),
        on_failed=lambda failure: pytest.fail(failure.report),
    )
    bundle = write_tiny_bundle(folder / "tiny")
    runner.start(lambda temporary: ct_file(ct, temporary), RunOptions(str(bundle), "cpu"))
    while runner.running:
        runner.poll()
        time.sleep(0.02)
    return made[0]


def test_from_a_ct_to_a_reviewed_structure_set(core: Any, tmp_path: Path, ct_files: list[Path]) -> None:
    image, series, _ = read_series(tmp_path / "dicom")
    ct = core.add_ct(Geometry.of(image), sitk.GetArrayFromImage(image))
    result = segmented(core, ct, tmp_path)
    node, organs = result.segmentation_node, tuple(result.proposal.masks)

    # The reader paints in one organ, and draws one that was not found.
    desk = CoreDesk(core, ct, node)
    header = Header(
        "pilot", "case-1", "R1", "revise", organs, "tiny", result.record.bundle.sha256, {"soars": "0"}
    )
    session = EditingSession.begin(
        node, ct, result.proposal.masks, tmp_path / "session", header, editor_node=desk.editor
    )
    assert session.states()[ABSENT] == ABSENT_STATE
    for organ in ("Brainstem", ABSENT):
        session.select(session.segment_ids[organ])
        desk.paint(FREE if organ == ABSENT else np.s_[24:26, 30:32, 60:70])
        session.accept(organ)
    session.select(session.segment_ids["SpinalCord"])
    session.accept("SpinalCord")
    session.finish()

    log = read_session(session_logs(tmp_path / "session"))
    assert log.complete and session_timing(log).organs["Brainstem"].wall_s > 0
    changed = {organ for organ, change in session.changes().items() if change.changed}
    assert changed == {"Brainstem", ABSENT}
    saved = read_seg_nrrd(tmp_path / "session" / "proposal.seg.nrrd")
    for organ in FOUND:
        assert saved.crop(organ).equals(result.proposal.masks[organ])

    # One organ goes back to what was proposed; all go to the planning system, on the original CT.
    proposal.restore(node, "Brainstem")
    exported = export_rtstruct(node, ct, tmp_path / "rtstruct.dcm", files=[str(file) for file in ct_files])
    back = read_rtstruct(exported.path, Geometry.of(image), series)
    assert set(back.names) == set(organs)
    for organ in FOUND:
        assert back.crop(organ).equals(result.proposal.masks[organ])
    assert back.voxels(ABSENT) == 3 * 4 * 4
    assert pydicom.dcmread(exported.path).StudyInstanceUID == series.study_uid
    export_log(tmp_path / "session", tmp_path / "copy")
    names = sorted(path.name for path in (tmp_path / "copy").iterdir())
    assert names == ["1.effort.jsonl", "proposal.seg.nrrd", "result.seg.nrrd"]
    desk.close()


def test_a_result_that_cannot_be_kept_leaves_the_scene_as_it_was(
    core: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    scan = patient()
    ct = core.add_ct(Geometry.of(scan.image), sitk.GetArrayFromImage(scan.image))
    before, items = core.scene.GetNumberOfNodes(), core.subject_hierarchy.GetNumberOfItems()

    def fail(*arguments: Any, **options: Any) -> None:
        raise InputError("no memory for the proposal")

    monkeypatch.setattr(proposal, "keep_proposal", fail)
    said: list[str] = []
    runner = Runner(
        sys.executable,
        tmp_path / "temporary",
        on_finished=lambda output: results.add_result(core.scene, ct, output),
        on_failed=lambda failure: said.append(failure.message),
    )
    bundle = write_tiny_bundle(tmp_path / "tiny")
    runner.start(lambda folder: ct_file(ct, folder), RunOptions(str(bundle), "cpu"))
    while runner.running:
        runner.poll()
        time.sleep(0.02)
    assert said == ["no memory for the proposal"]
    assert core.scene.GetNumberOfNodes() == before
    assert core.subject_hierarchy.GetNumberOfItems() == items
