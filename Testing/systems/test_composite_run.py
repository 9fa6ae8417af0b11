"""Organs of several bundles come together as if one bundle had given them, each with its source."""

from __future__ import annotations

import json
import shutil
from collections.abc import Mapping
from pathlib import Path

import numpy as np
import pytest
import SimpleITK as sitk
from tiny_nnunet import write_model

from soars import cli
from soars.bundle.manifest import Bundle
from soars.bundle.store import load_bundle, read_bundle, write_manifest
from soars.ct.images import CtScan, read_ct
from soars.errors import BundleError, EngineError
from soars.formats import read_seg_nrrd
from soars.phantom import make_phantom, organ_boxes
from soars.run.segment import SegmentOptions, segment
from soars.systems.composite.plan import FILE
from soars.systems.nnunet.importing import ImportOptions, import_model
from soars.systems.nnunet.labels import by_name
from soars.systems.nnunet.model_folder import read_model_folder
from soars.systems.registry import system_of

CARD = "".join(f"\n## {title}\nText, `soars --version`.\n" for title in (
    "Trained on", "Licence", "Figures", "What it cannot do", "Research use only"))  # fmt: skip


def composite(
    folder: Path, sources: Mapping[str, str], organs: Mapping[str, list[str]], missing: str = "skip"
) -> Bundle:
    folder.mkdir()
    text = json.dumps(
        {"version": 1, "missing": missing, "sources": sources, "organs": organs}
    )  # JSON is YAML
    (folder / FILE).write_text(text)
    (folder / "card.md").write_text(CARD)
    return write_manifest(
        folder,
        {
            "name": folder.name,
            "version": "1",
            "description": "several bundles",
            "licence": "Apache-2.0",
            "system": "composite",
            "organs": list(organs),
            "settings": {},
        },
    )


ORGANS = ("Brainstem", "Eye_L", "Eye_R")


@pytest.fixture(scope="module")
def phantom_ct(tmp_path_factory: pytest.TempPathFactory) -> CtScan:
    boxes = organ_boxes(11)
    low, high = (pick([boxes[o][i] for o in ORGANS], axis=0) for i, pick in enumerate((np.min, np.max)))
    phantom = make_phantom(11, spacing_mm=(2.5, 2.5, 3.0), region=(low - 15, high + 15))
    path = tmp_path_factory.mktemp("phantom") / "ct.nrrd"
    sitk.WriteImage(phantom.ct, str(path))
    return read_ct(path)


def part_of_phantom(folder: Path, name: str) -> Path:
    """The shipped phantom bundle under another name: a source of its own."""
    shutil.copytree(read_bundle(load_bundle("phantom").folder).folder, folder)
    manifest = json.loads((folder / "manifest.json").read_text())
    manifest["name"] = name
    (folder / "manifest.json").write_text(json.dumps(manifest))
    return folder


@pytest.mark.slow
def test_organs_split_over_three_bundles_are_those_of_the_one(phantom_ct: CtScan, tmp_path: Path) -> None:
    names = ("one", "two", "three")
    sources = {name: str(part_of_phantom(tmp_path / name, f"part-{name}")) for name in names}
    organs = {organ: [name] for organ, name in zip(ORGANS, names, strict=True)}
    bundle = composite(tmp_path / "all", sources, organs)
    together = segment(phantom_ct, load_bundle("phantom"), SegmentOptions(organs=ORGANS))
    apart = segment(phantom_ct, load_bundle(bundle.folder))
    assert set(apart.structures.names) == set(together.structures.names) == set(ORGANS)
    for organ, name in zip(ORGANS, names, strict=True):
        assert np.array_equal(apart.structures.full(organ), together.structures.full(organ)), organ
        assert apart.sources[organ].bundle == f"part-{name}"


@pytest.fixture
def small_ct(ct_image: sitk.Image, tmp_path: Path) -> Path:
    path = tmp_path / "ct.nrrd"
    sitk.WriteImage(ct_image, str(path))
    return path


@pytest.fixture
def tiny(model: Path) -> Bundle:
    folder = read_model_folder(model)
    return import_model(folder, by_name(folder.labels), ImportOptions("tiny", version="7"))


def test_a_source_that_cannot_run_is_named_and_the_rest_goes_on(
    tiny: Bundle, small_ct: Path, tmp_path: Path
) -> None:
    bundle = composite(
        tmp_path / "mixed",
        {"ts": "totalsegmentator", "gone": "not-installed", "tiny": "tiny"},
        {"Brainstem": ["ts", "tiny"], "Parotid_L": ["tiny"], "Larynx": ["gone"], "Cerebellum": ["ts"]},
    )
    out = tmp_path / "out"
    words = ["segment", str(small_ct), "--bundle", str(bundle.folder), "--output", str(out)]
    assert cli.main([*words, "--progress", "none"]) == 0
    record = json.loads((out / "run.json").read_text())
    organs = {organ["name"]: organ for organ in record["organs"]}
    assert organs["Larynx"]["state"] == "absent" and "no bundle 'not-installed'" in organs["Larynx"]["reason"]
    assert "soars bundle get" in organs["Cerebellum"]["reason"]
    assert sum("soars bundle get" in warning for warning in record["warnings"]) == 1
    found = read_seg_nrrd(out / "segmentation.seg.nrrd")
    assert found.names and set(found.names) <= {"Brainstem", "Parotid_L"}
    for name in found:
        assert organs[name]["source"] == "tiny 7"
        assert found.info[name].tags["SOARS.bundle"] == "tiny 7"
        assert found.info[name].tags["SOARS.bundle_sha256"] == tiny.sha256


