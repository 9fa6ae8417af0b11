"""Collecting a study: what is used, what is left out by name, and what violates the protocol."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
from tiny_study import tiny_study

from soars.errors import InputError
from soars.study.ledger import CHECKSUMS, check_checksums
from soars.study.load import collect_study, open_study
from soars.study.plan.issue import issue
from soars.study.plan.model import read_plan
from soars.study.results.summary import analyse_study
from soars.study.rows import COLUMNS, cell, write_rows
from soars.study.sessions import Collection
from soars.study.status import status_text, update_ledger

ORGANS = ("Brainstem", "Eye_L", "Parotid_L", "Lens_L")


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("made") / "study"
    tiny_study(folder, cases=4, scratch=2, organs=ORGANS, shares=(0.5, 0.5, 0.0, 0.0), revise_minutes=1.0)
    return folder


@pytest.fixture
def study(made: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(made, tmp_path / "study"))


def collected(folder: Path, *more: Path) -> Collection:
    return collect_study(open_study(folder, more))


def sessions(folder: Path) -> list[Path]:
    return sorted((folder / "share" / "sessions" / "simulated").iterdir())


def rewrite(folder: Path, change: Callable[[str], str]) -> None:
    """Change the text of a session's log, with chains that fit again, as somebody who knows how would."""
    from soars.effort.chain import chained_line

    path, before, out = folder / "1.effort.jsonl", "", b""
    for line in change(path.read_text()).splitlines():
        record = json.loads(line)
        record.pop("chain")
        text, before = chained_line(record, before)
        out += text
    path.write_bytes(out)


def test_a_study_as_it_should_be_has_nothing_to_complain_of(study: Path) -> None:
    found = collected(study)
    assert len(found.sessions) == 2 * (4 + 2) and not found.left_out
    assert all(session.finished and not session.problems for session in found.sessions)
    assert len(found.rows) == 12 * len(ORGANS)
    assert {row.arm for row in found.rows} == {"revise", "scratch"}  # by the key, not by the code


def test_without_the_key_arms_keep_their_codes(study: Path) -> None:
    (study / "key.json").unlink()
    arms = {row.arm for row in collected(study).rows}
    assert len(arms) == 2 and not arms & {"revise", "scratch"}


def test_each_damaged_session_is_named_and_left_out_and_the_others_stay(study: Path) -> None:
    corrupt, future, foreign, stranger, copied = sessions(study)[:5]
    log = corrupt / "1.effort.jsonl"
    log.write_bytes(log.read_bytes().replace(b'"kind":"select"', b'"kind":"sel\x00ct"', 1))
    rewrite(future, lambda text: text.replace('"schema":2', '"schema":9', 1))
    rewrite(foreign, lambda text: text.replace('"study":"simulated"', '"study":"another"', 1))
    reader = "R1" if "_R1_" in stranger.name else "R2"
    rewrite(stranger, lambda text: text.replace(f'"reader":"{reader}"', '"reader":"R9"', 1))
    shutil.copytree(copied, study / "share" / "sessions" / "simulated" / "copy-of-a-session")
    found = collected(study)
    reasons = {one.folder.name: one.reason for one in found.left_out}
    assert len(found.sessions) == 12 - 4
    assert "line" in reasons[corrupt.name]
    assert "newer version" in reasons[future.name]
    assert "another study, another" in reasons[foreign.name]
    assert "no reader R9" in reasons[stranger.name]
    assert sum("is a copy of" in reason for reason in reasons.values()) == 1
    text = status_text(open_study(study), found)
    assert all(folder.name in text for folder in (corrupt, future, foreign, stranger))


def test_a_second_reading_of_the_same_is_left_out_for_the_first(study: Path) -> None:
    first = sessions(study)[0]
    second = Path(shutil.copytree(first, first.with_name("again")))
    rewrite(second, lambda text: text.replace('"started_utc":"2026-01', '"started_utc":"2026-02', 1))
    found = collected(study)
    assert [(one.folder.name, "earlier reading" in one.reason) for one in found.left_out] == [("again", True)]
    assert len(found.sessions) == 12


def test_what_is_not_as_the_protocol_wants_it_is_named(study: Path) -> None:
    revise = [f for f in sessions(study) if (f / "proposal.seg.nrrd").exists()]
    with_other_proposal, unfinished = revise[0], revise[1]
    sha = collected(study).rows[0].proposal_sha256
    rewrite(with_other_proposal, lambda text: "\n".join(
        [json.dumps({**json.loads(text.splitlines()[0]), "proposal_sha256": "0" * 64}), *text.splitlines()[1:]]
    ))  # fmt: skip
    rewrite(unfinished, lambda text: "\n".join(text.splitlines()[:-1]))
    problems = {s.name: " ".join(s.problems) for s in collected(study).sessions}
    assert "contours other than the arm's proposal" in problems[with_other_proposal.name]
    assert "not finished" in problems[unfinished.name]
    assert "changed after the session was finished" in problems[unfinished.name]
    assert sha != "0" * 64


