"""The content of a model bundle's ``manifest.json`` as dataclasses, and the checks that it makes sense.

The manifest is one JSON object. Every key is required; an unknown key is an error, since it is usually a misspelt
one. Format version 1::

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
          "architecture": {...},           soars.networks.architecture.Architecture.to_dict()
          "files": {"safetensors": "anchor.safetensors", "onnx": "anchor.onnx"}      one of them or both
        }
      },
      "voi_mm": {"Ear_L": [x, y, z]},      per heat-map group, the volume of interest of the small_hard branch
      "card": "card.md",                   the model card; see `soars.bundle.card.CARD_SECTIONS`
      "files": {"card.md": {"sha256": "...", "bytes": 123}, ...}       every file but the manifest
    }

Format version 2 adds options to a branch: ``"windows_hu": [[low, high], ...]``, the CT through each of these windows,
one channel each, instead of through window_hu; ``"mirror": true`` for a network that has learned from mirror images
too, which is shown windows on the patient's right as their mirror image; and ``"stride": 0.25`` for the step between
windows as a share of their size, which the size of the network decides otherwise. An architecture may be of
``"type": "phnn"`` instead of ``"unet"``, and have ``"order": "norm-act-conv"``: batch norm and ReLU before each
convolution. The format also adds bundles of systems other than the cascade (see `soars.systems`). They have name,
version, description, licence, card and files as above, and instead of window, branches and VOIs::

      "system": "nnunet",                  which system reads the settings
      "organs": ["Brainstem", ...],        catalogue names of all organs that it can give
      "settings": {...}                    the system's own

Of any system, as an option of format version 2::

      "review": "review.json"              calibration and norms for the reviewer, see `soars.findings.review`
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from soars.bundle.agreement import check_agreement
from soars.bundle.fields import (
    brief,
    check_keys,
    get_field,
    get_names,
    get_numbers,
    get_share,
    get_text,
    get_window,
    get_windows,
    kind_of,
    no_constant,
    no_duplicates,
    within,
)
from soars.errors import BundleError
from soars.networks.architecture import Architecture
from soars.networks.names import (
    ACTIVATIONS,
    BRANCHES,
    INPUTS,
    WEIGHT_KINDS,
    Activation,
    Branch,
    Input,
    WeightKind,
    one_of,
)
from soars.texts import parse_json

FORMAT_VERSION = 2
"""The newest version that is read; a bundle is written in the oldest version that can express its content."""
CASCADE = "cascade"
"""The system of a bundle that names none."""
CT_MR = "ct_mr"
"""The system whose networks see an MR beside the CT."""
MANIFEST = "manifest.json"
LARGEST_MANIFEST = 4 << 20
"""Bytes; a longer manifest is refused unread."""
SPACING_MM, VOI_MM = (0.05, 50.0), (1.0, 2000.0)
"""Smallest and largest voxel of a network's grid, and extent of a volume of interest: anything outside these limits
would need more memory than any computer has, or hold no voxel."""
LARGEST_PATCH = 1024
"""Voxels of a window along an axis."""

PLAIN_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,99}")
"""File names and bundle names: nothing that could point outside the bundle's folder, on any system."""


