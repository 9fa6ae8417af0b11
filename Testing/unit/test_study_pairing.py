"""Arms are compared on the same organs, read by the same readers: sessions that were not finished and organs that were
not drawn neither help nor harm an arm. Times and distances are such that the answer is known without computing."""

from __future__ import annotations

import math
import random
import shutil
from collections.abc import Sequence
from dataclasses import fields, replace
from pathlib import Path

import pytest
from tiny_study import tiny_study

from soars.metrics.scores import BOTH_EMPTY, COMPARED, EXTRA, MISSING, not_annotated
from soars.study.load import collect_study, open_study
from soars.study.plan.model import Margin
from soars.study.results.agreement import REFERENCE, Scored, non_inferiority_table
from soars.study.results.arms import (
    arm_model,
    compare_arms,
    comparison_table,
    non_inferiority_of_minutes,
    unpaired_table,
)
from soars.study.results.effort import category_table, main_rows
from soars.study.results.minutes import BY_ORGAN, BY_READER, minutes_table, threshold_table
from soars.study.results.page import render_page
from soars.study.results.readers import reader_tables
from soars.study.results.sets import RESULT, ContourSet
from soars.study.results.summary import analyse_study
from soars.study.rows import OrganRow

CASES = [f"case-{number}" for number in range(6)]
_EMPTY = {"str": "", "bool": False, "int": 1, "float": math.nan}


def read(reader: str, arm: str, case: str, organ: str, minutes: float) -> OrganRow:
    """A finished reading; the same active time at every idle threshold."""
    values: dict[str, object] = {field.name: _EMPTY[str(field.type)] for field in fields(OrganRow)}
    values |= {field.name: 60 * minutes for field in fields(OrganRow) if field.name.startswith("active_")}
    values |= {"reader": reader, "arm": arm, "case": case, "organ": organ, "session": f"{case} {arm}"}
    return OrganRow(**values)  # type: ignore[arg-type]


def shared_out() -> list[OrganRow]:
    """A has two organs of 5 minutes and some seconds, B one of 10, the same in both arms; B finished one patient of
    `scratch`."""
    rows = []
    for number, case in enumerate(CASES):
        for arm in ("revise", "scratch"):
            rows += [read("A", arm, case, organ, 5 + number / 60) for organ in ("Brainstem", "Parotid_L")]
            if arm == "revise" or number == 0:
                rows.append(read("B", arm, case, "Bone_Mandible", 10 + number / 60))
    return rows


def test_an_unfinished_reader_takes_organs_from_both_arms() -> None:
    """Equal speeds save nothing: A's 10 + 2 * 2.5 / 60 minutes on average and B's 10 of one of six patients."""
    found = compare_arms(shared_out(), "revise", "scratch")
    assert found is not None and found.n == 6 and found.left_out == 5 and found.by == BY_READER
    assert found.first_mean == found.second_mean == pytest.approx(10 + 5 / 60 + 10 / 6)
    assert (found.saving, found.saving_low, found.saving_high) == (0, 0, 0)
    assert found.p["wilcoxon"] == found.p["paired t"] == 1
    assert found.difference == (0, 0, 0) and found.ratio == (1, 1, 1)
    table = comparison_table([found])
    assert set(table.column("left out")) == {5} and set(table.column("patients")) == {6}
    assert all(len(line) == len(table.columns) for line in (*table.rows, *table.published))


def undone(row: OrganRow, **changed: object) -> OrganRow:
    """An organ without voxels, before and after, that nobody turned to."""
    nothing = {"voxels_added": 0, "voxels_removed": 0, "result_cc": 0.0, "active_s": 0.0, "category": "none"}
    values = {**nothing, "score": 0, "state": "not_reviewed", **changed}
    return replace(row, **values)  # type: ignore[arg-type]


def test_organs_that_were_neither_proposed_nor_drawn_save_no_time() -> None:
    """A model without larynx, at equal speed: 5 of 5 minutes, not 5 of 15; all its 6 organs are revised, not half."""
    rows = []
    for case in CASES:
        rows += [read("A", arm, case, "Brainstem", 5) for arm in ("revise", "scratch")]
        rows += [undone(read("A", "revise", case, "Larynx", 0)), read("A", "scratch", case, "Larynx", 10)]
    rows = [
        replace(
            row,
            phase="main",
            finished=True,
            from_scratch=row.arm == "scratch",
            category=row.category or "minor",
        )
        for row in rows
    ]
    kept = main_rows(rows)
    assert len(kept) == 18
    found = compare_arms(kept, "revise", "scratch")
    assert found is not None and (found.n, found.saving, found.left_out) == (6, 0, 6)
    line = next(line for line in category_table(kept).rows if line[:2] == ("revise", "all"))
    assert line[3:8] == (6, 0, 6, 0, 0)


