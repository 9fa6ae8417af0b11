"""Experiments that are many runs: cross-validation."""
