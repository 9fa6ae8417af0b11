"""Unpacking a bundle's .zip: the manifest and the files it lists, nothing else, nowhere else, and no more bytes."""

from __future__ import annotations

import shutil
import zipfile
import zlib
from pathlib import Path, PurePosixPath
from typing import Any, BinaryIO

from soars.bundle.manifest import LARGEST_MANIFEST, MANIFEST, parse_manifest, read_files_table
from soars.errors import BundleError

MOST_MEMBERS = 10_000
"""Files in an archive; a bundle has about ten."""
MOST_GROWTH = 100
"""Weights are close to noise and hardly compress. An archive that grows by more than this is not a bundle."""
UNREMARKABLE_BYTES = 100 << 20
"""Up to this size, an archive may grow by any factor."""
_CHUNK = 1 << 20


def unzip(path: Path, folder: Path) -> set[str]:
    """Unpack a bundle into `folder`; returns the members that are not the bundle's and were left packed.

    Before a file is unpacked the archive's own account of its size is compared with the manifest's; while it is
    unpacked its bytes are counted, whatever the archive says. Raises `BundleError`.
    """
    try:
        with zipfile.ZipFile(path) as archive:
            members = _members(archive, path)
            manifests = [n for n in members if PurePosixPath(n).name == MANIFEST and n.count("/") <= 1]
            if len(manifests) != 1:
                found = "no" if not manifests else "more than one"
                raise BundleError(f"bundle {path}: the archive has {found} {MANIFEST}")
            prefix = manifests[0][: -len(MANIFEST)]
            _unpack(archive, members[manifests[0]], folder / MANIFEST, LARGEST_MANIFEST)
            try:
                files = read_files_table(parse_manifest((folder / MANIFEST).read_bytes()))
            except BundleError as error:
                raise BundleError(f"bundle {path}: {MANIFEST}: {error}") from error
            _check_total(
                {
                    members[prefix + name]: e.size_bytes
                    for name, e in files.items()
                    if prefix + name in members
                },
                path,
                folder,
            )
            for name, entry in files.items():
                if prefix + name in members:
                    _unpack(archive, members[prefix + name], folder / name, entry.size_bytes)
            used = {prefix + name for name in (MANIFEST, *files)}
            return set(members) - used
    except (zipfile.BadZipFile, zlib.error, EOFError, RuntimeError, ValueError) as error:
        raise BundleError(f"bundle {path}: not a readable .zip ({error}); get the bundle again") from error


def _members(archive: zipfile.ZipFile, path: Path) -> dict[str, zipfile.ZipInfo]:
    names = archive.namelist()
    if len(names) > MOST_MEMBERS:
        raise BundleError(
            f"bundle {path}: the archive holds {len(names)} files, more than any bundle; refused"
        )
    if len(set(names)) != len(names):
        raise BundleError(f"bundle {path}: the archive holds two files of one name; refused")
    for name in names:
        if "\\" in name or ":" in name or name.startswith("/") or ".." in PurePosixPath(name).parts:
            raise BundleError(f"bundle {path}: {name!r} points outside the archive; refused")
    return {m.filename: m for m in archive.infolist() if not m.is_dir()}


def _check_total(limits: dict[zipfile.ZipInfo, int], path: Path, folder: Path) -> None:
    """Refuse an archive that would fill the disk, or grows as weights never do, before the first byte is unpacked."""
    for member, limit in limits.items():
        _check_size(member, limit)
        if member.compress_type not in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED):
            raise zipfile.BadZipFile(f"{member.filename} is neither stored nor deflated")
    total, packed = (sum(getattr(m, size) for m in limits) for size in ("file_size", "compress_size"))
    if total > UNREMARKABLE_BYTES and total > MOST_GROWTH * packed:
        raise BundleError(
            f"bundle {path}: would grow from {packed} to {total} bytes, which weights never do; refused"
        )
    free = shutil.disk_usage(folder).free
    if total > free:
        raise BundleError(
            f"bundle {path}: needs {total} bytes to unpack, but only {free} are free at {folder.parent}; free some "
            "space, or set TMPDIR to another place"
        )


def _check_size(member: zipfile.ZipInfo, limit: int) -> None:
    if member.file_size > limit:
        raise zipfile.BadZipFile(f"{member.filename} holds more than the {limit} bytes it should")


def _unpack(archive: zipfile.ZipFile, member: zipfile.ZipInfo, target: Path, limit: int) -> None:
    """Write one member; it may not hold more than `limit` bytes."""
    _check_size(member, limit)
    with archive.open(member) as source, target.open("wb") as sink:
        _copy_at_most(source, sink, limit, member.filename)


def _copy_at_most(source: Any, sink: BinaryIO, limit: int, name: str) -> None:
    left = limit
    while chunk := source.read(_CHUNK):
        left -= len(chunk)
        if left < 0:
            raise zipfile.BadZipFile(f"{name} holds more than the {limit} bytes it should")
        sink.write(chunk)
