"""Files of structures: .seg.nrrd, label maps, folders of masks, RTSTRUCT."""

from soars.formats.labelmap import read_label_map, write_label_map
from soars.formats.maskfolder import read_mask_folder, write_mask_folder
from soars.formats.reading import read_structures
from soars.formats.segnrrd import read_seg_nrrd, write_seg_nrrd

__all__ = [
    "read_label_map",
    "read_mask_folder",
    "read_seg_nrrd",
    "read_structures",
    "write_label_map",
    "write_mask_folder",
    "write_seg_nrrd",
]
