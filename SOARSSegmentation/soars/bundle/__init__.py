"""Model bundles: the `manifest`, the `store` that finds, checks and writes them, and how they are installed."""

from soars.bundle.install import import_bundle, remove_bundle
from soars.bundle.manifest import Bundle
from soars.bundle.store import list_bundles, load_bundle, verify, write_manifest

__all__ = [
    "Bundle",
    "import_bundle",
    "list_bundles",
    "load_bundle",
    "remove_bundle",
    "verify",
    "write_manifest",
]
