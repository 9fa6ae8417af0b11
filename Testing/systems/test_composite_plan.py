"""What a composite's file may say, and who keeps a voxel that two sources claim."""

from __future__ import annotations

import sys

import numpy as np
import pytest

from soars.bundle.store import load_bundle
from soars.cascade.engine import EngineInfo
from soars.errors import BundleError
from soars.findings.finding import ExpectedDsc
from soars.structures import Geometry, StructureSet
from soars.systems.composite.overlaps import settle_overlaps
from soars.systems.composite.plan import FILE, parse_plan
from soars.systems.composite.system import CompositeSystem, _Merged
from soars.systems.interface import Drawn, Source
from soars.systems.registry import system_of
from soars.systems.totalsegmentator.system import TotalSegmentatorSystem

PLAN = b"""
version: 1
sources: {ts: totalsegmentator, own: starter}
organs:
  Brainstem: [ts, own]
  Larynx: [own]
"""


def test_a_plan_is_read() -> None:
    plan = parse_plan(PLAN, FILE)
    assert plan.sources == {"ts": "totalsegmentator", "own": "starter"}
    assert plan.organs == {"Brainstem": ("ts", "own"), "Larynx": ("own",)} and plan.missing == "skip"


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ((b"version: 1", b"version: 2"), "version must be 1"),
        ((b"version: 1", b""), "expected version, sources, organs"),
        ((b"Larynx", b"Liver"), "'Liver' is not an organ"),
        ((b"[own]", b"[other]"), "'other' is not among the sources"),
        ((b"[ts, own]", b"[ts, ts]"), "has a source twice"),
        ((b"[own]", b"own"), "needs a list of sources"),
        ((b"sources:", b"missing: maybe\nsources:"), "missing must be skip or fail"),
        ((b"own: starter", b"own: 3"), "sources must give"),
        ((b"[ts, own]", b"[ts, own"), "not valid YAML"),
        ((b"version: 1", b"version: !!python/object/apply:os.getcwd []"), "not valid YAML"),
    ],
)
def test_a_wrong_plan_is_refused(change: tuple[bytes, bytes], reason: str) -> None:
    with pytest.raises(BundleError, match=reason):
        parse_plan(PLAN.replace(*change), FILE)


def test_without_its_package_a_sentence_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "yaml", None)
    with pytest.raises(BundleError, match="pip install PyYAML"):
        parse_plan(PLAN, FILE)


def overlapping(first: str, second: str) -> StructureSet:
    """Two cubes of 1000 voxels that share 200."""
    out = StructureSet(Geometry((40, 20, 20), (1.0, 1.0, 1.0), (0.0, 0.0, 0.0)))
    out.add_crop(first, (0, 0, 0), np.ones((10, 10, 10), bool))
    out.add_crop(second, (0, 0, 8), np.ones((10, 10, 10), bool))
    return out


def test_the_first_in_the_composite_keeps_a_contested_voxel() -> None:
    organs = overlapping("Parotid_L", "Glnd_Submand_L")
    sources = {"Parotid_L": "a", "Glnd_Submand_L": "b"}
    (settled,) = settle_overlaps(organs, sources, ["Parotid_L", "Glnd_Submand_L"], {})
    assert (settled.winner, settled.loser, settled.share) == ("Parotid_L", "Glnd_Submand_L", 0.2)
    assert organs.voxels("Parotid_L") == 1000 and organs.voxels("Glnd_Submand_L") == 800


def test_confidence_decides_where_it_is_known_of_both() -> None:
    sources = {"Parotid_L": "a", "Glnd_Submand_L": "b"}
    for expected, kept in (
        ({"Parotid_L": 0.6, "Glnd_Submand_L": 0.8}, "Glnd_Submand_L"),
        ({"Glnd_Submand_L": 0.8}, "Parotid_L"),
    ):
        organs = overlapping("Parotid_L", "Glnd_Submand_L")
        settle_overlaps(organs, sources, ["Parotid_L", "Glnd_Submand_L"], expected)
        assert organs.voxels(kept) == 1000


def test_organs_of_one_source_and_organs_within_others_stay() -> None:
    for whole, part in (
        ("Eye_L", "Lens_L"),
        ("Brain", "Brainstem"),
        ("Brain", "Hippocampus_R"),
        ("Eye_AL", "Lens_L"),
    ):
        organs = overlapping(whole, part)
        assert settle_overlaps(organs, {whole: "a", part: "b"}, [whole, part], {}) == []
    organs = overlapping("Brainstem", "Cerebellum")
    apart = {"Brainstem": "a", "Cerebellum": "b"}
    assert len(settle_overlaps(organs, apart, ["Brainstem", "Cerebellum"], {})) == 1
    organs = overlapping("Parotid_L", "Glnd_Submand_L")
    same = {"Parotid_L": "a", "Glnd_Submand_L": "a"}
    assert settle_overlaps(organs, same, ["Parotid_L", "Glnd_Submand_L"], {}) == []


def test_an_organ_that_another_takes_whole_is_absent_and_says_why() -> None:
    """A cube of 216 voxels within one of 1000 that another source drew, and an expected DSC of the source that found
    nothing, which is none of the contour's."""
    grid = Geometry((40, 20, 20), (1.0, 1.0, 1.0), (0.0, 0.0, 0.0))
    engine = EngineInfo("torch", "cpu", "fp32", "")

    def drawn(expected: dict[str, ExpectedDsc], **cubes: int) -> Drawn:
        structures = StructureSet(grid)
        for name, size in cubes.items():
            structures.add_crop(name, (2, 2, 2), np.ones((size, size, size), bool))
        return Drawn(
            structures,
            {},
            [],
            engine,
            {},
            dict.fromkeys(cubes, Source("s", "s", "1", "")),
            expected_dsc=expected,
        )

    merged = _Merged(StructureSet(grid))
    high, low = ExpectedDsc(0.9, 0.8, 1.0), ExpectedDsc(0.5, 0.4, 0.6)
    merged.add("a", drawn({"Parotid_L": low, "Glnd_Submand_L": high}, Parotid_L=10))
    merged.add("b", drawn({}, Glnd_Submand_L=6))
    merged.settle(["Parotid_L", "Glnd_Submand_L"])
    result = merged.drawn()
    assert result.structures.names == ("Parotid_L",) and result.structures.voxels("Parotid_L") == 1000
    assert "claimed by another model as Left parotid gland" in result.absent["Glnd_Submand_L"]
    assert set(result.expected_dsc) == set(result.sources) == {"Parotid_L"}
    assert [finding.organ for finding in result.findings] == ["Glnd_Submand_L"]


def test_the_shipped_bundles_are_what_their_cards_say() -> None:
    ts, monday = load_bundle("totalsegmentator"), load_bundle("monday")
    assert len(ts.organs) == 25 and "25 of the 42" in ts.card
    assert len(monday.organs) == 26 and "26 of the 42" in monday.card
    assert isinstance(system_of(ts), TotalSegmentatorSystem)
    composite = system_of(monday)
    assert isinstance(composite, CompositeSystem)
    starter = load_bundle("starter")
    for organ, names in composite.plan.organs.items():
        sources = {"totalsegmentator": ts, "starter": starter}
        assert all(organ in sources[name].organs for name in names), organ
        assert [name for name in sources if organ in sources[name].organs] == list(names), organ