def test_the_next_source_is_asked_for_what_the_first_did_not_find(
    tiny: Bundle, small_ct: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    shutil.copytree(tiny.folder, tmp_path / "second")
    sources = {"a": "tiny", "b": str(tmp_path / "second")}
    bundle = composite(tmp_path / "both", sources, {"Brainstem": ["a", "b"], "Parotid_L": ["a", "b"]})
    from soars.systems.nnunet.system import NnUnetSystem

    real, calls = NnUnetSystem.draw, []

    def draw(self, ct, organs, options, progress):  # type: ignore[no-untyped-def]
        drawn = real(self, ct, organs, options, progress)
        calls.append((self.bundle.folder.name, organs))
        if len(calls) == 1:
            drawn.structures.remove("Brainstem")
            drawn.absent["Brainstem"] = "taken away"
        return drawn

    monkeypatch.setattr(NnUnetSystem, "draw", draw)
    result = segment(read_ct(small_ct), load_bundle(bundle.folder), SegmentOptions(threads=1))
    assert calls == [("tiny", ("Brainstem", "Parotid_L")), ("second", ("Brainstem",))]
    assert "Brainstem" in result.structures and "Brainstem" not in result.absent


RULES = by_name({"Brainstem": (1,)})


def brainstem(folder: Path, fold: int, version: str, name: str = "stem") -> Bundle:
    """A quick nnU-Net of the brainstem alone, installed; another fold has other weights."""
    model = read_model_folder(write_model(folder, {"Brainstem": 1}, folds=(fold,), favour=(1,)))
    return import_model(model, RULES, ImportOptions(name, version=version, overwrite=True))


def test_the_hash_changes_with_the_sources_and_is_in_what_is_written(small_ct: Path, tmp_path: Path) -> None:
    stem = brainstem(tmp_path / "a", 0, "7")
    sources = {"stem": "stem", "gone": "not-installed"}
    bundle = composite(tmp_path / "mine", sources, {"Brainstem": ["gone", "stem"], "Larynx": ["gone"]})
    out = tmp_path / "out"
    words = ["segment", str(small_ct), "--bundle", str(bundle.folder), "--output", str(out)]
    assert cli.main([*words, "--progress", "none"]) == 0
    record = json.loads((out / "run.json").read_text())["bundle"]
    assert record["models"] == [{"bundle": "stem", "version": "7", "sha256": stem.sha256}]
    assert stem.sha256 in (out / "report.html").read_text()
    hashes = [system_of(load_bundle(bundle.folder)).sha256]
    assert hashes == [record["sha256"]] == [system_of(load_bundle(bundle.folder)).sha256]
    # Other weights, a source that was not there, another plan: each is another model.
    brainstem(tmp_path / "b", 1, "7")
    hashes.append(system_of(load_bundle(bundle.folder)).sha256)
    brainstem(tmp_path / "c", 2, "1", "not-installed")
    with_both = system_of(load_bundle(bundle.folder))
    assert [source.bundle for source in with_both.sources] == ["stem", "not-installed"]
    replanned = composite(tmp_path / "mine2", sources, {"Brainstem": ["stem"], "Larynx": ["gone"]})
    hashes += [with_both.sha256, system_of(replanned).sha256, bundle.sha256]
    assert len(set(hashes)) == 5 and all(len(one) == 64 for one in hashes)


def test_results_of_other_sources_are_not_up_to_date(small_ct: Path, tmp_path: Path) -> None:
    first = brainstem(tmp_path / "a", 0, "7")
    bundle = composite(tmp_path / "mine", {"stem": "stem"}, {"Brainstem": ["stem"]})
    (tmp_path / "in").mkdir()
    shutil.copy(small_ct, tmp_path / "in")
    words = ["segment-all", str(tmp_path / "in"), str(tmp_path / "out"), "--bundle", str(bundle.folder)]
    words += ["--progress", "none"]
    assert cli.main(words) == 0 and cli.main(words) == 0
    assert brainstem(tmp_path / "b", 1, "7").sha256 != first.sha256
    assert cli.main(words) == 2, "contours of another model are not replaced without being asked"


def test_a_composite_that_may_not_skip_says_why_it_stops(small_ct: Path, tmp_path: Path) -> None:
    bundle = composite(
        tmp_path / "strict", {"ts": "totalsegmentator", "own": "starter"},
        {"Parotid_L": ["own"], "Eye_L": ["ts"]}, missing="fail",
    )  # fmt: skip
    with pytest.raises(EngineError, match="soars bundle get"):
        segment(read_ct(small_ct), load_bundle(bundle.folder))


def test_a_composite_of_composites_is_refused(small_ct: Path, tmp_path: Path) -> None:
    bundle = composite(tmp_path / "outer", {"inner": "monday"}, {"Larynx": ["inner"]})
    with pytest.raises(EngineError, match="is a composite; name its sources"):
        segment(read_ct(small_ct), load_bundle(bundle.folder))


def test_a_manifest_that_disagrees_with_the_plan_is_refused(tmp_path: Path) -> None:
    bundle = composite(tmp_path / "odd", {"own": "starter"}, {"Larynx": ["own"]})
    (bundle.folder / "manifest.json").unlink()
    fields = {"name": "odd", "version": "1", "description": "d", "licence": "l", "system": "composite"}
    write_manifest(bundle.folder, {**fields, "organs": ["Larynx", "Eye_L"], "settings": {}})
    with pytest.raises(BundleError, match="do not agree about Eye_L"):
        system_of(load_bundle(bundle.folder))
