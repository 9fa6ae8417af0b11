"""A bundle is loaded only if it is what was published and makes sense; else it is refused with the reason."""

from __future__ import annotations

import copy
import hashlib
import os
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from made_bundles import BRANCHES, CARD, FIELDS, at, change_manifest, make_bundle, refused

from soars.bundle.manifest import FORMAT_VERSION
from soars.bundle.store import (
    load_bundle,
    read_bundle,
    write_manifest,
)
from soars.errors import BundleError
from soars.networks.architecture import Architecture


class TestAGoodBundle:
    def test_of_format_1_is_read_and_knows_no_windows_of_its_branches(self, folder: Path) -> None:
        change_manifest(folder, lambda m: m.update(format_version=1))
        assert load_bundle(folder).format_version == 1
        assert load_bundle(folder).branches["anchor"].windows_hu == ()
        change_manifest(folder, at("branches", "anchor", "windows_hu", to=[[-500, 1000]]))
        refused(folder, "unknown key 'branches.anchor.windows_hu'")

    def test_may_give_a_branch_several_windows_of_the_ct(self, tmp_path: Path) -> None:
        windows = ((-500.0, 1000.0), (-160.0, 240.0))
        anchor = BRANCHES[0]
        wider = replace(anchor, windows_hu=windows, architecture=replace(anchor.architecture, in_channels=2))
        bundle = load_bundle(make_bundle(tmp_path / "wide", branches={"anchor": wider.to_dict()}, voi_mm={}))
        assert bundle.branches["anchor"].windows_hu == windows

    def test_may_say_that_a_network_knows_mirror_images(self, tmp_path: Path) -> None:
        anchor = replace(BRANCHES[0], mirror=True)
        bundle = load_bundle(make_bundle(tmp_path / "both", branches={"anchor": anchor.to_dict()}, voi_mm={}))
        assert bundle.format_version == 2 and bundle.branches["anchor"].mirror
        change_manifest(bundle.folder, lambda m: m.update(format_version=1))
        refused(bundle.folder, "unknown key 'branches.anchor.mirror'")

    def test_may_say_how_close_windows_follow_one_another(self, tmp_path: Path) -> None:
        anchor = replace(BRANCHES[0], stride=0.25)
        bundle = load_bundle(
            make_bundle(tmp_path / "close", branches={"anchor": anchor.to_dict()}, voi_mm={})
        )
        assert bundle.format_version == 2 and bundle.branches["anchor"].stride == 0.25
        change_manifest(bundle.folder, lambda m: m.update(format_version=1))
        refused(bundle.folder, "unknown key 'branches.anchor.stride'")

    def test_may_have_another_network_in_format_2(self, tmp_path: Path) -> None:
        plain = BRANCHES[0].architecture
        network = Architecture.plain(
            plain.in_channels, plain.out_channels, plain.features, "phnn", "norm-act-conv"
        )
        anchor = replace(BRANCHES[0], architecture=network)
        bundle = load_bundle(make_bundle(tmp_path / "phnn", branches={"anchor": anchor.to_dict()}, voi_mm={}))
        assert bundle.format_version == 2 and bundle.branches["anchor"].architecture == network
        change_manifest(bundle.folder, lambda m: m.update(format_version=1))
        refused(bundle.folder, "phnn in the order norm-act-conv belongs to format 2, but format_version is 1")

    def test_says_what_it_holds(self, folder: Path) -> None:
        bundle = load_bundle(folder)
        assert (bundle.name, bundle.version, bundle.licence) == ("tiny", "1.0.0", "CC0-1.0")
        assert tuple(bundle.branches.values()) == BRANCHES
        assert bundle.window_hu == (-500.0, 1000.0)
        assert bundle.voi_mm["Lens_L"] == (30.0, 30.0, 30.5)
        assert bundle.card == CARD
        assert bundle.warnings == ()

    def test_lists_its_organs_but_not_the_heat_map_groups(self, folder: Path) -> None:
        organs = "Brainstem SpinalCord Parotid_L Parotid_R Esophagus Cochlea_L Ear_Internal_L Lens_L"
        assert load_bundle(folder).organs == tuple(organs.split())

    def test_is_identified_by_the_hash_of_its_manifest(self, folder: Path) -> None:
        digest = hashlib.sha256((folder / "manifest.json").read_bytes()).hexdigest()
        assert load_bundle(folder).sha256 == digest

    def test_keeps_the_order_of_the_cascade_whatever_the_order_in_the_manifest(self, tmp_path: Path) -> None:
        backwards = dict(reversed(FIELDS["branches"].items()))
        bundle = load_bundle(make_bundle(tmp_path / "backwards", branches=backwards))
        assert list(bundle.branches) == ["anchor", "mid_level", "detection", "small_hard"]

    def test_may_cover_anchors_only(self, tmp_path: Path) -> None:
        only = make_bundle(tmp_path / "only", branches={"anchor": FIELDS["branches"]["anchor"]}, voi_mm={})
        assert load_bundle(only).organs == ("Brainstem", "SpinalCord")

    def test_gives_the_weights_of_a_branch_or_says_which_there_are(self, folder: Path) -> None:
        bundle = load_bundle(folder)
        assert bundle.weights("anchor", "onnx") == folder / "anchor.onnx"
        with pytest.raises(
            BundleError, match="no torch weights for its anchor branch, only safetensors, onnx"
        ):
            bundle.weights("anchor", "torch")

    def test_warns_of_files_that_are_not_its_own(self, folder: Path) -> None:
        (folder / "notes.txt").write_text("mine")
        (folder / ".DS_Store").write_text("")
        (warning,) = load_bundle(folder).warnings
        assert "notes.txt" in warning and "DS_Store" not in warning


