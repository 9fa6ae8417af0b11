"""Organs that one side has whole and the other in parts, such as the mandible and its halves: compared whole."""

from __future__ import annotations

from soars.catalogue import CATALOGUE
from soars.structures import StructureSet


def join_parts(structures: StructureSet, other: StructureSet) -> None:
    """Add, in place, every organ of the catalogue that only ``other`` has and that all of its parts here make up.

    Parts that ``other`` does not have are then removed: there is nothing to compare them with. Each organ that was
    joined is listed in ``structures.warnings``.
    """
    for whole in CATALOGUE.values():
        if not whole.parts or whole.name in structures or whole.name not in other:
            continue
        if all(part in structures for part in whole.parts):
            structures.add_mask(whole.name, structures.union(whole.parts))
            structures.warnings.append(f"{whole.name} was joined from {', '.join(whole.parts)}")
            for part in whole.parts:
                if part not in other:
                    structures.remove(part)
