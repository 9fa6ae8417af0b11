"""Models that need packages and downloads: said before the run, asked for once, one progress over several sources."""

from __future__ import annotations

import importlib.metadata
import json
import os
from typing import Any

import pytest

pytest.importorskip("slicer", reason="slicer-core is not installed")
import slicer

from soars.progress import Progress

pytestmark = pytest.mark.skipif(os.name == "nt", reason="the playing child is a shell script")

READY = ["Brainstem", "SpinalCord", "Larynx"]
WEIGHTS = [
    {"name": "775 glands", "present": False, "licence": "Apache-2.0", "url": "https://example.org/775.zip",
     "needs_number": False},
    {"name": "409 brain", "present": False, "licence": "licence number", "url": "a licence server",
     "needs_number": True},
    {"name": "298 body", "present": True, "licence": "Apache-2.0", "url": "https://example.org/298.zip",
     "needs_number": False},
]  # fmt: skip


def child(got: str, says: str = "") -> str:
    """A child that knows ``soars bundle needs`` and ``get``, and notes each command in the file ``got``; what `get`
    fetches is there afterwards."""
    state = {"bundle": "monday", "ready": READY, "missing_packages": [], "sizes": {"775 glands": 234_000_000}}
    return f"""
state, weights, got = {state!r}, {WEIGHTS!r}, pathlib.Path({got!r})
words = sys.argv[sys.argv.index("bundle"):]
fetched = got.exists() and '"get"' in got.read_text()
with got.open("a") as file:
    file.write(json.dumps(words) + "\\n")
if words[1] == "needs":
    why_not = {{}} if fetched else {{"Eye_L": "models are missing"}}
    print(json.dumps({{**state, "weights": [] if fetched else weights, "why_not": why_not}}))
else:
    say("download", 0, 2, "glands")
    {says or 'print("monday: 2 models downloaded, 0 still missing")'}
"""


@pytest.fixture
def monday(visit: Any) -> Any:
    """The user has chosen the composite."""
    visit.got = visit.folder / "got.jsonl"
    visit.plays(child(str(visit.got)))
    choose(visit, "monday")
    visit.until(lambda: "Ready on this computer" in visit.window.propose.panel.card.widget.text)
    return visit


def choose(visit: Any, name: str) -> None:
    box = visit.window.propose.panel.bundle
    box.currentIndex = box.findData(name)


def commands(visit: Any) -> list[list[str]]:
    return [json.loads(line) for line in visit.got.read_text().splitlines()]


def click(visit: Any, link: str) -> None:
    text = visit.window.propose.panel.card.widget.text
    assert f'href="{link}"' in text, text
    visit.window.propose.panel.card.widget.linkActivated.emit(link)


def test_the_list_says_how_many_of_the_42_each_model_covers(visit: Any) -> None:
    box = visit.window.propose.panel.bundle
    titles = {box.itemData(i): box.itemText(i) for i in range(box.count)}
    assert titles["monday"] == "monday (26 of 42)" and titles["starter"] == "starter (8 of 42)"
    assert titles["tester"] == "tester (2 of 42)"


def test_what_is_ready_and_what_nobody_covers_is_said_before_the_run(monday: Any) -> None:
    text = monday.window.propose.panel.card.widget.text
    assert "26 of 42 organs" in text
    assert "Ready on this computer: 3 of 26 organs. 2 models can be downloaded." in text
    assert "Not in this model (16): " in text and "BrachialPlex_L" in text and "Larynx" not in text
    assert [words[:2] for words in commands(monday)] == [["bundle", "needs"]]
    assert "--sizes" not in commands(monday)[0], "nobody is asked before the user asks"
    monday.picture("m1_chosen")


def test_a_cascade_is_ready_without_a_look(visit: Any) -> None:
    visit.got = visit.folder / "got.jsonl"
    visit.plays(child(str(visit.got)))
    choose(visit, "phantom")
    text = visit.window.propose.panel.card.widget.text
    assert "42 of 42" in text and "Not in this model" not in text and 'href="get"' not in text
    assert not visit.got.exists()


def test_drawing_from_scratch_is_beside_the_organs_that_nobody_covers(monday: Any) -> None:
    click(monday, "scratch")
    assert monday.window.desk.parameters.arm == "scratch"
    assert monday.window.timing.panel.arm.currentData == "scratch"
    assert "draw from scratch" in monday.window.propose.notice.text


