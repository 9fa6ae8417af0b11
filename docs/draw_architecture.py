"""Draws docs/architecture.svg from the imports in the code: python docs/draw_architecture.py

Each box is a folder (or a module at the root of `soars`); an arrow points from who imports to what is imported.
Arrows that follow from others are left out. `Testing/unit/test_architecture_drawing.py` compares the file with a
fresh drawing, so that the picture cannot fall behind the code.
"""

from __future__ import annotations

import ast
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from html import escape
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
PICTURE = ROOT / "docs" / "architecture.svg"

SOURCES = (
    ROOT / "SOARSSegmentation" / "soars",
    ROOT / "SOARSSegmentation" / "SOARSSegmentationLib",
    ROOT / "training" / "soars_training",
)
COLOURS = {"soars": "#dce9f5", "SOARSSegmentationLib": "#fbe6d2", "soars_training": "#e0f0dc"}
DOORS = {
    "soars": "core (soars)",
    "SOARSSegmentationLib": "Slicer side (SOARSSegmentationLib)",
    "soars_training": "training (soars_training)",
}
TOP = {"soars": "cli", "SOARSSegmentationLib": "window", "soars_training": "cli"}
"""The module at a package's root that uses all the others; the rest of the root is what everything uses ("ground")."""

BOX_WIDTH, BOX_HEIGHT, GAP_X, GAP_Y, MARGIN = 132, 30, 18, 40, 20
PER_ROW = 9


@dataclass(frozen=True, order=True)
class Part:
    """A box of the drawing: a folder, or modules at a package's root."""

    package: str
    name: str

    @property
    def title(self) -> str:
        return self.name if self.name in ("ground", *TOP.values()) else f"{self.name}/"


def part_of(module: str) -> Part | None:
    """The box that a dotted module name belongs to; None for modules of other projects."""
    package, *rest = module.split(".")
    if package not in COLOURS:
        return None
    if rest and (_folder(package) / rest[0]).is_dir():
        return Part(package, rest[0])
    at_the_top = bool(rest) and rest[0] in (TOP[package], "__main__")
    return Part(package, TOP[package] if at_the_top else "ground")


def _folder(package: str) -> Path:
    return next(source for source in SOURCES if source.name == package)


