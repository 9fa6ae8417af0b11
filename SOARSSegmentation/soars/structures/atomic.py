"""Writing one file all or nothing."""

from __future__ import annotations

import os
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from soars.errors import InputError


@contextmanager
def replacing_file(path: Path | str) -> Iterator[Path]:
    """A temporary name beside `path` (same ending, since writers choose the format by it) that takes its
    place when the block ends well; when it raises, `path` is as it was and nothing is left over. `InputError`
    when the folder does not exist or cannot be written."""
    path = Path(path)
    if not path.parent.is_dir():
        raise InputError(f"cannot write {path}: there is no folder {path.parent}")
    if path.is_dir():
        raise InputError(f"cannot write {path}: it is a folder")
    temporary = path.parent / f".soars-{uuid.uuid4().hex[:12]}-{path.name}"
    try:
        try:
            yield temporary
            os.replace(temporary, path)
        except OSError as error:
            raise InputError(f"cannot write {path}: {error.strerror or error}") from error
    finally:
        temporary.unlink(missing_ok=True)
