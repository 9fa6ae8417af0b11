"""Whether a bundle's files are exactly those that its manifest names, and who could change them."""

from __future__ import annotations

import hashlib
import os
import stat
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from soars.bundle.manifest import MANIFEST, Bundle, FileEntry
from soars.bundle.onnx_graph import external_files
from soars.errors import BundleError
from soars.networks.names import Branch, WeightKind

_CHUNK = 1 << 20


@dataclass(frozen=True)
class Weights:
    """A network's weights in memory: the very bytes whose hash was checked. Engines load from here only.

    Attributes:
        path: the file they were read from, for messages.
        data: the safetensors or ONNX file.
        external: files that an ONNX graph refers to, by the name it uses.
    """

    path: Path
    data: bytes
    external: Mapping[str, bytes] = field(default_factory=dict)


def read_weights(bundle: Bundle, branch: Branch, kind: WeightKind) -> Weights:
    """A branch's weights of a kind ("safetensors" or "onnx"), each file read once, hashed and kept.

    Raises `BundleError` when the bundle has none of that kind, when a file differs from the manifest, or when the graph
    refers to a file that the manifest does not list.
    """
    return read_network(bundle, bundle.weights(branch, kind).name, kind)


def read_network(bundle: Bundle, name: str, kind: WeightKind) -> Weights:
    """A file of weights by its name, as `read_weights`."""
    path = bundle.folder / name
    data = read_checked(bundle, name)
    names = _external_names(bundle, path, data) if kind == "onnx" else ()
    return Weights(path, data, {name: read_checked(bundle, name) for name in names})


def verify_files(bundle: Bundle) -> None:
    """Check size and SHA-256 of every file, and that ONNX graphs refer to files of the bundle only.

    Raises `BundleError` naming the first file that is missing, changed, or referred to without being listed.
    """
    for name, entry in bundle.files.items():
        check_file(bundle.folder / name, entry, f"bundle {bundle.folder}")
    graphs = {branch.files["onnx"] for branch in bundle.branches.values() if "onnx" in branch.files}
    graphs.update(name for name in bundle.files if name.endswith(".onnx"))
    for name in sorted(graphs):
        path = bundle.folder / name
        _external_names(bundle, path, path.read_bytes())


def check_file(path: Path, entry: FileEntry, where: str) -> None:
    """Raise `BundleError` when a file is missing, or its size or SHA-256 differs from its entry."""
    if not path.is_file():
        raise BundleError(f"{where}: {path.name} is missing; get the bundle again")
    size = path.stat().st_size
    if size != entry.size_bytes:
        what = "cut short" if size < entry.size_bytes else "too long"
        raise BundleError(
            f"{where}: {path.name} is {what} ({size} of {entry.size_bytes} bytes); get the bundle again"
        )
    if sha256_of(path) != entry.sha256:
        raise BundleError(
            f"{where}: {path.name} is damaged (its SHA-256 is not the manifest's); get the bundle again"
        )


def sha256_of(path: Path) -> str:
    """SHA-256 of a file, hexadecimal."""
    digest = hashlib.sha256()
    with path.open("rb") as stream:
        while chunk := stream.read(_CHUNK):
            digest.update(chunk)
    return digest.hexdigest()


def changeable_by_all(bundle: Bundle) -> list[str]:
    """A warning when every user of the computer can change the bundle's folder or a file in it, manifest included.

    The hashes say that the files are the manifest's, but not who wrote the manifest.
    """
    if os.name != "posix":
        return []  # on other systems the permissions that Python reports do not show who may write
    paths = [bundle.folder, *(bundle.folder / name for name in (MANIFEST, *bundle.files))]
    open_to_all = [path for path in paths if path.stat().st_mode & stat.S_IWOTH]
    if not open_to_all:
        return []
    return [
        f"bundle {bundle.name}: every user of this computer can change {open_to_all[0]}; its weights may not be "
        "those that were published; take that permission away (chmod o-w)"
    ]


def read_checked(bundle: Bundle, name: str) -> bytes:
    """One of the bundle's files, read once and compared with its hash; raises `BundleError` when they differ."""
    path, entry = bundle.folder / name, bundle.files[name]
    if not path.is_file():
        raise BundleError(f"bundle {bundle.folder}: {name} is missing; get the bundle again")
    with path.open("rb") as stream:
        data = stream.read(entry.size_bytes + 1)
    if len(data) != entry.size_bytes or hashlib.sha256(data).hexdigest() != entry.sha256:
        raise BundleError(f"bundle {bundle.folder}: {name} was changed after it was checked; get it again")
    return data


def _external_names(bundle: Bundle, path: Path, data: bytes) -> list[str]:
    try:
        names = sorted(external_files(data))
    except BundleError as error:
        raise BundleError(f"{path}: {error}; get the bundle again") from error
    for name in names:
        if name not in bundle.files:
            raise BundleError(
                f"{path}: the network keeps weights in {name!r}, which the manifest does not list; a bundle's files "
                "are all listed with their hashes; ask its publisher for a whole one"
            )
    return names
