"""Contours out of Slicer."""
