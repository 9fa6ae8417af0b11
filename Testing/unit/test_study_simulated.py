"""A study whose truth is known goes through the whole analysis and comes out as it was built."""

from __future__ import annotations

import csv
import json
from collections import Counter
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import SimpleITK as sitk
from tiny_study import shared_out_study, tiny_study

from soars.catalogue import SOARS42
from soars.cli import main
from soars.errors import InputError
from soars.formats import read_seg_nrrd
from soars.study.load import Opened, collect_study, open_study
from soars.study.results.arms import compare_arms
from soars.study.results.effort import category_table, main_rows
from soars.study.results.minutes import minutes_table, patient_minutes, threshold_table
from soars.study.results.page import render_page
from soars.study.results.readers import reader_tables, repeat_table
from soars.study.results.summary import analyse_study
from soars.study.rows import OrganRow
from soars.study.simulation.power import PowerOptions, power_of
from soars.study.simulation.truth import Truth, draw_revising, reader_speeds

PUBLISHED = {"none": 58.0, "minor": 40.0, "moderate": 2.0, "major": 0.0}


@pytest.fixture(scope="module")
def opened(tmp_path_factory: pytest.TempPathFactory) -> Opened:
    """30 patients, 42 organs, 2 readers, 5 patients from scratch: the published study."""
    folder = tmp_path_factory.mktemp("published") / "study"
    tiny_study(folder, cases=30, scratch=5, dose=False)
    return open_study(folder)


@pytest.fixture(scope="module")
def rows(opened: Opened) -> list[OrganRow]:
    found = collect_study(opened)
    assert not found.left_out and not any(session.problems for session in found.sessions)
    return main_rows(found.rows)


def test_the_shares_of_the_categories_are_recovered_within_a_point(rows: list[OrganRow]) -> None:
    table = category_table(rows)
    every = next(row for row in table.rows if row[:2] == ("revise", "all"))
    assert every[3] == 2 * 1260
    for name, share in PUBLISHED.items():
        assert every[table.columns.index(f"{name} %")] == pytest.approx(share, abs=1.0)


def test_minutes_and_the_saving_are_recovered_within_a_percent(rows: list[OrganRow]) -> None:
    table = minutes_table(rows)
    means = {row[0]: row[3] for row in table.rows if row[1] == "all"}
    assert means["revise"] == pytest.approx(10.5, rel=0.01)
    assert means["scratch"] == pytest.approx(106.4, rel=0.01)
    found = compare_arms(rows, "revise", "scratch")
    assert found is not None and found.n == 5
    assert 100 * found.saving == pytest.approx(90.0, abs=1.0)
    assert found.p["mixed model"] < 1e-6 and found.p["paired t"] < 0.001
    assert found.p["wilcoxon"] == pytest.approx(2 / 2**5)  # all five patients the same way


def test_an_edit_that_the_log_calls_none_left_every_voxel(rows: list[OrganRow]) -> None:
    for row in rows:
        if row.category:
            assert (
                (row.category == "none")
                == (row.edit_dsc == 1.0)
                == (row.voxels_added + row.voxels_removed == 0)
            )
    assert Counter(row.category for row in rows)["none"] > 1000


def test_readers_without_a_difference_are_not_said_to_differ(rows: list[OrganRow]) -> None:
    (line,) = reader_tables(rows)[0].rows
    assert line[0] == "R2" and 0.9 < float(str(line[2])) < 1.1 and float(str(line[5])) > 0.05


def test_long_looks_count_by_the_threshold(rows: list[OrganRow]) -> None:
    means = [row[3] for row in threshold_table(rows).rows if row[1] == "scratch"]
    assert means == sorted(means)  # type: ignore[type-var]
    assert means[-1] > means[2] > means[0]  # type: ignore[operator]
    assert means[2] == pytest.approx(106.4, rel=0.01)  # at the plan's 30 s


def test_readers_who_share_out_the_organs_add_up(rows: list[OrganRow]) -> None:
    """000: one reader had 13 organs and the other 29: their minutes of a patient are summed, not averaged."""
    revise = [row for row in rows if row.arm == "revise"]
    first = set(sorted({row.organ for row in revise})[:13])
    divided = [row for row in revise if (row.organ in first) == (row.reader == "R1")]
    case = divided[0].case
    by_hand = sum(row.active_s for row in divided if row.case == case) / 60
    assert patient_minutes(divided)["revise"][case] == pytest.approx(by_hand)
    both = sum(row.active_s for row in revise if row.case == case) / 60 / 2
    assert patient_minutes(revise)["revise"][case] == pytest.approx(both)