def test_sessions_without_any_time_have_tables() -> None:
    """As a pilot's first session that was only opened and finished: there is nothing to save, and nothing to test."""
    for arms in (["revise"], ["revise", "scratch"]):
        rows = [
            read(reader, arm, case, "Brainstem", 0) for reader in "AB" for arm in arms for case in CASES[:3]
        ]
        assert all(math.isnan(float(str(value))) for value in threshold_table(rows).column("saving %"))
        (line,) = reader_tables(rows)[-1].rows[:1]
        assert line[:3] == ("between readers", "A", "B") and math.isnan(line[5]) and line[8] == 0
    found = compare_arms(rows, "revise", "scratch")
    assert found is not None and math.isnan(found.saving) and math.isnan(found.saving_low)
    assert found.p == {"wilcoxon": 1.0, "paired t": 1.0} and found.difference == (0, 0, 0)


def test_an_organ_that_was_accepted_judged_or_cleared_was_read() -> None:
    row = read("A", "revise", "case-0", "Larynx", 1)
    assert row.is_reading and not undone(row).is_reading and not undone(row, state="in_progress").is_reading
    for changed in ({"state": "accepted"}, {"reason": "resected"}, {"score": 1}, {"voxels_removed": 7}):
        assert undone(row, **changed).is_reading, changed


def test_the_page_says_what_nobody_turned_to(tmp_path: Path) -> None:
    """A session of three organs: one accepted, one left as proposed, one neither proposed nor drawn."""
    from effort_logs import HandClock, recorder_at

    from soars.effort.change import OrganChange

    for number in (1, 2):
        organs = ("Brainstem", "Parotid_L", "Larynx")
        clock = HandClock()
        folder = tmp_path / f"session-{number}"
        recorder = recorder_at(folder / "1.effort.jsonl", clock, organs=organs, case=f"case-{number}")
        clock.step(1.0)
        recorder.select("Brainstem")
        clock.step(20.0)
        recorder.accept("Brainstem", OrganChange(5, 0, 0.9, 25.0))
        for organ, change in zip(organs, ((5, 25.0), (0, 30.0), (0, 0.0)), strict=True):
            recorder.snapshot(organ, OrganChange(change[0], 0, 1.0, change[1]))
        recorder.end()
    analysis = analyse_study(open_study(tmp_path), contours=False)
    assert sorted({row.organ for row in analysis.rows}) == ["Brainstem", "Parotid_L"]
    page = render_page(analysis, (), tmp_path)
    assert "2 times an organ was neither proposed nor drawn" in page
    assert "2 of 6 organs were never selected" in page


def test_the_minutes_of_each_arm_say_of_how_many_organs() -> None:
    table = minutes_table(shared_out())
    organs = {line[:2]: line[-1] for line in table.rows}
    assert organs[("revise", "all")] == 3 and organs[("scratch", "all")] == pytest.approx(2 + 1 / 6)
    assert organs[("scratch", "B")] == 1
    assert all(len(line) == len(table.columns) for line in (*table.rows, *table.published))


def test_an_unfinished_reader_decides_no_non_inferiority() -> None:
    line = non_inferiority_of_minutes(shared_out(), "revise", "scratch", 1.0)
    assert line is not None and line[:6] == ("minutes", "revise", "scratch", 6, BY_READER, 5)
    assert line[6:9] == (0, 0, 0) and line[-1] == "shown"


def test_a_slow_reader_who_read_one_arm_only_does_not_count() -> None:
    """Both read everything, R2 in twice the time, but not from scratch on the last four patients."""
    rows = [read(reader, arm, case, "Brainstem", minutes) for case in CASES for arm in ("revise", "scratch")
            for reader, minutes in (("R1", 4.0), ("R2", 8.0))
            if (reader, arm) != ("R2", "scratch") or case in CASES[:2]]  # fmt: skip
    found = compare_arms(rows, "revise", "scratch")
    assert found is not None and found.saving == 0 and found.left_out == 4
    assert found.first_mean == pytest.approx((2 * 6 + 4 * 4) / 6)


