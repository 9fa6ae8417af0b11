"""Slicer's MRML scene: volumes, segmentations, label maps and the stored proposal."""
