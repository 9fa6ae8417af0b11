"""The pages over many cases in a real browser: rows are sorted by a click, and nothing is fetched or run besides."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from chromium import start_chromium
from report_scene import record_of, scene

from soars.dose.cases import CaseDose
from soars.dose.compare import DoseDifference, OrganDose
from soars.dose.dvh import Dvh
from soars.findings.finding import Finding
from soars.metrics.evaluate import CaseScores
from soars.metrics.scores import score_structures
from soars.report.record import ExpectedDsc
from soars.service.batch import FAILED, SEGMENTED, Outcome
from soars.service.comparison import is_own_page, write_doses_page, write_scores_page
from soars.service.result import BATCH, PICTURE
from soars.service.tables import INDEX, write_tables
from soars.structures import StructureSet

EVIL = "<script>document.title='run'</script><img src=x onerror=\"document.title='run'\">"


class Page:
    """A page with one table of cases."""

    def __init__(self, driver: Any) -> None:
        self.driver = driver

    def open(self, path: Path) -> None:
        self.driver.get_log("performance")
        self.driver.get(path.as_uri())

    def sort(self, title: str) -> list[str]:
        """Click on a column's title; the cases' names from top to bottom."""
        for button in self.driver.find_elements("css selector", "#cases > thead button"):
            if button.text.split("\n")[0].strip(" ▲▼") == title:
                button.click()
                return self.names()
        raise AssertionError(f"no column {title}")

    def names(self) -> list[str]:
        code = (
            "return [...document.querySelectorAll('#cases > tbody > tr')]"
            ".map((row) => (row.querySelector('[data-name]') ?? row.cells[arguments[0]]).innerText.split('\\n')[0])"
        )
        titles = self.driver.execute_script(
            "return [...document.querySelectorAll('#cases > thead th')].map((h) => h.innerText.trim())"
        )
        return self.driver.execute_script(code, [title.strip(" ▲▼") for title in titles].index("case"))

    def cells(self, css: str) -> list[str]:
        return [each.text for each in self.driver.find_elements("css selector", css)]

    def check_nothing_else_happened(self, path: Path) -> None:
        events = [json.loads(entry["message"])["message"] for entry in self.driver.get_log("performance")]
        urls = {e["params"]["request"]["url"] for e in events if e["method"] == "Network.requestWillBeSent"}
        assert {url for url in urls if not url.startswith("data:")} == {path.as_uri()}
        assert self.driver.title != "run"
        assert [e for e in self.driver.get_log("browser") if e["level"] == "SEVERE"] == []


@pytest.fixture(scope="module")
def page() -> Iterator[Page]:
    driver = start_chromium()
    yield Page(driver)
    driver.quit()


def test_a_batch_is_sorted_by_what_the_reader_chooses(page: Page, tmp_path: Path) -> None:
    _, structures = scene()
    small = Finding("Lens_L", "volume", "serious", "it is small", "Compare it with the other side.", None)
    cases = {"case2": (0.7, 20.0), "case10": (0.9, 3.0), EVIL: (0.8, 7.0)}
    folders = {"case2": "case2", "case10": "case10", EVIL: "evil"}
    for name, (dsc, seconds) in cases.items():
        record = record_of(structures)
        organs = {organ.name: organ for organ in record.organs}
        organs["Parotid_L"] = replace(
            organs["Parotid_L"], volume_cc=100 * dsc, expected_dsc=ExpectedDsc(dsc, dsc - 0.1, dsc + 0.1)
        )
        if name == "case10":
            organs["Lens_L"] = replace(organs["Lens_L"], findings=(small,))
        folder = tmp_path / folders[name]
        folder.mkdir()
        (folder / "run.json").write_text(replace(record, organs=tuple(organs.values())).to_json())
        (folder / PICTURE).write_text(
            '<svg xmlns="http://www.w3.org/2000/svg"><script>parent.document.title="run"</script></svg>'
        )
        (folder / BATCH).write_text(json.dumps({"case": name, "key": "", "seconds": seconds}))
    outcomes = [Outcome(folders[name], SEGMENTED) for name in cases] + [Outcome("case3", FAILED, EVIL)]
    write_tables(outcomes, tmp_path)
    page.open(tmp_path / INDEX)
    assert page.names() == ["case2", "case10", "evil", "case3"]
    assert page.sort("case") == ["case2", "case3", "case10", "evil"], "numbers in names count as numbers"
    assert page.sort("case") == ["evil", "case10", "case3", "case2"]
    assert page.sort("lowest expected DSC") == ["case2", "evil", "case10", "case3"]
    assert page.sort("lowest expected DSC")[-1] == "case3", "what has no value comes last either way"
    assert page.sort("time") == ["case10", "evil", "case2", "case3"]
    page.sort("findings: serious / to check / notes")
    assert page.sort("findings: serious / to check / notes")[0] == "case10"
    # An organ's columns, sorted by them while it is chosen.
    choice = page.driver.find_element("id", "organ")
    assert {option.get_attribute("value") for option in choice.find_elements("css selector", "option")} == {
        "SpinalCord", "Parotid_L", "Parotid_R", "Lens_L",
    }  # fmt: skip
    page.driver.execute_script(
        "arguments[0].value = 'Parotid_L'; arguments[0].dispatchEvent(new Event('change'))", choice
    )
    assert page.sort("volume cc") == ["case2", "evil", "case10", "case3"]
    assert page.cells("td.volume") == ["70.00", "80.00", "90.00"]
    page.check_nothing_else_happened(tmp_path / INDEX)


def test_scores_are_sorted_and_a_missing_organ_is_the_worst(page: Page, tmp_path: Path) -> None:
    _, reference = scene()

    def case(name: str, moved: int, drop: str = "") -> CaseScores:
        ours = StructureSet(reference.geometry)
        for organ in reference:
            if organ != drop:
                ours.add(organ, np.roll(reference.full(organ), moved, axis=2))
        return CaseScores(name, tuple(score_structures(ours, reference)))

    path = tmp_path / "scores.html"
    cases = [case("far", 3), case("near", 1), case("without lens", 1, "Lens_L")]
    write_scores_page(cases, {EVIL: EVIL}, "surface-distance", path)
    assert is_own_page(path)
    page.open(path)
    # By construction: the further, the lower the DSC and the larger the distance; a missing organ has 0 and infinity.
    assert page.sort("lowest DSC")[:3] == ["without lens", "far", "near"]
    page.sort("largest HD95 mm")
    assert page.sort("largest HD95 mm")[:3] == ["without lens", "far", "near"]
    assert page.sort("missing")[:3][-1] == "without lens"
    assert page.names()[-1] == EVIL
    assert "3 cases, 1 left out" in page.driver.find_element("tag name", "main").text
    page.check_nothing_else_happened(path)


def test_doses_are_sorted_by_the_size_of_their_difference(page: Page, tmp_path: Path) -> None:
    def difference(organ: str, mean: float) -> DoseDifference:
        ours, theirs = OrganDose(1, mean, 60, 50, 0), OrganDose(1, 20.0, 60, 50, 0)
        return DoseDifference(organ, "auto", "compared", theirs, ours, Dvh.empty(), Dvh.empty())

    path = tmp_path / "doses.html"
    cases = [
        CaseDose("less", (difference("Parotid_L", 10.0), difference("Brainstem", 21.0))),
        CaseDose("more", (difference("Parotid_L", 26.0),)),
        CaseDose("same", (difference("Parotid_L", 20.0),)),
    ]
    write_doses_page(cases, {}, path)
    page.open(path)
    page.sort("largest of the mean dose, %")
    assert page.sort("largest of the mean dose, %") == ["less", "more", "same"], (
        "half is more than a third above"
    )
    shown = page.cells("#cases > tbody > tr:first-child > td")
    assert shown[:5] == ["less", "auto", "2", "27.5", "0.0"] and shown[5] == "-50.0\nLeft parotid gland"
    page.check_nothing_else_happened(path)
