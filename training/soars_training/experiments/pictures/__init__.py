"""Pictures of a comparison: box plots, and the contours of all settings on the same slices."""
