"""Model bundles: where they lie, how they are checked, loaded, imported and written.

A bundle is one folder, or one .zip of it, with ``manifest.json``, a model card and the weights of each
branch::

    bundle = load_bundle("starter")               # a shipped or imported bundle, or a path to a folder or
    .zip bundle.branches["anchor"].classes
    bundle.weights("anchor", "onnx")

Loading checks the manifest (see `soars.bundle.manifest` for the format) and the SHA-256 of every file, so what is
loaded is what was published. A damaged, truncated or newer bundle is refused with the reason.
"""

from __future__ import annotations

import hashlib
import json
import logging
import os
import shutil
import tempfile
import zipfile
import zlib
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path, PurePosixPath
from typing import Any, BinaryIO

from soars.bundle.card import CARD_SECTIONS, check_card
from soars.bundle.manifest import (
    FORMAT_VERSION,
    MANIFEST,
    PLAIN_NAME,
    BranchSpec,
    Bundle,
    FileEntry,
    bundle_from_manifest,
    parse_manifest,
    read_files_table,
)
from soars.errors import BundleError
from soars.places import user_data

__all__ = [
    "CARD_SECTIONS", "FORMAT_VERSION", "BranchSpec", "Bundle", "BundleEntry", "FileEntry", "check_card",
    "import_bundle", "list_bundles", "load_bundle", "user_folder", "verify", "write_manifest",
]  # fmt: skip

log = logging.getLogger(__name__)

SHIPPED = Path(__file__).parents[1] / "bundles"
_CHUNK = 1 << 20
_LARGEST_MANIFEST = 4 << 20


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
    try:
        data = (folder / MANIFEST).read_bytes()
    except FileNotFoundError as error:
        raise BundleError(
            f"bundle {folder}: has no {MANIFEST}; it is not a bundle, or is incomplete"
        ) from error
    try:
        manifest = parse_manifest(data)
        card_name = manifest.get("card")
        card = folder / card_name if isinstance(card_name, str) and PLAIN_NAME.fullmatch(card_name) else None
        text = (
            card.read_bytes().decode("utf-8", errors="replace") if card is not None and card.is_file() else ""
        )
        return bundle_from_manifest(
            manifest, folder=folder, card=text, sha256=hashlib.sha256(data).hexdigest()
        )
    except BundleError as error:
        raise BundleError(f"bundle {folder}: {MANIFEST}: {error}") from error


def verify(bundle: Bundle) -> list[str]:
    """Check size and SHA-256 of every file of a bundle; return warnings about what is merely odd.

    Raises `BundleError` naming the first file that is missing, cut short or changed.
    """
    for name, entry in bundle.files.items():
        _check_file(bundle.folder / name, entry, f"bundle {bundle.folder}")
    warnings = [f"bundle {bundle.name}: {problem}" for problem in check_card(bundle.card)]
    present = {path.name for path in bundle.folder.iterdir()}
    return warnings + _about_extra(bundle, present - {MANIFEST, *bundle.files}, bundle.folder)


def import_bundle(
    path: str | os.PathLike[str], name: str | None = None, *, overwrite: bool = False
) -> Bundle:
    """Check a bundle (folder or .zip) and copy it into the user's bundle folder, whole or not at all.

    ``name``: what to install it as, by default the name in its manifest. Raises `BundleError` when the bundle
    is refused, when the name is taken and not ``overwrite``, or when it is a shipped bundle's.
    """
    if not Path(path).exists():
        raise BundleError(f"no bundle to import at {os.fspath(path)}")
    source = load_bundle(Path(path))
    name = source.name if name is None else name
    if not PLAIN_NAME.fullmatch(name):
        raise BundleError(f"a bundle cannot be named {name!r} (letters, digits and ._- only)")
    if (SHIPPED / name / MANIFEST).exists():
        raise BundleError(f"{name} is the name of a shipped bundle; give another with --name")
    home = user_folder()
    target = home / name
    if target.exists() and not overwrite:
        raise BundleError(
            f"a bundle {name} is installed already ({target}); overwrite it, or give another --name"
        )
    home.mkdir(parents=True, exist_ok=True)
    work = Path(tempfile.mkdtemp(prefix=".import-", dir=home))
    try:
        new, old = work / "new", work / "old"
        new.mkdir()
        for file in (MANIFEST, *source.files):
            shutil.copyfile(source.folder / file, new / file)
        verify(read_bundle(new))
        try:
            if target.exists():
                os.rename(target, old)
            os.rename(new, target)
        except BaseException:
            if old.exists() and not target.exists():
                os.rename(old, target)
            raise
    finally:
        shutil.rmtree(work, ignore_errors=True)
    return read_bundle(target)


