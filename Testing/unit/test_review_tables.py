"""A bundle's tables for the reviewer: read, checked, and told with the contours."""

from __future__ import annotations

import json
import math
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from tiny_bundle import patient, write_tiny_bundle

from soars.bundle.manifest import Bundle
from soars.bundle.store import load_bundle, write_manifest
from soars.errors import BundleError
from soars.findings.evidence import Evidence, evidence_of
from soars.findings.finding import ExpectedDsc
from soars.findings.norms import Norms, Spread
from soars.findings.review import Calibration, Curve, ReviewTables, Score, parse_review, read_review
from soars.run.segment import SegmentOptions, segment
from soars.structures import Geometry, StructureSet

CURVE = Curve((0.5, 0.7, 0.9), (0.4, 0.5, 0.8), (0.2, 0.4, 0.7), (0.6, 0.7, 0.9))
NORMS = Norms(
    {"Brainstem": Spread((3.0,), (0.2,), 40)}, {("Brainstem", "Larynx"): Spread((1, 2, 3), (4, 5, 6), 30)}
)
SCORED = Calibration(
    40, {"Brainstem": CURVE}, Score({"Brainstem": 0.1}, {"confidence": 0.5, "company": 0.25, "volume": -0.05})
)
TABLES = ReviewTables(Calibration(40, {"Brainstem": CURVE}), NORMS)


def with_review(folder: Path, text: str, **changes: Any) -> Bundle:
    write_tiny_bundle(folder)
    (folder / "review.json").write_text(text)
    manifest = json.loads((folder / "manifest.json").read_text())
    fields = {k: v for k, v in manifest.items() if k not in ("format_version", "card", "files")}
    return write_manifest(folder, {**fields, "review": "review.json", **changes})


def test_between_its_points_a_curve_is_linear_and_beyond_them_flat() -> None:
    assert CURVE.expected(0.8) == ExpectedDsc(0.65, 0.55, 0.8)
    assert CURVE.expected(0.1) == ExpectedDsc(0.4, 0.2, 0.6)
    assert CURVE.expected(1.0) == ExpectedDsc(0.8, 0.7, 0.9)
    assert Calibration(3, {"Brainstem": CURVE}).expected("Larynx", Evidence(0.8, 0.8)) is None
    assert Calibration(3, {"Brainstem": CURVE}).expected("Brainstem", Evidence(0.8, 0.1)) == CURVE.expected(
        0.8
    )


def test_a_score_weighs_all_evidence() -> None:
    """0.1 + 0.5 x 0.8 + 0.25 x 0.6 - 0.05 x 2 = 0.55, a quarter of the way from 0.5 to 0.7 on the curve."""
    evidence = Evidence(0.8, 0.6, volume=2.0, place=9.0)
    assert SCORED.expected("Brainstem", evidence) == CURVE.expected(0.55)
    assert SCORED.expected("Brainstem", replace(evidence, volume=200.0)) == CURVE.expected(0.0)
    assert SCORED.expected("Larynx", evidence) is None


def test_evidence_is_what_the_contours_are_and_what_is_usual() -> None:
    """Balls of 20 and 14 mm: halves of 33.5 and 11.5 cc, so the left one is 1.07 in the logarithm over the norm."""
    s = StructureSet(Geometry((80, 60, 50), (2.5, 2.5, 2.5), (-98.75, -73.75, -61.25)))
    points = s.geometry.to_physical(np.stack(np.indices(s.geometry.shape), -1))
    for name, centre, radius in (
        ("Parotid_L", (50, 0, 0), 20), ("Parotid_R", (-50, 0, 0), 14), ("Brainstem", (0, 10, 10), 15),
        ("Larynx", (0, -20, -55), 15),
    ):  # fmt: skip
        s.add(name, np.linalg.norm(points - centre, axis=-1) <= radius)
    usual = Spread((math.log(4 / 3 * math.pi * 1.4**3),), (0.5,), 40)
    places = {
        ("Brainstem", "Parotid_L"): Spread((-50.0, 10.0, 10.0), (5.0, 5.0, 5.0), 40),
        ("Brainstem", "Parotid_R"): Spread((50.0, 10.0, 25.0), (5.0, 5.0, 5.0), 40),
    }
    confidence = {"Parotid_L": 0.9, "Parotid_R": 0.8, "Brainstem": 0.7, "Larynx": 0.5, "Eye_L": 0.1}
    norms = Norms({name: usual for name in ("Parotid_L", "Parotid_R", "Larynx")}, places)
    known = evidence_of(s, confidence, norms)
    assert set(known) == set(s.names), "no more than there are contours"
    assert known["Parotid_L"].volume == pytest.approx(3 * math.log(20 / 14) / 0.5, rel=0.05)
    assert known["Parotid_R"].volume == pytest.approx(0, abs=0.1)
    assert known["Parotid_L"].size == known["Parotid_L"].volume, "larger than usual"
    smaller = Norms({"Parotid_R": Spread((usual.mean[0] + 1.0,), (0.5,), 40)}, {})
    assert evidence_of(s, confidence, smaller)["Parotid_R"].size == pytest.approx(-2.0, abs=0.1)
    assert evidence_of(s, {"Larynx": 0.5}, None, {"Larynx": 0.25})["Larynx"].spill == 0.25
    assert known["Parotid_L"].asymmetry == known["Parotid_R"].asymmetry == pytest.approx(1.07, rel=0.05)
    assert known["Brainstem"].place == pytest.approx(0, abs=0.2), "right by one of two is enough to be spared"
    assert known["Brainstem"].company == pytest.approx((0.9 + 0.8 + 0.5 + 0.1) / 4)
    assert known["Larynx"] == Evidence(0.5, pytest.approx((0.9 + 0.8 + 0.7 + 0.1) / 4)), "cut off by the scan"
    assert evidence_of(s, confidence, None)["Parotid_L"].volume == 0
    (alone,) = evidence_of(s, {"Larynx": 0.5}, None).values()
    assert alone == Evidence(0.5, 0.5)


