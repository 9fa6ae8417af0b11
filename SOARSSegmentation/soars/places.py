"""Where the system keeps what belongs to a user."""

from __future__ import annotations

import os
import sys
from pathlib import Path


def user_cache() -> Path:
    """The folder of this program in the system's place for what can be made again; it may not exist yet."""
    if sys.platform == "win32":
        base = Path(os.environ.get("LOCALAPPDATA") or Path.home() / "AppData" / "Local")
        return base / "soars" / "Cache"
    if sys.platform == "darwin":
        return Path.home() / "Library" / "Caches" / "soars"
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "soars"


def keep_matplotlib_in_cache() -> None:
    """Let matplotlib, which our libraries import as well, keep its list of fonts there, and make no folder of settings
    in the user's home."""
    os.environ.setdefault("MPLCONFIGDIR", str(user_cache() / "matplotlib"))


def user_data() -> Path:
    """The folder of this program in the system's place for application data; it may not exist yet."""
    if sys.platform == "win32":
        base = Path(os.environ.get("LOCALAPPDATA") or Path.home() / "AppData" / "Local")
    elif sys.platform == "darwin":
        base = Path.home() / "Library" / "Application Support"
    else:
        base = Path(os.environ.get("XDG_DATA_HOME") or Path.home() / ".local" / "share")
    return base / "soars"
