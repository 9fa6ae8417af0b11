"""Structures: organs at risk as masks on one reference geometry."""

from soars.structures.box import Box
from soars.structures.geometry import Geometry
from soars.structures.labels import from_label_map, to_label_map
from soars.structures.mask import EMPTY_MASK, Mask, tight_mask
from soars.structures.model import StructureInfo, StructureSet

__all__ = [
    "EMPTY_MASK",
    "Box",
    "Geometry",
    "Mask",
    "StructureInfo",
    "StructureSet",
    "from_label_map",
    "tight_mask",
    "to_label_map",
]
