"""Model bundles: where they are, and how they are checked, loaded and written.

A bundle is one folder, or one .zip of it, with ``manifest.json``, a model card and the weights of each branch::

    bundle = load_bundle("starter")  # a shipped or imported bundle, or the path of a folder or a .zip
    bundle.branches["anchor"].classes
    read_weights(bundle, "anchor", "onnx")

Loading checks the manifest (see `soars.bundle.manifest` for the format) and the SHA-256 of every file, so what is
loaded is what was published; `soars.bundle.integrity.read_weights` checks the hash again before it hands a file to an
engine. A damaged, truncated or newer bundle is refused with the reason.
"""

from __future__ import annotations

import hashlib
import json
import logging
import os
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from soars.bundle.card import CARD_SECTIONS, check_card
from soars.bundle.integrity import changeable_by_all, sha256_of, verify_files
from soars.bundle.manifest import (
    FORMAT_VERSION,
    LARGEST_MANIFEST,
    MANIFEST,
    PLAIN_NAME,
    BranchSpec,
    Bundle,
    FileEntry,
    bundle_from_manifest,
    needed_format,
    parse_manifest,
)
from soars.bundle.zipped import unzip
from soars.errors import BundleError
from soars.files import replacing_file
from soars.places import user_data
from soars.staging import TemporaryFolder

__all__ = [
    "CARD_SECTIONS", "FORMAT_VERSION", "BranchSpec", "Bundle", "BundleEntry", "FileEntry", "check_card",
    "list_bundles", "load_bundle", "user_folder", "verify", "write_manifest",
]  # fmt: skip

log = logging.getLogger(__name__)

SHIPPED = Path(__file__).parents[1] / "bundles"
LARGEST_CARD = 1 << 20
"""Bytes of a model card."""


@dataclass(frozen=True)
class BundleEntry:
    """An installed bundle: `load_bundle` finds it by ``name``; ``problem`` says why ``bundle`` is None."""

    name: str
    folder: Path
    shipped: bool
    bundle: Bundle | None
    problem: str | None = None


def load_bundle(name_or_path: str | os.PathLike[str]) -> Bundle:
    """Load and check a bundle by its name, or from a folder or a .zip.

    A plain name means an installed bundle first; write ``./name`` for a folder of that name. A .zip is
    unpacked into a temporary folder that is removed with the returned object.

    Raises `BundleError` when there is no such bundle, when two have the name, or when it is damaged or newer.
    """
    text = os.fspath(name_or_path)
    path = Path(text)
    if isinstance(name_or_path, str) and PLAIN_NAME.fullmatch(text):
        found = [folder for folder in _installed() if folder.name == text]
        if len(found) > 1:
            raise BundleError(
                f"two bundles are named {text}: {found[0]} and {found[1]}; give the path of the one you mean"
            )
        if found:
            path = found[0]
    if path.is_dir():
        return _checked(path)
    if path.is_file():
        return _load_zip(path)
    names = ", ".join(sorted({folder.name for folder in _installed()})) or "none"
    raise BundleError(f"no bundle {text!r}: neither installed (there: {names}) nor a folder or .zip")


def list_bundles() -> list[BundleEntry]:
    """All installed bundles, shipped ones first; manifests are read, files are not hashed."""
    entries = []
    for folder in _installed():
        shipped = folder.parent == SHIPPED
        try:
            entries.append(BundleEntry(folder.name, folder, shipped, read_bundle(folder)))
        except BundleError as error:
            entries.append(BundleEntry(folder.name, folder, shipped, None, str(error)))
    return entries


def read_bundle(folder: Path) -> Bundle:
    """The bundle in a folder with its manifest checked, but not yet its files; raises `BundleError`."""
    if not (folder / MANIFEST).is_file():
        raise BundleError(f"bundle {folder}: has no {MANIFEST}; it is not a bundle, or is incomplete")
    try:
        data = _read_at_most(folder / MANIFEST, LARGEST_MANIFEST)
        manifest = parse_manifest(data)
        name = manifest.get("card")
        card = folder / name if isinstance(name, str) and PLAIN_NAME.fullmatch(name) else None
        text = ""
        if card is not None and card.is_file():
            text = _read_at_most(card, LARGEST_CARD).decode("utf-8", errors="replace")
        return bundle_from_manifest(
            manifest, folder=folder, card=text, sha256=hashlib.sha256(data).hexdigest()
        )
    except OSError as error:
        raise BundleError(f"bundle {folder}: cannot be read ({error.strerror}: {error.filename})") from error
    except BundleError as error:
        raise BundleError(f"bundle {folder}: {MANIFEST}: {error}") from error


