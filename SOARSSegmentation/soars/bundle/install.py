"""Installing a bundle for the user, and removing it again."""

from __future__ import annotations

import os
import shutil
import tempfile
from pathlib import Path

from soars.bundle import store
from soars.bundle.manifest import MANIFEST, PLAIN_NAME, Bundle
from soars.errors import BundleError


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
    if target.exists() and not (target / MANIFEST).is_file():
        raise BundleError(
            f"{target} is not a bundle, so it is not replaced; move it away, or give another --name"
        )
    home.mkdir(parents=True, exist_ok=True)
    work = Path(tempfile.mkdtemp(prefix=".import-", dir=home))
    try:
        new, old = work / "new", work / "old"
        new.mkdir()
        for file in (MANIFEST, *source.files):
            shutil.copyfile(source.folder / file, new / file)
        store.verify(store.read_bundle(new))
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
    work = Path(tempfile.mkdtemp(prefix=".remove-", dir=folder.parent))
    try:
        os.rename(folder, work / name)  # from here on the bundle is gone, however long deleting it takes
    finally:
        shutil.rmtree(work, ignore_errors=True)
    return folder
