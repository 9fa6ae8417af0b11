"""Calibration and norms from cases: what is fitted is what the cases hold, and a bundle gets it whole."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from scipy.stats import spearmanr
from tiny_bundle import FOUND, patient, write_tiny_bundle

from soars.bundle.store import load_bundle
from soars.errors import InputError
from soars.findings.evidence import Evidence
from soars.findings.review import read_review
from soars.run.segment import SegmentOptions, segment
from soars.structures import Geometry, StructureSet
from soars_training.cli import main
from soars_training.cohorts.prepare import SourceCase
from soars_training.commands import arguments
from soars_training.commands.calibrate import _drawn
from soars_training.release import review
from soars_training.release.evaluate import evaluate_bundle
from soars_training.release.review import Sample


def test_a_curve_follows_what_was_reached_and_its_interval_holds_most_of_it() -> None:
    """DSC = confidence squared, plus or minus 0.05 evenly: a tenth lies beyond either end of the interval."""
    rng = np.random.default_rng(1)
    confidence = rng.uniform(0.5, 0.95, 400)
    dsc = confidence**2 + rng.uniform(-0.05, 0.05, 400)
    curve = review.fit_curve(confidence, dsc)
    for c in (0.6, 0.7, 0.8, 0.9):
        assert curve.expected(c).value == pytest.approx(c**2, abs=0.03)
    new = rng.uniform(0.55, 0.9, 1000)
    reached = new**2 + rng.uniform(-0.05, 0.05, 1000)
    inside = [curve.expected(c).low <= d <= curve.expected(c).high for c, d in zip(new, reached, strict=True)]
    assert 0.7 < np.mean(inside) < 0.95


def test_a_curve_never_falls_however_the_samples_lie() -> None:
    rng = np.random.default_rng(2)
    for n in (8, 13, 40):
        curve = review.fit_curve(rng.uniform(0.7, 0.71, n), rng.uniform(0, 1, n))
        assert (np.diff(curve.dsc) >= 0).all() and (np.diff(curve.confidence) > 0).all()
        assert min(curve.low) >= 0 and max(curve.high) <= 1


def _sample(case: int, organ: str, confidence: float, dsc: float, **more: float) -> Sample:
    return Sample(f"p{case}", organ, Evidence(confidence, more.pop("company", 0.8), **more), dsc)


def test_a_curve_tells_the_least_and_the_most_sure_contours_apart() -> None:
    """Beyond the samples too: they rise by 0.8 of the confidence, and so does the curve, up to a DSC of 1."""
    confidence = np.linspace(0.5, 0.9, 80)
    curve = review.fit_curve(confidence, 0.1 + 0.8 * confidence)
    for c in (0.1, 0.3, 0.45, 0.95):
        assert curve.expected(c).value == pytest.approx(0.1 + 0.8 * c, abs=0.01)
    assert curve.expected(1.0).value == pytest.approx(0.9, abs=0.01)


def test_an_organ_with_few_samples_gets_no_curve() -> None:
    rows = [_sample(i, "Brainstem", 0.5 + i / 100, 0.6) for i in range(8)]
    rows += [_sample(i, "Larynx", 0.5, 0.6) for i in range(3)]
    calibration = review.fit_calibration(rows)
    assert set(calibration.curves) == {"Brainstem"} and calibration.patients == 8


def _cohort(patients: int, seed: int) -> list[Sample]:
    """DSC = 0.2 + 0.6 company + 0.2 confidence - 0.05 volume, 0.1 less for the larynx; place says nothing."""
    rng = np.random.default_rng(seed)
    rows = []
    for case in range(patients):
        company = rng.uniform(0.5, 0.95)
        for organ in ("Brainstem", "Larynx", "Parotid_L", "Parotid_R"):
            confidence, volume, place = rng.uniform(0.5, 0.95), rng.exponential(1.0), rng.exponential(1.0)
            dsc = 0.2 + 0.6 * company + 0.2 * confidence - 0.05 * volume - 0.1 * (organ == "Larynx")
            noise = rng.normal(0, 0.02)
            rows.append(
                _sample(case, organ, confidence, dsc + noise, company=company, volume=volume, place=place)
            )
    return rows


def test_a_score_finds_what_the_dsc_depends_on() -> None:
    score, _ = review.fit_score(_cohort(80, 1), 1.0)
    assert score.weights["company"] == pytest.approx(0.6, abs=0.06)
    assert score.weights["confidence"] == pytest.approx(0.2, abs=0.05)
    assert score.weights["volume"] == pytest.approx(-0.05, abs=0.01)
    assert abs(score.weights.get("place", 0.0)) < 0.01
    others = np.mean([score.organs[organ] for organ in ("Brainstem", "Parotid_L", "Parotid_R")])
    assert score.organs["Larynx"] - others == pytest.approx(-0.1, abs=0.02)


def test_a_patients_other_scan_does_not_tell_how_well_he_is_drawn() -> None:
    """The curve rests on scores of contours that the fit has not seen, and two scans of one patient are much alike."""
    rows = [replace(row, patient=f"q{int(row.case[1:]) // 2}") for row in _cohort(12, 1)]
    assert review.fit_calibration(rows).patients == 6
    worse = [replace(row, dsc=0.3) if row.case == "p1" else row for row in rows]
    mine = [number for number, row in enumerate(rows) if row.patient == "q0"]
    before, after = (review._held_out_scores(some, 1.0) for some in (rows, worse))
    assert np.array_equal(before[mine], after[mine]) and not np.allclose(before, after)
    patients = {f"c{n}": f"p{n // 2}" for n in range(6)}
    assert set(_drawn(patients, "c1,c2", 2)) == {"c4", "c5"}
    with pytest.raises(InputError, match="2 cases are of patients not held out"):
        _drawn(patients, "c1,c2", 3)


def test_what_was_contoured_on_some_slices_is_measured_on_these(tmp_path: Path) -> None:
    """Against its own contour on every third slice a bundle has a DSC of 1; how large the organ is nobody has said."""
    bundle, scan = load_bundle(str(write_tiny_bundle(tmp_path / "tiny"))), patient()
    found = segment(scan, bundle, SegmentOptions(engine="onnxruntime")).structures
    thin = StructureSet(found.geometry)
    for organ in FOUND:
        mask = found.full(organ)
        if organ == "SpinalCord":
            mask[np.arange(len(mask)) % 3 > 0] = False
        thin.add(organ, mask)
    case = SourceCase("a", "train", scan.image, thin, frozenset(FOUND), frozenset({"SpinalCord"}))
    scores = {score.organ: score for score in evaluate_bundle(bundle.folder, [case], engine="onnxruntime")}
    assert scores["SpinalCord"].dsc == scores["Brainstem"].dsc == 1
    assert (
        scores["SpinalCord"].volume_cc
        == scores["SpinalCord"].reference_volume_cc
        == thin.volume_cc("SpinalCord")
    )
    assert [s.organ for s in review.collect_samples(bundle, [case], "onnxruntime")] == ["Brainstem"]


def test_a_weight_never_has_the_wrong_sign() -> None:
    """Twelve patients in whom, by chance or by bad references, the surest contours are the worst."""
    rng = np.random.default_rng(3)
    rows = [
        _sample(case, "Brainstem", c := rng.uniform(0.5, 0.9), 1.2 - c, volume=v, place=v)
        for case in range(12)
        for v in [rng.uniform(0, 3)]
    ]
    weights = review.fit_score(rows, 1.0)[0].weights
    assert "confidence" not in weights and all(weights.get(k, 0) <= 0 for k in ("volume", "place"))


def test_patients_that_the_fit_has_not_seen_come_in_the_right_order() -> None:
    calibration = review.fit_calibration(_cohort(30, 4))
    new = _cohort(40, 5)
    expected = [calibration.expected(row.organ, row.evidence) for row in new]
    values = [e.value for e in expected if e is not None]
    assert len(values) == len(new) and spearmanr(values, [row.dsc for row in new])[0] > 0.9
    inside = [e.low <= row.dsc <= e.high for e, row in zip(expected, new, strict=True) if e is not None]
    assert 0.6 < np.mean(inside) < 0.97


def test_what_patients_gain_by_having_been_learned_from_is_taken_off() -> None:
    """Of 120 patients 90 are 0.05 better than others would be: neither score nor curve promises that to a new one."""
    rows = [
        replace(row, learned=int(row.case[1:]) < 90, dsc=row.dsc + 0.05 * (int(row.case[1:]) < 90))
        for row in _cohort(120, 7)
    ]
    score, gain = review.fit_score(rows, 1.0)
    assert gain == pytest.approx(0.05, abs=0.01)
    honest, nothing = review.fit_score(_cohort(120, 7), 1.0)
    assert nothing == 0 and score.organs["Larynx"] == pytest.approx(honest.organs["Larynx"], abs=0.02)
    calibration, new = review.fit_calibration(rows), _cohort(60, 8)
    expected = [calibration.expected(row.organ, row.evidence) for row in new]
    off = [e.value - row.dsc for e, row in zip(expected, new, strict=True) if e is not None]
    assert np.mean(off) == pytest.approx(0, abs=0.01)


def test_the_interval_is_that_of_patients_that_were_not_learned_from() -> None:
    """They vary by 0.1 to either side, the three times as many others not at all."""
    rng = np.random.default_rng(4)
    confidence, unseen = rng.uniform(0.5, 0.9, 400), np.arange(400) % 4 == 0
    curve = review.fit_curve(confidence, confidence + rng.uniform(-0.1, 0.1, 400) * unseen, unseen)
    expected = curve.expected(0.7)
    assert expected.low == pytest.approx(0.62, abs=0.015) and expected.high == pytest.approx(0.78, abs=0.015)


def test_patients_that_were_learned_from_and_do_worse_gain_nothing() -> None:
    rows = [
        replace(row, learned=int(row.case[1:]) < 30, dsc=row.dsc - 0.05 * (int(row.case[1:]) < 30))
        for row in _cohort(60, 9)
    ]
    assert review.fit_score(rows, 1.0)[1] == 0


def test_a_reference_that_lies_elsewhere_does_not_spoil_the_score() -> None:
    rows = _cohort(40, 6)
    spoilt = [replace(row, dsc=0.0) if row.case == "p7" else row for row in rows]
    good, bad = (review.fit_score(r, 3.0)[0].weights for r in (rows, spoilt))
    assert bad["company"] > 0.5 * good["company"] and bad["volume"] < 0.5 * good["volume"]


def _balls(seed: int) -> StructureSet:
    rng = np.random.default_rng(seed)
    s = StructureSet(Geometry((60, 50, 40), (3.0, 3.0, 3.0), (-90.0, -75.0, -60.0)))
    points = s.geometry.to_physical(np.stack(np.indices(s.geometry.shape), -1))
    for name, centre in {"Brainstem": (0, 10, 20), "Larynx": (0, -20, -20)}.items():
        place = np.array(centre) + (rng.normal(0, 5, 3) if name == "Larynx" else 0)
        s.add(name, np.linalg.norm(points - place, axis=-1) < 14 * np.exp(rng.normal(0, 0.05)))
    return s


def test_norms_are_the_cohorts_medians_and_spreads() -> None:
    """Radii of 14 mm with 5 %: volumes of ln 11.5 cc with 15 %; the larynx lies 30, 40 mm off with 5 mm."""
    everything = frozenset({"Brainstem", "Larynx"})
    norms = review.fit_norms((_balls(seed), everything) for seed in range(60))
    volume, place = norms.volume["Brainstem"], norms.place["Larynx", "Brainstem"]
    assert volume.patients == 60 and volume.mean[0] == pytest.approx(np.log(4 / 3 * np.pi * 1.4**3), abs=0.06)
    assert volume.sd[0] == pytest.approx(0.15, abs=0.06)
    assert place.mean == pytest.approx((0, -30, -40), abs=2.5)
    assert place.sd == pytest.approx((5, 5, 5), abs=2.5)
    few = review.fit_norms((_balls(seed), everything) for seed in range(5))
    assert few.volume == {} and few.place == {}


def test_what_was_not_annotated_or_is_cut_off_is_no_norm() -> None:
    cut = [_balls(seed) for seed in range(12)]
    for s in cut:
        edge = s.full("Larynx")
        edge[0] = True
        s.add("Larynx", edge)
    norms = review.fit_norms((s, frozenset({"Brainstem", "Larynx"})) for s in cut)
    assert set(norms.volume) == {"Brainstem"}
    norms = review.fit_norms((_balls(seed), frozenset({"Larynx"})) for seed in range(12))
    assert set(norms.volume) == {"Larynx"}


def _cases(count: int) -> list[SourceCase]:
    ct = patient().image
    geometry = Geometry.of(ct)
    points = geometry.to_physical(np.stack(np.indices(geometry.shape), -1))
    truth = StructureSet(geometry)
    for name, sphere in FOUND.items():
        truth.add(name, np.linalg.norm(points - sphere.centre_mm, axis=-1) <= sphere.radius_mm)
    return [SourceCase(f"p{i}", "train", ct, truth, frozenset(FOUND)) for i in range(count)]


def test_samples_are_contours_against_the_readers(tmp_path: Path) -> None:
    bundle = load_bundle(write_tiny_bundle(tmp_path / "tiny"))
    samples = list(review.collect_samples(bundle, _cases(1), "onnxruntime"))
    assert [s.organ for s in samples] == list(FOUND)
    assert all(s.dsc > 0.8 and 0.3 < s.evidence.confidence <= 1 for s in samples)


def test_parts_that_readers_drew_as_one_have_the_dsc_of_the_whole(tmp_path: Path) -> None:
    bundle = load_bundle(write_tiny_bundle(tmp_path / "tiny"))
    (case,) = _cases(1)
    one, two = list(FOUND)[:2]
    structures = case.structures.subset([*FOUND])
    structures.add(one, case.structures.full(one) | case.structures.full(two))
    structures.add(two, np.zeros(case.structures.geometry.shape, bool))
    drawn = replace(case, structures=structures)
    apart = {s.organ: s.dsc for s in review.collect_samples(bundle, [drawn], "onnxruntime")}
    whole = {
        s.organ: s
        for s in review.collect_samples(
            bundle, [drawn], "onnxruntime", joins={"both": (one, two)}, learned={case.name}
        )
    }
    assert apart[two] == 0 and whole[one].dsc == whole[two].dsc > 0.8
    assert whole[one].learned and set(whole) == set(apart)


def test_a_bundle_gets_its_tables_and_keeps_all_else(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(arguments, "measured_cases", lambda _args: iter(_cases(10)))
    source = load_bundle(write_tiny_bundle(tmp_path / "tiny"))
    out = tmp_path / "out" / "tiny"
    words = ["calibrate", str(tmp_path / "tiny"), str(out), "--openkbp", str(tmp_path)]
    assert main([*words, "--norms-only"]) == 0
    made = load_bundle(out)
    tables = read_review(made)
    assert tables.calibration is None and tables.norms is not None
    assert set(tables.norms.volume) == set(FOUND)
    assert {n: made.files[n] for n in source.files} == dict(source.files)
    assert "norms of 2 organs" in capsys.readouterr().out
    assert main([*words, "--norms-only"]) == 2, "nothing is written over"
    assert main([*words[:2], str(tmp_path / "other"), *words[3:], "--held-out", "p1,nobody"]) == 2
    assert "nobody" in capsys.readouterr().err and not (tmp_path / "other").exists()
    learned = [*words[:2], str(tmp_path / "third"), *words[3:], "--learned"]
    assert main([*learned, "2"]) == 2 and main([*learned, "9", "--held-out", "p1,p2"]) == 2
    samples = tmp_path / "samples.json"
    assert main([*learned, "2", "--held-out", "p1,p2", "--samples", str(samples)]) == 0
    kept = {row["case"]: row["learned"] for row in json.loads(samples.read_text())}
    assert len(kept) == 4 and [name for name, new in kept.items() if not new] == ["p1", "p2"]


def test_chosen_cases_alone_are_evaluated(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(arguments, "measured_cases", lambda _args: iter(_cases(4)))
    write_tiny_bundle(tmp_path / "tiny")
    words = ["evaluate", str(tmp_path / "tiny"), "--openkbp", str(tmp_path)]
    assert main([*words, "--only", "p1, p2", "--csv", str(tmp_path / "scores.csv")]) == 0
    lines = (tmp_path / "scores.csv").read_text("utf-8").splitlines()[1:]
    assert {line.split(",")[0] for line in lines} == {"p1", "p2"}
    capsys.readouterr()
    assert main([*words, "--only", "p1,nobody"]) == 2
    assert "--only: there are no cases nobody" in capsys.readouterr().err


def test_a_bundle_in_a_zip_is_refused_with_what_to_do(tmp_path: Path) -> None:
    import shutil

    folder = write_tiny_bundle(tmp_path / "tiny")
    archive = shutil.make_archive(str(tmp_path / "tiny"), "zip", folder)
    with pytest.raises(InputError, match="import the bundle first"):
        review.load_for_calibration(archive)
