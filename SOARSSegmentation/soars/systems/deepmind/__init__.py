"""DeepMind's residual U-Net: one slice at a time, seen with ten more on either side."""
