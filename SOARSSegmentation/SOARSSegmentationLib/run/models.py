"""What the chosen model needs before it can run, beyond what a run of the cascade needs."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from soars.bundle.manifest import CASCADE
from soars.errors import InputError
from SOARSSegmentationLib.run.dependencies import (
    Gpu,
    Requirement,
    always,
    known,
    missing,
    not_there,
)

if TYPE_CHECKING:
    from soars.bundle.store import Bundle


@dataclass(frozen=True)
class Missing:
    """Packages that are not installed: without ``needed`` nothing runs, without ``optional`` some sources do not."""

    needed: list[Requirement]
    optional: list[Requirement]


def packages_missing(bundle: Bundle, device: str, gpu: Gpu | None) -> Missing:
    """Looks at the packages' metadata only: none is imported. Raises `BundleError` for a bundle with wrong settings."""
    from soars.systems.registry import requirements_of

    asked = requirements_of(bundle)
    # A composite may have a cascade among its sources; a model of another system runs without the cascade's engines.
    engine = missing(device, gpu) if bundle.system in (CASCADE, "composite") else not_there(always())
    needed = list(dict.fromkeys([*engine, *not_there(known(asked.needed))]))
    optional = [one for one in not_there(known(asked.optional)) if one not in needed]
    return Missing(needed, optional)


@dataclass(frozen=True)
class Download:
    """Weights that are not on this computer; ``size_mb`` is None where the server does not say."""

    name: str
    licence: str
    url: str
    needs_number: bool
    size_mb: int | None


@dataclass(frozen=True)
class State:
    """What ``soars bundle needs`` says: organs that can be drawn now, why others cannot, what can be downloaded,
    and packages that are missing (what their models would download is not known before)."""

    ready: tuple[str, ...]
    why_not: dict[str, str]
    downloads: tuple[Download, ...]
    packages: tuple[str, ...] = ()


def read_state(lines: Sequence[str]) -> State:
    """What ``soars bundle needs --json`` printed; `InputError` when it is something else."""
    try:
        (line,) = lines
        said = json.loads(line)
        sizes = said["sizes"]
        return State(
            tuple(said["ready"]),
            dict(said["why_not"]),
            tuple(
                Download(
                    one["name"],
                    one["licence"],
                    one["url"],
                    one["needs_number"],
                    round(sizes[one["name"]] / 1e6) if one["name"] in sizes else None,
                )
                for one in said["weights"]
                if not one["present"]
            ),
            tuple(said["missing_packages"]),
        )
    except (ValueError, KeyError, TypeError) as error:
        raise InputError(f"what the model needs could not be found out ({error!r})") from error
