"""Writing files and folders all or nothing: a failed or cancelled run leaves no half-written file."""

from __future__ import annotations

import errno
import os
import shutil
import tempfile
import uuid
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from soars.errors import InputError, SoarsError

STAGING_PREFIX = ".soars-"


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
    temporary = path.parent / f"{STAGING_PREFIX}{uuid.uuid4().hex[:12]}-{path.name}"
    try:
        try:
            yield temporary
            os.replace(temporary, path)
        except OSError as error:
            raise InputError(f"cannot write {path}: {error.strerror or error}") from error
    finally:
        temporary.unlink(missing_ok=True)


@contextmanager
def staged_folder(folder: Path, names: Sequence[str], *, overwrite: bool = False) -> Iterator[Path]:
    """A temporary folder beside or in `folder`, whose entries are moved there when the block ends well.

    Args:
        folder: where the results go; made, with its parents, if it does not exist.
        names: files or folders that may be written. Of what `folder` holds already, only these are touched:
            without `overwrite` any of them being there is refused; with it they are replaced all together, also
            those that this run did not write again (a stale RTSTRUCT is worse than none).

    When the block raises, or the moving fails, `folder` is as it was before. Raises `InputError` when the
    folder cannot be used, or when the disk is full while writing.
    """
    check_output_folder(folder, names, overwrite=overwrite)
    made: list[Path] = []
    staging: Path | None = None
    try:
        try:
            home = folder if folder.is_dir() else folder.parent
            made = _missing_folders(home)
            home.mkdir(parents=True, exist_ok=True)
            staging = Path(tempfile.mkdtemp(prefix=STAGING_PREFIX, dir=home))
            staging.chmod(0o777 & ~_umask())
        except OSError as error:
            raise _cannot_write(folder, error) from error
        try:
            yield staging
        except SoarsError:
            raise
        except Exception as error:
            if _disk_is_full(error, staging):
                raise _cannot_write(folder, OSError(errno.ENOSPC, "")) from error
            raise
        try:
            _publish(staging, folder, names)
        except OSError as error:
            raise _cannot_write(folder, error) from error
    except BaseException:
        if staging is not None:
            shutil.rmtree(staging, ignore_errors=True)
        for path in reversed(made):
            _remove_if_empty(path)
        raise
    shutil.rmtree(staging, ignore_errors=True)


def check_output_folder(folder: Path, names: Sequence[str], *, overwrite: bool = False) -> None:
    """Raise `InputError` when results called `names` may not go into `folder`; changes nothing."""
    for part in (folder, *folder.parents):
        if part.is_dir():
            break
        if part.exists() or part.is_symlink():
            raise InputError(f"output {folder}: {part} is not a folder; choose another --output")
    there = [name for name in names if os.path.lexists(folder / name)]
    if there and not overwrite:
        raise InputError(f"{folder} already holds {', '.join(there)}; add --overwrite to replace them")


def _publish(staging: Path, folder: Path, names: Sequence[str]) -> None:
    """Swap the entries of `staging` with those of `folder`, or leave `folder` unchanged."""
    unexpected = sorted(path.name for path in staging.iterdir() if path.name not in names)
    if unexpected:
        raise RuntimeError(f"not announced as output: {', '.join(unexpected)}")
    if not folder.exists():
        os.rename(staging, folder)
        return
    old = staging / ".replaced"
    old.mkdir()
    saved: list[str] = []
    placed: list[str] = []
    try:
        for name in names:
            if os.path.lexists(folder / name):
                os.rename(folder / name, old / name)
                saved.append(name)
        for name in names:
            if os.path.lexists(staging / name):
                os.rename(staging / name, folder / name)
                placed.append(name)
    except BaseException:
        for name in placed:
            os.rename(folder / name, staging / name)
        for name in saved:
            os.rename(old / name, folder / name)
        raise


def _missing_folders(folder: Path) -> list[Path]:
    """`folder` and those of its parents that do not exist, outermost first."""
    missing = []
    for part in (folder, *folder.parents):
        if part.exists():
            break
        missing.append(part)
    return missing[::-1]


def _disk_is_full(error: Exception, folder: Path) -> bool:
    """SimpleITK and others report a full disk as an error of their own kind: then the free space tells."""
    if isinstance(error, OSError) and error.errno in (errno.ENOSPC, errno.EDQUOT):
        return True
    try:
        return shutil.disk_usage(folder).free < 65536
    except OSError:
        return False


def _remove_if_empty(folder: Path) -> None:
    try:
        folder.rmdir()
    except OSError:
        pass


def _umask() -> int:
    mask = os.umask(0o022)
    os.umask(mask)
    return mask


def _cannot_write(folder: Path, error: OSError) -> SoarsError:
    if error.errno in (errno.ENOSPC, errno.EDQUOT):
        return InputError(f"output {folder}: the disk is full; free some space or choose another --output")
    if error.errno in (errno.EACCES, errno.EPERM, errno.EROFS):
        return InputError(f"output {folder}: no permission to write there; choose another --output")
    return InputError(f"output {folder}: cannot be written: {error.strerror or error}")