@dataclass(frozen=True)
class BranchSpec:
    """One network of the cascade.

    Attributes:
        name: which branch it is.
        inputs: what the input channels hold, in order: "ct" (1 channel, or one per window), "anchor" (one per
            anchor class, without background), "heatmap" (1, the VOI's own heat map).
        classes: catalogue names without background; for the detection branch the heat maps' groups.
        activation: "softmax" (output channel 0 is background), "sigmoid" or "heatmap" (no background).
        spacing_mm: voxel size of the network's grid, (x, y, z).
        patch: window in voxels, (z, y, x).
        architecture: what the network is built from.
        files: weight file per kind, "safetensors" and/or "onnx".
        windows_hu: windows of the CT, one input channel each; the bundle's own window alone when empty.
        mirror: whether the network has learned from mirror images too, with left and right exchanged: windows on the
            patient's right are shown to it mirrored then (`soars.cascade.branches.exchange_of`).
        stride: step between windows as a share of the window; None leaves it to `soars.cascade.layout.stride_for`.
    """

    name: Branch
    inputs: tuple[Input, ...]
    classes: tuple[str, ...]
    activation: Activation
    spacing_mm: tuple[float, float, float]
    patch: tuple[int, int, int]
    architecture: Architecture
    files: Mapping[WeightKind, str]
    windows_hu: tuple[tuple[float, float], ...] = ()
    mirror: bool = False
    stride: float | None = None

    def to_dict(self) -> dict[str, Any]:
        """The branch as the manifest stores it (its name is the key it is stored under)."""
        windows = {"windows_hu": [list(w) for w in self.windows_hu]} if self.windows_hu else {}
        return {
            "inputs": list(self.inputs),
            "classes": list(self.classes),
            "activation": self.activation,
            "spacing_mm": list(self.spacing_mm),
            "patch": list(self.patch),
            "architecture": self.architecture.to_dict(),
            "files": dict(self.files),
            **windows,
            **({"mirror": True} if self.mirror else {}),
            **({"stride": self.stride} if self.stride is not None else {}),
        }


