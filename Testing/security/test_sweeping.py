"""What a process that was killed has left is cleared away by the next one, and nothing else is."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from tiny_bundle import write_tiny_bundle

from soars import staging
from soars.bundle.install import import_bundle
from soars.bundle.store import load_bundle
from soars.files import replacing_file
from soars.staging import KEPT, REPLACED, TemporaryFolder, staging_file, staging_folder, sweep


@pytest.fixture
def gone(monkeypatch: pytest.MonkeyPatch) -> Callable[[], object]:
    """Act for a while as a process that has ended since, and forget which folders were swept."""
    ended = subprocess.run(
        [sys.executable, "-c", "import os; print(os.getpid())"], capture_output=True, text=True
    )
    monkeypatch.setattr(staging, "_swept", set())

    def owner() -> str:
        return f"{staging.PREFIX}{staging._host()}.{int(ended.stdout)}.12345"

    class Gone:
        def __enter__(self) -> None:
            self.patch = pytest.MonkeyPatch()
            self.patch.setattr(staging, "_owner", owner)

        def __exit__(self, *_: object) -> None:
            self.patch.undo()
            staging._swept.clear()

    return Gone


def test_only_what_a_process_that_is_gone_has_left_is_swept(tmp_path: Path, gone) -> None:  # type: ignore[no-untyped-def]
    with gone():
        staging_file(tmp_path / "a.csv").write_text("half")
        (staging_folder(tmp_path) / "rtstruct.dcm").write_text("half")
    mine = staging_file(tmp_path / "b.csv")
    mine.write_text("being written")
    others = [
        tmp_path / ".soars-00000000.99999999.1-abc-x.csv",
        tmp_path / ".soars-notes",
        tmp_path / "a.csv",
    ]
    for path in others:
        path.write_text("not ours to touch")
    sweep(tmp_path)
    assert sorted(tmp_path.iterdir()) == sorted([mine, *others])


def test_the_next_writing_in_a_folder_sweeps_it(tmp_path: Path, gone) -> None:  # type: ignore[no-untyped-def]
    with gone():
        staging_file(tmp_path / "a.csv").write_text("half")
    with replacing_file(tmp_path / "b.csv") as file:
        file.write_text("whole")
    assert [p.name for p in tmp_path.iterdir()] == ["b.csv"]


def test_results_that_were_being_replaced_get_their_names_back(tmp_path: Path, gone) -> None:  # type: ignore[no-untyped-def]
    """Killed between the renames: the old run's results are whole again, and nothing of the new one's is among them."""
    (tmp_path / "b").write_text("new")
    (tmp_path / "c").write_text("old")
    with gone():
        folder = staging_folder(tmp_path)
    (folder / REPLACED).mkdir()
    (folder / REPLACED / "a").write_text("old")
    (folder / REPLACED / "b").write_text("old")
    sweep(tmp_path)
    assert {p.name: p.read_text() for p in tmp_path.iterdir()} == {"a": "old", "b": "old", "c": "old"}


def test_results_whose_place_is_not_known_are_kept(tmp_path: Path, gone) -> None:  # type: ignore[no-untyped-def]
    with gone():
        folder = staging_folder(tmp_path, tmp_path / "elsewhere")
    (folder / REPLACED).mkdir()
    (folder / REPLACED / "a").write_text("old")
    sweep(tmp_path)
    assert (folder / REPLACED / "a").read_text() == "old"


@pytest.mark.parametrize("unfinished", [True, False])
def test_a_pair_of_files_stays_a_pair(tmp_path: Path, gone, unfinished: bool) -> None:  # type: ignore[no-untyped-def]
    """A label map and its names, killed after the first was replaced, or after both."""
    with gone():
        first, second = staging_file(tmp_path / "map.nrrd"), staging_file(tmp_path / "map.json")
    first.with_name(first.name + KEPT).write_text("old")
    (tmp_path / "map.nrrd").write_text("new")
    if unfinished:
        second.write_text("new")
    (tmp_path / "map.json").write_text("old" if unfinished else "new")
    sweep(tmp_path)
    state = "old" if unfinished else "new"
    assert {p.name: p.read_text() for p in tmp_path.iterdir()} == {"map.nrrd": state, "map.json": state}


def test_what_was_unpacked_for_a_process_that_was_killed_is_swept(  # type: ignore[no-untyped-def]
    tmp_path: Path, gone, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    with gone():
        left = TemporaryFolder()
        left._remove.detach()  # it never comes to that
    (left.path / "anchor.onnx").write_text("gigabytes")
    with TemporaryFolder() as mine:
        assert list(tmp_path.iterdir()) == [mine]
    assert list(tmp_path.iterdir()) == []
    kept = TemporaryFolder()
    del kept
    assert list(tmp_path.iterdir()) == []


def test_a_bundle_that_was_being_replaced_or_removed_is_whole_or_gone(  # type: ignore[no-untyped-def]
    tmp_path: Path, gone, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Killed between the two renames of an import, and in the middle of a removal."""
    home, new = tmp_path / "home", write_tiny_bundle(tmp_path / "new")
    monkeypatch.setenv("SOARS_BUNDLES", str(home))
    import_bundle(new, "first")
    with gone():
        folder, removed = staging_folder(home), staging_folder(home)
    (folder / REPLACED).mkdir()
    (home / "first").rename(folder / REPLACED / "first")
    write_tiny_bundle(removed / "other")
    import_bundle(new, "second")
    assert sorted(path.name for path in home.iterdir()) == ["first", "second"]
    assert load_bundle("first").name == "new"
