"""Bundles of all four branches whose weights mean nothing, whole, changed and zipped."""

from __future__ import annotations

import json
import random
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

import soars.bundle.store
from soars.bundle.card import CARD_SECTIONS
from soars.bundle.manifest import BranchSpec
from soars.bundle.store import load_bundle, write_manifest
from soars.errors import BundleError
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


def empty_home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A user's bundle folder and a place for shipped bundles, both empty."""
    monkeypatch.setenv("SOARS_BUNDLES", str(tmp_path / "home"))
    monkeypatch.setattr(soars.bundle.store, "SHIPPED", tmp_path / "shipped")
    return tmp_path / "home"


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


def at(*keys: str, to: Any) -> Callable[[dict[str, Any]], None]:
    def change(manifest: dict[str, Any]) -> None:
        for key in keys[:-1]:
            manifest = manifest[key]
        manifest[keys[-1]] = to

    return change


def refused(source: Path | str, reason: str) -> None:
    with pytest.raises(BundleError, match=reason) as caught:
        load_bundle(source)
    assert "\n" not in str(caught.value)
