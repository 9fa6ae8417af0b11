"""What the slice views show: which layout, where, in which window, and which organs."""
