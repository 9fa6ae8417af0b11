"""Reading and checking a planning CT: a DICOM series or an image file, in Hounsfield units."""

from soars.ct.images import CtScan, read_ct

__all__ = ["CtScan", "read_ct"]