@pytest.mark.parametrize("seed", range(5))
def test_a_saving_is_the_same_whatever_was_not_finished(seed: int) -> None:
    """Every revision takes 40 % of the drawing's time, so that 60 % is saved on any part of the readings."""
    rng = random.Random(seed)
    rows = []
    for case in CASES:
        for reader, organs in (("A", ("Brainstem", "Eye_L", "Larynx")), ("B", ("Brainstem", "Parotid_L"))):
            for organ in organs:
                minutes = rng.uniform(1, 20)
                rows += [
                    read(reader, "revise", case, organ, 0.4 * minutes),
                    read(reader, "scratch", case, organ, minutes),
                ]
    rows = [row for row in rows if row.case in CASES[:2] or rng.random() < 0.7]
    rng.shuffle(rows)
    found, other = compare_arms(rows, "revise", "scratch"), compare_arms(rows, "scratch", "revise")
    assert found is not None and other is not None and found.left_out > 0
    assert found.saving == pytest.approx(0.6) and found.ratio == pytest.approx((0.4, 0.4, 0.4))
    assert other.saving == pytest.approx(1 - 1 / 0.4) and other.left_out == found.left_out


def test_readers_of_one_arm_each_are_paired_by_organ() -> None:
    """R1 and R2 change arms from patient to patient, at 6 and 3 minutes; the larynx is drawn by one of them only."""
    rows = []
    for number, case in enumerate(CASES):
        first, second = ("R1", "R2") if number % 2 else ("R2", "R1")
        rows += [read(first, "revise", case, "Brainstem", 3), read(second, "scratch", case, "Brainstem", 6)]
        rows.append(read(first, "revise", case, "Larynx", 50))
    found = compare_arms(rows, "revise", "scratch")
    assert found is not None and (found.n, found.by, found.left_out) == (6, BY_ORGAN, 6)
    assert found.saving == pytest.approx(0.5) and found.second_mean == 6


def test_patients_without_an_organ_in_both_arms_are_not_compared() -> None:
    """Readers with an organ each and one arm each: one organ's minutes against another's say nothing."""
    rows = [read(reader, arm, case, organ, 5) for case in CASES
            for reader, arm, organ in (("A", "revise", "Brainstem"), ("B", "scratch", "Larynx"))]  # fmt: skip
    assert compare_arms(rows, "revise", "scratch") is None
    assert non_inferiority_of_minutes(rows, "revise", "scratch", 1.0) is None
    assert unpaired_table(rows) is None
    savings = dict(zip(*(threshold_table(rows).column(name) for name in ("arm", "saving %")), strict=True))
    assert sorted(map(math.isnan, savings.values())) == [False, True]  # of an arm against itself, 0


def test_other_idle_thresholds_compare_the_same_organs() -> None:
    """With half the speed from scratch 50 % is saved at each threshold, though B's minutes make revising longer."""
    rows = [replace_times(row, 2) if row.arm == "scratch" else row for row in shared_out()]
    table = threshold_table(rows)
    own = {line[1]: line for line in table.rows}
    assert float(str(own["revise"][3])) > 20 and set(table.column("against")) == {"scratch"}
    assert {line[1]: line[-2:] for line in table.rows} == {"revise": (6, 50.0), "scratch": (6, 0.0)}


def replace_times(row: OrganRow, factor: float) -> OrganRow:
    return read(row.reader, row.arm, row.case, row.organ, factor * row.active_s / 60)


def test_arms_on_different_patients_are_compared_on_the_same_organs() -> None:
    """5 minutes an organ: three patients with both organs against two, while a third has one of them only."""
    rows = [
        read("A", "revise", f"a{n}", organ, 5) for n in range(3) for organ in ("Brainstem", "Eye_L", "Larynx")
    ]
    rows += [read("A", "scratch", f"b{n}", organ, 5) for n in range(3) for organ in ("Brainstem", "Eye_L")]
    table = unpaired_table([row for row in rows if (row.case, row.organ) != ("b2", "Eye_L")])
    assert table is not None and len(table.rows[0]) == len(table.columns)
    line = dict(zip(table.columns, table.rows[0], strict=True))
    # 3 + 2 patients by 2 organs are 10 readings, 3 + 3 by the brainstem 6; U of ties is n m / 2.
    assert [line[name] for name in ("n", "m", "organs", "left out")] == [3, 2, 2, 4]
    assert line["mean min"] == line["against min"] == 10 and line["U"] == 3 and line["p"] == 1


