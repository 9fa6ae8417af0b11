"""Writing files and folders all or nothing: a failed or cancelled run leaves no half-written file.

Every file is flushed to the disk before it takes its name, so that a full disk is an error and never an empty file.
Writers that do not report such errors themselves, SimpleITK's among them, are not used.
"""

from __future__ import annotations

import errno
import json
import os
import shutil
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from soars.errors import InputError, SoarsError
from soars.staging import KEPT, REPLACED, by_own_names, note_written, staging_file, staging_folder
from soars.supervise import uninterrupted

_DISK_FULL = (errno.ENOSPC, errno.EDQUOT)
_FORBIDDEN = (errno.EACCES, errno.EPERM, errno.EROFS)
_NO_HARD_LINKS = (errno.EPERM, errno.EOPNOTSUPP, errno.ENOSYS, errno.EMLINK, errno.EXDEV)

Ours = Callable[[Path], bool]
"""Whether a file (or the results in a folder) was written by this program, so that it may be replaced."""


@contextmanager
def replacing_file(path: Path | str, *, overwrite: bool = True) -> Iterator[Path]:
    """A temporary name beside ``path`` that takes its place when the block succeeds; see `replacing_files`."""
    path = Path(path)
    with replacing_files([path], overwrite=overwrite) as temporary:
        yield temporary[path]


@contextmanager
def replacing_files(paths: Sequence[Path], *, overwrite: bool = True) -> Iterator[dict[Path, Path]]:
    """For each path a temporary name beside it (same ending, since writers choose the format by it). All of
    them take their places when the block succeeds; when it raises, or one of them cannot be placed, everything is as
    it was and nothing is left behind.

    Without ``overwrite`` a file that is there already is refused, also one that appeared in the meantime. Raises
    `InputError` when a folder does not exist or cannot be written, and when the disk is full.
    """
    for path in paths:
        check_output_file(path, overwrite=overwrite)
    temporary = {path: staging_file(path) for path in paths}
    try:
        try:
            yield temporary
            for file in temporary.values():
                flush_to_disk(file)
            with uninterrupted():
                _place_all(temporary, overwrite)
                for path in paths:
                    note_written(path)
        except OSError as error:
            raise cannot_write(_meant(error, temporary), error) from error
        except SoarsError:
            raise
        except Exception as error:  # torch, for one, reports a full disk as an error of its own
            if paths and _disk_is_full(error, paths[0].parent):
                full = _full(error)
                raise cannot_write(paths[0], full) from full
            raise
    finally:
        for file in temporary.values():
            file.unlink(missing_ok=True)


def write_text(path: Path | str, text: str) -> None:
    """Write a text file, UTF-8, all or nothing; one that is there is replaced."""
    with replacing_file(path) as temporary:
        temporary.write_text(text, encoding="utf-8", newline="\n")


def write_json(path: Path | str, content: Any) -> None:
    """Write a JSON file as `write_text` does."""
    write_text(path, json.dumps(content, indent=1, ensure_ascii=False) + "\n")


def check_output_file(path: Path, *, overwrite: bool = True, ours: Ours | None = None) -> None:
    """Raise `InputError` when a file may not be written here; changes nothing.

    Args:
        overwrite: whether a file that is there may be replaced.
        ours: whether it is one of this program's; another one is not replaced even with ``overwrite``.
    """
    if not path.parent.is_dir():
        raise InputError(f"cannot write {path}: there is no folder {path.parent}")
    if path.is_dir():
        raise InputError(f"cannot write {path}: it is a folder")
    if not os.path.lexists(path):
        return
    if not path.is_file():
        raise InputError(f"cannot write {path}: it is no ordinary file")
    if not overwrite:
        raise InputError(f"{path} is there already; add --overwrite to replace it")
    if ours is not None and not ours(path):
        raise InputError(f"{path} is there already and was not written by soars; choose another name")


def begins_with(start: str) -> Ours:
    """Recognises text files by how they begin, e.g. tables by their first columns."""

    def ours(path: Path) -> bool:
        with path.open("rb") as file:
            return file.read(len(start.encode())) == start.encode()

    return ours