def test_tables_survive_their_file() -> None:
    assert parse_review(TABLES.to_json().encode()) == TABLES
    scored = ReviewTables(SCORED, NORMS)
    assert parse_review(scored.to_json().encode()) == scored
    assert parse_review(ReviewTables().to_json().encode()) == ReviewTables()


def test_a_bundle_with_tables_is_of_format_2_and_one_without_needs_none(tmp_path: Path) -> None:
    plain = load_bundle(write_tiny_bundle(tmp_path / "plain"))
    assert plain.format_version == 1 and read_review(plain) == ReviewTables()
    bundle = with_review(tmp_path / "tables", TABLES.to_json())
    assert bundle.format_version == 2 and "review.json" in bundle.files
    assert read_review(load_bundle(bundle.folder)) == TABLES


def test_tables_that_were_changed_are_refused(tmp_path: Path) -> None:
    bundle = with_review(tmp_path / "b", TABLES.to_json())
    (bundle.folder / "review.json").write_text(TABLES.to_json().replace("0.4", "0.9"))
    for read in (lambda: load_bundle(bundle.folder), lambda: read_review(bundle)):
        with pytest.raises(BundleError, match="review.json (is damaged|was changed)"):
            read()


def test_tables_must_be_listed_and_belong_to_format_2(tmp_path: Path) -> None:
    bundle = with_review(tmp_path / "b", TABLES.to_json())
    path = bundle.folder / "manifest.json"
    manifest = json.loads(path.read_text())
    for change, said in (
        ({"review": "other.json"}, "not listed"),
        ({"format_version": 1}, "belongs to format 2"),
    ):
        path.write_text(json.dumps({**manifest, **change}))
        with pytest.raises(BundleError, match=said):
            load_bundle(bundle.folder)


@pytest.mark.parametrize(
    "damage",
    [
        lambda t: t.update(schema_version=9),
        lambda t: t.pop("norms"),
        lambda t: t["calibration"]["curves"].update(Kidney=t["calibration"]["curves"]["Brainstem"]),
        lambda t: t["calibration"]["curves"]["Brainstem"].update(confidence=[0.9, 0.7, 0.5]),
        lambda t: t["calibration"]["curves"]["Brainstem"].update(dsc=[0.4, 0.5]),
        lambda t: t["calibration"]["curves"]["Brainstem"].update(dsc=[0.4, 0.5, 80]),
        lambda t: t["calibration"]["curves"]["Brainstem"].update(low=[0.5, 0.6, 0.9]),
        lambda t: t["norms"]["volume"].update(Brainstem=[["x"], [1], 3]),
        lambda t: t["calibration"].update(score={"organs": {}, "weights": {"confidence": 1}}),
        lambda t: t["calibration"].update(score={"organs": {"Brainstem": 0}, "weights": {"beauty": 1}}),
        lambda t: t["calibration"].update(score={"organs": {"Brainstem": "x"}, "weights": {}}),
    ],
)  # fmt: skip
def test_tables_that_make_no_sense_are_a_bundle_error(tmp_path: Path, damage: Any) -> None:
    table = json.loads(TABLES.to_json())
    damage(table)
    bundle = with_review(tmp_path / "b", json.dumps(table))
    with pytest.raises(BundleError, match="not a table for reviewing"):
        read_review(bundle)


def test_the_expected_dsc_stands_with_the_organ_and_a_poor_one_is_a_finding(tmp_path: Path) -> None:
    poor = Curve((0.0, 1.0), (0.3, 0.3), (0.2, 0.2), (0.4, 0.4))
    good = Curve((0.0, 1.0), (0.9, 0.9), (0.8, 0.8), (1.0, 1.0))
    calibration = Calibration(40, {"Brainstem": good, "SpinalCord": poor})
    bundle = with_review(tmp_path / "b", ReviewTables(calibration).to_json())
    result = segment(patient(), bundle, SegmentOptions(engine="onnxruntime", threads=1))
    assert result.expected_dsc == {
        "Brainstem": ExpectedDsc(0.9, 0.8, 1.0),
        "SpinalCord": ExpectedDsc(0.3, 0.2, 0.4),
    }
    assert all(0 < result.confidence[name] <= 1 for name in result.expected_dsc)
    unsure = [f for f in result.findings if f.kind == "confidence"]
    assert [f.organ for f in unsure] == ["SpinalCord"] and "0.30 (0.20 to 0.40)" in unsure[0].text
    plain = replace(bundle, review=None)
    assert segment(patient(), plain, SegmentOptions(engine="onnxruntime", threads=1)).expected_dsc == {}
