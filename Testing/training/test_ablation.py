"""The ablation trains, scores and tabulates every setting on one split, and goes on where it was interrupted."""

from __future__ import annotations

import csv
import json
import math
import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from soars.cascade.preprocess import Grid
from soars.errors import InputError
from soars_training.cli import main
from soars_training.cohorts.cache import CachedCase, CacheIndex, IndexEntry, write_case
from soars_training.cohorts.prepare import with_margin
from soars_training.experiments.ablation import Laboratory, Recipe, organs_to_compare
from soars_training.experiments.published import ABLATION, CVPR_2020, STUDY_2022
from soars_training.experiments.scores import OrganRow, organ_row, read_rows, read_vois, write_rows
from soars_training.experiments.settings import (
    ABLATED,
    PAPERS,
    Network,
    answers,
    chosen_settings,
    organs_of_paper,
    prediction,
    strata_of,
    stratum_of,
)
from soars_training.experiments.statistics import cell, compare
from soars_training.fitting.options import LAST, FitOptions, FittedRun
from soars_training.windows.task import BranchTask

VOI_MM = (28.0, 28.0, 28.0)
ORGANS = {"Brainstem": 900, "SpinalCord": 400, "Larynx": -100, "Lens_L": 700}
SIZE_MM = {"Brainstem": 15.0, "SpinalCord": 15.0, "Larynx": 15.0, "Lens_L": 9.0}


def _boxes(seed: int) -> dict[str, np.ndarray]:
    """Lower corners (x, y, z) in mm."""
    rng = np.random.default_rng(seed)
    return {o: np.array([4 + 18.0 * k, *rng.uniform(12, 40, 2)]) for k, o in enumerate(ORGANS)}


def _scan(name: str, seed: int, grid: Grid) -> CachedCase:
    """Bright boxes in water on any grid."""
    points = grid.index_to_points(np.argwhere(np.ones(grid.shape, bool))).reshape(*grid.shape, 3)
    hu = np.random.default_rng(seed).normal(0, 20, grid.shape)
    masks = {}
    for organ, corner in _boxes(seed).items():
        inside = ((points >= corner) & (points < corner + SIZE_MM[organ])).all(-1)
        hu[inside] = ORGANS[organ]
        if inside.any():
            where = np.argwhere(inside)
            low, high = where.min(0), where.max(0) + 1
            crop = inside[tuple(slice(a, b) for a, b in zip(low, high, strict=True))]
            masks[organ] = ((int(low[0]), int(low[1]), int(low[2])), crop)
    return CachedCase(name, hu.astype(np.int16), grid.origin_mm, grid.spacing_mm, masks, frozenset(ORGANS))


