"""A study's file, and who reads what when: checked, balanced, blinded, and the same whenever it is asked for again."""

from __future__ import annotations

from collections import Counter
from dataclasses import replace
from pathlib import Path

import pytest

from soars.errors import InputError
from soars.study.plan.assign import Assignment, assign, imbalance
from soars.study.plan.model import Plan, read_plan
from soars.study.plan.prepare import arm_codes
from soars.study.plan.registration import registration_sheet

STUDY = """\
schema: 1
name: pilot
seed: 7
organs: [Brainstem, "Left eye", Lens_L]
cases:
{cases}
arms:
  - {{name: soars, bundle: starter}}
  - {{name: atlas, contours: atlas}}
  - {{name: manual, proposal: none}}
readers:
  - {{name: R1, organs: [Brainstem]}}
  - {{name: R2, site: B}}
  - {{name: R3}}
{more}
"""


def study_file(folder: Path, cases: int = 6, training: int = 0, more: str = "", text: str = STUDY) -> Path:
    lines = [f"  - {{name: case-{n:02d}, ct: ct-{n:02d}.nrrd}}" for n in range(1, cases + 1)]
    lines += [f"  - {{name: train-{n}, ct: x.nrrd, phase: training}}" for n in range(1, training + 1)]
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "study.yaml").write_text(text.format(cases="\n".join(lines), more=more), encoding="utf-8")
    return folder


def plan(folder: Path, **options: object) -> Plan:
    return read_plan(study_file(folder, **options))  # type: ignore[arg-type]


def main_sessions(found: dict[str, tuple[Assignment, ...]]) -> list[Assignment]:
    return [one for each in found.values() for one in each if one.phase == "main"]


# --- the file ---------------------------------------------------------------------------------------------------------


def test_a_study_file_is_read_as_it_says(tmp_path: Path) -> None:
    found = plan(tmp_path, training=1, more="washout_days: 21\nnon_inferiority: {figure: dsc, margin: 0.02}")
    assert found.organs == ("Brainstem", "Eye_L", "Lens_L")  # in the catalogue's names and order
    assert [arm.from_scratch for arm in found.arms] == [False, False, True]
    assert found.readers[0].organs == ("Brainstem",) and found.readers[1].organs == found.organs
    assert found.washout_days == 21 and found.idle_s == 30.0
    assert found.cases[0].ct == tmp_path / "ct-01.nrrd"
    assert [case.name for case in found.training_cases] == ["train-1"]
    assert found.non_inferiority is not None and found.non_inferiority.margin == 0.02


@pytest.mark.parametrize(("figure", "says"), [("hd95_mm", True), ("asd_mm", True), ("dsc", False)])
def test_the_sheet_says_what_a_missing_organ_means(tmp_path: Path, figure: str, says: bool) -> None:
    found = plan(tmp_path, more=f"non_inferiority: {{figure: {figure}, margin: 1}}")
    sheet = registration_sheet(found, assign(found))
    assert f"Non-inferiority in `{figure}` with a margin of 1" in sheet
    assert ("an arm that alone misses one" in sheet) == says


@pytest.mark.parametrize(
    ("more", "says"),
    [
        ("colour: red", "'colour' is not known"),
        ("washout_day: 3", "did you mean washout_days"),
        ("washout_days: -1", "whole number of 0"),
        ("washout_days: 2.5", "whole number"),
        ("idle_s: soon", "a number"),
        ("idle_s: .nan", "a number"),
        ("scores: maybe", "true or false"),
        ("assignment: both", "one of every arm, one arm"),
        ("repeats: {cases: 2, arms: [model]}", "no arm model"),
        ("repeats: {cases: 7}", "7 cases are to be repeated"),
        ("repeats: {cases: 2, arm: soars}", "did you mean arms"),
        ("non_inferiority: {figure: dsc, margin: 0}", "above 0"),
        ("non_inferiority: {figure: luck, margin: 1}", "one of dsc"),
        ("observers: [{name: r1, contours: x}]", "(?i)r1 occurs twice"),
        ("seed: 8", "seed occurs twice"),
        ("observers: clinic", "a list"),
        ("observers: [clinic]", "names and values"),
        ("title: [", "not YAML"),
    ],
)
def test_what_a_study_file_cannot_be_is_said_with_its_place(tmp_path: Path, more: str, says: str) -> None:
    with pytest.raises(InputError, match=says) as error:
        plan(tmp_path, more=more)
    assert "study.yaml" in str(error.value)


@pytest.mark.parametrize(
    ("old", "new", "says"),
    [
        ("schema: 1", "schema: 2", "newer version"),
        ("name: pilot", "name: my study", "file name"),
        ("name: pilot", "name: no", "quotation marks"),
        ("bundle: starter", "bundle: starter, contours: atlas", "give one of"),
        (", proposal: none", "", "give one of"),
        ("proposal: none", "proposal: none, cases: 9", "draws 9 cases"),
        ("[Brainstem]", "[Parotid_L]", "not among the study's organs"),
        ("Lens_L]", "Nose]", "unknown organ"),
        ("name: R2", "name: r1", "occurs twice"),
        ("name: atlas", "name: SOARS", "occurs twice"),
        ("seed: 7\n", "", "seed is missing"),
    ],
)
def test_what_is_wrong_in_a_field_is_said(tmp_path: Path, old: str, new: str, says: str) -> None:
    assert old in STUDY
    with pytest.raises(InputError, match=says):
        plan(tmp_path, text=STUDY.replace(old, new, 1))


