"""Files of structures: `soars.formats.table` lists the formats, `read_structures` reads any of them."""

from soars.formats.labelmap import read_label_map, write_label_map
from soars.formats.maskfolder import read_mask_folder, write_mask_folder
from soars.formats.reading import read_structures
from soars.formats.segnrrd import read_seg_nrrd, write_seg_nrrd
from soars.formats.table import FORMATS, format_of, format_to_write

__all__ = [
    "FORMATS",
    "format_of",
    "format_to_write",
    "read_label_map",
    "read_mask_folder",
    "read_seg_nrrd",
    "read_structures",
    "write_label_map",
    "write_mask_folder",
    "write_seg_nrrd",
]
