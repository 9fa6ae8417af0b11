"""Training DeepMind's residual U-Net on slices."""
