"""Structures: organs at risk as masks on one reference geometry."""

from soars.structures.model import Geometry, Mask, StructureSet, tight_mask

__all__ = ["Geometry", "Mask", "StructureSet", "tight_mask"]
