"""Studies: the statistics that compare methods, readers and contours."""
