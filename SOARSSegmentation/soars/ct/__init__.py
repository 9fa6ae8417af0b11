"""Reading and checking a planning CT: a DICOM series or an image file, in Hounsfield units."""
