"""Findings: one record with a place that can be gone to, the same in files of today and of before, in order of need."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path

import numpy as np
import pytest

from soars.errors import InputError
from soars.findings.finding import CHECK, KINDS, NOTE, SERIOUS, ExpectedDsc, Finding, Locator, Where
from soars.findings.order import by_need, in_order
from soars.report.record import (
    PRESENT,
    BundleRecord,
    CtRecord,
    EngineRecord,
    OrganRecord,
    RunRecord,
    read_run,
)
from soars.structures import Geometry

GEOMETRY = Geometry((40, 30, 20), (2.0, 2.0, 5.0), (-30.0, -30.0, 100.0))
UPSIDE_DOWN = Geometry((40, 30, 20), (2.0, 2.0, 5.0), (48.0, -30.0, 195.0), (-1, 0, 0, 0, 1, 0, 0, 0, -1))
WHERE = Where(7, "left", (12.0, -3.5, 130.0))


def left_of_5(points: np.ndarray) -> np.ndarray:
    return np.asarray(points)[..., 0] - 5.0


def finding(organ: str = "Parotid_L", severity: str = CHECK, kind: str = "hole") -> Finding:
    return Finding(organ, kind, severity, "it holds a cavity of 2 cc", "Fill it.", WHERE)


def test_a_place_is_told_in_slices_sides_and_millimetres() -> None:
    locator = Locator(GEOMETRY, left_of_5)
    assert locator.at_index(np.array([0, 10, 30])) == Where(1, "left", (30.0, -10.0, 100.0))
    assert locator.at_point(np.array([-20.0, 0.0, 131.0])) == Where(7, "right", (-20.0, 0.0, 131.0))
    assert locator.at_point(np.array([14.0, 0.0, 500.0])).side == "midline"
    assert locator.at_point(np.array([14.0, 0.0, 500.0])).slice_number == 20, "never beyond the last slice"


def test_sides_are_the_patients_whichever_way_the_slices_run() -> None:
    point = np.array([30.0, -10.0, 100.0])
    a, b = (Locator(g, left_of_5).at_point(point) for g in (GEOMETRY, UPSIDE_DOWN))
    assert a.side == b.side == "left" and a.point_mm == b.point_mm == (30.0, -10.0, 100.0)
    assert (a.slice_number, b.slice_number) == (1, 20)


def test_slices_are_the_axial_ones_of_a_sagittal_scan_too() -> None:
    sagittal = Geometry((30, 20, 40), (2.0, 5.0, 2.0), (-30.0, -30.0, 100.0), (0, 0, 1, 1, 0, 0, 0, 1, 0))
    where = Locator(sagittal, left_of_5).at_point(np.array([30.0, -10.0, 130.0]))
    assert where == Where(7, "left", (30.0, -10.0, 130.0))


def test_a_masks_place_lies_in_the_mask() -> None:
    ring = np.zeros((5, 9, 9), bool)
    ring[2, [0, -1], :] = ring[2, :, [0, -1]] = True
    where = Locator(GEOMETRY, left_of_5).in_mask(ring, (3, 4, 5))
    z, y, x = np.rint(GEOMETRY.to_index(where.point_mm)).astype(int)
    assert ring[z - 3, y - 4, x - 5] and where.slice_number == 6


def test_a_finding_reads_as_a_sentence_with_its_place() -> None:
    assert finding().sentence() == "it holds a cavity of 2 cc (slice 7, left)"
    assert dataclasses.replace(finding(), where=None).sentence() == "it holds a cavity of 2 cc"
    assert ExpectedDsc(0.824, 0.738, 0.881).text() == "0.82 (0.74 to 0.88)"


@pytest.mark.parametrize("change", [{"kind": "odd"}, {"severity": "terrible"}])
def test_kinds_and_severities_are_a_fixed_vocabulary(change: dict[str, str]) -> None:
    with pytest.raises(ValueError, match="no kind or severity"):
        dataclasses.replace(finding(), **change)


@pytest.mark.parametrize("kind", KINDS)
def test_a_finding_survives_json(kind: str) -> None:
    for one in (finding(kind=kind), dataclasses.replace(finding(kind=kind), where=None)):
        assert Finding.from_dict(json.loads(json.dumps(dataclasses.asdict(one)))) == one


def test_the_most_severe_organ_comes_first_then_the_least_certain() -> None:
    found = [finding("Parotid_L", NOTE), finding("Brainstem", CHECK), finding("Brainstem", SERIOUS)]
    expected = {"SpinalCord": ExpectedDsc(0.9, 0.8, 0.95), "Larynx": ExpectedDsc(0.6, 0.4, 0.7)}
    organs = ("SpinalCord", "Eye_L", "Larynx", "Parotid_L", "Brainstem")
    order = by_need(organs, found, expected)
    assert order == ("Brainstem", "Parotid_L", "Larynx", "SpinalCord", "Eye_L")
    assert [(f.organ, f.severity) for f in in_order(found, order)] == [
        ("Brainstem", SERIOUS),
        ("Brainstem", CHECK),
        ("Parotid_L", NOTE),
    ]


def record() -> RunRecord:
    one = finding()
    organ = OrganRecord(
        "Parotid_L", "Left parotid gland", "mid_level", PRESENT, warnings=(one.sentence(),), findings=(one,),
        expected_dsc=ExpectedDsc(0.8, 0.7, 0.9),
    )  # fmt: skip
    ct = CtRecord("ct", GEOMETRY.size, GEOMETRY.spacing, GEOMETRY.origin, GEOMETRY.direction, "LPS")
    return RunRecord(
        ct, BundleRecord("b", "1"), (organ,), EngineRecord("e", "cpu", "fp32"), findings=(one,),
        warnings=("the CT has a gap", f"{organ.label}: {one.sentence()}"), look_order=("Parotid_L",),
    )  # fmt: skip


def test_a_run_record_keeps_findings_and_expected_dsc(tmp_path: Path) -> None:
    path = tmp_path / "run.json"
    path.write_text(record().to_json(), encoding="utf-8")
    read = read_run(path)
    assert read.findings == read.organs[0].findings == (finding(),)
    assert read.organs[0].expected_dsc == ExpectedDsc(0.8, 0.7, 0.9)
    assert read.look_order == ("Parotid_L",)
    assert read.general_warnings == ("the CT has a gap",)


def test_a_record_of_version_1_gives_its_sentences_as_findings(tmp_path: Path) -> None:
    data = json.loads(record().to_json())
    data["schema_version"] = 1
    del data["findings"], data["look_order"]
    for organ in data["organs"]:
        del organ["findings"], organ["expected_dsc"]
    path = tmp_path / "run.json"
    path.write_text(json.dumps(data), encoding="utf-8")
    read = read_run(path)
    (old,) = read.findings
    assert (old.organ, old.kind, old.where) == ("Parotid_L", "other", None)
    assert old.text == finding().sentence() and read.organs[0].findings == (old,)


@pytest.mark.parametrize("field", ["severity", "where", "text"])
def test_a_record_with_a_damaged_finding_is_bad_input(tmp_path: Path, field: str) -> None:
    data = json.loads(record().to_json())
    data["findings"][0][field] = {"slice_number": "x"} if field == "where" else None
    if field == "text":
        del data["findings"][0][field]
    path = tmp_path / "run.json"
    path.write_text(json.dumps(data), encoding="utf-8")
    with pytest.raises(InputError, match="incomplete"):
        read_run(path)