class TestDamage:
    def test_a_truncated_file(self, folder: Path) -> None:
        os.truncate(folder / "anchor.onnx", 1999)
        refused(folder, r"anchor.onnx is cut short \(1999 of 2000 bytes\)")

    def test_one_flipped_bit(self, folder: Path) -> None:
        data = bytearray((folder / "mid_level.safetensors").read_bytes())
        data[1234] ^= 1
        (folder / "mid_level.safetensors").write_bytes(data)
        refused(folder, "mid_level.safetensors is damaged")

    @pytest.mark.parametrize("name", ["small_hard.onnx", "card.md"])
    def test_a_missing_file(self, folder: Path, name: str) -> None:
        (folder / name).unlink()
        refused(folder, f"{name} is missing")

    def test_a_changed_card(self, folder: Path) -> None:
        (folder / "card.md").write_text(CARD.replace("Text", "Tent"), encoding="utf-8")
        refused(folder, "card.md is damaged")

    @pytest.mark.parametrize(
        ("data", "reason"),
        [
            (b"", "not valid JSON"),
            (b'{"format_version": 1,', "not valid JSON"),
            (b"\xff\xfe{}", "not valid JSON"),
            (b"[1]", "must be a JSON object, not a list"),
            (b"{}", "format_version is missing"),
            (b'{"format_version": "1"}', "format_version must be a whole number, not text"),
            (b'{"format_version": true}', "format_version must be a whole number, not true or false"),
            (b'{"format_version": 0}', "format_version must be at least 1"),
            (b'{"format_version": 1, "format_version": 1}', "key 'format_version' occurs twice"),
            (b'{"format_version": NaN}', "NaN is not a number"),
            (b'{"a":' * 100_000, "not valid JSON"),
        ],
    )
    def test_a_manifest_that_is_none(self, folder: Path, data: bytes, reason: str) -> None:
        (folder / "manifest.json").write_bytes(data)
        refused(folder, f"manifest.json: {reason}")

    def test_a_folder_without_a_manifest(self, tmp_path: Path) -> None:
        refused(tmp_path, "has no manifest.json")

    def test_a_newer_format_says_to_update(self, folder: Path) -> None:
        change_manifest(folder, lambda m: m.update(format_version=FORMAT_VERSION + 1, something_new={}))
        refused(folder, "made for a newer version of soars .*update soars")


