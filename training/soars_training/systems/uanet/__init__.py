"""Training UaNet."""