def refuse_inputs(outputs: Iterable[Path], inputs: Iterable[Path]) -> None:
    """Raise `InputError` when an output is one of the files or folders that are read."""
    read = [path for path in inputs if path.exists()]
    for output in outputs:
        for path in read:
            if output.exists() and os.path.samefile(output, path):
                raise InputError(f"{output} is the input; choose another name for the output")


@contextmanager
def staged_folder(
    folder: Path,
    names: Sequence[str],
    *,
    overwrite: bool = False,
    folders: Sequence[str] = (),
    ours: Ours | None = None,
) -> Iterator[Path]:
    """A temporary folder beside or in ``folder``, whose entries are moved there when the block succeeds.

    Args:
        folder: where the results go; made, with its parents, if it does not exist.
        names: files or folders that may be written; names that only the work brings may be added to the list
            meanwhile. Of what ``folder`` holds already, only these are touched:
            without ``overwrite`` any of them being there is refused, also when it appeared in the meantime; with it
            they are replaced all together, also those that this run did not write again (a stale RTSTRUCT is worse
            than none).
        folders: which of ``names`` are folders; a folder is never replaced by a file.
        ours: asked with ``folder`` before anything in it is replaced, see `Ours`.

    When the block raises, or the moving fails, ``folder`` is as it was before. Raises `InputError` when the folder
    cannot be used, or when the disk is full while writing.
    """
    check_output_folder(folder, names, overwrite=overwrite, folders=folders, ours=ours)
    made: list[Path] = []
    staging: Path | None = None
    try:
        try:
            home = folder if folder.is_dir() else folder.parent
            made = _missing_folders(home)
            home.mkdir(parents=True, exist_ok=True)
            staging = staging_folder(home, folder)
            staging.chmod(0o777 & ~_umask())
        except OSError as error:
            raise cannot_write(folder, error) from error
        try:
            yield staging
        except SoarsError:
            raise
        except Exception as error:
            if _disk_is_full(error, staging):
                full = _full(error)
                raise cannot_write(folder, full) from full
            raise
        try:
            for path in sorted(staging.rglob("*")):
                if path.is_file():
                    flush_to_disk(path)
            with uninterrupted():
                _publish(staging, folder, names, overwrite)
                note_written(folder)
        except OSError as error:
            raise cannot_write(folder, error) from error
    except BaseException:
        if staging is not None:
            shutil.rmtree(staging, ignore_errors=True)
        for path in reversed(made):
            _remove_if_empty(path)
        raise
    shutil.rmtree(staging, ignore_errors=True)


def check_output_folder(
    folder: Path,
    names: Sequence[str],
    *,
    overwrite: bool = False,
    folders: Sequence[str] = (),
    ours: Ours | None = None,
) -> None:
    """Raise `InputError` when results called ``names`` may not go into ``folder``; changes nothing."""
    for part in (folder, *folder.parents):
        if part.is_dir():
            break
        if part.exists() or part.is_symlink():
            raise InputError(f"output {folder}: {part} is not a folder; choose another --output")
    there = [name for name in names if os.path.lexists(folder / name)]
    if not there:
        return
    if not overwrite:
        raise _already_there(folder, there)
    for name in there:
        if (folder / name).is_dir() != (name in folders):
            kind = "a folder" if (folder / name).is_dir() else "a file"
            raise InputError(f"{folder / name} is {kind}, which soars did not write; choose another --output")
    if ours is not None and not ours(folder):
        raise InputError(
            f"{folder} holds {', '.join(there)}, which soars did not write; choose another --output"
        )


def flush_to_disk(path: Path) -> None:
    """Make the system write a file to disk now; `OSError` when it cannot, e.g. because the disk is full."""
    with path.open("rb+") as file:
        os.fsync(file.fileno())


def _place_all(temporary: dict[Path, Path], overwrite: bool) -> None:
    """Give every temporary file its name, or none of them."""
    kept: dict[Path, Path] = {}
    placed: list[Path] = []
    try:
        for path, file in temporary.items():
            if len(temporary) > 1 and overwrite and path.exists():
                kept[path] = file.with_name(f"{file.name}{KEPT}")
                _link(path, kept[path])
            if overwrite:
                os.replace(file, path)
            else:
                _link(file, path)
            placed.append(path)
    except FileExistsError as error:
        _take_back(placed, kept)
        raise InputError(f"{error.filename2} is there already; add --overwrite to replace it") from error
    except BaseException:
        _take_back(placed, kept)
        raise
    for old in kept.values():
        old.unlink(missing_ok=True)


