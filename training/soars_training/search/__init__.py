"""Differentiable search for the kernel of each block (SOARS, CVPR 2020, section 3.2)."""
