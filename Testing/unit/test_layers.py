"""Which folder of the core may import which: arrows point down, there is no circle, and the core knows no door."""

from __future__ import annotations

import ast
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
MODULE = ROOT / "SOARSSegmentation"
CORE = MODULE / "soars"

LAYERS = (
    ("root",),  # errors, progress, parallel, places, files ...: the modules beside the folders
    ("catalogue", "headers", "networks"),
    ("bundle", "ct", "structures"),
    ("dicom", "effort", "findings"),
    ("archive", "formats", "phantom"),
    ("cascade", "metrics", "report"),
    ("mr",),
    ("systems",),
    ("dose", "run"),
    ("study",),  # prepares proposals with `run`, and reports on doses
    ("service",),
    ("node",),
    ("commands",),
    ("cli",),
)
"""From the ground up: a folder imports from those below its own line, never from its line or above. A new folder gets
its place here, which is a decision; see docs/architecture.md."""

MOST_LINES, MOST_FILES = 450, 15

PLACE = {folder: place for place, folders in enumerate(LAYERS) for folder in folders}
DOORS = ("SOARSSegmentationLib", "SOARSSegmentation", "soars_training")


def _imports(path: Path) -> Iterator[str]:
    """Every module that a file imports, also inside functions; names imported from a package count as modules."""
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}: imports are absolute here"
            yield from (f"{node.module}.{alias.name}" for alias in node.names)


def _folder(module: str) -> str | None:
    """The folder of the core that a module is in; None for one of another package."""
    parts = module.split(".")
    if parts[0] != "soars":
        return None
    if len(parts) > 1 and parts[1] in ("cli", "__main__"):
        return "cli"
    return parts[1] if len(parts) > 1 and (CORE / parts[1]).is_dir() else "root"


def _core_files() -> list[tuple[Path, str]]:
    """Every file of the core with the folder it is in."""
    found = []
    for path in sorted(CORE.rglob("*.py")):
        module = ".".join(["soars", *path.relative_to(CORE).with_suffix("").parts])
        folder = _folder(module)
        assert folder is not None
        found.append((path, folder))
    assert len(found) > 100
    return found


def test_every_folder_has_its_place() -> None:
    there = {folder for _, folder in _core_files()}
    assert there <= PLACE.keys(), "give new folders a place in LAYERS"


def test_arrows_point_down() -> None:
    wrong = [
        f"{path.relative_to(CORE)} ({folder}) imports {module}"
        for path, folder in _core_files()
        for module in _imports(path)
        if (target := _folder(module)) not in (None, folder) and PLACE[str(target)] >= PLACE[folder]
    ]
    assert not wrong, "\n".join(wrong)


@pytest.mark.parametrize(
    "folder", [CORE, ROOT / "training" / "soars_training", MODULE / "SOARSSegmentationLib"]
)
def test_only_the_command_lines_know_argparse(folder: Path) -> None:
    for path in sorted(folder.rglob("*.py")):
        command_line = "commands" in path.parts or path.name == "cli.py"
        assert command_line or "argparse" not in _imports(path), f"{path} imports argparse"


@pytest.mark.parametrize(
    "folder", [CORE, ROOT / "training" / "soars_training", MODULE / "SOARSSegmentationLib"]
)
def test_a_folder_fits_on_a_screen_and_a_file_in_a_head(folder: Path) -> None:
    files = [path for path in folder.rglob("*") if path.suffix in (".py", ".html", ".js", ".css")]
    long = [path.name for path in files if len(path.read_text(encoding="utf-8").splitlines()) > MOST_LINES]
    counts = Counter(path.parent for path in files)
    full = [str(home.relative_to(ROOT)) for home, count in counts.items() if count > MOST_FILES]
    assert files and not long and not full


def test_the_core_knows_no_door_and_no_door_another() -> None:
    for path, _ in _core_files():
        assert not {module.split(".")[0] for module in _imports(path)} & set(DOORS), path
    for door, folder in (
        ("soars_training", ROOT / "training" / "soars_training"),
        ("SOARSSegmentationLib", MODULE / "SOARSSegmentationLib"),
    ):
        files = sorted(folder.rglob("*.py"))
        assert files
        for path in files:
            named = {module.split(".")[0] for module in _imports(path)}
            assert not named & (set(DOORS) - {door}), f"{path} imports another door"


def test_commands_do_not_import_each_other() -> None:
    files = sorted((CORE / "commands").rglob("*.py"))

    def command_of(path: Path) -> str:
        """The command that a file belongs to: its own, or the folder's."""
        return ".".join(["soars", *path.relative_to(CORE).with_suffix("").parts[:2]])

    commands = {command_of(f) for f in files if "def add_parser(" in f.read_text(encoding="utf-8")}
    assert len(commands) > 5
    for path in files:
        others = {".".join(m.split(".")[:3]) for m in _imports(path) if m.startswith("soars.commands.")}
        others -= {command_of(path)}
        assert not others & commands, f"{path.name} imports {sorted(others & commands)}"
