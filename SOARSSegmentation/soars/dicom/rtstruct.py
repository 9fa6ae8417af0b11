"""RTSTRUCT: contours of a `StructureSet` for the planning system, and back.

The file references the CT it belongs to as DICOM wants it (study, series, frame of reference, and for every
contour the SOP instance of its slice); its own series and instance UIDs are new. Contours lie in the CT's own
slice planes, whatever their orientation.

This is the public module: `soars.dicom.rtstruct_write` and `soars.dicom.rtstruct_read` implement it,
`soars.dicom.contours` describes how contours are drawn and why at level 0.6, and `soars.dicom.roi_names` how a site's
own names are applied.
"""

from soars.dicom.provenance import MODEL_HASH_TAG, MODEL_TAG
from soars.dicom.roi_names import read_roi_names
from soars.dicom.rtstruct_read import read_rtstruct
from soars.dicom.rtstruct_write import check_reference, write_rtstruct

__all__ = [
    "MODEL_HASH_TAG",
    "MODEL_TAG",
    "check_reference",
    "read_roi_names",
    "read_rtstruct",
    "write_rtstruct",
]
