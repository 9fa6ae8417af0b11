"""What systems share whose bundle says all about them: where they come from, and what must be installed for them."""

from __future__ import annotations

from collections.abc import Collection

from soars.bundle.manifest import Bundle
from soars.systems.interface import Needs, Source
from soars.systems.packages import missing_packages


class BundledSystem:
    """A bundle whose system runs by the packages of one extra; see `soars.systems.interface.System`.

    Attributes:
        name: as manifests have it.
        title: as sentences have it.
        extra: of this project's distribution, which brings the packages.
        packages: distributions with their floors.
        definition: see `Source`.
    """

    name: str
    title: str
    extra: str
    packages: tuple[str, ...] = ()
    definition: str = ""

    def __init__(self, bundle: Bundle) -> None:
        self.bundle = bundle

    @property
    def sha256(self) -> str:
        return self.bundle.sha256

    @property
    def sources(self) -> tuple[Source, ...]:
        bundle = self.bundle
        return (Source(self.name, bundle.name, bundle.version, self.sha256, definition=self.definition),)

    @property
    def requirements(self) -> tuple[str, ...]:
        return self.packages

    @property
    def organs(self) -> tuple[str, ...]:
        return self.bundle.organs

    def needs(self, organs: Collection[str]) -> Needs:
        return Needs(self.extra, missing_packages(self.packages))

    def problem(self, organs: Collection[str]) -> str | None:
        missing = self.needs(organs).missing_packages
        if not missing:
            return None
        return (
            f"bundle {self.bundle.name} is of the system {self.title} and needs {', '.join(missing)}; install them "
            f"with: pip install 'soars-segmentation[{self.extra}]'"
        )