@dataclass(frozen=True)
class FileEntry:
    """What is required of a file of the bundle: its SHA-256 (hexadecimal) and its size."""

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
        system: what runs it; "cascade", or another of `soars.systems`.
        settings: of a system other than the cascade, as the manifest has them: the system checks them.
        covers: catalogue names of the organs that a system other than the cascade segments.
        review: the file with tables for the reviewer (`soars.findings.review`); None when the bundle has none.
        warnings: anything unusual, for the report; empty unless read by `soars.bundle.store.load_bundle`.
    """

    name: str
    version: str
    format_version: int
    folder: Path
    description: str
    licence: str
    window_hu: tuple[float, float]
    branches: Mapping[Branch, BranchSpec]
    voi_mm: Mapping[str, tuple[float, float, float]]
    card: str
    files: Mapping[str, FileEntry]
    sha256: str
    system: str = CASCADE
    settings: Mapping[str, Any] = field(default_factory=dict)
    covers: tuple[str, ...] = ()
    review: str | None = None
    warnings: tuple[str, ...] = ()
    _keep_alive: object = field(default=None, repr=False, compare=False)

    @property
    def takes_mr(self) -> bool:
        """Whether its networks see an MR beside the CT."""
        return self.system == CT_MR

    @property
    def organs(self) -> tuple[str, ...]:
        """Catalogue names of all organs the bundle segments, in the order of the cascade."""
        if self.system != CASCADE:
            return self.covers
        return tuple(c for b in self.branches.values() if b.name != "detection" for c in b.classes)

    @property
    def size_bytes(self) -> int:
        """Size of all files except the manifest."""
        return sum(entry.size_bytes for entry in self.files.values())

    def weights(self, branch: Branch, kind: WeightKind) -> Path:
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


_COMMON_KEYS = ("format_version", "name", "version", "description", "licence", "card", "files")
CASCADE_KEYS = ("window_hu", "branches", "voi_mm")
SYSTEM_KEYS = ("system", "organs", "settings")
OPTIONAL_KEYS = ("review",)
BRANCH_OPTIONS = ("windows_hu", "mirror", "stride")
"""Keys that a branch may have from format version 2 on."""


def needed_format(fields: Mapping[str, Any]) -> int:
    """The oldest format version that can express these fields of a manifest."""
    branches = fields.get("branches", {}).values()
    more = any(key in branch for branch in branches for key in BRANCH_OPTIONS)
    more = more or any(Architecture.from_dict(b["architecture"]).needs_format_2 for b in branches)
    return 2 if "system" in fields or "review" in fields or more else 1


def parse_manifest(data: bytes) -> dict[str, Any]:
    """The manifest's JSON, of a known format version; raises `BundleError`, without the file's name."""
    try:
        manifest = parse_json(data, object_pairs_hook=no_duplicates, parse_constant=no_constant)
    except ValueError as error:
        raise BundleError(f"not valid JSON ({error}); the bundle is damaged") from error
    if not isinstance(manifest, dict):
        raise BundleError(f"must be a JSON object, not {kind_of(manifest)}")
    version = get_field(manifest, "format_version", int, "")
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
    for name, entry in get_field(manifest, "files", dict, "").items():
        where = f"files.{name}"
        if not PLAIN_NAME.fullmatch(name) or name.lower() == MANIFEST:
            raise BundleError(
                f"files: {name!r} is not allowed as a file name (letters, digits and ._- only, no folders)"
            )
        check_keys(entry, ("sha256", "bytes"), where)
        sha256, size = get_field(entry, "sha256", str, where), get_field(entry, "bytes", int, where)
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
    """Check every field and their agreement with one another; raises `BundleError` naming the field.

    The settings of a system other than the cascade are that system's to check.
    """
    further = SYSTEM_KEYS if "system" in manifest else CASCADE_KEYS
    check_keys(manifest, (*_COMMON_KEYS, *OPTIONAL_KEYS, *further), "")
    version = get_field(manifest, "format_version", int, "")
    for key in ("system", *OPTIONAL_KEYS):
        if key in manifest and version < 2:
            raise BundleError(f"{key}: belongs to format 2, but format_version is {version}")
    files = read_files_table(manifest)
    review = get_text(manifest, "review", "") if "review" in manifest else None
    if review is not None and review not in files:
        raise BundleError(f"review: {review!r} is not listed in files")
    name = get_text(manifest, "name", "")
    if not PLAIN_NAME.fullmatch(name):
        raise BundleError(f"name: {name!r} is not allowed (letters, digits and ._- only)")
    card_name = get_text(manifest, "card", "")
    if card_name not in files:
        raise BundleError(f"card: {card_name!r} is not listed in files")
    bundle = Bundle(
        name=name,
        version=get_text(manifest, "version", ""),
        format_version=version,
        folder=folder,
        description=get_text(manifest, "description", ""),
        licence=get_text(manifest, "licence", ""),
        window_hu=(0.0, 1.0),
        branches={},
        voi_mm={},
        card=card,
        files=files,
        sha256=sha256,
        review=review,
    )
    return _of_cascade(bundle, manifest) if "system" not in manifest else _of_other(bundle, manifest)


def _of_other(bundle: Bundle, manifest: Mapping[str, Any]) -> Bundle:
    from soars.catalogue import CATALOGUE

    system = get_text(manifest, "system", "")
    if system == CASCADE:
        raise BundleError(f"system: a bundle of the {CASCADE} has branches and names no system")
    organs = get_names(manifest, "organs", "")
    unknown = [organ for organ in organs if organ not in CATALOGUE]
    if unknown:
        raise BundleError(f"organs: unknown organ {unknown[0]!r}; names are the catalogue's (TG-263)")
    settings = get_field(manifest, "settings", dict, "")
    return replace(bundle, system=system, covers=organs, settings=settings)


def _of_cascade(bundle: Bundle, manifest: Mapping[str, Any]) -> Bundle:
    window = get_window(manifest, "window_hu", "")
    entries = get_field(manifest, "branches", dict, "")
    unknown = [b for b in entries if b not in BRANCHES]
    if unknown:
        raise BundleError(f"branches: unknown branch {unknown[0]!r}; known: {', '.join(BRANCHES)}")
    branches = {b: _branch(b, entries[b], bundle.format_version) for b in BRANCHES if b in entries}
    vois = get_field(manifest, "voi_mm", dict, "")
    voi_mm = {}
    for group in vois:
        extent = within(get_numbers(vois, group, 3, "voi_mm"), VOI_MM, f"voi_mm.{group}")
        voi_mm[group] = (extent[0], extent[1], extent[2])
    check_agreement(branches, voi_mm)
    for branch in branches.values():
        for kind, file in branch.files.items():
            if file not in bundle.files:
                raise BundleError(f"branches.{branch.name}.files.{kind}: {file!r} is not listed in files")
    return replace(bundle, window_hu=window, branches=branches, voi_mm=voi_mm)


_ALLOWED_INPUTS: Mapping[Branch, tuple[Input, ...]] = {"small_hard": INPUTS, "anchor": ("ct",)}


def _branch(name: Branch, entry: Any, version: int) -> BranchSpec:
    where = f"branches.{name}"
    keys = ("inputs", "classes", "activation", "spacing_mm", "patch", "architecture", "files")
    check_keys(entry, keys if version < 2 else (*keys, *BRANCH_OPTIONS), where)
    allowed = _ALLOWED_INPUTS.get(name, ("ct", "anchor"))
    inputs = []
    for text in get_names(entry, "inputs", where):
        channel = one_of(text, INPUTS)
        if channel is None:
            raise BundleError(f"{where}.inputs: unknown input {text!r}; known: {', '.join(INPUTS)}")
        if channel not in allowed:
            raise BundleError(f"{where}.inputs: {channel!r} cannot be an input of this branch")
        inputs.append(channel)
    if inputs[0] != "ct":
        raise BundleError(f"{where}.inputs: 'ct' must come first, got {', '.join(inputs)}")
    asked = get_text(entry, "activation", where)
    activation = one_of(asked, ACTIVATIONS)
    if activation is None:
        raise BundleError(
            f"{where}.activation: unknown activation {asked!r}; known: {', '.join(ACTIVATIONS)}"
        )
    if (activation == "heatmap") != (name == "detection"):
        raise BundleError(
            f"{where}.activation: {activation!r} does not fit; 'heatmap' is for the detection branch alone"
        )
    spacing = within(get_numbers(entry, "spacing_mm", 3, where), SPACING_MM, f"{where}.spacing_mm")
    patch = get_field(entry, "patch", list, where)
    if len(patch) != 3 or any(type(n) is not int or not 1 <= n <= LARGEST_PATCH for n in patch):
        raise BundleError(
            f"{where}.patch: expected three whole numbers of voxels (z, y, x), 1 to {LARGEST_PATCH}, got "
            f"{brief(patch)}"
        )
    try:
        architecture = Architecture.from_dict(get_field(entry, "architecture", dict, where))
    except BundleError as error:
        raise BundleError(f"{where}: {error}") from error
    if architecture.needs_format_2 and version < 2:
        raise BundleError(
            f"{where}.architecture: {architecture.network} in the order {architecture.order} belongs to format 2, but "
            f"format_version is {version}"
        )
    divisor = architecture.divisor
    if any(n % d for n, d in zip(patch, divisor, strict=True)):
        raise BundleError(
            f"{where}.patch: {tuple(patch)} is not a multiple of the architecture's {divisor} (z, y, x)"
        )
    files = get_field(entry, "files", dict, where)
    for kind in files:
        if kind not in WEIGHT_KINDS:
            raise BundleError(f"{where}.files: unknown kind {kind!r}; known: {', '.join(WEIGHT_KINDS)}")
    if not files:
        raise BundleError(f"{where}.files: no weights; expected {' or '.join(WEIGHT_KINDS)}")
    return BranchSpec(
        name=name,
        inputs=tuple(inputs),
        classes=get_names(entry, "classes", where),
        activation=activation,
        spacing_mm=(spacing[0], spacing[1], spacing[2]),
        patch=(patch[0], patch[1], patch[2]),
        architecture=architecture,
        files={kind: get_text(files, kind, f"{where}.files") for kind in WEIGHT_KINDS if kind in files},
        windows_hu=get_windows(entry, "windows_hu", where) if "windows_hu" in entry else (),
        mirror=get_field(entry, "mirror", bool, where) if "mirror" in entry else False,
        stride=get_share(entry, "stride", where) if "stride" in entry else None,
    )
