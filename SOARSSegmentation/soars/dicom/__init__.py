"""DICOM in and out: CT series, RTSTRUCT, RTDOSE."""