def imports(source: Path) -> Iterator[str]:
    """Dotted names of the modules that a file imports at run time, also inside functions."""
    for node in _run_time(ast.parse(source.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module and node.level == 0:
            yield node.module
            yield from (f"{node.module}.{alias.name}" for alias in node.names)


def _run_time(node: ast.AST) -> Iterator[ast.AST]:
    """All nodes but those under ``if TYPE_CHECKING``, which are never imported."""
    yield node
    for child in ast.iter_child_nodes(node):
        test = child.test if isinstance(child, ast.If) else None
        if not (isinstance(test, ast.Name) and test.id == "TYPE_CHECKING"):
            yield from _run_time(child)


def arrows() -> dict[Part, set[Part]]:
    """Every box -> the boxes it imports."""
    found: dict[Part, set[Part]] = {}
    for source in SOURCES:
        for file in sorted(source.rglob("*.py")):
            if not file.read_text(encoding="utf-8").strip("\n").count("\n"):
                continue  # a docstring alone
            here = part_of(".".join([source.name, *file.relative_to(source).with_suffix("").parts]))
            assert here is not None
            targets = found.setdefault(here, set())
            for name in imports(file):
                there = part_of(name)
                if there is not None and there != here and not _is_face(name, there):
                    targets.add(there)
    return found


def _is_face(name: str, there: Part) -> bool:
    """``import soars`` for the version alone is no arrow."""
    return there.name == "ground" and name.partition(".")[2] in ("", "__version__")


def levels(graph: Mapping[Part, set[Part]]) -> dict[Part, int]:
    """Height of each box: 0 for those that import nothing. Raises `ValueError` for a circle."""
    height: dict[Part, int] = {}

    def climb(part: Part, path: tuple[Part, ...]) -> int:
        if part in path:
            raise ValueError("circle: " + " -> ".join(p.title for p in (*path[path.index(part) :], part)))
        if part not in height:
            height[part] = 1 + max((climb(p, (*path, part)) for p in sorted(graph[part])), default=-1)
        return height[part]

    for part in sorted(graph):
        climb(part, ())
    return height


def reduced(graph: Mapping[Part, set[Part]]) -> dict[Part, set[Part]]:
    """Without the arrows that follow from others (the transitive reduction)."""
    reach: dict[Part, set[Part]] = {}

    def below(part: Part) -> set[Part]:
        if part not in reach:
            reach[part] = set(graph[part]).union(*(below(p) for p in graph[part]))
        return reach[part]

    return {
        part: {p for p in targets if not any(p in below(other) for other in targets if other != p)}
        for part, targets in graph.items()
    }


def drawing() -> str:
    """The picture, as SVG."""
    graph = arrows()
    places = _places(levels(graph))
    width = max(x for x, _ in places.values()) + BOX_WIDTH + MARGIN
    height = max(y for _, y in places.values()) + BOX_HEIGHT + MARGIN + 24
    body = [*_lines(reduced(graph), places), *_boxes(places), *_legend(height - 16)]
    head = (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {height}" '
        'font-family="sans-serif" font-size="14">'
    )
    marker = (
        '<defs><marker id="tip" viewBox="0 0 8 8" refX="8" refY="4" markerWidth="7" markerHeight="7" '
        'orient="auto"><path d="M0 0 8 4 0 8z" fill="#666"/></marker></defs>'
    )
    background = f'<rect width="{width}" height="{height}" fill="#fff"/>'
    return "\n".join([head, marker, background, *body, "</svg>"]) + "\n"


def _places(height: Mapping[Part, int]) -> dict[Part, tuple[int, int]]:
    """Top left corner of each box; the highest level is the top row, a level of many boxes takes several rows."""
    rows: list[list[Part]] = []
    for level in range(max(height.values()), -1, -1):
        parts = sorted(part for part in height if height[part] == level)
        rows += [parts[i : i + PER_ROW] for i in range(0, len(parts), PER_ROW)]
    widest = max(map(len, rows))
    pitch_x, pitch_y = BOX_WIDTH + GAP_X, BOX_HEIGHT + GAP_Y
    return {
        part: (MARGIN + (widest - len(row)) * pitch_x // 2 + i * pitch_x, MARGIN + r * pitch_y)
        for r, row in enumerate(rows)
        for i, part in enumerate(row)
    }


def _lines(graph: Mapping[Part, set[Part]], places: Mapping[Part, tuple[int, int]]) -> Iterator[str]:
    for part, targets in sorted(graph.items()):
        x0, y0 = places[part]
        for target in sorted(targets):
            x1, y1 = places[target]
            start = f"{x0 + BOX_WIDTH // 2} {y0 + BOX_HEIGHT}"
            end = f"{x1 + BOX_WIDTH // 2} {y1}"
            bend = f"C{x0 + BOX_WIDTH // 2} {y0 + BOX_HEIGHT + 34} {x1 + BOX_WIDTH // 2} {y1 - 34}"
            yield (
                f'<path d="M{start} {bend} {end}" fill="none" stroke="#666" stroke-opacity="0.65" '
                'marker-end="url(#tip)"/>'
            )


def _boxes(places: Mapping[Part, tuple[int, int]]) -> Iterator[str]:
    for part, (x, y) in sorted(places.items()):
        yield (
            f'<rect x="{x}" y="{y}" width="{BOX_WIDTH}" height="{BOX_HEIGHT}" rx="5" '
            f'fill="{COLOURS[part.package]}" stroke="#888"/>'
        )
        yield f'<text x="{x + BOX_WIDTH // 2}" y="{y + 20}" text-anchor="middle">{escape(part.title)}</text>'


def _legend(y: int) -> Iterable[str]:
    for i, (package, title) in enumerate(DOORS.items()):
        x = MARGIN + i * 300
        yield f'<rect x="{x}" y="{y - 12}" width="14" height="14" fill="{COLOURS[package]}" stroke="#888"/>'
        yield f'<text x="{x + 20}" y="{y}">{escape(title)}</text>'


if __name__ == "__main__":
    PICTURE.write_text(drawing(), encoding="utf-8")