@pytest.fixture(scope="module")
def cohort(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Ten patients at 4 mm, and the lens of each at 2 mm."""
    root = tmp_path_factory.mktemp("cohort")
    for folder in ("cache", "vois"):
        (root / folder).mkdir()
    whole, vois = [], []
    for n in range(10):
        case = _scan(f"p{n}", n, Grid((0, 0, 0), (4, 4, 4), (20, 16, 16)))
        write_case(root / "cache" / f"p{n}.npz", case)
        whole.append(IndexEntry(f"p{n}", f"p{n}.npz", "train", tuple(ORGANS)))
        lens = Grid.around(_boxes(n)["Lens_L"] + 4.5, with_margin(VOI_MM), (2, 2, 2))
        write_case(root / "vois" / f"p{n}.Lens_L.npz", _scan(f"p{n}.Lens_L", n, lens))
        vois.append(IndexEntry(f"p{n}.Lens_L", f"p{n}.Lens_L.npz", "train", tuple(ORGANS), "Lens_L"))
    CacheIndex((4, 4, 4), "boxes", whole).save(root / "cache")
    CacheIndex((2, 2, 2), "boxes", vois).save(root / "vois")
    (root / "voi.json").write_text(json.dumps({"Lens_L": VOI_MM}))
    return root


def _argv(cohort: Path, output: Path, *more: str) -> list[str]:
    argv = ["ablate", str(cohort / "cache"), str(output), "--vois", str(cohort / "vois"), "--voi"]
    argv += [
        str(cohort / "voi.json"),
        "--features",
        "4,8",
        "--patch",
        "8,8,8",
        "--steps",
        "24",
        "--batch",
        "1",
    ]
    argv += ["--seeds", "1", "--test", "6", "--device", "cpu", "--threads", "1", "--windows=-500:1000"]
    return [*argv, "--learning-rate", "0.02", "--search-steps", "4", *more]


needs_all_settings = pytest.mark.slow
"""Thirteen small networks and three searches are trained once, for the tests of what they leave."""


@pytest.fixture(scope="module")
def done(cohort: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    output = tmp_path_factory.mktemp("ablation")
    assert main(_argv(cohort, output)) == 0
    return output


def test_patients_whom_the_cohort_keeps_for_a_test_take_no_part(cohort: Path, tmp_path: Path) -> None:
    shutil.copytree(cohort / "cache", tmp_path / "cache")
    index = CacheIndex.load(tmp_path / "cache")
    kept = {"p2", "p7"}
    cases = [replace(e, split="test" if e.name in kept else "train") for e in index.cases]
    replace(index, cases=cases).save(tmp_path / "cache")
    organs = tuple(o for o in ORGANS if o != "Lens_L")
    recipe = Recipe(("all_in_one",), (1,), organs, steps=2, search_steps=1, alpha_rate=0.1, test=3)
    options = lambda task: FitOptions(task, features=(4, 8), patch=(8, 8, 8), device="cpu")  # noqa: E731
    Laboratory(tmp_path / "cache", tmp_path / "out", recipe, options).begin()
    parts = CacheIndex.load(tmp_path / "out" / "cache")
    assert len(parts.of_split("train")) == 5 and len(parts.of_split("test")) == 3
    assert not kept & {e.patient for e in parts.cases}


def test_two_scans_of_a_patient_are_learned_or_tested_together(cohort: Path, tmp_path: Path) -> None:
    """Ten scans of five patients; each scan keeps the volumes that were cut from it."""
    for folder in ("cache", "vois"):
        shutil.copytree(cohort / folder, tmp_path / folder)
        index = CacheIndex.load(tmp_path / folder)
        cases = [replace(e, patient=f"patient{int(e.case[1:]) // 2}") for e in index.cases]
        replace(index, cases=cases).save(tmp_path / folder)
    voi = {"Lens_L": (28.0, 28.0, 28.0)}
    recipe = Recipe(
        ("all_in_one",), (1,), tuple(ORGANS), 2, 1, 0.1, 2, voi_cache=tmp_path / "vois", voi_mm=voi
    )
    options = lambda task: FitOptions(task, features=(4, 8), patch=(8, 8, 8), device="cpu")  # noqa: E731
    Laboratory(tmp_path / "cache", tmp_path / "out", recipe, options).begin()
    for folder in ("cache", "voi_cache"):
        parts = CacheIndex.load(tmp_path / "out" / folder)
        learn, test = ({e.patient for e in parts.of_split(split)} for split in ("train", "test"))
        assert (len(learn), len(test), learn & test) == (3, 2, set())
        assert (len(parts.of_split("train")), len(parts.of_split("test"))) == (6, 4)
    for n in range(10):
        ((entry, _),) = read_vois(tmp_path / "out" / "voi_cache", f"p{n}", parts)
        assert entry.name == f"p{n}.Lens_L"


@needs_all_settings
def test_every_setting_is_scored_on_the_same_unseen_patients(done: Path) -> None:
    rows = [r for path in (done / "scores").glob("*.csv") for r in read_rows(path, OrganRow)]
    assert {r.setting for r in rows} == set(ABLATED) and {r.seed for r in rows} == {1}
    test = {e.patient for e in CacheIndex.load(done / "cache").of_split("test")}
    assert len(test) == 6 and {r.case for r in rows} == test
    for path in done.glob("seed_*/*/run.json"):
        assert FittedRun.load(path.parent).cases == 4
    joint = {r.organ for r in rows if r.setting == "all_in_one"}
    assert joint == set(ORGANS)
    assert {r.organ for r in rows if r.setting == "heat_map"} == {"Lens_L"}


@needs_all_settings
def test_the_budget_is_shared_by_the_networks_of_a_setting(done: Path) -> None:
    steps = {p.parent.name: FittedRun.load(p.parent).options["steps"] for p in done.glob("seed_1/*/run.json")}
    assert steps.pop("joint") == 24
    assert set(steps.values()) == {8} and "detection-guided" in steps and "mid_level-searched-guided" in steps


@needs_all_settings
def test_the_page_has_the_tables_and_the_papers_figures_beside_them(done: Path) -> None:
    text = (done / "ablation.md").read_text(encoding="utf-8")
    assert "They are context" in text and "63.68" in text and "76.1" in text
    table = list(csv.DictReader((done / "ablation.csv").open()))
    rows = [r for path in (done / "scores").glob("stratification.*.csv") for r in read_rows(path, OrganRow)]
    expected = np.mean([r.dsc for r in rows if r.organ == "Larynx"])
    (found,) = [
        r for r in table if (r["setting"], r["organ"], r["measure"]) == ("stratification", "Larynx", "dsc")
    ]
    assert float(found["mean"]) == pytest.approx(float(expected), rel=1e-5)
    assert (done / "ablation.png").stat().st_size > 1000
    assert "| Lens_L |" in text and "CT and true anchors" in text


@needs_all_settings
def test_interrupted_it_goes_on_and_finished_it_trains_nothing(cohort: Path, done: Path) -> None:
    before = {p: p.stat().st_mtime_ns for p in done.glob(f"seed_*/*/{LAST}")}
    (done / "scores" / "anchors.1.csv").unlink()
    (done / "seed_1" / "small_hard" / "run.json").unlink()
    page = (done / "ablation.md").read_text(encoding="utf-8")
    assert main(_argv(cohort, done)) == 0
    after = {p: p.stat().st_mtime_ns for p in before}
    assert {p for p in before if before[p] != after[p]} <= {done / "seed_1" / "small_hard" / LAST}
    assert (done / "ablation.md").read_text(encoding="utf-8").split("## What")[0] == page.split("## What")[0]


@needs_all_settings
def test_other_settings_in_the_same_folder_are_refused(
    cohort: Path, done: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(_argv(cohort, done, "--learning-rate", "0.03", "--steps", "48")) == 2
    assert "was begun with other settings (learning_rate, steps)" in capsys.readouterr().err


def test_small_organs_without_their_vois_are_refused(
    cohort: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["ablate", str(cohort / "cache"), str(tmp_path), "--steps", "2"]) == 2
    assert "need --vois and --voi" in capsys.readouterr().err


def test_settings_are_those_that_the_cohort_can_answer() -> None:
    assert chosen_settings(None, ["anchor", "mid_level"]) == tuple(s for s in ABLATED if s != "heat_map")
    assert chosen_settings(None, ["mid_level"]) == ("all_in_one", "stratification")
    with pytest.raises(InputError, match="unknown 'nas'"):
        chosen_settings(["nas"], ["anchor"])
    assert strata_of(["Lens_L", "Parotid_L", "Brainstem", "Parotid_R"]) == {
        "anchor": ("Brainstem",),
        "mid_level": ("Parotid_L", "Parotid_R"),
        "small_hard": ("Lens_L",),
    }


def test_only_the_true_anchors_setting_sees_the_truth() -> None:
    for setting in ABLATED:
        for stratum, answer in answers(setting, ("anchor", "mid_level", "small_hard")).items():
            assert answer.true_guide == (setting == "true_anchors"), (setting, stratum)
    found = prediction("search", "mid_level")
    assert found is not None and found.network == Network("mid_level", "searched", "searched")


def _row(setting: str, seed: int, case: str, dsc: float, hd: float = 1.0) -> OrganRow:
    return OrganRow(setting, seed, "anchor", case, "Brainstem", dsc, hd, hd / 2)


def test_means_are_of_patients_then_of_seeds() -> None:
    rows = [_row("anchors", s, f"p{n}", 0.5 + 0.1 * s + 0.01 * n) for s in (1, 2, 3) for n in range(3)]
    found = cell(rows, "dsc")
    assert found is not None and found.mean == pytest.approx(0.71) and found.sd == pytest.approx(0.1)
    missing = [_row("anchors", 1, "a", 0.0, float("inf")), _row("anchors", 1, "b", 0.8, 3.0)]
    distance = cell(missing, "hd_mm")
    assert distance is not None and (distance.mean, distance.missed) == (3.0, 1)


def test_a_patient_is_one_pair_however_many_seeds_there_are() -> None:
    """Eight patients, all better in the first: the exact two-sided p is 2 / 2^8."""
    rows = [_row("anchors", s, f"p{n}", 0.8 + 0.001 * n) for s in (1, 2, 3) for n in range(8)]
    rows += [_row("all_in_one", s, f"p{n}", 0.7 - 0.01 * n) for s in (1, 2, 3) for n in range(8)]
    tests = {(t.first, t.second, t.stratum): t for t in compare(rows)}
    assert set(tests) == {("anchors", "all_in_one", "anchor"), ("anchors", "all_in_one", "all")}
    test = tests["anchors", "all_in_one", "anchor"]
    assert test.patients == 8 and test.p == pytest.approx(2 / 2**8)
    assert test.holm == pytest.approx(4 / 2**8)
    assert test.difference == pytest.approx(0.1 + 0.011 * 3.5)


def test_a_patient_is_one_pair_however_many_scans_he_has() -> None:
    """Seven patients; one, of whom there are six scans, is drawn worse in the first, by the least of all differences:
    the exact two-sided p is 2 x 2 / 2^7."""
    better, worse = "anchors", "all_in_one"
    rows = [_row(s, 1, f"p{n}", v) for n in range(6) for s, v in ((better, 0.8), (worse, 0.7 - 0.01 * n))]
    rows += [_row(s, 1, f"q{n}", v) for n in range(6) for s, v in ((better, 0.65), (worse, 0.7))]
    test = compare(rows, {f"q{n}": "q" for n in range(6)})[0]
    assert test.patients == 7 and test.p == pytest.approx(2 * 2 / 2**7)
    assert test.difference == pytest.approx((6 * 0.1 + 0.15 - 0.05) / 7)
    assert compare(rows)[0].patients == 12


def test_all_patients_of_a_cache_may_be_asked_for_by_number(cohort: Path, tmp_path: Path) -> None:
    recipe = Recipe(("all_in_one",), (1,), ("Brainstem",), 4, 4, 0.01, 2)
    options = FitOptions(BranchTask("anchor", ("Brainstem",), ("ct",)))

    def split(patients: int | None) -> list[list[str]]:
        lab = Laboratory(cohort / "cache", tmp_path, replace(recipe, patients=patients), lambda _: options)
        return [[entry.name for entry in side] for side in lab._split()]

    assert split(10) == split(None) and [len(side) for side in split(10)] == [8, 2]
    with pytest.raises(InputError, match="--patients 11: .* has 10 patients"):
        split(11)


def test_scores_of_shifted_boxes_are_those_of_geometry() -> None:
    """A box of 5 x 5 x 5 voxels of 3 mm, found one voxel to the left: four of five columns overlap."""
    truth = np.ones((5, 5, 5), bool)
    case = CachedCase(
        "a",
        np.zeros((12, 12, 12), np.int16),
        (0, 0, 0),
        (3, 3, 3),
        {"Larynx": ((3, 3, 3), truth)},
        frozenset(),
    )
    found = np.zeros((12, 12, 12), bool)
    found[3:8, 3:8, 4:9] = True
    row = organ_row(case, "Larynx", found)
    assert row.dsc == pytest.approx(0.8) and row.stratum == "mid_level" and row.hd_mm == pytest.approx(3.0)


def test_surface_dsc_is_that_at_the_organs_tolerance() -> None:
    """A box of 9 x 9 x 9 voxels of 3 mm moved by one voxel: two of its six sides lie 3 mm off, more than a parotid's
    2.85 mm; nobody has published a larynx's tolerance."""
    whole = np.ones((9, 9, 9), bool)
    masks = dict.fromkeys(("Parotid_L", "Larynx"), ((3, 3, 3), whole))
    case = CachedCase("a", np.zeros((16, 16, 16), np.int16), (0, 0, 0), (3, 3, 3), masks, frozenset(masks))
    found = case.full_mask("Parotid_L")
    assert organ_row(case, "Parotid_L", found).surface_dsc == 1
    moved = np.roll(found, 1, 2)
    assert organ_row(case, "Parotid_L", moved).surface_dsc == pytest.approx(4 / 6, abs=0.06)
    assert math.isnan(organ_row(case, "Larynx", moved).surface_dsc)


def test_rows_survive_a_file(tmp_path: Path) -> None:
    rows = [_row("anchors", 1, "=p1", 0.5, float("inf")), _row("search", 2, "p2", 0.25)]
    write_rows(rows, OrganRow, tmp_path / "rows.csv")
    assert read_rows(tmp_path / "rows.csv", OrganRow) == rows


def test_published_figures_are_the_papers() -> None:
    assert ABLATION[CVPR_2020]["search", "mid_level"] == (72.55, 9.05, 1.31)
    assert ABLATION[STUDY_2022]["search", "all"] == (77.8, 7.2, 1.2)
    assert all(setting in ABLATED for figures in ABLATION.values() for setting, _ in figures)


def test_the_first_papers_strata_are_nine_twenty_one_and_twelve() -> None:
    """SOARS, CVPR 2020, section 4.1, against the study of 2022."""
    sizes = {paper: [len(o) for o in strata_of(organs_of_paper(paper)).values()] for paper in PAPERS}
    assert sizes == {"2022": [9, 19, 14], "2020": [9, 21, 12]}
    first, study = (set(organs_of_paper(paper)) for paper in ("2020", "2022"))
    assert first - study == {"Hippocampus_L", "Hippocampus_R", "Larynx_Core"}
    assert study - first == {"Larynx", "Lens_L", "Lens_R"}
    assert stratum_of("Larynx_Core") == "mid_level" and stratum_of("Esophagus") == "mid_level"


def test_the_strata_of_a_paper_choose_the_organs(tmp_path: Path) -> None:
    there = ("Brainstem", "Larynx", "Larynx_Core", "Lens_L")
    CacheIndex((3, 3, 3), "none", [IndexEntry("a", "a.npz", "train", there)]).save(tmp_path)
    assert organs_to_compare(tmp_path, None) == ("Brainstem", "Larynx", "Lens_L")
    assert organs_to_compare(tmp_path, None, "2020") == ("Brainstem", "Larynx_Core")
    assert organs_to_compare(tmp_path, ["Larynx_Core"]) == ("Larynx_Core",)
