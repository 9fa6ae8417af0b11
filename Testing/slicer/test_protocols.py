"""Choices of organs can be named, kept and had again."""

from __future__ import annotations

import json

import pytest

pytest.importorskip("slicer", reason="slicer-core is not installed")

from soars.catalogue import SOARS42
from soars.errors import InputError
from SOARSSegmentationLib.protocols import ALL, SETTING, Protocols


@pytest.fixture
def settings() -> dict[str, str]:
    return {}


@pytest.fixture
def protocols(settings: dict[str, str]) -> Protocols:
    return Protocols(settings.get, settings.__setitem__)


def test_all_organs_and_the_three_strata_are_always_there(protocols: Protocols) -> None:
    found = protocols.all()
    assert [p.key for p in found] == [ALL, "anchor", "mid_level", "small_hard"]
    assert found[0].organs is None
    assert [len(p.organs or ()) for p in found[1:]] == [9, 19, 14]
    assert {organ for p in found for organ in p.organs or ()} == set(SOARS42)


def test_a_saved_protocol_is_there_the_next_time(settings: dict[str, str], protocols: Protocols) -> None:
    made = protocols.save("  Larynx   sparing ", ["Parotid_R", "Larynx", "Parotid_L"])
    again = Protocols(settings.get, settings.__setitem__)
    assert again.all()[-1] == made == again.find("Larynx sparing")
    assert made.saved and set(made.organs or ()) == {"Larynx", "Parotid_L", "Parotid_R"}
    assert list(made.organs or ()) == sorted(made.organs or (), key=SOARS42.index)  # in the catalogue's order
    protocols.save("Larynx sparing", ["Larynx"])
    assert again.find("Larynx sparing").organs == ("Larynx",)
    again.remove("Larynx sparing")
    assert again.find("Larynx sparing").key == ALL


def test_only_what_the_bundle_covers_is_asked_for(protocols: Protocols) -> None:
    anchor = protocols.find("anchor")
    assert anchor.chosen(["Lens_L", "Eye_L", "Brainstem"]) == ("Brainstem", "Eye_L")
    assert protocols.find(ALL).chosen(["Lens_L"]) is None
    with pytest.raises(InputError, match="covers no organ of Anchor"):
        anchor.chosen(["Lens_L"])


@pytest.mark.parametrize(
    ("name", "organs", "words"),
    [
        ("", ["Eye_L"], "needs a name"),
        ("x" * 61, ["Eye_L"], "at most 60"),
        ("ALL organs", ["Eye_L"], "always there"),
        ("anchor", ["Eye_L"], "always there"),
        ("mine", [], "at least one organ"),
        ("mine", ["Heart"], "knows no Heart"),
    ],
)
def test_what_cannot_be_saved_is_said(
    settings: dict[str, str], protocols: Protocols, name: str, organs: list[str], words: str
) -> None:
    with pytest.raises(InputError, match=words):
        protocols.save(name, organs)
    assert settings == {}


@pytest.mark.parametrize(
    "text", ["", "{", "[1]", "null", '{"a": 1, "b": ["Heart"], "c": []}', '{"mine": ["Eye_L", 3]}']
)
def test_a_damaged_setting_stops_nobody(settings: dict[str, str], protocols: Protocols, text: str) -> None:
    settings[SETTING] = text
    assert [p.key for p in protocols.all()[:4]] == [ALL, "anchor", "mid_level", "small_hard"]
    assert [p.organs for p in protocols.all()[4:]] == ([("Eye_L",)] if "mine" in text else [])
    protocols.save("new", ["Eye_R"])
    assert json.loads(settings[SETTING])["new"] == ["Eye_R"]