class TestOtherSystems:
    """Format 2: a bundle may name another system than the cascade."""

    FIELDS: dict[str, Any] = {
        "name": "other",
        "version": "1",
        "description": "a model of another kind",
        "licence": "CC-BY-4.0",
        "system": "nnunet",
        "organs": ["Brainstem", "Parotid_L"],
        "settings": {"anything": [1, 2]},
    }

    @pytest.fixture
    def other(self, tmp_path: Path) -> Path:
        (tmp_path / "card.md").write_text(CARD)
        (tmp_path / "weights.bin").write_bytes(b"weights")
        write_manifest(tmp_path, self.FIELDS)
        return tmp_path

    def test_it_says_what_it_gives_and_keeps_its_settings(self, other: Path) -> None:
        bundle = load_bundle(other)
        assert (bundle.format_version, bundle.system) == (2, "nnunet")
        assert bundle.organs == ("Brainstem", "Parotid_L") and bundle.settings == {"anything": [1, 2]}
        assert set(bundle.files) == {"card.md", "weights.bin"}

    def test_a_cascade_is_still_written_in_format_1(self, folder: Path) -> None:
        bundle = load_bundle(folder)
        assert (bundle.format_version, bundle.system) == (1, "cascade")

    @pytest.mark.parametrize(
        ("change", "reason"),
        [
            ({"system": "cascade"}, "system: a bundle of the cascade has branches"),
            ({"system": ""}, "system is empty"),
            ({"organs": ["Brainstem", "Liver"]}, "organs: unknown organ 'Liver'"),
            ({"organs": []}, "organs must be a list of names with at least one"),
            ({"settings": []}, "settings must be an object"),
            ({"window_hu": [-500, 1000]}, "unknown key 'window_hu'"),
            ({"format_version": 1}, "system: belongs to format 2"),
        ],
    )
    def test_what_makes_no_sense_is_refused(self, other: Path, change: dict[str, Any], reason: str) -> None:
        change_manifest(other, lambda m: m.update(change))
        refused(other, reason)


def in_format_2(change: Callable[[dict[str, Any]], None]) -> Callable[[dict[str, Any]], None]:
    """The change, in a manifest of the format that knows what it changes."""

    def both(manifest: dict[str, Any]) -> None:
        manifest["format_version"] = 2
        change(manifest)

    return both


def without(*keys: str) -> Callable[[dict[str, Any]], None]:
    def change(manifest: dict[str, Any]) -> None:
        for key in keys[:-1]:
            manifest = manifest[key]
        del manifest[keys[-1]]

    return change


DIGEST = {"sha256": "0" * 64, "bytes": 1}

