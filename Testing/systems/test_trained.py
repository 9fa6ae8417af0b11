"""Systems of one network on a working grid: from CT to grid and back, settings that make no sense, what is missing."""

from __future__ import annotations

import json
from collections.abc import Collection, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import SimpleITK as sitk
import torch
from safetensors.torch import save_file
from tiny_bundle import FOUND, patient

from soars.bundle.manifest import Bundle
from soars.bundle.store import CARD_SECTIONS, load_bundle, write_manifest
from soars.cascade.engine import EngineInfo
from soars.cli import main
from soars.ct.images import CtScan
from soars.errors import BundleError, CancelledError, EngineError
from soars.networks.region_net import RegionNet
from soars.networks.regions import RegionArchitecture
from soars.networks.slice_net import SliceNet
from soars.networks.slices import SliceArchitecture
from soars.progress import Progress, ignore
from soars.run.segment import segment
from soars.systems import packages
from soars.systems.interface import SegmentOptions
from soars.systems.registry import system_of
from soars.systems.trained import Finder, Found, Step, TrainedSystem
from soars.systems.votes import vote

ORGANS = tuple(FOUND)
SLICES = SliceArchitecture(2, 32, (4, 4, 4, 4, 4), (4, 4, 4, 4, 4), 4)
REGIONS = RegionArchitecture(2, (4, 4, 4, 4, 4), 8, 8, 2, (8, 8), 4, (6.0,), ((1.0, 1.0, 1.0),))
NETWORKS = {"deepmind": SLICES, "uanet": REGIONS}


def _bundle(folder: Path, system: str, **changes: Any) -> Path:
    """A bundle with random weights; `changes` replace settings, None removes one."""
    folder.mkdir(parents=True)
    torch.manual_seed(1)
    network = SliceNet(SLICES) if system == "deepmind" else RegionNet(REGIONS)
    save_file({k: v.contiguous() for k, v in network.state_dict().items()}, folder / "weights.safetensors")
    (folder / "card.md").write_text("\n".join(f"# {t}\nRandom. `soars`\n" for t in CARD_SECTIONS))
    settings = {
        "window_hu": [-500, 1000], "spacing_mm": [4, 4, 4], "weights": "weights.safetensors",
        "network": NETWORKS[system].to_dict(), **changes,
    }  # fmt: skip
    fields = {
        "name": "random", "version": "1", "description": "random weights", "licence": "CC0-1.0", "system": system,
        "organs": list(ORGANS), "settings": {k: v for k, v in settings.items() if v is not None},
    }  # fmt: skip
    write_manifest(folder, fields)
    return folder


class Bright(TrainedSystem):
    """Finds the brighter ball by its HU: the probability is how far a voxel is from tissue (0 HU) to the ball."""

    name, title, setting_keys = "uanet", "Bright", ("network",)

    def read_settings(self, given: Mapping[str, Any]) -> None:
        pass

    def network(self) -> torch.nn.Module:
        raise NotImplementedError

    def open(self, options: SegmentOptions) -> tuple[EngineInfo, Finder]:
        def find(ct: np.ndarray, organs: Collection[str], step: Step) -> Found:
            hu = (ct + 1) * 750 - 500
            (organ,) = organs
            z, y, x = (int(n) for n in np.argwhere(hu > 320).min(0) - 2)
            return {organ: ((z, y, x), np.clip(hu / FOUND[organ].hu, 0, 1)[z:, y:, x:])}

        return EngineInfo("torch", "cpu", "fp32", "a test"), find


@pytest.fixture(scope="module")
def bundle(tmp_path_factory: pytest.TempPathFactory) -> Bundle:
    return load_bundle(_bundle(tmp_path_factory.mktemp("b") / "random", "uanet"))


@pytest.mark.parametrize("orientation", ["LPS", "RAS", "PIR"])
def test_what_is_found_lies_where_it_is_on_the_ct(bundle: Bundle, orientation: str) -> None:
    scan = patient()
    turned = CtScan(sitk.DICOMOrient(scan.image, orientation), Path("ct"))
    organ = "SpinalCord"
    drawn = Bright(bundle).draw(turned, (organ,), SegmentOptions(), ignore)
    hu = sitk.GetArrayFromImage(turned.image)
    truth = np.abs(hu - FOUND[organ].hu) < 100
    mask = drawn.structures.crop(organ)
    mine = np.zeros(hu.shape, bool)
    mine[mask.slices] = mask.array
    assert 2 * (mine & truth).sum() / (mine.sum() + truth.sum()) > 0.9
    assert {(s.system, s.bundle) for s in drawn.sources.values()} == {("uanet", "random")}


