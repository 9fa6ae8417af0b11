"""DICOM Segmentations (PS3.3 A.51): `read` takes those of others, `write` makes ours."""
