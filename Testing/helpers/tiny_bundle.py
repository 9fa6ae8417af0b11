"""A whole bundle on disk that finds spheres by their HU (see `tiny_networks`), and the patient it is for."""

from __future__ import annotations

from pathlib import Path

from tiny_networks import WINDOW_HU, Band, Sphere, branch, scan_of

from soars.bundle.store import CARD_SECTIONS, write_manifest
from soars.ct.images import CtScan

FOUND = {
    "Brainstem": Sphere((0.0, 0.0, 20.0), 18.0, 300.0),
    "SpinalCord": Sphere((0.0, 20.0, -40.0), 12.0, 600.0),
}
ABSENT = "Eye_L"


def write_tiny_bundle(folder: Path) -> Path:
    """One branch with two organs that the patient has, and one that it has not."""
    folder.mkdir(parents=True)
    bands = {name: Band(sphere.hu, 100.0) for name, sphere in FOUND.items()} | {ABSENT: Band(900.0, 50.0)}
    anchor = branch(folder, "anchor", bands)
    text = "Balls. `soars evaluate A B`"
    (folder / "card.md").write_text("\n".join(f"# {title}\n{text}\n" for title in CARD_SECTIONS))
    fields = {
        "name": folder.name, "version": "1", "description": "hand-built", "licence": "CC0-1.0",
        "window_hu": list(WINDOW_HU), "branches": {"anchor": anchor.to_dict()}, "voi_mm": {},
    }  # fmt: skip
    write_manifest(folder, fields)
    return folder


def patient() -> CtScan:
    """A head-first CT of 80 x 70 x 50 voxels."""
    return scan_of(list(FOUND.values()))