def test_a_reader_of_one_arm_only_does_not_count_on_different_patients() -> None:
    """R2 takes twice the time and read nothing from scratch."""
    rows = [read("R1", arm, f"{arm}{n}", "Brainstem", 4) for arm in ("revise", "scratch") for n in range(3)]
    table = unpaired_table([*rows, *(read("R2", "revise", f"revise{n}", "Brainstem", 8) for n in range(3))])
    assert table is not None
    line = dict(zip(table.columns, table.rows[0], strict=True))
    assert line["mean min"] == line["against min"] == 4 and line["left out"] == 3


def test_the_mixed_model_is_of_organs_that_are_in_all_sessions_of_a_reader() -> None:
    """Whatever else a session had leaves the model as it is: an organ that is missing elsewhere would be time saved."""
    rng = random.Random(1)
    rows = [read(reader, arm, case, "Brainstem", rng.uniform(3, 6)) for reader in ("A", "B") for case in CASES
            for arm in ("revise", "scratch")]  # fmt: skip
    model = arm_model(rows, "revise", "scratch")
    assert model is not None
    once = read("A", "revise", CASES[0], "Larynx", 9)
    drawn = [read("B", "scratch", case, "Larynx", 40) for case in CASES]  # not among what the model proposes
    assert arm_model([*rows, once, *drawn], "revise", "scratch") == model
    elsewhere = read("A", "other arm", CASES[0], "Larynx", 9)
    assert arm_model([*rows, elsewhere], "revise", "scratch") == model
    nothing = [row for row in rows if (row.reader, row.case, row.arm) != ("A", CASES[0], "revise")]
    assert arm_model([*nothing, once], "revise", "scratch") is None


def test_the_report_says_what_was_left_out(tmp_path: Path) -> None:
    """Two readers, two organs: one session from scratch is missing, so that two revised organs have no partner."""
    tiny_study(
        tmp_path / "s", cases=2, scratch=2, organs=("Brainstem", "Eye_L"), revise_minutes=0.5, dose=False
    )
    opened = open_study(tmp_path / "s")
    gone = next(one for one in collect_study(opened).sessions if one.header.from_scratch)
    shutil.rmtree(gone.folder)
    analysis = analyse_study(opened, contours=False)
    assert "without 2 readings of an organ in one arm only" in render_page(analysis, [], tmp_path)
    assert set(analysis.table("arms").column("left out")) == {2}


# --- non-inferiority of contours ---------------------------------------------------------------------------------


Line = dict[str, object]


def contour_set(arm: str, reader: str) -> ContourSet:
    return ContourSet(f"{arm}, {reader}", RESULT, arm, reader, {})


def score(arm: str, reader: str, case: str, organ: str, hd95_mm: float, state: str = COMPARED) -> Scored:
    """As `soars evaluate` says it: without voxels on one side a DSC of 0 and an infinite distance, on both sides
    nothing."""
    one_side, none = state in (MISSING, EXTRA), state == BOTH_EMPTY
    dsc = math.nan if none else 0.0 if one_side else 0.8
    distance = math.nan if none else math.inf if one_side else hd95_mm
    own = replace(not_annotated(organ), state=state, dsc=dsc, hd95_mm=distance, asd_mm=distance / 3)
    return Scored(case, f"{arm}, {reader}", REFERENCE, own)


def lines(scored: Sequence[Scored], figure: str = "hd95_mm", margin: float = 1.0) -> dict[str, Line]:
    """By the name of the arm whose non-inferiority is asked for."""
    sets = list(dict.fromkeys(contour_name(one.first) for one in scored))
    table = non_inferiority_table(
        Margin(figure, margin), scored, [contour_set(*one) for one in sets], lambda *_: None
    )
    return (
        {str(r[1]): dict(zip(table.columns, r, strict=True)) for r in table.rows} if table is not None else {}
    )


def contour_name(name: str) -> tuple[str, str]:
    arm, reader = name.split(", ")
    return arm, reader


def both_arms(organ: str, hd95_mm: float, worse: float = 0.0, **states: str) -> list[Scored]:
    """An organ of every patient in both arms, ``worse`` in ``revise``."""
    return [
        score(arm, "A", case, organ, hd95_mm + more + number / 10, states.get(arm, COMPARED))
        for number, case in enumerate(CASES)
        for arm, more in (("revise", worse), ("scratch", 0.0))
    ]  # fmt: skip