NONSENSE: list[tuple[Callable[[dict[str, Any]], None], str]] = [
    (without("licence"), "licence is missing"),
    (without("branches", "anchor", "patch"), "branches.anchor.patch is missing"),
    (without("files"), "files is missing"),
    (without("files", "anchor.onnx", "sha256"), "files.anchor.onnx.sha256 is missing"),
    (at("version", to=1), "version must be text, not a whole number"),
    (at("name", to="../tiny"), r"name: '\.\./tiny' is not allowed"),
    (at("licence", to=" "), "licence is empty"),
    (at("licens", to="CC0"), "unknown key 'licens'"),
    (at("branches", "anchor", "colour", to="red"), "unknown key 'branches.anchor.colour'"),
    (at("window_hu", to=[1000, -500]), "window_hu: lower limit 1000 is not below upper limit -500"),
    (at("window_hu", to=[-500]), "window_hu must be 2 numbers"),
    (
        in_format_2(at("branches", "anchor", "windows_hu", to=[])),
        "branches.anchor.windows_hu: expected at least one window",
    ),
    (
        in_format_2(at("branches", "anchor", "mirror", to=1)),
        "branches.anchor.mirror must be true or false, not a whole number",
    ),
    *(
        (
            in_format_2(at("branches", "anchor", "stride", to=stride)),
            f"branches.anchor.stride must be a number above 0 and at most 1, got {stride}",
        )
        for stride in (0, 1.5, -0.25)
    ),
    (
        in_format_2(at("branches", "anchor", "stride", to=True)),
        "branches.anchor.stride must be a number above 0 and at most 1, got True",
    ),
    (
        in_format_2(at("branches", "anchor", "windows_hu", to=[[-500, 1000], [240, -160]])),
        r"branches.anchor.windows_hu\[1\]: lower limit 240 is not below",
    ),
    (
        in_format_2(at("branches", "anchor", "windows_hu", to=[[-500, 1000], [-160, 240]])),
        "branches.anchor.architecture: in_channels is 1, but the inputs ct make 2",
    ),
    (at("branches", to=[]), "branches must be an object, not a list"),
    (at("branches", to={}), "needs an anchor, mid_level or small_hard branch"),
    (at("branches", "refiner", to={}), "unknown branch 'refiner'"),
    (at("branches", "anchor", to=None), "branches.anchor must be an object, not null"),
    (at("branches", "anchor", "inputs", to=["mri"]), "unknown input 'mri'"),
    (at("branches", "anchor", "inputs", to=["ct", "anchor"]), "'anchor' cannot be an input of this branch"),
    (
        at("branches", "mid_level", "inputs", to=["ct", "heatmap"]),
        "'heatmap' cannot be an input of this branch",
    ),
    (at("branches", "mid_level", "inputs", to=["anchor", "ct"]), "'ct' must come first"),
    (at("branches", "mid_level", "inputs", to=["ct"]), "in_channels is 3, but the inputs ct make 1"),
    (
        at("branches", "small_hard", "architecture", "in_channels", to=3),
        "in_channels is 3.* ct, heatmap make 2",
    ),
    (
        at("branches", "anchor", "architecture", "out_channels", to=2),
        "out_channels is 2.*2 classes and background make 3",
    ),
    (
        at("branches", "small_hard", "architecture", "out_channels", to=4),
        "out_channels is 4, but 3 classes make 3",
    ),
    (
        at("branches", "anchor", "architecture", "blocks", to=["4d"] * 3),
        "branches.anchor: .*unknown kernel choice 4d",
    ),
    (
        at("branches", "anchor", "architecture", "type", to="vnet"),
        "branches.anchor: architecture: unknown type",
    ),
    (without("branches", "anchor", "architecture", "strides"), "branches.anchor: architecture"),
    (at("branches", "anchor", "classes", to=[]), "classes must be a list of names with at least one"),
    (at("branches", "anchor", "classes", to=["Brainstem", "Brainstem"]), "classes has 'Brainstem' twice"),
    (at("branches", "anchor", "classes", to=["Brainstem", "Tonsil_Q"]), "unknown organ 'Tonsil_Q'"),
    (
        at("branches", "mid_level", "classes", to=["Parotid_L", "Parotid_R", "Brainstem"]),
        "Brainstem is a class of the anchor",
    ),
    (at("branches", "detection", "classes", to=["Ear_L", "Cochlea_L"]), "unknown heat-map group 'Cochlea_L'"),
    (at("branches", "detection", "classes", to=["Ear_L", "Lens_R"]), "voi_mm: 'Lens_L' is not a heat map"),
    (
        at("branches", "small_hard", "classes", to=["Cochlea_L", "Hippocampus_L", "Lens_L"]),
        "detection.classes: 'Hippocampus_L' is missing; small_hard needs it",
    ),
    (at("branches", "anchor", "activation", to="relu"), "unknown activation 'relu'"),
    (at("branches", "anchor", "activation", to="heatmap"), "'heatmap' does not fit"),
    (at("branches", "detection", "activation", to="sigmoid"), "'sigmoid' does not fit"),
    (at("branches", "anchor", "spacing_mm", to=[1, 1, 0]), "spacing_mm must be positive"),
    (at("branches", "anchor", "spacing_mm", to=[1, 1, True]), "spacing_mm must be 3 numbers"),
    (
        at("branches", "anchor", "patch", to=[16, 32, 33]),
        r"patch: \(16, 32, 33\) is not a multiple of .*\(2, 2, 2\)",
    ),
    (at("branches", "anchor", "patch", to=[16, 32]), "expected three whole numbers"),
    (at("branches", "anchor", "patch", to=[16, 32, 32.0]), "expected three whole numbers"),
    (at("branches", "anchor", "files", to={}), "branches.anchor.files: no weights"),
    (at("branches", "anchor", "files", "pickle", to="a.pt"), "unknown kind 'pickle'"),
    (at("branches", "anchor", "files", "onnx", to="other.onnx"), "'other.onnx' is not listed in files"),
    (at("card", to="README.md"), "card: 'README.md' is not listed in files"),
    (without("branches", "anchor"), "'anchor' is an input, but the bundle has no anchor branch"),
    (without("branches", "detection"), "voi_mm: 'Ear_L' is not a heat map"),
    (without("voi_mm", "Ear_L"), "voi_mm: 'Ear_L' is missing; small_hard needs it for Cochlea_L"),
    (at("voi_mm", "Ear_L", to=[60, 60]), "voi_mm.Ear_L must be 3 numbers"),
    (at("voi_mm", "Ear_L", to=[60, 60, -1]), "voi_mm.Ear_L must be positive"),
    (at("voi_mm", "Pituitary", to=[60, 60, 60]), "voi_mm: 'Pituitary' is not a heat map"),
    (at("files", "../../evil", to=DIGEST), r"'\.\./\.\./evil' is not allowed as a file name"),
    (at("files", "/etc/passwd", to=DIGEST), "not allowed as a file name"),
    (at("files", "a\\b", to=DIGEST), "not allowed as a file name"),
    (at("files", "C:evil", to=DIGEST), "not allowed as a file name"),
    (at("files", ".hidden", to=DIGEST), "not allowed as a file name"),
    (at("files", "manifest.json", to=DIGEST), "not allowed as a file name"),
    (at("files", "ANCHOR.onnx", to=DIGEST), "differ only in upper and lower case"),
    (at("files", "anchor.onnx", "sha256", to="abc"), "sha256 must be 64 hexadecimal digits"),
    (at("files", "anchor.onnx", "bytes", to=-1), "bytes not negative"),
]


