"""Structures: organs at risk as masks, and their files (.seg.nrrd, label maps, folders of masks)."""

from soars.structures.io import read_structures
from soars.structures.labelmap import read_label_map, write_label_map
from soars.structures.maskfolder import read_mask_folder, write_mask_folder
from soars.structures.model import Geometry, Mask, StructureSet, tight_mask
from soars.structures.segnrrd import read_seg_nrrd, write_seg_nrrd

__all__ = [
    "Geometry",
    "Mask",
    "StructureSet",
    "read_label_map",
    "read_mask_folder",
    "read_seg_nrrd",
    "read_structures",
    "tight_mask",
    "write_label_map",
    "write_mask_folder",
    "write_seg_nrrd",
]
