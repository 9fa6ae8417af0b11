"""Room on the disk, looked at before the work and not when it runs out."""

from __future__ import annotations

import shutil
from pathlib import Path

from soars.errors import InputError


def require_disk(folder: Path, size_bytes: int, what: str) -> None:
    """Raise `InputError` when the disk of a folder, which need not exist yet, has less room than `what` takes."""
    there = next(place for place in (folder.absolute(), *folder.absolute().parents) if place.exists())
    free = shutil.disk_usage(there).free
    if free < size_bytes:
        raise InputError(
            f"{folder}: {what} take about {size_bytes / 1e6:,.0f} MB, and the disk has {free / 1e6:,.0f} MB left; make "
            "room, or use another folder"
        )
