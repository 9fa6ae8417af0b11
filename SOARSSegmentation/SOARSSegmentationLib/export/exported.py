"""What an export says of itself."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from soars.errors import InputError

if TYPE_CHECKING:
    from soars.structures import StructureSet


@dataclass(frozen=True)
class Exported:
    """What was written: the file or folder, and a sentence for people."""

    path: Path
    what: str


def with_voxels(structures: StructureSet) -> StructureSet:
    names = [name for name in structures if not structures.is_empty(name)]
    if not names:
        raise InputError("no organ has voxels: there is nothing to write")
    return structures.subset(names)