@pytest.mark.parametrize("kind", [torch.OutOfMemoryError, RuntimeError])
def test_a_card_that_is_full_or_lost_is_no_internal_error(bundle: Bundle, kind: type[Exception]) -> None:
    class OnACard(Bright):
        device = "cuda"

        def open(self, options: SegmentOptions) -> tuple[EngineInfo, Finder]:
            def find(ct: np.ndarray, organs: Collection[str], step: Step) -> Found:
                raise kind("CUDA error")

            return EngineInfo("torch", self.device, "fp32", "a test"), find

    system = OnACard(bundle)
    with pytest.raises(EngineError, match="on Bright"):
        system.draw(patient(), ("SpinalCord",), SegmentOptions(), ignore)
    system.device = "cpu"
    with pytest.raises(kind):
        system.draw(patient(), ("SpinalCord",), SegmentOptions(), ignore)


@pytest.mark.parametrize("system", ["deepmind", "uanet"])
def test_a_bundle_with_random_weights_runs_and_the_report_says_which_system(
    tmp_path: Path, system: str
) -> None:
    bundle = load_bundle(_bundle(tmp_path / "b", system))
    seen: list[str] = []
    options = SegmentOptions(device="cpu", threads=1)
    result = segment(patient(), bundle, options, lambda p: seen.append(p.stage))
    assert result.engine.engine == "torch" and system in seen and system in result.timings_s
    assert set(result.structures.names) | set(result.absent) == set(ORGANS)


@pytest.mark.parametrize("system", ["deepmind", "uanet"])
def test_a_cancel_ends_the_run(tmp_path: Path, system: str) -> None:
    bundle = load_bundle(_bundle(tmp_path / "b", system))
    stages: list[str] = []

    def progress(step: Progress) -> None:
        stages.append(step.stage)

    with pytest.raises(CancelledError):
        segment(patient(), bundle, SegmentOptions(device="cpu", cancel=lambda: system in stages), progress)
    assert "contours" not in stages


@pytest.mark.parametrize(
    ("system", "changes", "reason"),
    [
        ("uanet", {"network": None}, "network is missing"),
        ("uanet", {"colour": 1}, "unknown key 'colour'"),
        ("uanet", {"onnx": "weights.safetensors"}, "unknown key 'onnx'"),
        ("uanet", {"every_box": "yes"}, "every_box must be true or false, not text"),
        ("deepmind", {"spacing_mm": [0, 4, 4]}, "spacing_mm must be positive"),
        ("deepmind", {"window_hu": [5, 5]}, "is not below"),
        ("deepmind", {"weights": "other.safetensors"}, "'other.safetensors' is not listed in files"),
        ("deepmind", {"onnx": "other.onnx"}, "'other.onnx' is not listed in files"),
        ("deepmind", {"network": {**SLICES.to_dict(), "classes": 3}}, "3 for 2 organs"),
        ("uanet", {"network": {**REGIONS.to_dict(), "classes": 1}}, "1 for 2 organs"),
    ],
)
def test_settings_that_make_no_sense_are_refused(
    tmp_path: Path, system: str, changes: dict[str, Any], reason: str
) -> None:
    with pytest.raises(BundleError, match=reason):
        system_of(load_bundle(_bundle(tmp_path / "b", system, **changes)))