def write_manifest(folder: str | os.PathLike[str], fields: Mapping[str, Any]) -> Bundle:
    """Make a folder with weights and a ``card.md`` a bundle: hash all its files and write ``manifest.json``.

    ``fields``: the manifest's name, version, description, licence, window_hu, branches (name ->
    `BranchSpec.to_dict`) and voi_mm. Every file in the folder becomes part of the bundle. The manifest
    appears only when everything is valid, the model card's sections included; else `BundleError`.
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
            files[path.name] = {"sha256": _sha256(path), "bytes": path.stat().st_size}
    manifest = {"format_version": FORMAT_VERSION, **fields, "card": "card.md", "files": files}
    data = (json.dumps(manifest, indent=2, ensure_ascii=False, allow_nan=False) + "\n").encode()
    bundle_from_manifest(parse_manifest(data), folder=folder, card="", sha256="")
    handle, temporary = tempfile.mkstemp(prefix=".manifest-", dir=folder)
    try:
        with os.fdopen(handle, "wb") as stream:
            stream.write(data)
        os.chmod(temporary, 0o644)
        os.replace(temporary, folder / MANIFEST)
    except BaseException:
        Path(temporary).unlink(missing_ok=True)
        raise
    return read_bundle(folder)


def user_folder() -> Path:
    """Where imported bundles lie: ``$SOARS_BUNDLES``, else the system's place for application data."""
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
        if PLAIN_NAME.fullmatch(folder.name) and (folder / MANIFEST).is_file()
    ]


def _checked(folder: Path) -> Bundle:
    bundle = read_bundle(folder)
    warnings = verify(bundle)
    for warning in warnings:
        log.warning("%s", warning)
    return replace(bundle, warnings=tuple(warnings))


def _check_file(path: Path, entry: FileEntry, where: str) -> None:
    if not path.is_file():
        raise BundleError(f"{where}: {path.name} is missing; get the bundle again")
    size = path.stat().st_size
    if size != entry.size_bytes:
        what = "cut short" if size < entry.size_bytes else "too long"
        raise BundleError(
            f"{where}: {path.name} is {what} ({size} of {entry.size_bytes} bytes); get the bundle again"
        )
    if _sha256(path) != entry.sha256:
        raise BundleError(
            f"{where}: {path.name} is damaged (its SHA-256 is not the manifest's); get the bundle again"
        )


def _sha256(path: Path) -> str:
    digest = hashlib.sha256()
    with path.open("rb") as stream:
        while chunk := stream.read(_CHUNK):
            digest.update(chunk)
    return digest.hexdigest()


def _read_card(folder: Path) -> str:
    try:
        return (folder / "card.md").read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise BundleError(
            f"{folder / 'card.md'}: cannot be read as UTF-8 text: a bundle needs a model card"
        ) from error


def _load_zip(path: Path) -> Bundle:
    temporary = tempfile.TemporaryDirectory(prefix="soars-bundle-", ignore_cleanup_errors=True)
    try:
        folder = Path(temporary.name)
        extra = _unzip(path, folder)
        try:
            bundle = _checked(folder)
        except BundleError as error:
            raise BundleError(str(error).replace(f"bundle {folder}", f"bundle {path}")) from error
        about_extra = _about_extra(bundle, extra, path)
        for warning in about_extra:
            log.warning("%s", warning)
        return replace(bundle, warnings=(*bundle.warnings, *about_extra), _keep_alive=temporary)
    except BaseException:
        temporary.cleanup()
        raise


def _about_extra(bundle: Bundle, names: set[str], where: Path) -> list[str]:
    """A warning about files that are not the bundle's, except what systems leave behind (.DS_Store)."""
    extra = sorted(n for n in names if not n.startswith((".", "__MACOSX")))
    return (
        [f"bundle {bundle.name}: not part of it and not used: {', '.join(extra)} (in {where})"]
        if extra
        else []
    )


def _unzip(path: Path, folder: Path) -> set[str]:
    """Unpack the manifest and the files it lists, nothing else and nowhere else; return the other members."""
    try:
        with zipfile.ZipFile(path) as archive:
            members = {m.filename: m for m in archive.infolist() if not m.is_dir()}
            for name in archive.namelist():
                if "\\" in name or ":" in name or name.startswith("/") or ".." in PurePosixPath(name).parts:
                    raise BundleError(f"bundle {path}: {name!r} points out of the archive; refused")
            manifests = [n for n in members if PurePosixPath(n).name == MANIFEST and n.count("/") <= 1]
            if len(manifests) != 1:
                found = "no" if not manifests else "more than one"
                raise BundleError(f"bundle {path}: the archive has {found} {MANIFEST}")
            prefix = manifests[0][: -len(MANIFEST)]
            _unpack(archive, members[manifests[0]], folder / MANIFEST, _LARGEST_MANIFEST)
            try:
                files = read_files_table(parse_manifest((folder / MANIFEST).read_bytes()))
            except BundleError as error:
                raise BundleError(f"bundle {path}: {MANIFEST}: {error}") from error
            for name, entry in files.items():
                if prefix + name in members:
                    _unpack(archive, members[prefix + name], folder / name, entry.size_bytes)
            used = {prefix + name for name in (MANIFEST, *files)}
            return set(members) - used
    except (zipfile.BadZipFile, zlib.error, EOFError, RuntimeError, NotImplementedError) as error:
        raise BundleError(f"bundle {path}: not a readable .zip ({error}); get the bundle again") from error


def _unpack(archive: zipfile.ZipFile, member: zipfile.ZipInfo, target: Path, limit: int) -> None:
    """Write one member; it may not hold more than ``limit`` bytes, whatever the archive says."""
    with archive.open(member) as source, target.open("wb") as sink:
        _copy_at_most(source, sink, limit, member.filename)


def _copy_at_most(source: Any, sink: BinaryIO, limit: int, name: str) -> None:
    left = limit
    while chunk := source.read(_CHUNK):
        left -= len(chunk)
        if left < 0:
            raise zipfile.BadZipFile(f"{name} holds more than the {limit} bytes it should")
        sink.write(chunk)
