"""Words of strangers reach neither the terminal's controls nor a spreadsheet's formulas."""

from __future__ import annotations

import csv
import io
import json
import logging
import re
import sys
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from tiny_bundle import write_tiny_bundle

from soars.bundle.store import write_manifest
from soars.cells import HarmlessWriter, harmless, original
from soars.cli import main
from soars.dicom.roi_names import read_roi_names
from soars.formats.labelmap import write_label_map
from soars.formats.reading import read_structures
from soars.metrics.evaluate import CaseScores
from soars.metrics.scores import score_structures
from soars.metrics.tables import read_scores, write_scores
from soars.progress import Progress, reporting
from soars.structures import Geometry, StructureSet
from soars.words import plain, plain_output

ROOT = Path(__file__).parents[2]
CONTROL = re.compile(r"[\x00-\x08\x0b-\x1f\x7f-\x9f\u202a-\u202e\u2066-\u2069]")
HOSTILE = "\x1b]0;owned\x07\x1b[2J\x9b1mneck\u202egnp.exe\r"


# --- the terminal -------------------------------------------------------------------------------------------------
@given(st.text())
def test_plain_text_has_no_control_character_and_loses_none_that_shows(text: str) -> None:
    shown = plain(text)
    assert not CONTROL.search(shown) and "\n" not in shown
    if "\\" not in text:
        assert re.sub(r"\\u[0-9a-f]{4}", "", shown) == "".join(c for c in text if plain(c) == c)


@given(st.text())
def test_a_line_of_json_is_the_same_after_the_filter(text: str) -> None:
    line = json.dumps({"message": text}, ensure_ascii=False)
    assert json.loads(plain(line)) == {"message": text}


def test_ordinary_words_of_any_script_are_left_alone() -> None:
    for text in ("Kopf-Hals, nativ", "頭頸部", "Шея", "رقبة", "cou (été)", "a\tb"):
        assert plain(text, "\t") == text


def test_whatever_is_printed_or_logged_is_filtered(capsys: pytest.CaptureFixture[str]) -> None:
    with plain_output():
        print(HOSTILE)
        print("two\nlines\tand a tab")
        sys.stderr.write(HOSTILE)
    out, err = capsys.readouterr()
    assert not CONTROL.search(out) and not CONTROL.search(err)
    assert "two\nlines\tand a tab\n" in out and sys.stdout.write.__qualname__ != "_Plain.write"


def test_bundles_errors_and_warnings_of_a_command_are_filtered(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SOARS_BUNDLES", str(tmp_path / "home"))
    folder = write_tiny_bundle(tmp_path / "home" / "odd")
    card = (folder / "card.md").read_text(encoding="utf-8")
    (folder / "card.md").write_text(card + HOSTILE, encoding="utf-8", newline="")
    fields = json.loads((folder / "manifest.json").read_text(encoding="utf-8"))
    fields = {k: v for k, v in fields.items() if k not in ("format_version", "card", "files")}
    write_manifest(
        folder, {**fields, "version": HOSTILE, "description": f"a\nb {HOSTILE}", "licence": HOSTILE}
    )
    for command in (["bundle", "list"], ["bundle", "show", "odd"], ["bundle", "verify", "odd"]):
        assert main(command) == 0
        out, err = capsys.readouterr()
        assert not CONTROL.search(out + err), command
    assert main(["segment", f"/nowhere/{HOSTILE}", "--output", str(tmp_path / "o")]) == 2
    err = capsys.readouterr().err
    assert not CONTROL.search(err) and err.count("\n") == 1 and "\\u001b" in err


def test_progress_shows_messages_as_plain_text(capsys: pytest.CaptureFixture[str]) -> None:
    with reporting("auto") as report:
        report(Progress("read", 1, 2, HOSTILE))
    assert not CONTROL.search(capsys.readouterr().err)


def test_a_hostile_name_in_a_log_record_is_filtered(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def warn(args: object) -> int:
        logging.getLogger("soars.test").warning("ROI %s is odd", HOSTILE)
        return 0

    monkeypatch.setattr("soars.commands.bundle.run", warn)
    assert main(["bundle", "list"]) == 0
    assert not CONTROL.search(capsys.readouterr().err)


# --- spreadsheets -------------------------------------------------------------------------------------------------
@given(st.text())
def test_a_cell_is_no_formula_and_is_read_back_as_it_was(text: str) -> None:
    written = str(harmless(text))
    assert original(written) == text
    try:
        float(text)
    except ValueError:
        assert written[:1] not in tuple("=+-@\t\r")


@pytest.mark.parametrize(
    "text", ["=1+1", "+1+1", "-1+1", "@SUM(A1)", "\t=1", "\r=1", "'=1", "''=1", "＝1+1", "'", "'a"]
)
def test_cells_that_tempt_a_spreadsheet(text: str) -> None:
    written = str(harmless(text))
    assert original(written) == text and written[0] not in "=+-@\t\r＝"


def test_numbers_stay_numbers() -> None:
    file = io.StringIO()
    HarmlessWriter(file).writerow([-1.5, "-1.5", "+2", "1e-3", "-inf", "=A1"])
    assert file.getvalue() == "-1.5,-1.5,+2,1e-3,-inf,'=A1\r\n"


def structures_named(name: str) -> StructureSet:
    structures = StructureSet(
        Geometry((6, 6, 6), (1.0, 1.0, 1.0), (0.0, 0.0, 0.0), (1, 0, 0, 0, 1, 0, 0, 0, 1))
    )
    mask = np.zeros((6, 6, 6), bool)
    mask[2:4, 2:4, 2:4] = True
    structures.add(name, mask)
    return structures


def test_a_table_of_scores_survives_hostile_names(tmp_path: Path) -> None:
    name = '=HYPERLINK("http://example.org")'
    structures = structures_named(name)
    scores = score_structures(structures, structures)
    path = tmp_path / "scores.csv"
    write_scores([CaseScores("@case", tuple(scores))], path)
    with path.open(newline="", encoding="utf-8") as file:
        rows = list(csv.reader(file))
    assert rows[1][:2] == ["'@case", f"'{name}"]
    (case,) = read_scores(path)
    assert case.case == "@case" and [score.organ for score in case.scores] == [name]


def test_names_of_label_values_and_rois_are_read_back(tmp_path: Path) -> None:
    (tmp_path / "names.csv").write_text("organ,name\nBrainstem,'=Stem\n", encoding="utf-8")
    assert read_roi_names(tmp_path / "names.csv") == {"Brainstem": "=Stem"}
    structures = structures_named("-odd")
    write_label_map(structures, tmp_path / "organs.nii.gz")
    (tmp_path / "organs.json").unlink()
    (tmp_path / "organs.csv").write_text("value,name\n1,'-odd\n", encoding="utf-8")
    assert read_structures(tmp_path / "organs.nii.gz").names == ("-odd",)


def test_every_table_goes_through_the_one_writer() -> None:
    """`csv.writer` itself is used where cells are made harmless, and for the table of our own organs."""
    own = {"cells.py", "slicer_terms.py"}
    places = [ROOT / "SOARSSegmentation" / "soars", ROOT / "training"]
    found = [
        p
        for place in places
        for p in place.rglob("*.py")
        if re.search(r"csv\.(writer|DictWriter)\(", p.read_text())
    ]
    assert {path.name for path in found} <= own
