"""What a model bundle's ``manifest.json`` says, as dataclasses, and the checks that it makes sense.

The manifest, format version 1, is one JSON object. Every key is required; an unknown key is an error, since
it is most often a mistyped one::

    {
      "format_version": 1,
      "name": "starter",                   letters, digits, "._-": also the folder's name when installed
      "version": "1.0.0",
      "description": "one sentence",
      "licence": "CC-BY-4.0",
      "window_hu": [-500, 1000],           CT is clipped to this and scaled linearly to [-1, 1]
      "branches": {                        one or more of anchor, mid_level, detection, small_hard
        "anchor": {
          "inputs": ["ct"],                "ct" first, then "anchor" (foreground probabilities) or "heatmap"
          "classes": ["Brainstem", ...],   catalogue names without background; detection: heat-map groups
          "activation": "softmax",         softmax (background is channel 0), sigmoid, or heatmap
          "spacing_mm": [x, y, z],
          "patch": [z, y, x],              voxels; a multiple of what the architecture's strides divide by
          "architecture": {...},           soars.networks.architecture.UNetArchitecture.to_dict()
          "files": {"safetensors": "anchor.safetensors", "onnx": "anchor.onnx"}      one of them or both
        }
      },
      "voi_mm": {"Ear_L": [x, y, z]},      per heat-map group, the volume of interest of the small_hard branch
      "card": "card.md",                   the model card; see `CARD_SECTIONS`
      "files": {"card.md": {"sha256": "...", "bytes": 123}, ...}       every file but the manifest
    }
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from soars.errors import BundleError
from soars.networks.architecture import UNetArchitecture

FORMAT_VERSION = 1
MANIFEST = "manifest.json"
BRANCHES = ("anchor", "mid_level", "detection", "small_hard")
INPUTS = ("ct", "anchor", "heatmap")
ACTIVATIONS = ("softmax", "sigmoid", "heatmap")
WEIGHT_KINDS = ("safetensors", "onnx")
CARD_SECTIONS = ("Trained on", "Licence", "Figures", "What it cannot do", "Research use only")
"""Headings a model card must have, each with text below; "Figures" also names the command, in backticks."""

PLAIN_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,99}")
"""File names and bundle names: nothing that could point out of the bundle's folder, on any system."""


@dataclass(frozen=True)
class BranchSpec:
    """One network of the cascade.

    Attributes:
        name: "anchor", "mid_level", "detection" or "small_hard".
        inputs: what the input channels hold, in order: "ct" (1 channel), "anchor" (one per anchor class,
            without background), "heatmap" (1, the VOI's own heat map).
        classes: catalogue names without background; for the detection branch the heat maps' groups.
        activation: "softmax" (output channel 0 is background), "sigmoid" or "heatmap" (no background).
        spacing_mm: voxel size of the network's grid, (x, y, z).
        patch: window in voxels, (z, y, x).
        architecture: what the network is built from.
        files: weight file per kind, "safetensors" and/or "onnx".
    """

    name: str
    inputs: tuple[str, ...]
    classes: tuple[str, ...]
    activation: str
    spacing_mm: tuple[float, float, float]
    patch: tuple[int, int, int]
    architecture: UNetArchitecture
    files: Mapping[str, str]

    def to_dict(self) -> dict[str, Any]:
        """The branch as the manifest stores it (its name is the key it is stored under)."""
        return {
            "inputs": list(self.inputs),
            "classes": list(self.classes),
            "activation": self.activation,
            "spacing_mm": list(self.spacing_mm),
            "patch": list(self.patch),
            "architecture": self.architecture.to_dict(),
            "files": dict(self.files),
        }


@dataclass(frozen=True)
class FileEntry:
    """What a file of the bundle must be: its SHA-256 (hexadecimal) and its size."""

    sha256: str
    size_bytes: int