def test_an_organ_of_another_readers_part_is_not_missing(tmp_path: Path) -> None:
    """Readers who share out the organs: each is judged in their own, in agreement, doses and time."""
    parts = {"R1": ("Brainstem", "Eye_L"), "R2": ("Parotid_L", "Lens_L", "Larynx")}
    shared_out_study(tmp_path / "s", parts)
    analysis = analyse_study(open_study(tmp_path / "s"), processes=1)
    assert not analysis.collection.left_out and len(analysis.collection.rows) == 5 * (3 + 1)
    for name, column in (("agreement", 2), ("dose", 1)):
        table = analysis.table(name)
        missing = table.columns.index("missing")
        for reader, part in parts.items():
            rows = [row for row in table.rows if row[0] == f"revise, {reader}"]
            assert {str(row[column]) for row in rows if row[column] in sum(parts.values(), ())} == set(part)
            assert [row[missing] for row in rows] == [0] * len(rows)
        proposed = [row for row in table.rows if row[0] == "revise, proposed" and row[column] != "all"]
        assert {row[column] for row in proposed} >= set(sum(parts.values(), ()))
    assert "pairwise" not in {table.name for table in analysis.tables}  # no organ that both drew
    minutes = {row[:2]: row[3] for row in analysis.table("minutes").rows}
    together = minutes[("revise", "R1")] + minutes[("revise", "R2")]  # type: ignore[operator]
    assert minutes[("revise", "all")] == pytest.approx(together)


