"""Installing a bundle for the user, and removing it again."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

from soars.bundle import store
from soars.bundle.manifest import MANIFEST, PLAIN_NAME, Bundle
from soars.errors import BundleError
from soars.files import staged_folder
from soars.staging import staging_folder

_KINDS = (".json", ".md", ".onnx", ".pth", ".safetensors", ".yaml")


def import_bundle(
    path: str | os.PathLike[str], name: str | None = None, *, overwrite: bool = False
) -> Bundle:
    """Check a bundle (folder or .zip) and copy it into the user's bundle folder, whole or not at all.

    ``name``: what to install it as, by default the name in its manifest. Raises `BundleError` when the bundle
    is refused, when the name is taken and not ``overwrite``, or when it is a shipped bundle's.
    """
    if not Path(path).exists():
        raise BundleError(f"no bundle to import at {os.fspath(path)}")
    source = store.load_bundle(Path(path))
    name = source.name if name is None else name
    if not PLAIN_NAME.fullmatch(name):
        raise BundleError(f"a bundle cannot be named {name!r} (letters, digits and ._- only)")
    if (store.SHIPPED / name / MANIFEST).exists():
        raise BundleError(f"{name} is the name of a shipped bundle; give another with --name")
    home = store.user_folder()
    target = home / name
    if target.exists() and not overwrite:
        raise BundleError(
            f"a bundle {name} is installed already ({target}); overwrite it, or give another --name"
        )
    if target.exists():
        _check_ours(target, "replaced; move it away, or give another --name")
    with staged_folder(home, [name], overwrite=overwrite, folders=[name]) as staging:
        new = staging / name
        new.mkdir()
        for file in (MANIFEST, *source.files):
            shutil.copyfile(source.folder / file, new / file)
        store.verify(store.read_bundle(new))
    return store.read_bundle(target)


def remove_bundle(name: str) -> Path:
    """Remove an imported bundle and return the folder where it was; damaged ones too.

    Raises `BundleError` for a shipped bundle, and when none of that name was imported.
    """
    if not PLAIN_NAME.fullmatch(name):
        raise BundleError(f"a bundle cannot be named {name!r}; soars bundle list shows what there is")
    folder = store.user_folder() / name
    if not (folder / MANIFEST).is_file():
        if (store.SHIPPED / name / MANIFEST).exists():
            raise BundleError(f"{name} is shipped with the program and cannot be removed")
        raise BundleError(f"no bundle {name} was imported (into {store.user_folder()})")
    if folder.is_symlink():
        folder.unlink()  # a link: the bundle itself is elsewhere and was not imported by us
        return folder
    _check_ours(folder, "removed; move it away first")
    work = staging_folder(folder.parent)
    try:
        os.rename(folder, work / name)  # from here on the bundle is gone, however long deleting it takes
    finally:
        shutil.rmtree(work, ignore_errors=True)
    return folder


def _check_ours(folder: Path, not_done: str) -> None:
    """Raise `BundleError` when a folder is no bundle, or holds anything else: nobody's own files are removed with it.

    What a damaged manifest lists is not known; then a bundle's usual kinds of files are taken for its own.
    """
    if not (folder / MANIFEST).is_file():
        raise BundleError(f"{folder} is not a bundle, so it is not {not_done}")
    try:
        listed = set(store.read_bundle(folder).files)
    except BundleError:
        listed = {path.name for path in folder.iterdir() if path.suffix in _KINDS}
    for path in sorted(folder.iterdir()):
        if path.name != MANIFEST and not path.name.startswith(".") and path.name not in listed:
            raise BundleError(
                f"{folder} holds {path.name}, which is not the bundle's, so it is not {not_done}"
            )