@dataclass(frozen=True)
class Bundle:
    """A model bundle: a manifest that makes sense, and the folder its files lie in.

    Attributes:
        folder: where the files lie. For a bundle read from a .zip a temporary folder that lives as long as
            this object.
        window_hu: the CT is clipped to it and scaled linearly to [-1, 1].
        branches: by name, in the order of the cascade.
        voi_mm: heat-map group -> extent (x, y, z) of the small-and-hard branch's volume of interest.
        card: the model card's text (Markdown).
        files: every file of the bundle except the manifest.
        sha256: of the manifest, which holds the hash of every other file: it identifies the bundle.
        warnings: what is odd, for the report; empty unless read by `soars.bundle.store.load_bundle`.
    """

    name: str
    version: str
    format_version: int
    folder: Path
    description: str
    licence: str
    window_hu: tuple[float, float]
    branches: Mapping[str, BranchSpec]
    voi_mm: Mapping[str, tuple[float, float, float]]
    card: str
    files: Mapping[str, FileEntry]
    sha256: str
    warnings: tuple[str, ...] = ()
    _keep_alive: object = field(default=None, repr=False, compare=False)

    @property
    def organs(self) -> tuple[str, ...]:
        """Catalogue names of all organs the bundle segments, in the order of the cascade."""
        return tuple(c for b in self.branches.values() if b.name != "detection" for c in b.classes)

    @property
    def size_bytes(self) -> int:
        """Size of all files except the manifest."""
        return sum(entry.size_bytes for entry in self.files.values())

    def weights(self, branch: str, kind: str) -> Path:
        """Path of a branch's weights of a kind ("safetensors" or "onnx").

        Raises `BundleError` when the bundle has no such file.
        """
        if branch not in self.branches:
            raise BundleError(f"bundle {self.name} has no {branch} branch; it has {', '.join(self.branches)}")
        files = self.branches[branch].files
        if kind not in files:
            raise BundleError(
                f"bundle {self.name} has no {kind} weights for its {branch} branch, only {', '.join(files)}; "
                "choose the engine that reads those"
            )
        return self.folder / files[kind]


def parse_manifest(data: bytes) -> dict[str, Any]:
    """The manifest's JSON, of a known format version; raises `BundleError`, without the file's name."""
    try:
        manifest = json.loads(
            data.decode("utf-8"), object_pairs_hook=_no_duplicates, parse_constant=_no_constant
        )
    except (UnicodeDecodeError, json.JSONDecodeError, RecursionError) as error:
        raise BundleError(f"not valid JSON ({error}); the bundle is damaged") from error
    if not isinstance(manifest, dict):
        raise BundleError(f"must be a JSON object, not {_kind(manifest)}")
    version = _get(manifest, "format_version", int, "")
    if version > FORMAT_VERSION:
        raise BundleError(
            f"made for a newer version of soars (bundle format {version}, this one reads up to "
            f"{FORMAT_VERSION}); update soars"
        )
    if version < 1:
        raise BundleError(f"format_version must be at least 1, not {version}")
    return manifest


def read_files_table(manifest: Mapping[str, Any]) -> dict[str, FileEntry]:
    """The manifest's ``files``, with names that cannot leave the folder; raises `BundleError`."""
    table: dict[str, FileEntry] = {}
    for name, entry in _get(manifest, "files", dict, "").items():
        where = f"files.{name}"
        if not PLAIN_NAME.fullmatch(name) or name.lower() == MANIFEST:
            raise BundleError(
                f"files: {name!r} is not allowed as a file name (letters, digits and ._- only, no folders)"
            )
        _check_keys(entry, ("sha256", "bytes"), where)
        sha256, size = _get(entry, "sha256", str, where), _get(entry, "bytes", int, where)
        if not re.fullmatch(r"[0-9a-f]{64}", sha256) or size < 0:
            raise BundleError(f"{where}: sha256 must be 64 hexadecimal digits and bytes not negative")
        table[name] = FileEntry(sha256, size)
    lower = [name.lower() for name in table]
    if len(set(lower)) != len(lower):
        raise BundleError(
            "files: two names differ only in upper and lower case, which some systems cannot store"
        )
    return table


def bundle_from_manifest(manifest: Mapping[str, Any], *, folder: Path, card: str, sha256: str) -> Bundle:
    """Check every field and their agreement with one another; raises `BundleError` naming the field."""
    keys = (
        "format_version",
        "name",
        "version",
        "description",
        "licence",
        "window_hu",
        "branches",
        "voi_mm",
        "card",
    )
    _check_keys(manifest, (*keys, "files"), "")
    files = read_files_table(manifest)
    name = _text(manifest, "name", "")
    if not PLAIN_NAME.fullmatch(name):
        raise BundleError(f"name: {name!r} is not allowed (letters, digits and ._- only)")
    window = _numbers(manifest, "window_hu", 2, "")
    if window[0] >= window[1]:
        raise BundleError(f"window_hu: lower limit {window[0]:g} is not below upper limit {window[1]:g}")
    entries = _get(manifest, "branches", dict, "")
    unknown = [b for b in entries if b not in BRANCHES]
    if unknown:
        raise BundleError(f"branches: unknown branch {unknown[0]!r}; known: {', '.join(BRANCHES)}")
    branches = {b: _branch(b, entries[b]) for b in BRANCHES if b in entries}
    vois = _get(manifest, "voi_mm", dict, "")
    voi_mm = {}
    for group in vois:
        extent = _positive(_numbers(vois, group, 3, "voi_mm"), f"voi_mm.{group}")
        voi_mm[group] = (extent[0], extent[1], extent[2])
    _check_agreement(branches, voi_mm)
    referenced = {"card": _text(manifest, "card", "")}
    for branch in branches.values():
        referenced.update(
            {f"branches.{branch.name}.files.{kind}": file for kind, file in branch.files.items()}
        )
    for where, file in referenced.items():
        if file not in files:
            raise BundleError(f"{where}: {file!r} is not listed in files")
    return Bundle(
        name=name,
        version=_text(manifest, "version", ""),
        format_version=_get(manifest, "format_version", int, ""),
        folder=folder,
        description=_text(manifest, "description", ""),
        licence=_text(manifest, "licence", ""),
        window_hu=(window[0], window[1]),
        branches=branches,
        voi_mm=voi_mm,
        card=card,
        files=files,
        sha256=sha256,
    )