def verify(bundle: Bundle) -> list[str]:
    """Check size and SHA-256 of every file of a bundle; return warnings about anything merely unusual.

    Raises `BundleError` naming the first file that is missing, cut short or changed.
    """
    verify_files(bundle)
    warnings = [f"bundle {bundle.name}: {problem}" for problem in check_card(bundle.card)]
    warnings += changeable_by_all(bundle)
    present = {path.name for path in bundle.folder.iterdir()}
    return warnings + _about_extra(bundle, present - {MANIFEST, *bundle.files}, bundle.folder)


def write_manifest(folder: str | os.PathLike[str], fields: Mapping[str, Any]) -> Bundle:
    """Make a folder with weights and a ``card.md`` a bundle: hash all its files and write ``manifest.json``.

    ``fields``: the manifest's name, version, description and licence, with window_hu, branches (name ->
    `BranchSpec.to_dict`) and voi_mm, or with system, organs and settings; and review, as an option. Every file in the
    folder becomes part of the bundle. The manifest appears only when everything is valid, the model card's sections
    included; else `BundleError`.
    """
    folder = Path(folder)
    problems = check_card(_read_card(folder))
    if problems:
        raise BundleError(f"{folder / 'card.md'}: {'; '.join(problems)}")
    files = {}
    for path in sorted(folder.iterdir()):
        if path.name != MANIFEST:
            if not path.is_file():
                raise BundleError(f"{path}: a bundle holds files only")
            files[path.name] = {"sha256": sha256_of(path), "bytes": path.stat().st_size}
    manifest = {"format_version": needed_format(fields), **fields, "card": "card.md", "files": files}
    data = (json.dumps(manifest, indent=2, ensure_ascii=False, allow_nan=False) + "\n").encode()
    bundle_from_manifest(parse_manifest(data), folder=folder, card="", sha256="")
    with replacing_file(folder / MANIFEST) as temporary:
        temporary.write_bytes(data)
        temporary.chmod(0o644)
    return read_bundle(folder)


def user_folder() -> Path:
    """Where imported bundles are kept: ``$SOARS_BUNDLES``, else the system's place for application data."""
    if os.environ.get("SOARS_BUNDLES"):
        return Path(os.environ["SOARS_BUNDLES"]).expanduser()
    return user_data() / "bundles"


def _installed() -> list[Path]:
    """Folders of installed bundles, the shipped ones first."""
    return [
        folder
        for home in (SHIPPED, user_folder())
        if home.is_dir()
        for folder in sorted(home.iterdir())
        if PLAIN_NAME.fullmatch(folder.name) and _is_bundle(folder)
    ]


def _is_bundle(folder: Path) -> bool:
    try:
        return (folder / MANIFEST).is_file()
    except OSError:  # not readable; reading it will say so
        return folder.is_dir()


def _checked(folder: Path) -> Bundle:
    bundle = read_bundle(folder)
    warnings = verify(bundle)
    for warning in warnings:
        log.warning("%s", warning)
    return replace(bundle, warnings=tuple(warnings))


def _read_at_most(path: Path, limit: int) -> bytes:
    with path.open("rb") as stream:
        data = stream.read(limit + 1)
    if len(data) > limit:
        raise BundleError(f"{path.name} is longer than {limit >> 20} MB, more than any bundle's")
    return data


def _read_card(folder: Path) -> str:
    try:
        return (folder / "card.md").read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise BundleError(
            f"{folder / 'card.md'}: cannot be read as UTF-8 text: a bundle needs a model card"
        ) from error


def _load_zip(path: Path) -> Bundle:
    temporary = TemporaryFolder()
    try:
        folder = temporary.path
        extra = unzip(path, folder)
        try:
            bundle = _checked(folder)
        except BundleError as error:
            raise BundleError(str(error).replace(f"bundle {folder}", f"bundle {path}")) from error
        about_extra = _about_extra(bundle, extra, path)
        for warning in about_extra:
            log.warning("%s", warning)
        return replace(bundle, warnings=(*bundle.warnings, *about_extra), _keep_alive=temporary)
    except BaseException:
        temporary.remove()
        raise


def _about_extra(bundle: Bundle, names: set[str], where: Path) -> list[str]:
    """A warning about files that are not the bundle's, except what systems leave behind (.DS_Store)."""
    extra = sorted(n for n in names if not n.startswith((".", "__MACOSX")))
    return (
        [f"bundle {bundle.name}: not part of it and not used: {', '.join(extra)} (in {where})"]
        if extra
        else []
    )