@pytest.fixture
def dialogs(monday: Any, monkeypatch: pytest.MonkeyPatch) -> list[Any]:
    """The dialogs that were opened; the last word of ``monday.answer`` says what the user pressed."""
    opened: list[Any] = []
    qt = monday.qt
    monday.answer = qt.QDialog.Accepted

    def press(dialog: Any) -> Any:
        opened.append(dialog)
        line = dialog.findChild(qt.QLineEdit)
        if line is not None:
            line.text = " aca_1234 "
        dialog.grab().save(str(monday.pictures / "m2_get.png"))
        return monday.answer

    monday.pictures.mkdir(parents=True, exist_ok=True)
    monkeypatch.setattr(qt.QDialog, "exec_", press, raising=False)
    monkeypatch.setattr(slicer.util, "mainWindow", lambda: monday.application.main_window, raising=False)
    return opened


def test_get_it_shows_what_from_where_and_under_which_licence_and_asks_first(
    monday: Any, dialogs: list[Any]
) -> None:
    monday.answer = monday.qt.QDialog.Rejected
    click(monday, "get")
    monday.until(lambda: dialogs)
    tree = dialogs[0].findChild(monday.qt.QTreeWidget)
    rows = [[tree.topLevelItem(i).text(c) for c in range(4)] for i in range(tree.topLevelItemCount)]
    assert rows == [
        ["775 glands", "234 MB", "Apache-2.0", "https://example.org/775.zip"],
        ["409 brain", "not known", "licence number", "a licence server"],
    ]
    assert "--sizes" in commands(monday)[-1]
    assert monday.window.propose.notice.text == "Nothing was downloaded."
    assert not any(words[1] == "get" for words in commands(monday))


def test_after_a_yes_it_is_downloaded_and_the_model_is_ready(monday: Any, dialogs: list[Any]) -> None:
    click(monday, "get")
    monday.until(lambda: "2 models downloaded" in monday.window.propose.notice.text)
    get = commands(monday)[-1]
    assert get[1] == "get" and "--yes" in get and get[get.index("--licence-number") + 1] == "aca_1234"
    monday.until(lambda: 'href="get"' not in monday.window.propose.panel.card.widget.text)
    assert monday.window.propose.panel.apply.enabled


def test_a_download_is_watched_can_be_cancelled_and_apply_waits_for_it(
    monday: Any, dialogs: list[Any]
) -> None:
    monday.plays(child(str(monday.got), "time.sleep(60)"))
    click(monday, "get")
    notice = monday.window.propose.notice
    monday.until(lambda: notice.text == "Downloading: 0 of 2 (glands)")
    assert not monday.window.propose.panel.apply.enabled
    notice.action_button.click()
    assert "Cancelled" in notice.text and not monday.window.propose.models.downloading
    assert monday.window.propose.panel.apply.enabled


def test_a_failed_download_is_one_sentence(monday: Any, dialogs: list[Any]) -> None:
    fails = "print('soars: error: the disk is full', file=sys.stderr); sys.exit(2)"
    monday.plays(child(str(monday.got), fails))
    click(monday, "get")
    monday.until(lambda: monday.window.propose.notice.text == "The disk is full.")
    assert monday.window.propose.panel.apply.enabled


# --- packages ----------------------------------------------------------------------------------------------------
@pytest.fixture
def installed(monkeypatch: pytest.MonkeyPatch) -> dict[str, str]:
    """The packages that seem to be installed."""
    versions = {"slicerio": "1.4.0", "onnxruntime": "1.20.0"}

    def version(name: str) -> str:
        try:
            return versions[name]
        except KeyError:
            raise importlib.metadata.PackageNotFoundError(name) from None

    monkeypatch.setattr(importlib.metadata, "version", version)
    return versions