def check_card(card: str) -> list[str]:
    """What a model card lacks, one sentence each; empty when it has all of `CARD_SECTIONS`."""
    parts = re.split(r"^#{1,6}[ \t]+(.*?)[ \t#]*$", card, flags=re.MULTILINE)
    sections = {
        title.strip().lower(): text.strip() for title, text in zip(parts[1::2], parts[2::2], strict=True)
    }
    problems = []
    for title in CARD_SECTIONS:
        text = sections.get(title.lower())
        if text is None:
            problems.append(f"the model card has no section {title!r}")
        elif not text:
            problems.append(f"the model card's section {title!r} is empty")
    if sections.get("figures") and "`" not in sections["figures"]:
        problems.append(
            "the model card's section 'Figures' does not name the command that made them (in backticks)"
        )
    return problems


def _branch(name: str, entry: Any) -> BranchSpec:
    where = f"branches.{name}"
    _check_keys(
        entry, ("inputs", "classes", "activation", "spacing_mm", "patch", "architecture", "files"), where
    )
    inputs = _names(entry, "inputs", where)
    allowed = {"small_hard": INPUTS, "anchor": ("ct",)}.get(name, ("ct", "anchor"))
    for channel in inputs:
        if channel not in INPUTS:
            raise BundleError(f"{where}.inputs: unknown input {channel!r}; known: {', '.join(INPUTS)}")
        if channel not in allowed:
            raise BundleError(f"{where}.inputs: {channel!r} cannot be an input of this branch")
    if inputs[0] != "ct":
        raise BundleError(f"{where}.inputs: 'ct' must come first, got {', '.join(inputs)}")
    activation = _text(entry, "activation", where)
    if activation not in ACTIVATIONS:
        raise BundleError(
            f"{where}.activation: unknown activation {activation!r}; known: {', '.join(ACTIVATIONS)}"
        )
    if (activation == "heatmap") != (name == "detection"):
        raise BundleError(
            f"{where}.activation: {activation!r} does not fit; 'heatmap' is for the detection branch alone"
        )
    spacing = _positive(_numbers(entry, "spacing_mm", 3, where), f"{where}.spacing_mm")
    patch = _get(entry, "patch", list, where)
    if len(patch) != 3 or any(type(n) is not int or n < 1 for n in patch):
        raise BundleError(f"{where}.patch: expected three whole numbers of voxels (z, y, x), got {patch}")
    try:
        architecture = UNetArchitecture.from_dict(_get(entry, "architecture", dict, where))
    except BundleError as error:
        raise BundleError(f"{where}: {error}") from error
    divisor = architecture.divisor
    if any(n % d for n, d in zip(patch, divisor, strict=True)):
        raise BundleError(
            f"{where}.patch: {tuple(patch)} is not a multiple of the architecture's {divisor} (z, y, x)"
        )
    files = _get(entry, "files", dict, where)
    for kind in files:
        if kind not in WEIGHT_KINDS:
            raise BundleError(f"{where}.files: unknown kind {kind!r}; known: {', '.join(WEIGHT_KINDS)}")
    if not files:
        raise BundleError(f"{where}.files: no weights; expected {' or '.join(WEIGHT_KINDS)}")
    return BranchSpec(
        name=name,
        inputs=inputs,
        classes=_names(entry, "classes", where),
        activation=activation,
        spacing_mm=(spacing[0], spacing[1], spacing[2]),
        patch=(patch[0], patch[1], patch[2]),
        architecture=architecture,
        files={kind: _text(files, kind, f"{where}.files") for kind in WEIGHT_KINDS if kind in files},
    )


