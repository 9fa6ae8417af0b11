"""A bundle is loaded only if it is what was published and makes sense; else it is refused with the reason."""

from __future__ import annotations

import copy
import errno
import gc
import hashlib
import json
import os
import random
import shutil
import zipfile
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

import soars.bundle.store
from soars.bundle.card import CARD_SECTIONS, check_card
from soars.bundle.install import import_bundle
from soars.bundle.manifest import FORMAT_VERSION, BranchSpec
from soars.bundle.store import (
    list_bundles,
    load_bundle,
    read_bundle,
    user_folder,
    write_manifest,
)
from soars.errors import BundleError, InputError
from soars.networks.architecture import Architecture

CARD = "# Tiny\n" + "".join(f"\n## {title}\nText, from `soars --version`.\n" for title in CARD_SECTIONS)


def branch(
    name: str, inputs: tuple[str, ...], channels: int, classes: tuple[str, ...], activation: str
) -> BranchSpec:
    outputs = len(classes) + (activation == "softmax")
    return BranchSpec(
        name=name,
        inputs=inputs,
        classes=classes,
        activation=activation,
        spacing_mm=(2.0, 2.0, 3.0),
        patch=(16, 32, 32),
        architecture=Architecture.plain(channels, outputs, (4, 8)),
        files={"safetensors": f"{name}.safetensors", "onnx": f"{name}.onnx"},
    )


BRANCHES = (
    branch("anchor", ("ct",), 1, ("Brainstem", "SpinalCord"), "softmax"),
    branch("mid_level", ("ct", "anchor"), 3, ("Parotid_L", "Parotid_R", "Esophagus"), "softmax"),
    branch("detection", ("ct", "anchor"), 3, ("Ear_L", "Lens_L"), "heatmap"),
    branch("small_hard", ("ct", "heatmap"), 2, ("Cochlea_L", "Ear_Internal_L", "Lens_L"), "sigmoid"),
)

FIELDS: dict[str, Any] = {
    "name": "tiny",
    "version": "1.0.0",
    "description": "nothing is trained here",
    "licence": "CC0-1.0",
    "window_hu": [-500, 1000],
    "branches": {b.name: b.to_dict() for b in BRANCHES},
    "voi_mm": {"Ear_L": [60, 60, 60], "Lens_L": [30, 30, 30.5]},
}