def test_a_study_of_training_cases_only_is_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="every case is for training"):
        plan(tmp_path, cases=0, training=2)


def test_without_a_file_the_way_to_one_is_said(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="soars study new"):
        read_plan(tmp_path)


# --- who reads what when ----------------------------------------------------------------------------------------------


def test_every_reader_reads_every_case_in_every_arm_once(tmp_path: Path) -> None:
    found = assign(plan(tmp_path))
    for sessions in found.values():
        assert Counter((s.case, s.arm) for s in sessions) == {
            (f"case-{n:02d}", arm): 1 for n in range(1, 7) for arm in ("soars", "atlas", "manual")
        }
        assert [s.number for s in sessions] == list(range(1, 19))
        for case in {s.case for s in sessions}:
            assert sorted(s.period for s in sessions if s.case == case) == [1, 2, 3]


def test_the_latin_square_is_balanced_within_and_between_readers(tmp_path: Path) -> None:
    """Three arms, three readers, six cases: in each period a reader reads each arm twice, and a case stands in each arm
    once over the readers."""
    sessions = main_sessions(assign(plan(tmp_path)))
    by_reader = Counter((s.reader, s.period, s.arm) for s in sessions)
    by_case = Counter((s.case, s.period, s.arm) for s in sessions)
    assert set(by_reader.values()) == {2} and len(by_reader) == 27
    assert set(by_case.values()) == {1} and len(by_case) == 54
    assert imbalance(sessions) == 0


@pytest.mark.parametrize("seed", range(5))
def test_minimisation_is_nearly_balanced_when_an_arm_has_few_cases(tmp_path: Path, seed: int) -> None:
    text = STUDY.replace("proposal: none", "proposal: none, cases: 4").replace("seed: 7", f"seed: {seed}")
    found = plan(tmp_path, cases=12, text=text, more="balance: minimisation")
    sessions = main_sessions(assign(found))
    assert Counter(s.arm for s in sessions) == {"soars": 36, "atlas": 36, "manual": 12}
    by_period = Counter((s.period, s.arm) for s in sessions if s.arm != "manual")
    for period in (1, 2):
        assert abs(by_period[period, "soars"] - by_period[period, "atlas"]) <= 4  # of 24 or more


def test_the_cases_of_a_small_arm_are_drawn_once_for_all_readers(tmp_path: Path) -> None:
    text = STUDY.replace("proposal: none", "proposal: none, cases: 4")
    found = assign(plan(tmp_path, cases=30, text=text))
    drawn = [{s.case for s in sessions if s.arm == "manual"} for sessions in found.values()]
    assert len(drawn[0]) == 4 and drawn[0] == drawn[1] == drawn[2]


def test_in_one_arm_a_reader_sees_a_case_once(tmp_path: Path) -> None:
    sessions = assign(plan(tmp_path, more="assignment: one arm"))["R1"]
    assert Counter(s.case for s in sessions) == {f"case-{n:02d}": 1 for n in range(1, 7)}
    assert Counter(s.arm for s in sessions) == {"soars": 2, "atlas": 2, "manual": 2}


def test_training_comes_first_and_repeats_last(tmp_path: Path) -> None:
    found = assign(plan(tmp_path, training=2, more="repeats: {cases: 3, arms: [soars]}"))
    for sessions in found.values():
        assert [s.phase for s in sessions[:2]] == ["training", "training"]
        assert all(s.phase == "main" for s in sessions[2:])
        again = [s for s in sessions if s.repeat == 2]
        assert sessions[-3:] == tuple(again) and {s.arm for s in again} == {"soars"}
        assert len({s.case for s in again}) == 3
        assert {s.period for s in again} == {4}


def test_the_same_seed_gives_the_same_study_and_another_seed_another(tmp_path: Path) -> None:
    first = plan(tmp_path, training=1)
    assert assign(first) == assign(read_plan(tmp_path))
    assert assign(replace(first, seed=8)) != assign(first)
    # What one reader reads does not hang on a reader who joins after them in the list.
    fewer = replace(first, readers=first.readers[:2])
    assert assign(fewer)["R2"] == assign(first)["R2"]


def test_codes_say_nothing_of_the_arm(tmp_path: Path) -> None:
    found = plan(tmp_path)
    codes = arm_codes(found)
    assert len(set(codes.values())) == 3 and all(len(code) == 2 for code in codes.values())
    assert {arm_codes(replace(found, seed=seed))["soars"] for seed in range(40)} != {codes["soars"]}