def _check_agreement(branches: Mapping[str, BranchSpec], voi_mm: Mapping[str, object]) -> None:
    """Whether classes, channels, anchors, heat maps and VOIs of the branches fit one another."""
    from soars.catalogue import CATALOGUE

    if not any(name != "detection" for name in branches):
        raise BundleError("branches: a bundle needs an anchor, mid_level or small_hard branch")
    groups = {oar.detection_group for oar in CATALOGUE.values()}
    anchors = len(branches["anchor"].classes) if "anchor" in branches else 0
    owner: dict[str, str] = {}
    for branch in branches.values():
        where = f"branches.{branch.name}"
        known = groups if branch.name == "detection" else CATALOGUE
        for name in branch.classes:
            if name not in known:
                kind = "heat-map group" if branch.name == "detection" else "organ"
                raise BundleError(
                    f"{where}.classes: unknown {kind} {name!r}; names are the catalogue's (TG-263)"
                )
            if branch.name == "detection":
                continue
            if name in owner:
                raise BundleError(f"{where}.classes: {name} is a class of the {owner[name]} branch already")
            owner[name] = branch.name
        if "anchor" in branch.inputs and not anchors:
            raise BundleError(f"{where}.inputs: 'anchor' is an input, but the bundle has no anchor branch")
        channels = sum(anchors if channel == "anchor" else 1 for channel in branch.inputs)
        if branch.architecture.in_channels != channels:
            raise BundleError(
                f"{where}.architecture: in_channels is {branch.architecture.in_channels}, but the inputs "
                f"{', '.join(branch.inputs)} make {channels}"
            )
        background = 1 if branch.activation == "softmax" else 0
        expected = len(branch.classes) + background
        if branch.architecture.out_channels != expected:
            raise BundleError(
                f"{where}.architecture: out_channels is {branch.architecture.out_channels}, but "
                f"{len(branch.classes)} classes{' and background' if background else ''} make {expected}"
            )
    detected = branches["detection"].classes if "detection" in branches else ()
    for group in voi_mm:
        if group not in detected:
            raise BundleError(f"voi_mm: {group!r} is not a heat map of the detection branch")
    if "small_hard" not in branches:
        return
    if not detected:
        raise BundleError("branches: small_hard needs a detection branch that finds its organs")
    for name in branches["small_hard"].classes:
        group = CATALOGUE[name].detection_group
        if group not in detected:
            raise BundleError(
                f"branches.detection.classes: {group!r} is missing; small_hard needs it for {name}"
            )
        if group not in voi_mm:
            raise BundleError(f"voi_mm: {group!r} is missing; small_hard needs it for {name}")


_KINDS: dict[type, str] = {
    dict: "an object",
    list: "a list",
    str: "text",
    int: "a whole number",
    float: "a number",
    bool: "true or false",
}


def _kind(value: object) -> str:
    return "null" if value is None else _KINDS.get(type(value), type(value).__name__)


def _path(where: str, key: str) -> str:
    return f"{where}.{key}" if where else key


def _get(mapping: Mapping[str, Any], key: str, kind: type, where: str) -> Any:
    if key not in mapping:
        raise BundleError(f"{_path(where, key)} is missing")
    value = mapping[key]
    if type(value) is not kind:
        raise BundleError(f"{_path(where, key)} must be {_KINDS[kind]}, not {_kind(value)}")
    return value


def _check_keys(entry: Any, known: tuple[str, ...], where: str) -> None:
    if not isinstance(entry, dict):
        raise BundleError(f"{where or 'the whole'} must be an object, not {_kind(entry)}")
    for key in entry:
        if key not in known:
            raise BundleError(f"unknown key {_path(where, key)!r}; known here: {', '.join(known)}")


def _text(mapping: Mapping[str, Any], key: str, where: str) -> str:
    value: str = _get(mapping, key, str, where)
    if not value.strip():
        raise BundleError(f"{_path(where, key)} is empty")
    return value


def _numbers(mapping: Mapping[str, Any], key: str, count: int, where: str) -> tuple[float, ...]:
    value = _get(mapping, key, list, where)
    if len(value) != count or any(type(v) not in (int, float) or not math.isfinite(v) for v in value):
        raise BundleError(f"{_path(where, key)} must be {count} numbers, got {value}")
    return tuple(float(v) for v in value)


def _positive(values: tuple[float, ...], where: str) -> tuple[float, ...]:
    if min(values) <= 0:
        raise BundleError(f"{where} must be positive, got {values}")
    return values


def _names(mapping: Mapping[str, Any], key: str, where: str) -> tuple[str, ...]:
    value = _get(mapping, key, list, where)
    if not value or any(type(v) is not str for v in value):
        raise BundleError(f"{_path(where, key)} must be a list of names with at least one, got {value}")
    twice = sorted({v for v in value if value.count(v) > 1})
    if twice:
        raise BundleError(f"{_path(where, key)} has {twice[0]!r} twice")
    return tuple(value)


def _no_duplicates(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    keys = [key for key, _ in pairs]
    twice = sorted({key for key in keys if keys.count(key) > 1})
    if twice:
        raise BundleError(f"key {twice[0]!r} is there twice")
    return dict(pairs)


def _no_constant(text: str) -> float:
    raise BundleError(f"{text} is not a number that JSON allows")