@pytest.mark.parametrize(("change", "reason"), NONSENSE, ids=[reason for _, reason in NONSENSE])
def test_a_manifest_that_makes_no_sense_is_refused_with_the_field(
    folder: Path, change: Callable[[dict[str, Any]], None], reason: str
) -> None:
    change_manifest(folder, change)
    refused(folder, f"^bundle .*tiny: manifest.json: .*{reason}")


def test_small_and_hard_organs_need_a_detector(tmp_path: Path) -> None:
    branches = {name: FIELDS["branches"][name] for name in ("anchor", "small_hard")}
    with pytest.raises(BundleError, match="small_hard needs a detection branch"):
        make_bundle(tmp_path / "blind", branches=branches, voi_mm={})


def test_small_and_hard_organs_need_their_own_heat_map(tmp_path: Path) -> None:
    branches = copy.deepcopy(FIELDS["branches"])
    branches["detection"]["classes"] = ["Ear_L"]
    branches["detection"]["architecture"]["out_channels"] = 1
    with pytest.raises(BundleError, match="'Lens_L' is missing; small_hard needs it for Lens_L"):
        make_bundle(tmp_path / "blind", branches=branches, voi_mm={"Ear_L": [60, 60, 60]})


def test_reading_without_hashing_is_for_lists_only(folder: Path) -> None:
    (folder / "anchor.onnx").write_bytes(b"other")
    assert read_bundle(folder).name == "tiny"
    refused(folder, "anchor.onnx")
