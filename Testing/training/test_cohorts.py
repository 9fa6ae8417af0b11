"""What is done with a cohort before it teaches: leaking slices, usual regions, splits by patient."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from soars.errors import InputError
from soars_training.cli import main
from soars_training.cohorts.cache import CachedCase, CacheIndex, IndexEntry, write_case
from soars_training.cohorts.leaks import TISSUE_HU, leaking_slices, without_leaking_slices
from soars_training.cohorts.plan import make_plan
from soars_training.cohorts.regions import FEWEST_CASES, MARGIN_MM, UsualRegions
from soars_training.cohorts.splits import hold_out, one_fold
from soars_training.windows.loaded import group_centres

Start = tuple[int, int, int]


def _case(
    hu: np.ndarray, organs: Mapping[str, tuple[Start, Start]], spacing: tuple[float, float, float] = (3, 3, 3)
) -> CachedCase:
    masks = {organ: (start, np.ones(shape, bool)) for organ, (start, shape) in organs.items()}
    return CachedCase("c", hu.astype(np.int16), (0, 0, 100), spacing, masks, frozenset(organs))


def _leaks(case: CachedCase) -> np.ndarray:
    drawn = np.any([case.full_mask(organ) for organ in case.masks] or [case.ct_hu > 9999], axis=0)
    return leaking_slices((case.ct_hu > TISSUE_HU).sum((1, 2)), drawn.sum((1, 2)))


def _neck_with_leak(width: int = 6) -> CachedCase:
    """Slices 0-3 empty, 4-9 tissue only about the cord (2 x 2 voxels), 10-29 a whole neck."""
    hu = np.full((30, 30, 30), -1000)
    hu[4:10, 15 : 15 + width, 15 : 15 + width - 2] = 20
    hu[10:, 3:27, 3:27] = 20
    return _case(hu, {"SpinalCord": ((4, 16, 16), (20, 2, 2)), "Larynx": ((20, 5, 12), (4, 6, 6))})


def test_end_slices_that_show_only_a_blob_about_an_organ_are_cut_off() -> None:
    case = _neck_with_leak()  # 24 voxels of tissue about 4 of cord: 6 times, and 4 % of the neck's 576
    assert np.flatnonzero(_leaks(case)).tolist() == list(range(10))
    cut = without_leaking_slices(case)
    assert cut.ct_hu.shape == (20, 30, 30) and cut.origin_mm == (0, 0, 130)
    assert cut.masks["SpinalCord"][0] == (0, 16, 16) and cut.masks["SpinalCord"][1].shape == (14, 2, 2)
    assert cut.masks["Larynx"][0] == (10, 5, 12)
    assert cut.annotated == case.annotated


def test_the_other_end_of_the_scan_is_looked_at_too() -> None:
    case = _neck_with_leak()
    turned = _case(case.ct_hu[::-1], {"SpinalCord": ((6, 16, 16), (20, 2, 2))})
    assert np.flatnonzero(_leaks(turned)).tolist() == list(range(20, 30))


def test_a_vertex_without_organs_and_a_whole_neck_stay() -> None:
    hu = np.full((30, 30, 30), -1000)
    for z in range(30):
        r = int(np.sqrt(max(0, 13**2 - max(0, z - 16) ** 2)))
        hu[z, 15 - r : 15 + r, 15 - r : 15 + r] = 20
    case = _case(hu, {"Brainstem": ((12, 12, 12), (8, 5, 5))})
    assert not _leaks(case).any()
    assert without_leaking_slices(case) is case
    assert not _leaks(_case(np.full((5, 5, 5), -1000), {})).any()


def _pair(shift: int, spacing: tuple[float, float, float]) -> CachedCase:
    """A cord and, 8 voxels in front of it, a larynx, both moved by `shift`."""
    organs = {"SpinalCord": ((10, 40 + shift, 30), (4, 4, 4)), "Larynx": ((10, 32 + shift, 28), (6, 6, 8))}
    return _case(np.zeros((30, 80, 60)), organs, spacing)


def test_the_usual_region_follows_the_reference_organ_in_millimetres() -> None:
    regions = UsualRegions.learn(_pair(n, (2, 2, 3)) for n in range(FEWEST_CASES))
    case = _case(np.zeros((30, 80, 60)), {"SpinalCord": ((20, 10, 30), (2, 2, 2))}, (1, 1, 3))
    box = regions.box(case, "Larynx")
    assert box is not None
    low, high = box
    # Along y (2 mm there, 1 mm here) the larynx began 10 voxels of 2 mm before the cord's middle and ended 4 before it.
    assert low[1] == pytest.approx(11 - 20 - MARGIN_MM) and high[1] == pytest.approx(11 - 8 + MARGIN_MM)
    # Along z from 2 voxels of 3 mm below the cord's middle to 4 above.
    assert low[0] == pytest.approx(21 - 2 - MARGIN_MM / 3) and high[0] == pytest.approx(
        21 + 4 + MARGIN_MM / 3
    )


def test_of_an_organ_with_too_few_examples_nothing_is_assumed() -> None:
    regions = UsualRegions.learn(_pair(n, (2, 2, 3)) for n in range(FEWEST_CASES - 1))
    assert regions.box(_pair(0, (2, 2, 3)), "Larynx") is None


def _entries(patients: int) -> list[IndexEntry]:
    return [
        IndexEntry(
            f"p{n}", f"p{n}.npz", "train", ("Brainstem", "Esophagus") if n % 3 == 0 else ("Brainstem",)
        )
        for n in range(patients)
    ]


def test_held_out_patients_have_their_share_of_each_organ() -> None:
    learn, held = hold_out(_entries(30), 9, seed=4)
    assert len(held) == 9 and len(learn) == 21
    assert sum("Esophagus" in e.annotated for e in held) == 3
    assert hold_out(_entries(30), 9, seed=4)[1] == held
    assert hold_out(_entries(30), 9, seed=5)[1] != held


def test_all_volumes_of_interest_of_a_patient_fall_on_one_side() -> None:
    entries = [
        IndexEntry(f"p{n}.{g}", f"{n}{g}.npz", "train", ("Lens_L", "Lens_R"), g)
        for n in range(10)
        for g in ("Lens_L", "Lens_R")
    ]
    learn, held = hold_out(entries, 3)
    assert len(held) == 6
    assert not {e.patient for e in learn} & {e.patient for e in held}


def test_all_scans_of_a_patient_fall_on_one_side() -> None:
    """Twelve scans of six patients, two each, in any number of folds."""
    entries = [replace(e, patient=f"patient{n // 2}") for n, e in enumerate(_entries(12))]
    parts = [hold_out(entries, 2, seed) for seed in range(5)]
    parts += [one_fold(entries, k, folds) for folds in (2, 3, 6) for k in range(1, folds + 1)]
    for learn, held in parts:
        assert len(learn) + len(held) == 12 and not {e.patient for e in learn} & {e.patient for e in held}
    assert [len(held) for _, held in parts] == 5 * [4] + 2 * [6] + 3 * [4] + 6 * [2]
    with pytest.raises(InputError, match="cannot hold out 6 of 6 patients"):
        hold_out(entries, 6)


def test_an_index_says_whose_a_case_is_and_an_older_one_names_the_case(tmp_path: Path) -> None:
    mine = [
        IndexEntry("a", "a.npz", "train", ("Brainstem",), patient="p"),
        IndexEntry("b.Lens_L", "b.Lens_L.npz", "train", ("Lens_L",), "Lens_L", patient="p"),
        IndexEntry("c.Lens_L", "c.Lens_L.npz", "test", ("Lens_L",), "Lens_L"),
    ]
    CacheIndex((3, 3, 3), "x", mine).save(tmp_path)
    assert CacheIndex.load(tmp_path).cases == mine
    assert [(e.case, e.patient) for e in mine] == [("a", "p"), ("b", "p"), ("c", "c")]
    data = json.loads((tmp_path / "index.json").read_text())
    changed = json.loads(json.dumps(data))
    for entry in changed["cases"]:
        del entry["patient"]
    (tmp_path / "index.json").write_text(json.dumps(changed))
    assert [e.patient for e in CacheIndex.load(tmp_path).cases] == ["a", "b", "c"]
    for patient, words in (
        ("p", "a and c.Lens_L are of one patient and in two splits"),
        (["p"], "not a text"),
    ):
        data["cases"][2]["patient"] = patient
        (tmp_path / "index.json").write_text(json.dumps(data))
        with pytest.raises(InputError, match=words):
            CacheIndex.load(tmp_path)


def test_nobody_left_to_learn_from_is_refused() -> None:
    with pytest.raises(InputError, match="cannot hold out 5 of 5 patients"):
        hold_out(_entries(5), 5)


def _small(n: int, lens_mm: int) -> CachedCase:
    """A lens of `lens_mm` cubed at 1 mm beside an ear of 4 x 5 x 6 mm (x, y, z)."""
    hu = np.zeros((20 + n, 30, 30))
    hu[5:11, 5:10, 5:9] = 700
    organs = {
        "Lens_L": ((12, 20, 20), (lens_mm,) * 3),
        "Cochlea_L": ((6, 6, 6), (2, 2, 2)),
        "Ear_Internal_L": ((5, 5, 5), (6, 5, 4)),
    }
    return replace(_case(hu, organs, (1, 1, 1)), name=f"c{n}")


def test_a_plan_computes_volumes_of_interest_and_names_odd_cases(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    entries = []
    for n, lens_mm in enumerate((3, 3, 4, 7)):
        case = _small(n, lens_mm)
        write_case(tmp_path / f"c{n}.npz", case)
        entries.append(IndexEntry(case.name, f"c{n}.npz", "train", tuple(sorted(case.annotated))))
    CacheIndex((1, 1, 1), "test", entries).save(tmp_path)
    assert main(["plan", str(tmp_path)]) == 0
    vois = json.loads((tmp_path / "voi.json").read_text())
    assert vois == {
        "Lens_L": [21, 21, 21],
        "Ear_L": [12, 15, 18],
    }  # three times the largest; the ear's two as one
    lens = json.loads((tmp_path / "plan.json").read_text())["organs"]["Lens_L"]
    assert lens["median_cc"] == pytest.approx((27 + 64) / 2 / 1000)
    assert lens["odd"] == ["c3"]  # 343 against a median of 45.5 mm3; 27 is within a third
    ear = make_plan(tmp_path).organs["Ear_Internal_L"]
    assert (ear.median_hu, ear.cases, ear.stratum) == (700, 4, "small_hard")
    assert ear.contrast_hu == 700 and ear.proposed == "small_hard"
    said = capsys.readouterr().out
    assert "| Lens_L | small_hard | 4 |" in said and "preset laptop: --patch " in said


def test_a_heat_map_needs_those_of_its_organs_that_the_cohort_has() -> None:
    """Ear_L stands for cochlea and inner ear: a cohort without inner ears has it at the cochlea's centre, one with both
    only where both were drawn."""
    both, cochlea = frozenset({"Cochlea_L", "Ear_Internal_L"}), frozenset({"Cochlea_L"})
    case = _case(np.zeros((20, 20, 20)), {"Cochlea_L": ((6, 6, 6), (3, 3, 3))})
    known, (centre,) = group_centres(case, ["Ear_L"], cochlea)
    assert known.tolist() == [True] and centre is not None and centre.tolist() == [7, 7, 7]
    assert group_centres(case, ["Ear_L"], both)[0].tolist() == [False]
    assert group_centres(replace(case, annotated=both), ["Ear_L"], both)[0].tolist() == [True]
    assert group_centres(case, ["Ear_L", "Lens_L"], frozenset({"Brainstem"}))[0].tolist() == [False, False]


def test_a_plan_names_the_cases_in_which_an_organ_lies_elsewhere(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Eight patients, each moved and a little different; in one left and right parotid are exchanged, in another a
    voxel of the brainstem strays by 90 mm. Their volumes are as usual."""
    entries = []
    for n in range(8):
        jitter = np.random.default_rng(n).integers(-1, 2, (4, 3))
        places = {"Brainstem": (20, 20, 20), "SpinalCord": (8, 22, 20), "Larynx": (6, 10, 20)}
        left, right = ((17, 18, x) for x in ((4, 36) if n == 3 else (36, 4)))
        organs = {
            organ: (tuple(int(v) for v in np.add(at, move)), (3, 3, 3))
            for (organ, at), move in zip(
                {**places, "Parotid_L": left, "Parotid_R": right}.items(), [*jitter, (0, 0, 0)], strict=True
            )
        }
        case = _case(np.zeros((60, 40, 50)), organs)
        if n == 5:
            start, stray = organs["Brainstem"][0], np.zeros((33, 3, 3), bool)
            stray[:3], stray[-1, 0, 0] = True, True
            case = replace(case, masks={**case.masks, "Brainstem": (start, stray)})
        case = replace(case, name=f"c{n}", origin_mm=(10.0 * n, 0.0, -50.0 * n))
        write_case(tmp_path / f"c{n}.npz", case)
        entries.append(IndexEntry(case.name, f"c{n}.npz", "train", tuple(sorted(case.annotated))))
    CacheIndex((3, 3, 3), "test", entries).save(tmp_path)
    facts = make_plan(tmp_path).organs
    assert {organ: f.misplaced for organ, f in facts.items() if f.misplaced} == {
        "Parotid_L": ("c3",),
        "Parotid_R": ("c3",),
        "Brainstem": ("c5",),
    }
    assert not any(f.odd for f in facts.values())
    assert main(["plan", str(tmp_path)]) == 0
    assert "| c3 (place) |" in capsys.readouterr().out


def test_folds_part_the_patients_evenly_by_what_is_annotated() -> None:
    held = [one_fold(_entries(30), k, 3)[1] for k in (1, 2, 3)]
    assert [len(part) for part in held] == [10, 10, 10]
    assert len({e.name for part in held for e in part}) == 30
    assert all(3 <= sum("Esophagus" in e.annotated for e in part) <= 4 for part in held)


def test_a_volume_of_interest_counts_for_its_own_organs() -> None:
    """A scan's contours hold for all volumes cut from it, and a cochlea without a voxel in its own ear's is in none."""
    ear = IndexEntry("a.Ear_R", "a.npz", "train", ("Ear_Internal_R", "Lens_L"), "Ear_R")
    lens = IndexEntry("a.Lens_L", "b.npz", "train", ("Cochlea_R", "Ear_Internal_R", "Lens_L"), "Lens_L")
    assert CacheIndex((1, 1, 1), "test", [ear, lens]).annotated == {"Ear_Internal_R", "Lens_L"}