@pytest.fixture(autouse=True)
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A user's bundle folder and a place for shipped bundles, both empty."""
    monkeypatch.setenv("SOARS_BUNDLES", str(tmp_path / "home"))
    monkeypatch.setattr(soars.bundle.store, "SHIPPED", tmp_path / "shipped")
    return tmp_path / "home"


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A good bundle of all four branches; the weights have no meaning."""
    return make_bundle(tmp_path / "tiny")


def make_bundle(folder: Path, **fields: Any) -> Path:
    folder.mkdir(parents=True)
    chosen = {**FIELDS, **fields}
    for entry in chosen["branches"].values():
        for file in entry["files"].values():
            # an ONNX model whose graph is nothing but a comment of 1994 bytes
            (folder / file).write_bytes(b"\x3a\xcd\x0f\x52\xca\x0f" + random.Random(file).randbytes(1994))
    (folder / "card.md").write_text(CARD, encoding="utf-8")
    write_manifest(folder, chosen)
    return folder


def change_manifest(folder: Path, change: Callable[[dict[str, Any]], None]) -> None:
    manifest = json.loads((folder / "manifest.json").read_text(encoding="utf-8"))
    change(manifest)
    (folder / "manifest.json").write_text(json.dumps(manifest), encoding="utf-8")


def zipped(folder: Path, path: Path, prefix: str = "") -> Path:
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        for file in sorted(folder.iterdir()):
            archive.write(file, prefix + file.name)
    return path


def refused(source: Path | str, reason: str) -> None:
    with pytest.raises(BundleError, match=reason) as caught:
        load_bundle(source)
    assert "\n" not in str(caught.value)


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


def at(*keys: str, to: Any) -> Callable[[dict[str, Any]], None]:
    def change(manifest: dict[str, Any]) -> None:
        for key in keys[:-1]:
            manifest = manifest[key]
        manifest[keys[-1]] = to

    return change


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


class TestZip:
    @pytest.mark.parametrize("prefix", ["", "tiny/"])
    def test_is_as_good_as_the_folder_and_is_unpacked_as_long_as_it_is_used(
        self, folder: Path, tmp_path: Path, prefix: str
    ) -> None:
        bundle = load_bundle(zipped(folder, tmp_path / "tiny.zip", prefix))
        assert bundle.sha256 == load_bundle(folder).sha256
        assert bundle.weights("anchor", "onnx").read_bytes() == (folder / "anchor.onnx").read_bytes()
        assert bundle.warnings == ()
        unpacked = bundle.folder
        del bundle
        gc.collect()
        assert not unpacked.exists()

    @pytest.mark.parametrize("name", ["../evil", "a/../../evil", "/evil", "a\\..\\evil", "C:evil"])
    def test_that_points_out_of_itself_is_refused(self, folder: Path, tmp_path: Path, name: str) -> None:
        path = zipped(folder, tmp_path / "slip.zip")
        with zipfile.ZipFile(path, "a") as archive:
            info = zipfile.ZipInfo("x")
            info.filename = name
            archive.writestr(info, "boo")
        refused(path, "points outside the archive")
        assert not list(tmp_path.rglob("*evil*"))

    def test_truncated_anywhere_is_refused(self, folder: Path, tmp_path: Path) -> None:
        path = zipped(folder, tmp_path / "tiny.zip")
        whole = path.read_bytes()
        for size in (0, 1, 100, len(whole) // 2, len(whole) - 30, len(whole) - 1):
            path.write_bytes(whole[:size])
            refused(path, "tiny.zip: .*(readable|manifest)")

    def test_with_any_byte_flipped_is_refused_or_still_holds_the_same(
        self, folder: Path, tmp_path: Path
    ) -> None:
        path = zipped(folder, tmp_path / "tiny.zip")
        whole, good = path.read_bytes(), load_bundle(folder)
        chance = random.Random(0)
        refusals = 0
        for _ in range(150):
            damaged = bytearray(whole)
            damaged[chance.randrange(len(whole))] ^= 1 << chance.randrange(8)
            path.write_bytes(damaged)
            try:
                assert load_bundle(path).files == good.files
            except BundleError:
                refusals += 1
        assert refusals > 100

    def test_whose_file_is_larger_than_the_manifest_says_is_not_unpacked(
        self, folder: Path, tmp_path: Path
    ) -> None:
        (folder / "anchor.onnx").write_bytes(bytes(50_000_000))
        refused(zipped(folder, tmp_path / "bomb.zip"), "anchor.onnx holds more than the 2000 bytes it should")

    def test_of_something_else_is_refused(self, tmp_path: Path) -> None:
        path = tmp_path / "other.zip"
        with zipfile.ZipFile(path, "w") as archive:
            archive.writestr("readme.txt", "hello")
        refused(path, "the archive has no manifest.json")
        (tmp_path / "ct.nrrd").write_text("NRRD0004")
        refused(tmp_path / "ct.nrrd", "not a readable .zip")

    def test_leaves_no_temporary_folder_when_refused(
        self, folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        (tmp_path / "temporary").mkdir()
        monkeypatch.setattr("tempfile.tempdir", str(tmp_path / "temporary"))
        (folder / "card.md").unlink()
        refused(zipped(folder, tmp_path / "tiny.zip"), "tiny.zip: card.md is missing")
        assert not list((tmp_path / "temporary").iterdir())


class TestNames:
    def test_an_unknown_name_lists_the_installed_ones(self, folder: Path) -> None:
        refused("nosuch", r"no bundle 'nosuch': neither installed \(there: none\)")
        import_bundle(folder)
        refused("nosuch", "there: tiny")

    def test_shipped_bundles_are_found_by_name(self, tmp_path: Path) -> None:
        make_bundle(tmp_path / "shipped" / "starter", name="starter")
        assert load_bundle("starter").folder == tmp_path / "shipped" / "starter"

    def test_a_name_given_twice_is_not_guessed(self, tmp_path: Path, home: Path) -> None:
        make_bundle(tmp_path / "shipped" / "starter", name="starter")
        make_bundle(home / "starter", name="starter")
        refused("starter", "two bundles are named starter.*give the path")

    def test_the_list_says_what_is_damaged(self, tmp_path: Path, home: Path) -> None:
        make_bundle(tmp_path / "shipped" / "starter", name="starter")
        make_bundle(home / "other", name="other")
        (home / "other" / "manifest.json").write_text("{")
        first, second = list_bundles()
        assert (
            first.name == "starter" and first.shipped and first.bundle is not None and first.problem is None
        )
        assert second.name == "other" and not second.shipped and second.bundle is None
        assert second.problem is not None and "not valid JSON" in second.problem

    def test_the_user_folder_can_be_set(self, home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        assert user_folder() == home
        monkeypatch.delenv("SOARS_BUNDLES")
        assert user_folder().parts[-2:] == ("soars", "bundles")


class TestImport:
    def test_copies_what_belongs_to_the_bundle(self, folder: Path, home: Path) -> None:
        (folder / "notes.txt").write_text("mine")
        assert import_bundle(folder).folder == home / "tiny"
        assert load_bundle("tiny").sha256 == load_bundle(folder).sha256
        assert not (home / "tiny" / "notes.txt").exists()
        assert [p.name for p in home.iterdir()] == ["tiny"]

    def test_takes_a_zip_and_another_name(self, folder: Path, tmp_path: Path, home: Path) -> None:
        assert import_bundle(zipped(folder, tmp_path / "a.zip"), "mine").folder == home / "mine"

    @pytest.mark.parametrize("name", ["../mine", "", ".mine", "a/b"])
    def test_refuses_names_that_are_no_names(self, folder: Path, home: Path, name: str) -> None:
        with pytest.raises(BundleError, match="cannot be named"):
            import_bundle(folder, name)
        assert not home.exists()

    def test_does_not_overwrite_unless_told(self, folder: Path, tmp_path: Path) -> None:
        import_bundle(folder)
        newer = make_bundle(tmp_path / "newer", version="2.0.0")
        with pytest.raises(BundleError, match="tiny is installed already"):
            import_bundle(newer)
        assert load_bundle("tiny").version == "1.0.0"
        import_bundle(newer, overwrite=True)
        assert load_bundle("tiny").version == "2.0.0"

    def test_does_not_hide_a_shipped_bundle(self, folder: Path, tmp_path: Path) -> None:
        make_bundle(tmp_path / "shipped" / "tiny")
        with pytest.raises(BundleError, match="name of a shipped bundle"):
            import_bundle(folder, overwrite=True)

    def test_of_a_damaged_bundle_installs_nothing(self, folder: Path, home: Path) -> None:
        os.truncate(folder / "anchor.onnx", 10)
        with pytest.raises(BundleError, match="cut short"):
            import_bundle(folder)
        assert not home.exists()

    def test_of_nothing_says_so(self, tmp_path: Path) -> None:
        with pytest.raises(BundleError, match="no bundle to import at"):
            import_bundle(tmp_path / "nosuch.zip")

    def test_on_a_full_disk_leaves_nothing(
        self, folder: Path, home: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        copy_file = shutil.copyfile

        def fails_at_the_third(source: Path, target: Path) -> None:
            if len(list(target.parent.iterdir())) == 3:
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(target))
            copy_file(source, target)

        monkeypatch.setattr(shutil, "copyfile", fails_at_the_third)
        with pytest.raises(InputError, match="the disk is full"):
            import_bundle(folder)
        assert not home.exists()

    def test_that_fails_while_replacing_keeps_the_old_one(
        self, folder: Path, tmp_path: Path, home: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        import_bundle(folder)
        newer = make_bundle(tmp_path / "newer", version="2.0.0")
        rename = os.rename

        def fails_for_the_new_one(source: Path, target: Path) -> None:
            if target == home / "tiny" and source.parent.name.startswith(".soars-"):
                raise OSError(errno.EACCES, os.strerror(errno.EACCES), str(target))
            rename(source, target)

        monkeypatch.setattr(os, "rename", fails_for_the_new_one)
        with pytest.raises(InputError, match="no permission"):
            import_bundle(newer, overwrite=True)
        assert load_bundle("tiny").version == "1.0.0"
        assert [p.name for p in home.iterdir()] == ["tiny"]


class TestWriting:
    def test_makes_what_load_accepts_and_repeats_itself_exactly(self, folder: Path) -> None:
        before = (folder / "manifest.json").read_bytes()
        write_manifest(folder, FIELDS)
        assert (folder / "manifest.json").read_bytes() == before
        assert not list(folder.glob(".*"))

    def test_lists_every_file(self, folder: Path) -> None:
        (folder / "anchor.onnx.data").write_bytes(b"external weights")
        assert "anchor.onnx.data" in write_manifest(folder, FIELDS).files
        assert load_bundle(folder).warnings == ()

    def test_of_nonsense_writes_nothing(self, folder: Path) -> None:
        (folder / "manifest.json").unlink()
        with pytest.raises(BundleError, match="licence is empty"):
            write_manifest(folder, {**FIELDS, "licence": ""})
        with pytest.raises(BundleError, match="voi_mm is missing"):
            write_manifest(folder, {key: value for key, value in FIELDS.items() if key != "voi_mm"})
        assert not (folder / "manifest.json").exists()

    def test_needs_a_card_with_every_section(self, folder: Path) -> None:
        (folder / "card.md").write_text(CARD.replace("What it cannot do", "Limits"), encoding="utf-8")
        with pytest.raises(BundleError, match="card.md: the model card has no section 'What it cannot do'"):
            write_manifest(folder, FIELDS)
        (folder / "card.md").unlink()
        with pytest.raises(BundleError, match="needs a model card"):
            write_manifest(folder, FIELDS)


class TestCard:
    def test_a_whole_card_lacks_nothing(self) -> None:
        assert check_card(CARD) == []

    def test_headings_may_be_of_any_level_and_case(self) -> None:
        assert check_card(CARD.replace("## Licence", "#### LICENCE ##")) == []

    def test_an_empty_section_is_none(self) -> None:
        card = CARD.replace("## Licence\nText, from `soars --version`.\n", "## Licence\n\n")
        assert check_card(card) == ["the model card's section 'Licence' is empty"]

    def test_figures_without_their_command_are_no_figures(self) -> None:
        assert "does not name the command" in check_card(CARD.replace("`", ""))[0]

    def test_a_loaded_bundle_whose_card_lacks_something_warns(self, folder: Path) -> None:
        card = b"# Nothing\n"
        (folder / "card.md").write_bytes(card)
        digest = {"sha256": hashlib.sha256(card).hexdigest(), "bytes": len(card)}
        change_manifest(folder, at("files", "card.md", to=digest))
        assert len(load_bundle(folder).warnings) == len(CARD_SECTIONS)


def test_reading_without_hashing_is_for_lists_only(folder: Path) -> None:
    (folder / "anchor.onnx").write_bytes(b"other")
    assert read_bundle(folder).name == "tiny"
    refused(folder, "anchor.onnx")