def test_a_wash_out_that_was_not_kept_and_a_wrong_order_are_named(study: Path) -> None:
    plan = study / "study.yaml"
    plan.write_text(plan.read_text().replace("washout_days: 14", "washout_days: 40"))
    found = collected(study)
    assert sum("wash-out is 40" in " ".join(s.problems) for s in found.sessions) == 4
    late = next(s for s in found.sessions if s.header.sequence == 1)
    rewrite(late.folder, lambda text: text.replace('"started_utc":"2026-01', '"started_utc":"2026-03', 1))
    found = collected(study)
    assert any("was read before number 1" in " ".join(s.problems) for s in found.sessions)


def test_two_sites_merged_give_the_same_rows_and_report_as_one(study: Path, tmp_path: Path) -> None:
    whole = collected(study)
    other = tmp_path / "site B"
    for folder in sessions(study):
        if "_R2_" in folder.name:
            shutil.move(folder, other / "wherever" / folder.name)
    by_name = collected(study, other)
    assert by_name.rows == whole.rows
    assert len(collected(study).sessions) == 6
    first = analyse_study(open_study(study, (other,)))
    for folder in sorted((other / "wherever").iterdir()):
        shutil.copytree(folder, study / "share" / "sessions" / "simulated" / folder.name)
    second = analyse_study(open_study(study))
    assert len(first.tables) > 15
    assert repr(first.tables) == repr(second.tables)  # as text: nan is no equal of itself
    assert repr(first.comparisons) == repr(second.comparisons)


def test_the_ledger_notices_what_was_changed_or_went_after_the_first_collection(study: Path) -> None:
    assert update_ledger(study, collected(study)) == []
    assert update_ledger(study, collected(study)) == []
    changed, gone = sessions(study)[:2]
    rewrite(changed, lambda text: text.replace('"undo"', '"redo"').replace('"wheel"', '"move"', 1))
    (changed / CHECKSUMS).unlink()  # whoever changes a log can remove the list beside it
    shutil.rmtree(gone)
    problems = update_ledger(study, collected(study))
    assert any(changed.name in one and "differs from" in one for one in problems)
    assert any(gone.name in one and "disappeared" in one for one in problems)
    assert update_ledger(study, collected(study)) == problems  # it does not get used to it


def test_checksums_name_each_file_that_is_not_as_it_was(study: Path) -> None:
    folder = sessions(study)[0]
    assert check_checksums(folder) == []
    (folder / "result.seg.nrrd").write_bytes(b"x")
    (folder / "notes.txt").write_text("new")
    problems = check_checksums(folder)
    assert any("result.seg.nrrd was changed" in one for one in problems)
    assert any("notes.txt was added after" in one for one in problems)
    (folder / CHECKSUMS).write_text("nonsense")
    assert check_checksums(folder) == [f"{CHECKSUMS} is damaged"]


def test_worklists_do_not_change_under_readers_who_have_begun(study: Path) -> None:
    plan = read_plan(study)
    issue(plan, study)  # the same again is no change
    before = (study / "share" / "worklists" / "R1.json").read_bytes()
    prepared = study / "prepared.json"
    text = (study / "study.yaml").read_text().replace("seed: 1", "seed: 2")
    (study / "study.yaml").write_text(text)
    with pytest.raises(InputError, match="changed since its cases were prepared"):
        issue(read_plan(study), study)
    prepared.write_text(prepared.read_text().replace(plan.sha256, read_plan(study).sha256))
    with pytest.raises(InputError, match="readers have started"):
        issue(read_plan(study), study)
    assert (study / "share" / "worklists" / "R1.json").read_bytes() == before


def test_nothing_that_readers_get_names_an_arm_or_a_model(study: Path) -> None:
    words = (b"revise", b"scratch", b"model", b"starter")
    looked_at = 0
    for path in (study / "share").rglob("*"):
        if path.is_file():
            looked_at += 1
            text = path.read_bytes() + path.name.encode()
            assert not any(word in text for word in words), path
    assert looked_at > 30


def test_rows_are_written_with_every_column(study: Path, tmp_path: Path) -> None:
    import csv

    found = collected(study)
    row = replace(found.rows[0], comment='=HYPERLINK("x")', score=4)
    write_rows([row, *found.rows[1:]], tmp_path / "rows.csv")
    with (tmp_path / "rows.csv").open(newline="") as file:
        read = list(csv.DictReader(file))
    assert tuple(read[0]) == COLUMNS and len(read) == len(found.rows)
    assert read[0]["comment"].startswith("'=") and read[0]["score"] == "4"
    assert float(read[0]["active_s"]) == pytest.approx(found.rows[0].active_s, rel=1e-5)
    assert (
        cell(float("nan")) == "" and cell(True) == "yes" and cell(-3) == "-3" and cell(float("inf")) == "inf"
    )


def test_sessions_of_two_studies_need_to_be_told_apart(study: Path, tmp_path: Path) -> None:
    home = study / "share" / "sessions"
    other = Path(shutil.copytree(sessions(study)[0], home / "another" / "x"))
    rewrite(other, lambda text: text.replace('"study":"simulated"', '"study":"another"', 1))
    with pytest.raises(InputError, match="several studies, another, simulated"):
        collected(home)
    only = collect_study(open_study(home, study="another"))
    assert len(only.sessions) == 1
    with pytest.raises(InputError, match="no effort log"):
        collected(tmp_path / "study" / "cts")