def test_apply_asks_for_every_package_that_the_model_needs_and_takes_no_for_single_sources(
    monday: Any, installed: dict[str, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    from SOARSSegmentationLib.run import dependencies

    asked: list[list[str]] = []
    optional: list[str] = []

    def install(requirements: Any, **_options: Any) -> None:
        asked.append([one.name for one in requirements])
        installed.update({one.name: one.oldest for one in requirements})

    def ask(text: str, *_arguments: Any, detailedText: str = "", **_options: Any) -> bool:
        optional.append(f"{text}\n{detailedText}")
        return False

    monkeypatch.setattr(dependencies, "ask_and_install", install)
    monkeypatch.setattr(slicer.util, "confirmOkCancelDisplay", ask, raising=False)
    models, bundle = monday.window.propose.models, monday.window.propose.panel.entry.bundle
    models.install(bundle, "cpu", None)
    assert asked == [["PyYAML"]], "without it nothing is known of the sources"
    (question,) = optional
    assert "organs of some sources are left out" in question
    for name in ("torch>=", "safetensors>=", "TotalSegmentator>="):
        assert name in question
    models.install(bundle, "cpu", None)
    assert len(optional) == 1, "a no is taken once and for all"


def test_get_it_asks_for_the_packages_first(
    monday: Any, installed: dict[str, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    from SOARSSegmentationLib.panels.bundle_card import readiness_of
    from SOARSSegmentationLib.run import dependencies
    from SOARSSegmentationLib.run.models import State

    bundle = monday.window.propose.panel.entry.bundle
    text = readiness_of(bundle, State(("Larynx",), {"Eye_L": "no package"}, (), ("TotalSegmentator>=2.18",)))
    assert "1 of 26" in text and "Missing packages: TotalSegmentator." in text and 'href="get"' in text
    installed |= {"PyYAML": "6.0"}
    asked: list[str] = []
    monkeypatch.setattr(
        slicer.util, "confirmOkCancelDisplay", lambda text, *_a, **_k: asked.append(text), raising=False
    )
    monkeypatch.setattr(dependencies, "_install", lambda specifiers: pytest.fail("installed unasked"))
    before = len(commands(monday))
    click(monday, "get")
    click(monday, "get")
    assert len(asked) == 2 and len(commands(monday)) == before


def test_a_model_of_one_system_needs_its_packages_and_no_engine_of_the_cascade(
    visit: Any, installed: dict[str, str]
) -> None:
    from soars.bundle.store import load_bundle
    from SOARSSegmentationLib.run.models import packages_missing

    installed.pop("onnxruntime")
    lacking = packages_missing(load_bundle("totalsegmentator"), "cpu", None)
    assert [one.name for one in lacking.needed] == ["torch", "safetensors", "TotalSegmentator"]
    assert lacking.optional == []
    assert [one.name for one in packages_missing(load_bundle("starter"), "cpu", None).needed] == [
        "onnxruntime"
    ]


# --- progress ----------------------------------------------------------------------------------------------------
def test_sources_appear_in_one_progress_as_they_begin() -> None:
    from SOARSSegmentationLib.panels.progress_view import stage_title
    from SOARSSegmentationLib.run.stages import Stages

    stages = Stages(())
    heard = [
        ("check", 0, 0), ("read", 0, 0), ("ts/glands_cavities", 0, 4), ("ts/glands_cavities", 2, 4),
        ("ts/total", 1, 2), ("ts/check", 0, 0), ("starter/load", 0, 0), ("starter/anchor", 3, 4),
    ]  # fmt: skip
    for second, (stage, done, of) in enumerate(heard):
        stages.hear(Progress(stage, done, of), float(second))
    assert [(s.name, s.state, s.share) for s in stages.all] == [
        ("read", "done", 1.0), ("ts/glands_cavities", "done", 1.0), ("ts/total", "done", 1.0),
        ("starter/anchor", "running", 0.75), ("write", "to_come", None),
    ]  # fmt: skip
    assert [stage_title(s.name) for s in stages.all] == [
        "Reading the CT", "ts: glands cavities", "ts: total", "starter: Anchor organs", "Checking and writing",
    ]  # fmt: skip
    # A source that is asked again for what others did not find goes back no stage.
    stages.hear(Progress("write", 0, 4), 9.0)
    stages.hear(Progress("ts/late", 1, 2), 10.0)
    assert [s.state for s in stages.all] == ["done"] * 4 + ["running"]
    stages.hear(Progress("done"), 11.0)
    assert {s.state for s in stages.all} == {"done"}
