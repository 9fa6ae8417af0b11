"""Fitting one branch: losses, schedule, checkpoints, validation."""