def _take_back(placed: Sequence[Path], kept: dict[Path, Path]) -> None:
    for path in placed:
        if path not in kept:
            path.unlink(missing_ok=True)
    for path, old in kept.items():
        if old.exists():
            os.replace(old, path)
            old.unlink(missing_ok=True)  # renaming one of two names of the same file does nothing


def _link(file: Path, path: Path) -> None:
    """A second name for a file; `FileExistsError` when there is such a file."""
    try:
        os.link(file, path)
    except OSError as error:
        if error.errno not in _NO_HARD_LINKS:
            raise
        if os.path.lexists(path):
            raise FileExistsError(errno.EEXIST, "", str(file), None, str(path)) from error
        os.rename(file, path)


def _publish(staging: Path, folder: Path, names: Sequence[str], overwrite: bool) -> None:
    """Swap the entries of ``staging`` with those of ``folder``, or leave ``folder`` unchanged."""
    unexpected = sorted(path.name for path in staging.iterdir() if path.name not in names)
    if unexpected:
        raise RuntimeError(f"not announced as output: {', '.join(unexpected)}")
    try:
        if not folder.exists():
            os.rename(staging, folder)
            return
    except OSError as error:
        if error.errno not in (errno.ENOTEMPTY, errno.EEXIST):
            raise  # another run has made the folder in the meantime, and its results are in it
    with _publishing_alone(folder):
        there = [name for name in names if os.path.lexists(folder / name)]
        if there and not overwrite:
            raise _already_there(folder, there)
        _swap(staging, folder, names)


def _swap(staging: Path, folder: Path, names: Sequence[str]) -> None:
    old = staging / REPLACED
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


@contextmanager
def _publishing_alone(folder: Path) -> Iterator[None]:
    """No other run of ours publishes into this folder meanwhile. The system frees the lock of a process that dies."""
    try:
        import fcntl
    except ImportError:  # Windows, where a rename onto a name that is taken fails by itself
        yield
        return
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        with suppress(OSError):  # a network file system may not know locks
            fcntl.flock(descriptor, fcntl.LOCK_EX)
        yield
    finally:
        os.close(descriptor)


def _already_there(folder: Path, names: Sequence[str]) -> InputError:
    return InputError(f"{folder} already holds {', '.join(names)}; add --overwrite to replace them")


def _missing_folders(folder: Path) -> list[Path]:
    """``folder`` and those of its parents that do not exist, outermost first."""
    missing = []
    for part in (folder, *folder.parents):
        if part.exists():
            break
        missing.append(part)
    return missing[::-1]


def _disk_is_full(error: Exception, folder: Path) -> bool:
    """Whether the disk is full; some libraries report that as an error of their own, so the free space is checked."""
    if isinstance(error, OSError) and error.errno in _DISK_FULL:
        return True
    try:
        return shutil.disk_usage(folder).free < 65536
    except OSError:
        return False


def _full(error: Exception) -> OSError:
    """The system's own error for a full disk, whatever a library made of it."""
    full = OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
    full.__cause__ = error
    return full


def _remove_if_empty(folder: Path) -> None:
    with suppress(OSError):
        folder.rmdir()


def _umask() -> int:
    mask = os.umask(0o022)
    os.umask(mask)
    return mask


def _meant(error: OSError, temporary: dict[Path, Path]) -> Path:
    """The output that an error is about, as far as it says so."""
    named = {str(error.filename), str(error.filename2)}
    return next((path for path, file in temporary.items() if str(file) in named), next(iter(temporary)))


def cannot_write(path: Path, error: OSError) -> InputError:
    """What to tell a user about a file or folder, by the name that it is to have, that could not be written."""
    place = by_own_names(str(path))
    if error.errno in _DISK_FULL:
        return InputError(f"cannot write {place}: the disk is full; free some space or choose another place")
    if error.errno in _FORBIDDEN:
        return InputError(f"cannot write {place}: no permission to write there; choose another place")
    return InputError(f"cannot write {place}: {error.strerror or error}")
