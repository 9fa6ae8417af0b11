"""Voxels in a separate file: which file a header may name."""

from __future__ import annotations

import os
from pathlib import Path, PurePosixPath, PureWindowsPath

from soars.errors import InputError

MOST_COMPRESSION = 1040
"""DEFLATE cannot do better: a compressed file cannot hold more bytes than its own times this."""


def detached_file(header: Path, name: str) -> Path:
    """The file that a header names for its voxels: an ordinary file in the header's own folder, or below it.

    An untrusted header could otherwise have any file of this user read as an image. Raises `InputError`.
    """
    outside = InputError(
        f"{header}: names {name!r} for its voxels, which is not in the header's own folder; put both into one folder"
    )
    parts = {*PurePosixPath(name).parts, *PureWindowsPath(name).parts}
    if (
        not name.isprintable()
        or not name
        or ".." in parts
        or PurePosixPath(name).is_absolute()
        or PureWindowsPath(name).drive
    ):
        raise outside
    folder = header.parent.resolve()
    path = (folder / name).resolve()
    if os.path.commonpath([folder, path]) != str(folder):
        raise outside
    if not path.is_file():
        raise InputError(f"{header}: names {name!r} for its voxels, which is not there; copy that file too")
    return path
