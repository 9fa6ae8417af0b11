"""Which folder of the Slicer side may import which: arrows point down, and there is no circle."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

LAYERS = (
    (
        "ground",
    ),  # translation, memory, desktop, parameters, protocols, shortcuts: the modules beside the folders
    ("scene",),
    ("export", "run", "session", "views"),
    ("reading", "review"),
    ("panels",),
    ("sections",),
    ("window",),
)
"""From the ground up: a folder imports from those below its own line, never from its line or above."""
PLACE = {folder: place for place, folders in enumerate(LAYERS) for folder in folders}
PACKAGE = "SOARSSegmentationLib"


def folder_of(parts: tuple[str, ...]) -> str:
    """Of a module, by its path in the package."""
    if parts and parts[0] in PLACE:
        return parts[0]
    assert len(parts) < 2, f"{parts[0]}: give the new folder a place in LAYERS"
    return "ground"


def imports(path: Path) -> Iterator[tuple[str, ...]]:
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.ImportFrom) and node.module and node.module.split(".")[0] == PACKAGE:
            for alias in node.names:
                yield tuple(f"{node.module}.{alias.name}".split(".")[1:])


def test_arrows_point_down(root: Path) -> None:
    library = root / "SOARSSegmentation" / PACKAGE
    wrong, looked_at = [], 0
    for path in sorted(library.rglob("*.py")):
        own = folder_of(path.relative_to(library).with_suffix("").parts)
        for parts in imports(path):
            # From the package itself a module is imported, not a name of it: `from SOARSSegmentationLib import x`.
            other = folder_of(parts[:1] if parts[0] in PLACE else ())
            looked_at += 1
            if other != own and PLACE[other] >= PLACE[own]:
                wrong.append(f"{path.relative_to(library)} ({own}) imports {'.'.join(parts)} ({other})")
    assert not wrong, "\n".join(wrong)
    assert looked_at > 100


def test_folders_and_files_are_small(root: Path) -> None:
    library = root / "SOARSSegmentation" / PACKAGE
    for folder in (
        library,
        *(one for one in library.iterdir() if one.is_dir() and one.name != "__pycache__"),
    ):
        files = sorted(folder.glob("*.py"))
        assert len(files) <= 15, f"{folder.name} has {len(files)} files"
        for file in files:
            assert len(file.read_text(encoding="utf-8").splitlines()) <= 450, file