def test_an_arm_is_not_rewarded_for_missing_a_difficult_organ() -> None:
    """Brainstems at 3 mm in both arms, chiasms at 9 mm in one and none in the other: nothing is better at all."""
    found = lines(both_arms("Brainstem", 3) + both_arms("OpticChiasm", 9, revise=MISSING))
    revise, scratch = found["revise"], found["scratch"]
    assert (revise["n"], revise["left out"], revise["difference"]) == (6, 6, 0)
    assert revise["non-inferiority"] == "not shown: 6 missing" and math.isnan(float(str(revise["p"])))
    # The other way round the arm with all organs is judged by those that both have.
    assert scratch["difference"] == 0 and scratch["left out"] == 6 and scratch["non-inferiority"] == "shown"
    assert lines(both_arms("Brainstem", 3) + both_arms("OpticChiasm", 9, revise=MISSING), "asd_mm")["revise"][
        "non-inferiority"
    ] == "not shown: 6 missing"  # fmt: skip


def test_what_both_miss_and_what_neither_has_decides_nothing() -> None:
    scored = both_arms("Brainstem", 3, worse=0.5)
    scored += both_arms("OpticChiasm", 9, revise=MISSING, scratch=MISSING)
    scored += both_arms("Larynx", 9, revise=BOTH_EMPTY, scratch=BOTH_EMPTY)
    found = lines(scored)["revise"]
    assert found["left out"] == 6 and found["difference"] == pytest.approx(0.5)
    assert found["non-inferiority"] == "shown" and found["low"] == found["high"] == pytest.approx(0.5)
    assert lines(scored, margin=0.4)["revise"]["non-inferiority"] == "not shown"


@pytest.mark.parametrize("figure", ["hd95_mm", "dsc"])
def test_an_organ_drawn_where_there_is_none_is_held_against_the_arm(figure: str) -> None:
    found = lines(
        both_arms("Brainstem", 3) + both_arms("Larynx", 9, revise=EXTRA, scratch=BOTH_EMPTY), figure
    )
    assert found["revise"]["non-inferiority"] == "not shown: 6 extra"
    assert found["scratch"]["non-inferiority"] == "shown"


def test_a_missing_organ_counts_in_dsc_as_0() -> None:
    """(0.8 + 0) / 2 against 0.8."""
    found = lines(both_arms("Brainstem", 3) + both_arms("OpticChiasm", 9, revise=MISSING), "dsc", 0.1)[
        "revise"
    ]
    assert found["difference"] == pytest.approx(-0.4) and found["left out"] == 0
    assert found["non-inferiority"] == "not shown" and found["p"] == pytest.approx(1)


def test_a_figure_without_a_tolerance_decides_nothing() -> None:
    """No organ here has a surface DSC: there is nothing to compare, whoever misses what."""
    found = lines(both_arms("Brainstem", 3) + both_arms("OpticChiasm", 9, revise=MISSING), "surface_dsc")[
        "revise"
    ]
    assert found["n"] == 0 and found["left out"] == 12 and found["non-inferiority"] == "not shown"


def test_an_arm_that_misses_everything_has_a_line_nevertheless() -> None:
    found = lines(both_arms("Brainstem", 3, revise=MISSING))["revise"]
    assert found["n"] == 0 and found["non-inferiority"] == "not shown: 6 missing"
    assert all(math.isnan(float(str(found[name]))) for name in ("difference", "low", "high", "p"))


def test_contours_that_were_drawn_in_one_arm_only_are_not_compared() -> None:
    """B's larynxes, at 30 mm, are finished in one arm: they are not the others' gain, nor missing."""
    scored = both_arms("Brainstem", 3, worse=0.5)
    scored += [score("scratch", "B", case, "Larynx", 30) for case in CASES]
    found = lines(scored)["revise"]
    assert found["difference"] == pytest.approx(0.5) and (found["n"], found["left out"]) == (6, 6)
    assert found["non-inferiority"] == "shown" and found["paired by"] == BY_READER


def test_contours_of_different_readers_are_paired_by_organ() -> None:
    """Each patient is drawn by R1 in one arm and by R2 in the other; a second reader who misses it counts too."""
    scored = []
    for number, case in enumerate(CASES):
        first, second = ("R1", "R2") if number % 2 else ("R2", "R1")
        scored += [
            score("revise", first, case, "Brainstem", 4),
            score("scratch", second, case, "Brainstem", 3),
        ]
    found = lines(scored, margin=2)["revise"]
    assert (found["paired by"], found["n"], found["difference"]) == (BY_ORGAN, 6, pytest.approx(1))
    assert found["non-inferiority"] == "shown"
    found = lines([*scored, score("revise", "R3", CASES[0], "Brainstem", 0, MISSING)], margin=2)["revise"]
    assert (found["n"], found["left out"], found["non-inferiority"]) == (5, 1, "not shown: 1 missing")