def test_what_is_odd_about_a_dose_is_in_the_log_and_on_the_page(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """A dose cut off after x index 8, through an organ at 8 to 10: all but its first 6 voxels (or 5) of 18 (or 17)."""
    cut = SOARS42[1]
    shared_out_study(tmp_path / "s", {"R1": (SOARS42[0], cut)}, cases=2)
    dose = tmp_path / "s" / "doses" / "case-2.nrrd"
    sitk.WriteImage(sitk.ReadImage(str(dose))[:9], str(dose))
    voxels = read_seg_nrrd(tmp_path / "s" / "references" / "case-2.seg.nrrd").crop(cut).voxels
    analysis = analyse_study(open_study(tmp_path / "s"), processes=1)
    said = (
        f"{100 * 12 / voxels:.0f} % of {cut} lies beyond the dose grid in the reference, and counts as 0 Gy"
    )
    assert f"case-2: {said}" in [record.getMessage() for record in caplog.records]
    page = render_page(analysis, [], tmp_path)
    assert f"<li>case-2: {said}</li>" in page
    assert "<li>case-1: " not in page and SOARS42[0] + " lies beyond" not in page


def test_a_planted_difference_of_readers_is_found(tmp_path: Path) -> None:
    tiny_study(tmp_path / "s", cases=8, scratch=1, reader_ratio=1.8, repeats=4, dose=False)
    found = collect_study(open_study(tmp_path / "s"))
    (line,) = reader_tables(main_rows(found.rows))[0].rows
    assert 1.4 < float(str(line[2])) < 2.2 and float(str(line[5])) < 0.01  # 9 sessions each: chance is 5 %
    again = repeat_table([row for row in found.rows if row.phase == "main"])
    assert again is not None and [row[4] for row in again.rows] == [4, 4]


@pytest.mark.parametrize("ratio", [1.0, 1.3, 2.0])
def test_the_deck_is_dealt_in_the_shares_and_scaled_to_the_minutes(ratio: float) -> None:
    keys = [("revise", r, c) for r in range(3) for c in range(7)]
    organs = [f"organ {n}" for n in range(42)]
    works = draw_revising(Truth(reader_ratio=ratio), keys, organs, reader_speeds(3, ratio), seed=3)
    assert np.mean([work.active_s for work in works.values()]) == pytest.approx(60 * 10.5, rel=1e-6)
    for reader in range(3):
        counts = Counter(o.category for k, w in works.items() if k[1] == reader for o in w.organs.values())
        total = 7 * 42
        assert {n: round(100 * counts[n] / total) for n in PUBLISHED} == {
            n: round(v) for n, v in PUBLISHED.items()
        }


def test_a_truth_that_cannot_be_is_refused() -> None:
    with pytest.raises(InputError, match="add up to 1"):
        Truth(shares=(0.5, 0.4, 0.0, 0.0))
    works = [("revise", 0, 0)]
    with pytest.raises(InputError, match="cannot be had"):
        draw_revising(replace(Truth(), revise_minutes=500.0), works, ["Brainstem"], [1.0], 1)


# --- power ------------------------------------------------------------------------------------------------------------


def test_without_an_effect_the_power_is_the_level() -> None:
    (found,) = power_of(PowerOptions(0.0, cases=(12,), simulations=400, interaction_sd=0.0))
    assert found.low < 0.05 < found.high


def test_power_is_that_of_the_closed_form_for_one_reader() -> None:
    """Paired t test of log-normal minutes without other noise: close to the non-central t of the logs."""
    from scipy.stats import nct
    from scipy.stats import t as student

    n, saving, sd = 10, 0.2, 0.2
    options = PowerOptions(
        saving, cases=(n,), readers=1, case_sd=0.0, reader_sd=0.0, interaction_sd=0.0, rest_sd=sd, test="paired t",
        simulations=600,
    )  # fmt: skip
    (found,) = power_of(options)
    shift = -np.log(1 - saving) / (sd * np.sqrt(2)) * np.sqrt(n)
    known = 1 - nct.cdf(student.ppf(0.975, n - 1), n - 1, shift)
    assert found.power == pytest.approx(known, abs=0.06)


def test_more_patients_readers_and_readings_give_more_power() -> None:
    few, many = power_of(PowerOptions(0.15, cases=(6, 24), simulations=150))
    assert many.power > few.power
    (twice,) = power_of(PowerOptions(0.15, cases=(6,), repeats=4, simulations=150))
    assert twice.power > few.power


@pytest.mark.parametrize("changes", [{"saving": 1.0}, {"cases": (1,)}, {"test": "luck"}, {"rest_sd": -1.0}])
def test_a_study_that_cannot_be_sized_is_refused(changes: dict[str, object]) -> None:
    with pytest.raises(InputError):
        PowerOptions(**{"saving": 0.2, **changes})  # type: ignore[arg-type]


# --- the command line -------------------------------------------------------------------------------------------------


def test_the_commands_lead_from_cts_to_a_report(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """What simulating does through functions, by the commands: new, prepare, worklist, status, collect, summarize."""
    made = tmp_path / "made"
    tiny_study(made, cases=2, scratch=1, organs=("Brainstem", "Eye_L"), revise_minutes=0.5, dose=False)
    lead = tmp_path / "lead"
    assert main(["study", "new", str(lead), "--cts", str(made / "cts"), "--references", str(made / "references"),
                 "--name", "pilot", "--scratch", "1"]) == 0  # fmt: skip
    text = (lead / "study.yaml").read_text()
    assert "case-01" in text and "../made/cts/case-001.nrrd" in text and "reference:" in text
    contours = json.dumps(str(made / "model"))
    assert main(["study", "new", str(lead), "--cts", str(made / "cts")]) == 2  # never written over
    (lead / "study.yaml").write_text(
        text.replace('bundle: "starter"', f"contours: {contours}").replace("SOARS42", "[Brainstem, Eye_L]")
        .replace("name: case-01", "name: case-001").replace("name: case-02", "name: case-002")
    )  # fmt: skip
    assert main(["study", "worklist", str(lead)]) == 2  # nothing is prepared yet
    assert "soars study prepare" in capsys.readouterr().err
    assert main(["study", "prepare", str(lead), "--progress", "none"]) == 0
    assert main(["study", "worklist", str(lead)]) == 0
    assert (lead / "registration.md").read_text().startswith("# pilot: pre-registration")
    assert main(["study", "status", str(lead), "--progress", "none"]) == 0  # nobody has read yet
    assert "0 of 6 sessions are finished" in capsys.readouterr().out
    assert main(["study", "summarize", str(lead), "--times-only", "--output", str(tmp_path / "none")]) == 2
    assert "no finished session" in capsys.readouterr().err and not (tmp_path / "none").exists()
    for command in (
        ["status", str(made)],
        ["collect", str(made), "--csv", str(tmp_path / "rows.csv")],
        ["summarize", str(made), "--output", str(tmp_path / "out")],
    ):
        assert main(["study", *command, "--progress", "none", "--processes", "1"]) == 0
    out = capsys.readouterr().out
    assert ("6 of 6 sessions are finished (100 %)" in out and "% saved" in out) or "report.html" in out
    with (tmp_path / "rows.csv").open(newline="") as file:
        assert len(list(csv.DictReader(file))) == 12
    page = (tmp_path / "out" / "report.html").read_text()
    assert 'src="data:image/png' in page and "http" not in page.replace("http-equiv", "")
    assert (
        main(["study", "summarize", str(made), "--output", str(tmp_path / "out"), "--progress", "none"]) == 2
    )


def test_power_by_the_command(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    files = ["--csv", str(tmp_path / "p.csv"), "--plot", str(tmp_path / "p.png")]
    arguments = [
        "study",
        "power",
        "--saving",
        "0.3",
        "--cases",
        "4,8",
        "--simulations",
        "20",
        "--processes",
        "1",
    ]
    assert main([*arguments, *files, "--progress", "none"]) == 0
    assert "8 patients" in capsys.readouterr().out
    assert (tmp_path / "p.csv").read_text().count("\n") == 3 and (tmp_path / "p.png").stat().st_size > 5000
    assert main(["study", "power", "--saving", "0.3", "--cases", "many"]) == 2
