"""A composite is an arm of a study like any bundle: the same contours as a run gives, and a hash of all its sources."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import SimpleITK as sitk
from tiny_bundle import ABSENT, FOUND, patient, write_tiny_bundle

from soars.bundle.card import CARD_SECTIONS
from soars.bundle.manifest import Bundle
from soars.bundle.store import load_bundle, write_manifest
from soars.cli import main
from soars.ct.images import read_ct
from soars.formats import read_seg_nrrd
from soars.run.segment import segment
from soars.systems.registry import system_of

STUDY = """\
schema: 1
name: pilot
seed: 7
organs: [Brainstem, SpinalCord, Eye_L, Parotid_L]
cases:
  - {{name: case-01, ct: ct.nrrd}}
arms:
  - {{name: both, bundle: {bundle}}}
  - {{name: manual, proposal: none}}
readers: [{{name: R1}}]
"""


@pytest.fixture
def both(tmp_path: Path) -> Bundle:
    """Two bundles as one, and a third that is not installed."""
    for name in ("first", "second"):
        write_tiny_bundle(tmp_path / name)
    sources = {name: str(tmp_path / name) for name in ("first", "second", "third")}
    organs = {
        "Brainstem": ["third", "first"],
        ABSENT: ["first"],
        "SpinalCord": ["second"],
        "Larynx": ["third"],
    }
    folder = tmp_path / "both"
    folder.mkdir()
    (folder / "composite.yaml").write_text(json.dumps({"version": 1, "sources": sources, "organs": organs}))
    (folder / "card.md").write_text("\n".join(f"# {title}\n`soars --version`\n" for title in CARD_SECTIONS))
    fields = {"name": "both", "version": "3", "description": "d", "licence": "CC0-1.0", "system": "composite"}
    return write_manifest(folder, {**fields, "organs": list(organs), "settings": {}})


def test_a_study_is_prepared_issued_and_identified(both: Bundle, tmp_path: Path) -> None:
    lead = tmp_path / "lead"
    lead.mkdir()
    sitk.WriteImage(patient().image, str(lead / "ct.nrrd"))
    (lead / "study.yaml").write_text(STUDY.format(bundle=both.folder))
    assert main(["study", "prepare", str(lead), "--device", "cpu", "--progress", "none"]) == 0
    prepared = json.loads((lead / "prepared.json").read_text())
    proposals = [one for one in prepared["proposals"] if one["arm"] == "both"]
    assert [one["case"] for one in proposals] == ["case-01"]
    sha256 = system_of(load_bundle(both.folder)).sha256
    for one in proposals:
        assert (one["bundle"], one["bundle_version"], one["bundle_sha256"]) == ("both", "3", sha256)
        assert one["organs"] == ["Brainstem", "SpinalCord"] and one["absent"] == ["Eye_L", "Parotid_L"]
        assert any("third" in warning for warning in one["warnings"])
    assert sha256 != both.sha256
    # What the readers get is what a run gives, without a trace of the models.
    run = segment(read_ct(lead / "ct.nrrd"), load_bundle(both.folder))
    (proposal,) = (lead / "share" / "cases" / "case-01").glob("*.seg.nrrd")
    given = read_seg_nrrd(proposal)
    assert set(given.names) == set(FOUND)
    for organ in FOUND:
        assert np.array_equal(given.full(organ), run.structures.full(organ))
        assert not any("bundle" in tag for tag in given.info[organ].tags)
    assert main(["study", "worklist", str(lead)]) == 0
