"""Bundles as files: zipped, found by name, imported, written, with a card."""

from __future__ import annotations

import errno
import gc
import hashlib
import os
import random
import shutil
import zipfile
from pathlib import Path

import pytest
from made_bundles import CARD, FIELDS, at, change_manifest, make_bundle, refused, zipped

from soars.bundle.card import CARD_SECTIONS, check_card
from soars.bundle.install import import_bundle
from soars.bundle.store import (
    list_bundles,
    load_bundle,
    user_folder,
    write_manifest,
)
from soars.errors import BundleError, InputError


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