@pytest.mark.parametrize("n", [1, 2, 3, 4, 5])
def test_a_voxel_is_kept_when_half_of_the_networks_agree(n: int) -> None:
    """Against counting: each network has found a block of its own, the last of them nothing."""
    rng = np.random.default_rng(n)
    found: list[dict[str, Any]] = []
    agree = np.zeros((12, 12, 12), int)
    for k in range(n):
        start = tuple(int(v) for v in rng.integers(0, 4, 3))
        values = rng.random((8, 7, 6)).astype(np.float32)
        if n == 1 or k < n - 1:
            found.append({"Brainstem": (start, values)})
            z, y, x = start
            agree[z : z + 8, y : y + 7, x : x + 6] += values > 0.5
        else:
            found.append({})
    start, values = vote(found, ("Brainstem", "SpinalCord"))["Brainstem"]
    mine = np.zeros(agree.shape, bool)
    mine[tuple(slice(a, a + m) for a, m in zip(start, values.shape, strict=True))] = values > 0.5
    np.testing.assert_array_equal(mine, agree >= (n + 1) // 2)


def test_an_organ_that_too_few_networks_found_is_absent() -> None:
    one = {"Brainstem": ((0, 0, 0), np.ones((2, 2, 2), np.float32))}
    assert vote([one, {}, {}], ["Brainstem"]) == {}
    assert set(vote([one, {}], ["Brainstem"])) == {"Brainstem"}


@pytest.mark.parametrize("system", ["deepmind", "uanet"])
def test_networks_of_a_bundle_vote(tmp_path: Path, system: str) -> None:
    """Twice the same network draws what one draws; a member that is not there is refused."""
    one = load_bundle(_bundle(tmp_path / "one", system))
    twice = load_bundle(_bundle(tmp_path / "twice", system, members=["weights.safetensors"]))
    options = SegmentOptions(device="cpu", threads=1)
    alone, voted = (segment(patient(), bundle, options) for bundle in (one, twice))
    assert "2 networks vote" in voted.engine.reason and alone.structures.names == voted.structures.names
    for organ in alone.structures.names:
        assert alone.structures.crop(organ).equals(voted.structures.crop(organ))
    with pytest.raises(BundleError, match=r"members: 'no\.safetensors' is not listed"):
        system_of(load_bundle(_bundle(tmp_path / "bad", system, members=["no.safetensors"])))


def test_weights_of_another_network_are_refused(tmp_path: Path) -> None:
    larger = replace(SLICES, hidden=8).to_dict()
    bundle = load_bundle(_bundle(tmp_path / "b", "deepmind", network=larger))
    with pytest.raises(BundleError, match="these are not weights of its network"):
        segment(patient(), bundle, SegmentOptions(device="cpu"))


@pytest.mark.parametrize("system", ["deepmind", "uanet"])
def test_weights_that_are_no_numbers_are_an_error_not_an_empty_scan(tmp_path: Path, system: str) -> None:
    folder = _bundle(tmp_path / "b", system)
    bundle = load_bundle(folder)
    ready = system_of(bundle)
    assert isinstance(ready, TrainedSystem)
    network = ready.network()
    with torch.no_grad():
        for parameter in network.parameters():
            parameter.fill_(float("nan"))
    save_file({k: v.contiguous() for k, v in network.state_dict().items()}, folder / "weights.safetensors")
    (folder / "manifest.json").unlink()
    fields = {
        "name": "random", "version": "1", "description": "nan", "licence": "CC0-1.0", "system": system,
        "organs": list(ORGANS), "settings": dict(bundle.settings),
    }  # fmt: skip
    write_manifest(folder, fields)
    with pytest.raises(EngineError, match="NaN"):
        segment(patient(), load_bundle(folder), SegmentOptions(device="cpu"))


def test_without_torch_it_says_what_to_install(bundle: Bundle, monkeypatch: pytest.MonkeyPatch) -> None:
    real = packages.importlib.metadata.version

    def version(name: str) -> str:
        if name == "torch":
            raise packages.importlib.metadata.PackageNotFoundError(name)
        return real(name)

    monkeypatch.setattr(packages.importlib.metadata, "version", version)
    problem = system_of(bundle).problem(ORGANS)
    assert problem is not None and "pip install 'soars-segmentation[torch]'" in problem
    with pytest.raises(EngineError, match="torch>=2.4"):
        segment(patient(), bundle)


def test_an_engine_that_it_has_not_is_refused(bundle: Bundle, tmp_path: Path) -> None:
    slices = load_bundle(_bundle(tmp_path / "b", "deepmind"))
    for one in (bundle, slices):
        with pytest.raises(EngineError, match="onnxruntime"):
            segment(patient(), one, SegmentOptions(engine="onnxruntime"))


def test_the_report_and_the_record_say_which_system(tmp_path: Path) -> None:
    _bundle(tmp_path / "b", "uanet")
    sitk.WriteImage(patient().image, str(tmp_path / "ct.nrrd"))
    command = ["segment", str(tmp_path / "ct.nrrd"), "--bundle", str(tmp_path / "b"), "--device", "cpu"]
    assert main([*command, "--output", str(tmp_path / "out")]) == 0
    record = json.loads((tmp_path / "out" / "run.json").read_text())
    assert record["bundle"]["system"] == "uanet" and record["engine"]["name"] == "torch"
    assert "<dt>System</dt><dd>uanet</dd>" in (tmp_path / "out" / "report.html").read_text()
