"""What the slice views show: layout, position, window and level, and which organs."""
