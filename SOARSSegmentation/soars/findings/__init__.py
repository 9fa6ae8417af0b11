"""Findings about contours: their record, the checks that make them, and the order in which to look at them."""
