"""The two bundles in the repository: whole, described, and doing what their cards say."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from soars.bundle.store import SHIPPED, check_card, load_bundle
from soars.catalogue import SOARS42
from soars.ct.images import CtScan, read_ct
from soars.metrics import dice
from soars.phantom import make_phantom
from soars.run.segment import SegmentOptions, segment

STARTER = (
    "Brainstem",
    "SpinalCord",
    "Bone_Mandible_L",
    "Bone_Mandible_R",
    "Parotid_L",
    "Parotid_R",
    "Larynx",
    "Esophagus",
)


@pytest.mark.parametrize(("name", "organs"), [("phantom", SOARS42), ("starter", STARTER)])
def test_a_shipped_bundle_is_whole_described_and_small(name: str, organs: tuple[str, ...]) -> None:
    bundle = load_bundle(name)
    assert sorted(bundle.organs) == sorted(organs)
    assert not bundle.warnings and not check_card(bundle.card)
    assert "not a medical device" in bundle.card.lower()
    assert bundle.size_bytes < 15e6
    assert bundle.folder.parent == SHIPPED


@pytest.mark.slow
def test_the_phantom_bundle_finds_all_organs_of_an_unseen_phantom() -> None:
    phantom = make_phantom(11, spacing_mm=(1.5, 1.5, 3.0))
    result = segment(CtScan(phantom.ct, Path("phantom"), None, []), load_bundle("phantom"))
    scores = {
        o: dice(result.structures.crop(o), phantom.structures.crop(o)) if o in result.structures else 0.0
        for o in SOARS42
    }
    missed = [o for o, value in scores.items() if value == 0]
    assert len(missed) <= 2, missed
    assert np.mean(list(scores.values())) > 0.6, scores


@pytest.fixture(scope="module")
def real_ct(request: pytest.FixtureRequest) -> CtScan:
    """The real full-field CT."""
    return read_ct(request.getfixturevalue("shared") / "data" / "ct_hn")


@pytest.mark.slow
@pytest.mark.shared
def test_both_engines_draw_the_same_on_a_real_ct(real_ct: CtScan) -> None:
    # From the mouth to the larynx: the whole scan takes torch minutes in float32.
    part = replace(real_ct, image=real_ct.image[:, :, 30:60], series=None)
    bundle = load_bundle("starter")
    a, b = (
        segment(part, bundle, SegmentOptions(engine=engine)).structures for engine in ("torch", "onnxruntime")
    )
    assert {"Parotid_L", "Parotid_R", "Bone_Mandible_L", "SpinalCord"} <= set(a.names)
    both = either = 0
    for organ in sorted({*a.names, *b.names}):
        x = a.full(organ) if organ in a else np.zeros(a.geometry.shape, bool)
        y = b.full(organ) if organ in b else np.zeros(a.geometry.shape, bool)
        both += np.count_nonzero(x & y)
        either += np.count_nonzero(x | y)
    assert both / either >= 0.999


@pytest.mark.slow
@pytest.mark.shared
def test_organs_of_a_real_ct_lie_as_in_a_person(real_ct: CtScan) -> None:
    structures = segment(real_ct, load_bundle("starter"), SegmentOptions(engine="onnxruntime")).structures
    centre = {o: np.asarray(structures.centre_of_mass(o)) for o in structures.names}
    assert set(STARTER) - {"Esophagus"} <= set(centre)
    assert centre["Parotid_L"][0] - centre["Parotid_R"][0] > 60  # LPS: left is +x
    assert centre["Bone_Mandible_L"][0] - centre["Bone_Mandible_R"][0] > 20
    assert centre["Brainstem"][2] > centre["SpinalCord"][2] + 30
    assert centre["Larynx"][2] < centre["Bone_Mandible_L"][2]
    assert centre["Larynx"][1] < centre["SpinalCord"][1]  # in front of the cord
    assert 10 < structures.volume_cc("Brainstem") < 45
